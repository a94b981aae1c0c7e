"""What differs from a record, on files of a scratch directory."""

import importlib
import io
import json
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from loading import load

module = load("modules/drift")
drift: Any = importlib.import_module("ansible.module_utils.drift")
action = load("action/drift")
lines = load("filter/drift_lines").drift_lines

IDENTITY = {"hostname": "web1", "machine_id": "1"}
UNIT = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "DropInPaths": "",
}
STATUS = """Package: redis-server
Status: install ok installed
Version: 5:7.0.15-1

Package: redis
Status: deinstall ok config-files
Version: 6
"""


def state(**kinds: Any) -> dict[str, Any]:
    return {"paths": {}, "units": {}, "programs": {}, "packages": {}, **kinds}


def path_changes(path: Path, change: Any) -> list[str]:
    """Return what is said of a path after a change to it."""
    before = state(paths={str(path): drift.observe_path(path)})
    change(path)
    now = state(paths={str(path): drift.observe_path(path)})
    return [words.replace(str(path), "PATH") for words in drift.state_differences(before, now, [])]


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("/b")


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/b")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "redis.conf"
    path.write_text("port 6379\n")
    path.chmod(0o640)
    os.utime(path, (1, 1))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.chmod(0o644), ["file PATH: mode 0644, was 0640"]),
        (lambda path: path.write_text("port 1\n"), ["file PATH: its content changed"]),
        (lambda path: path.write_text("port 6379\n"), ["file PATH: it was written anew"]),
        (lambda path: path.unlink(), ["file PATH is gone"]),
        (to_link, ["PATH is a link, was a file"]),
        (lambda path: None, []),
    ],
)
def test_a_file_that_was_touched_in_any_way_differs(
    file: Path, change: Any, words: list[str]
) -> None:
    assert path_changes(file, change) == words


def test_a_file_of_another_owner_differs(file: Path) -> None:
    now = drift.observe_path(file)
    was = state(paths={"f": {**now, "owner": "redis", "group": "adm"}})
    said = drift.state_differences(was, state(paths={"f": now}), [])
    assert said == [f"file f: owner {now['owner']}, was redis, group {now['group']}, was adm"]


def test_a_link_to_elsewhere_differs(tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to("/a")
    assert path_changes(link, relink) == ["link PATH -> /b, was /a"]


def test_a_directory_differs_by_its_mode_and_not_by_what_is_in_it(tmp_path: Path) -> None:
    place = tmp_path / "d"
    place.mkdir(mode=0o750)
    assert path_changes(place, lambda path: (path / "f").touch()) == []
    assert path_changes(place, lambda path: path.chmod(0o700)) == [
        "directory PATH: mode 0700, was 0750"
    ]


@pytest.mark.parametrize(
    ("change", "held", "words"),
    [
        ({"ActiveState": "inactive"}, [], ["unit u: inactive, was active"]),
        ({"ActiveState": "failed"}, [], ["unit u: failed, was active"]),
        ({"ActiveState": "inactive"}, ["u"], []),
        ({"UnitFileState": "disabled"}, ["u"], ["unit u: disabled, was enabled"]),
        ({"LoadState": "masked"}, [], ["unit u: masked, was loaded"]),
        ({"NeedDaemonReload": "yes"}, [], ["unit u: systemd has not read its file"]),
        ({"DropInPaths": "/d"}, [], ["unit u: its drop-ins are /d, were none"]),
        ({"DropInPaths": "/d"}, ["u"], []),
        ({}, [], []),
    ],
)
def test_a_unit_in_another_state_differs(
    change: dict[str, str], held: list[str], words: list[str]
) -> None:
    was, now = state(units={"u": UNIT}), state(units={"u": {**UNIT, **change}})
    assert drift.state_differences(was, now, held) == words


def test_a_unit_program_or_file_that_is_new_or_gone_differs() -> None:
    one = state(units={"u": UNIT}, programs={"p": {"state": "RUNNING"}})
    assert drift.state_differences(state(), one, []) == ["unit u is new", "program p is new"]
    assert drift.state_differences(one, state(), []) == ["unit u is gone", "program p is gone"]


def test_a_program_in_another_state_differs() -> None:
    was, now = ({"p": {"state": one}} for one in ("RUNNING", "BACKOFF"))
    said = drift.state_differences(state(programs=was), state(programs=now), [])
    assert said == ["program p: BACKOFF, was RUNNING"]


def test_packages_are_read_with_their_versions() -> None:
    assert drift.package_versions(["redis-server", "redis", "web"], STATUS) == {
        "redis-server": {"version": "5:7.0.15-1"},
        "redis": {},
        "web": {},
    }


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"version": "2"}, ["package redis 1 -> 2"]),
        ({}, ["package redis is gone"]),
        ({"version": "1"}, []),
    ],
)
def test_a_package_of_another_version_differs(now: dict[str, str], words: list[str]) -> None:
    was = state(packages={"redis": {"version": "1"}})
    assert drift.state_differences(was, state(packages={"redis": now}), []) == words


