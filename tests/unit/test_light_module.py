"""Modules run on hosts without Ansible's AnsibleModule; see plugin_utils/light_action.py."""

import json
import marshal
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils import basic
from loading import ROOT, load

light = load("module_utils/light_module")
action = load("plugin_utils/light_action")
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
# What is asked of the module, and an answer that needs no host to be set up.
CALL = {"state": "listed", "place": {"home": "/nowhere"}}


@pytest.fixture(autouse=True)
def keep(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a host keeps what it has compiled."""
    found = tmp_path_factory.mktemp("keep")
    monkeypatch.setattr(action, "KEEP", found)
    return found


def run(name: str, arguments: dict[str, Any], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a module as a host does: Python reads the program, and finds no Ansible."""
    return subprocess.run(
        [sys.executable, "-S", "-"],
        input=action.program(name, arguments).decode(),
        cwd=directory,
        text=True,
        capture_output=True,
        check=False,
    )


def plugins_with(directory: Path, module: str) -> None:
    """Make a directory of plugins that has one module, `trial`, with this body."""
    (directory / "modules").mkdir()
    (directory / "modules/trial.py").write_text(
        f"from ansible.module_utils.basic import AnsibleModule\n\ndef main():\n    {module}\n"
    )
    (directory / "module_utils").mkdir()
    (directory / "module_utils/light_module.py").write_text(
        (ROOT / "plugins/module_utils/light_module.py").read_text()
    )


def trial(
    directory: Path, monkeypatch: pytest.MonkeyPatch, body: str, **arguments: Any
) -> tuple[int, dict[str, Any]]:
    """Run a module with this body; return its status and what it answered."""
    plugins_with(directory, body)
    monkeypatch.setattr(action, "packed", lambda name: _packed(directory, name))
    done = run("trial", arguments, directory)
    return done.returncode, json.loads(done.stdout)


def _packed(directory: Path, name: str) -> str:
    found = action.sources(name, directory)
    return action.base64.b64encode(action.zlib.compress(json.dumps(found).encode())).decode()


def test_a_module_answers_where_there_is_no_ansible(tmp_path: Path) -> None:
    done = run("release", CALL, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "changed": False,
        "releases": [],
        "current": "",
        "previous": "",
        "journal": [],
    }


def test_what_lies_in_the_working_directory_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "shutil.py").write_text("raise SystemExit('imported')")
    assert run("release", CALL, tmp_path).returncode == 0


def test_a_module_is_compiled_once(
    tmp_path: Path, keep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "AnsibleModule(argument_spec={}).exit_json(said=%r)"
    assert trial(tmp_path, monkeypatch, body % "first")[1]["said"] == "first"
    (kept,) = keep.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    codes = marshal.loads(kept.read_bytes())  # noqa: S302 - just written
    path = tmp_path / "modules/trial.py"
    other = path.read_text().replace("first", "kept")
    codes["ansible.modules.trial"] = compile(other, "trial", "exec")
    kept.write_bytes(marshal.dumps(codes))
    assert json.loads(run("trial", {}, tmp_path).stdout)["said"] == "kept"
    # One that cannot be read is replaced.
    kept.write_bytes(b"")
    assert json.loads(run("trial", {}, tmp_path).stdout)["said"] == "first"
    assert kept.stat().st_size
    # It counts for these sources alone.
    path.write_text(path.read_text().replace("first", "second"))
    assert json.loads(run("trial", {}, tmp_path).stdout)["said"] == "second"


def test_a_host_that_keeps_nothing_compiles_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(action, "KEEP", "/nowhere")
    assert run("release", CALL, tmp_path).returncode == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_import_of_a_module_goes_along(name: str, tmp_path: Path) -> None:
    """Also those inside of functions: each file is compiled and imported by itself."""
    for one, source in action.sources(name).items():
        compile(source, one, "exec")
    missing = [
        found
        for source in action.sources(name).values()
        for found in action.IMPORT.findall(source)
        if f"ansible.module_utils.{found}" not in action.sources(name)
    ]
    assert not missing
    foreign = [
        line
        for one, source in action.sources(name).items()
        for line in source.splitlines()
        if "ansible" in line
        and line.lstrip().startswith(("import ", "from "))
        and not action.IMPORT.match(line)
    ]
    assert not foreign


SPECS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"a": {"type": "int", "default": 5}}, {}),
    ({"a": {"type": "int", "default": 5}}, {"a": "7"}),
    ({"a": {"type": "float"}}, {"a": "1.5"}),
    ({"a": {"type": "bool", "default": False}}, {"a": "yes"}),
    ({"a": {"type": "bool", "default": True}}, {"a": False}),
    ({"a": {"type": "bool"}}, {"a": "false"}),
    ({"a": {"type": "str"}}, {"a": 7}),
    ({"a": {"type": "path"}}, {"a": "/opt/shop"}),
    ({"a": {"type": "list", "elements": "str", "default": []}}, {}),
    ({"a": {"type": "list", "elements": "int"}}, {"a": ["1", 2]}),
    ({"a": {"type": "list"}}, {"a": [{"b": 1}, "c"]}),
    ({"a": {"type": "dict"}}, {"a": {"b": {"c": [1]}}}),
    ({"a": {"type": "dict", "options": {"b": {"type": "int", "default": 3}}}}, {"a": {}}),
    ({"a": {"type": "dict", "options": {"b": {"type": "int", "default": 3}}}}, {}),
    (
        {
            "a": {
                "type": "list",
                "elements": "dict",
                "options": {"b": {"type": "str", "default": "x"}, "c": {"type": "bool"}},
            }
        },
        {"a": [{}, {"b": "y", "c": "no"}]},
    ),
]