def test_inputs_differ_by_name() -> None:
    assert drift.input_differences(
        {"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}
    ) == [
        "input b changed",
        "input c is gone",
        "input d is new",
    ]


def test_marked_files_are_those_of_this_stack(tmp_path: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for name, text in {
        "web.service": "# stack: shop\n",
        "other.service": "# stack: shop2\n",
        "web.conf": "# stack: shop\n",
    }.items():
        (units / name).write_text(text)
    (units / "beat.service").symlink_to("/dev/null")
    launchers = tmp_path / "usr/local/lib/shop"
    launchers.mkdir(parents=True)
    (launchers / "web").write_text("#!/bin/sh\n# stack: shop\n")
    assert list(map(str, drift.marked_files("shop", tmp_path))) == [
        "/etc/systemd/system/web.service",
        "/usr/local/lib/shop/web",
    ]


@pytest.mark.parametrize(
    ("found", "spec", "reasons"),
    [
        ({"paths": {"/f": {}}}, {}, ["/f is missing"]),
        ({"packages": {"redis": {}}}, {}, ["package redis is missing"]),
        ({"units": {"u": {**UNIT, "ActiveState": "failed"}}}, {}, ["u is failed"]),
        ({"units": {"u": {**UNIT, "ActiveState": "inactive"}}}, {"held": ["u"]}, []),
        ({"units": {"u": UNIT}}, {"masked": ["u"]}, ["u is not masked, but loaded"]),
        (
            {"units": {"u": {**UNIT, "NeedDaemonReload": "yes"}}},
            {},
            ["systemd has not read the file of u"],
        ),
        ({"programs": {"p": {"state": "FATAL"}}}, {}, ["p is FATAL"]),
        ({"programs": {"p": {}}}, {}, ["p is unknown to supervisord"]),
        ({"units": {"u": UNIT}, "programs": {"p": {"state": "RUNNING"}}}, {}, []),
    ],
)
def test_what_is_not_well_is_not_recorded(
    found: dict[str, Any], spec: dict[str, Any], reasons: list[str]
) -> None:
    assert drift.unfit(state(**found), spec) == reasons


# --- the module, on a scratch directory ---------------------------------------------------------


def no_systemd(units: list[str]) -> dict[str, Any]:
    """Answer as on a host where systemd does not run."""
    return {}


@pytest.fixture
def records(tmp_path: Path) -> Any:
    return drift.Records(tmp_path / "shop-deployed")


@pytest.fixture
def recorded(records: Any, file: Path) -> dict[str, Any]:
    """Record a role that manages one file; return what it was told."""
    told = {"redis": {"inputs": {"redis_port": "1"}, "release": ""}}
    given = {"redis": {**told["redis"], "spec": {"paths": [str(file)]}}}
    assert module.record(records, no_systemd, given, write=True) == {}
    return told


def look(records: Any, told: dict[str, Any], *, full: bool = False) -> Any:
    return module.look(records, no_systemd, told, full=full)


def test_a_role_is_as_it_was_recorded(records: Any, recorded: dict[str, Any]) -> None:
    assert look(records, recorded) == {}
    assert records.directory.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in records.directory.iterdir()] == [0o600]


def test_the_memory_of_the_services_is_remembered(records: Any, file: Path) -> None:
    assert module.memory_of_services(records) == {}
    needs = {"once": 3, "beside": 2, "choice": "celery_worker_handover"}
    spec = {"paths": [str(file)], "memory": needs}
    given = {"process_manager": {"inputs": {}, "release": "", "spec": spec}}
    assert module.record(records, no_systemd, given, write=True) == {}
    assert module.memory_of_services(records) == needs


def test_a_full_run_can_be_asked_for(records: Any, recorded: dict[str, Any]) -> None:
    assert look(records, recorded, full=True) == {"redis": ["a full run was asked for"]}


def test_a_changed_file_input_or_release_is_found(
    records: Any, recorded: dict[str, Any], file: Path
) -> None:
    file.chmod(0o600)
    told = {"redis": {"inputs": {"redis_port": "2"}, "release": "b"}}
    assert look(records, told) == {
        "redis": [
            "input redis_port changed",
            "release b, was ",
            f"file {file}: mode 0600, was 0640",
        ]
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no deployment of it is recorded"),
        ("", "its record cannot be read"),
        ("[]", "its record has the format None, not 1"),
        ('{"format": 2}', "its record has the format 2, not 1"),
        ('{"format": 1}', "its record has no identity"),
    ],
)
def test_a_record_that_says_nothing_is_a_difference(
    records: Any, recorded: dict[str, Any], text: str | None, words: str
) -> None:
    path = records.directory / "redis.json"
    path.unlink() if text is None else path.write_text(text)
    assert look(records, recorded)["redis"][0].startswith(words)


def test_a_record_of_another_shape_is_a_difference(records: Any, recorded: dict[str, Any]) -> None:
    path = records.directory / "redis.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": {"paths": 1}}))
    assert look(records, recorded) == {"redis": ["its record cannot be understood"]}


def test_a_record_of_another_machine_is_a_difference(
    records: Any, recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "identity", lambda: IDENTITY)
    (words,) = look(records, recorded)["redis"]
    assert words.startswith("the record was made on another machine")


def test_a_run_that_did_not_end_is_a_difference_until_the_next_record(
    records: Any, recorded: dict[str, Any], file: Path
) -> None:
    records.begin(["redis"])
    assert look(records, recorded) == {"redis": ["a run that changed it did not end well"]}
    given = {"redis": {**recorded["redis"], "spec": {"paths": [str(file)]}}}
    module.record(records, no_systemd, given, write=True)
    assert look(records, recorded) == {}


def test_a_run_that_was_refused_has_not_begun(records: Any, recorded: dict[str, Any]) -> None:
    assert records.begin(["redis"]) == ["redis"]
    records.spare(["redis", "app"])
    assert look(records, recorded) == {}


def test_what_another_run_has_begun_is_not_this_ones_to_take_back(records: Any) -> None:
    records.begin(["redis"])
    assert records.begin(["redis", "app"]) == ["app"]