@pytest.mark.parametrize(("spec", "given"), SPECS)
def test_parameters_are_those_of_ansible(
    spec: dict[str, Any], given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible.module_utils.testing import patch_module_args

    with patch_module_args(given):
        ansibles = basic.AnsibleModule(argument_spec=spec).params
    assert light.parameters(given, spec) == {name: ansibles[name] for name in spec}


def test_a_failure_and_a_warning_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = 'm = AnsibleModule(argument_spec={}); m.warn("careful"); m.fail_json(msg="broken")'
    status, answer = trial(tmp_path, monkeypatch, body)
    assert status == 1
    assert answer == {"failed": True, "msg": "broken", "warnings": ["careful"]}


def test_an_error_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, answer = trial(tmp_path, monkeypatch, 'raise KeyError("surprise")')
    assert status == 1
    assert answer["failed"]
    assert answer["msg"] == "KeyError: 'surprise'"
    assert 'raise KeyError("surprise")' in answer["module_stderr"]


@pytest.mark.parametrize(("supports", "answer"), [(False, "skipped"), (True, "checked")])
def test_a_check_is_left_to_modules_that_can(
    supports: bool, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"m = AnsibleModule(argument_spec={{}}, supports_check_mode={supports});"
    body += "m.exit_json(checked=m.check_mode)"
    found = trial(tmp_path, monkeypatch, body, _ansible_check_mode=True)[1]
    assert found == {"changed": False, answer: True}


def test_commands_are_run_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = 'm = AnsibleModule(argument_spec={}); m.exit_json(path=m.get_bin_path("trial"),'
    body += 'said=m.run_command(["sh", "-c", "echo out; echo err >&2; exit 3"]))'
    (tmp_path / "trial").write_text("#!/bin/sh")
    (tmp_path / "trial").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    answer = trial(tmp_path, monkeypatch, body)[1]
    assert answer["said"] == [3, "out\n", "err\n"]
    assert answer["path"] == str(tmp_path / "trial")


def test_a_command_that_is_not_there_fails_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'AnsibleModule(argument_spec={}).run_command(["/nowhere"])'
    assert "/nowhere cannot be run" in trial(tmp_path, monkeypatch, body)[1]["msg"]


def configure(monkeypatch: pytest.MonkeyPatch, delegate: str | None, **variables: Any) -> Any:
    """Return what an action of this kind would have Ansible run."""
    ansibles = (SimpleNamespace(shebang="Ansible's"), "")
    monkeypatch.setattr(action.ActionBase, "_configure_module", lambda *_: ansibles)
    some_action = type("SomeAction", (action.LightAction,), {"run": None})
    one = some_action.__new__(some_action)
    one._task = SimpleNamespace(delegate_to=delegate)
    return one._configure_module("release", {}, variables)[0]


@pytest.mark.parametrize(
    ("python", "shebang"),
    [
        ("/opt/python3", "#!/opt/python3"),
        ("auto", "Ansible's"),
        ("{{ ansible_playbook_python }}", "Ansible's"),
    ],
)
def test_the_interpreter_is_the_hosts_or_ansibles_to_find(
    python: str, shebang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"ansible_python_interpreter": python}
    assert configure(monkeypatch, None, **chosen).shebang == shebang
    other = {"ansible_python_interpreter": "/usr/bin/other"}
    delegated = {"ansible_delegated_vars": {"worker1": chosen}}
    assert configure(monkeypatch, "worker1", **other, **delegated).shebang == shebang