def test_the_module_takes_back_what_it_has_noted(
    records: Any, recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Records", lambda directory: records)
    roles = {"redis": {**recorded["redis"], "inputs": {"redis_port": "other"}}}
    given = {"stack": "nobody", "roles": roles}
    assert answer_of({**given, "begin": True})["begun"] == ["redis"]
    assert answer_of({**given, "begin": True})["begun"] == []
    for check, left in ((True, ["a run that changed it did not end well"]), (False, None)):
        answer_of({**given, "state": "spare", "_ansible_check_mode": check})
        assert look(records, recorded).get("redis") == left


def answer_of(given: dict[str, Any]) -> dict[str, Any]:
    """Run the module; return its answer."""
    said = io.StringIO()
    with patch_module_args(given), redirect_stdout(said), pytest.raises(SystemExit):
        module.main()
    answer: dict[str, Any] = json.loads(said.getvalue())
    assert not answer.get("failed"), answer
    return answer


def test_check_mode_writes_nothing(records: Any, file: Path) -> None:
    given = {"redis": {"inputs": {}, "release": "", "spec": {"paths": [str(file)]}}}
    assert module.record(records, no_systemd, given, write=False) == {}
    assert not records.directory.exists()


SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$0.log"
while [ "$1" != -- ]; do shift; done
shift
for unit; do
    printf 'LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n'
    printf 'SubState=running\nMainPID=%s\nDropInPaths=\n\n' "${#unit}"
done
"""


def test_the_module_asks_systemd_once_for_its_units_and_those_of_the_census(
    records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "Records", lambda directory: records)
    told = {"inputs": {}, "release": ""}
    roles = {"redis": {**told, "spec": {"units": ["redis-server.service"]}}}
    assert answer_of({"stack": "nobody", "roles": roles, "state": "record"})["unrecorded"] == {}
    log = tmp_path / "systemctl.log"
    log.unlink()
    program.write_text(SYSTEMCTL.replace("=enabled", "=disabled"))
    census = {"units": ["celery-beat.service"], "names": ["web"]}
    answer = answer_of({"stack": "nobody", "roles": {"redis": told}, "census": census})
    assert answer["drift"] == {"redis": ["unit redis-server.service: disabled, was enabled"]}
    assert [(one["name"], one["main_pid"]) for one in answer["units"]] == [
        ("celery-beat.service", len("celery-beat.service"))
    ]
    assert len(log.read_text().splitlines()) == 1


def test_the_module_answers_with_its_census(capsys: pytest.CaptureFixture[str]) -> None:
    given = {"stack": "nobody", "roles": {}, "census": {}}
    with patch_module_args(given), pytest.raises(SystemExit):
        module.main()
    answer = json.loads(capsys.readouterr().out)
    assert answer["drift"] == {}
    assert isinstance(answer["schedulers"], list)
    assert not answer["changed"]


# --- the action -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "site.yml").write_text("b"),
        lambda root: (root / "roles/app").rename(root / "roles/web"),
        lambda root: (root / "roles/app/new").write_text(""),
    ],
)
def test_another_bundle_has_another_digest(tmp_path: Path, change: Any) -> None:
    (tmp_path / "roles/app/__pycache__").mkdir(parents=True)
    (tmp_path / "roles/app/main.yml").write_text("a")
    (tmp_path / "site.yml").write_text("a")
    before = action.bundle_digest(tmp_path)
    (tmp_path / "roles/app/__pycache__/x.pyc").write_text("a")
    assert action.bundle_digest(tmp_path) == before
    change(tmp_path)
    assert action.bundle_digest(tmp_path) != before


def test_public_variables_are_inputs_and_commands_are_not() -> None:
    assert {"stack_name", "celery_worker_pools", "web_health_path"} <= action.PUBLIC
    assert "stack_full" not in action.PUBLIC


def template(value: Any) -> Any:
    if "broken" in str(value):
        raise action.AnsibleError("cannot")
    return json.loads(json.dumps(value).replace("{{ x }}", "1"))


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        ("{{ x }}", "1", True),
        ({"a": ["{{ x }}"]}, {"a": ["1"]}, True),
        ({"a": ["{{ x }}"]}, {"a": ["2"]}, False),
        ("1", 1, False),
        (True, 1, False),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}, True),
        ("{{ broken }}", "{{ broken }}", True),
        ("{{ broken }}", "{{ broken | int }}", False),
        ("{{ broken }}", "{{ x }}", False),
    ],
)
def test_an_input_is_the_value_that_a_variable_has(was: Any, now: Any, same: bool) -> None:
    one, other = (action.host_inputs({"v": value}, {"v"}, template) for value in (was, now))
    assert (one == other) is same


def test_what_a_server_does_not_read_does_not_count_for_it() -> None:
    inputs = dict.fromkeys(["redis_port", "stack_name", "celery_loglevel", "bundle", "groups"], "1")
    reads = {"redis": ["redis_", "stack_"]}
    assert action.inputs_of("app", inputs, reads) == inputs
    found = action.inputs_of("redis", inputs, reads)
    assert sorted(found) == ["bundle", "groups", "redis_port", "stack_name"]


def test_only_known_variables_are_inputs() -> None:
    assert list(action.host_inputs({"v": 1, "w": 1}, {"v", "u"}, template)) == ["v"]


def test_what_brings_the_release_takes_the_services_along() -> None:
    follows = {"process_manager": ["app"], "pacemaker": ["process_manager"]}
    roles = ["redis", "app", "process_manager", "pacemaker"]
    assert action.with_followers({"app": ["x"]}, roles, follows) == {
        "app": ["x"],
        "process_manager": ["it follows app"],
        "pacemaker": ["it follows process_manager"],
    }
    assert action.with_followers({"redis": ["x"]}, roles, follows) == {"redis": ["x"]}
    assert action.with_followers({}, roles, follows) == {}


# --- the words ------------------------------------------------------------------------------------


def test_what_concerns_several_roles_is_said_once() -> None:
    assert lines(
        {
            "web1": {"drift": {"app": ["a", "b"], "process_manager": ["a"]}},
            "web2": {"drift": {}},
            "web3": {"msg": "timed out"},
        }
    ) == ["web1", "  a (app, process_manager)", "  b (app)", "web3 does not answer: timed out"]
