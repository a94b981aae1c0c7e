"""The module scheduler_census, run as Ansible runs it, on this machine's /proc."""

import functools
import importlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from loading import load

module = load("modules/scheduler_census")
look: Any = importlib.import_module("ansible.module_utils.scheduler_look")

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$0.log"
cat <<'END'
MainPID=0
LoadState=loaded
ActiveState=failed
SubState=failed
UnitFileState=enabled

MainPID=0
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
END
exit 0
"""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Give a function that runs the module with arguments and returns (exit code, answer)."""

    def run_module(**arguments: Any) -> tuple[Any, dict[str, Any]]:
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            module.main()
        return ended.value.code, json.loads(capsys.readouterr().out)

    return run_module


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory that comes first in PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def systemctl(path: Path, text: str) -> Path:
    program = path / "systemctl"
    program.write_text(text)
    program.chmod(0o755)
    return path / "systemctl.log"


@pytest.mark.parametrize("check", [False, True])
def test_it_reports_and_changes_nothing(run: Any, check: bool) -> None:
    code, answer = run(stack="no-such-stack", _ansible_check_mode=check)
    assert code == 0
    assert answer["changed"] is False
    assert "skipped" not in answer
    assert isinstance(answer["schedulers"], list)
    assert answer["units"] == answer["programs"] == answer["starting"] == []
    assert answer["foreign_units"] == {}
    assert answer["host_identity"]["hostname"] == socket.gethostname()


def test_it_asks_systemd_once_for_all_units(run: Any, path: Path) -> None:
    log = systemctl(path, SYSTEMCTL)
    _, answer = run(
        stack="shop",
        units=["celery-beat.service", "huey-periodic.service"],
        names=["celery-beat", "web"],
    )
    assert answer["units"] == [
        {
            "name": "celery-beat.service",
            "load": "loaded",
            "active": "failed",
            "enabled": "enabled",
            "main_pid": 0,
            "starting": False,
        },
        {
            "name": "huey-periodic.service",
            "load": "not-found",
            "active": "inactive",
            "enabled": "",
            "main_pid": 0,
            "starting": False,
        },
    ]
    (call,) = log.read_text().splitlines()
    assert call.startswith("show ")
    units = "celery-beat.service huey-periodic.service web.service *-draining-*.scope"
    assert call.endswith(f" -- {units}")


DRAINING = """cat <<'END'

Id=x-celery-worker-draining-7.scope
Description=shop: x-celery-worker drains until 1970-01-01T00:20:00+00:00
ActiveState=active
END
exit 0
"""


def test_what_drains_is_told_with_the_rest(run: Any, path: Path) -> None:
    systemctl(path, SYSTEMCTL.replace("exit 0\n", DRAINING))
    units = ["celery-beat.service", "huey-periodic.service"]
    _, answer = run(stack="shop", units=units, names=["celery-beat", "huey-periodic"])
    assert [(one["unit"], one["pid"]) for one in answer["draining"]] == [("x-celery-worker", 7)]


def test_what_lurks_is_asked_for_with_the_rest(
    run: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = systemctl(path, SYSTEMCTL)
    (path / "old.service").write_text("[Service]\nExecStart=/opt/v/bin/celery -A shop beat\n")
    monkeypatch.setattr(look, "read_units", functools.partial(look.read_units, path))
    _, answer = run(stack="shop", units=["celery-beat.service"])
    assert [unit["name"] for unit in answer["units"]] == ["celery-beat.service"]
    assert answer["lurking"] == [
        {
            "name": "old.service",
            "manager": "systemd",
            "kind": "celery beat",
            "state": "inactive",
            "enabled": False,
        }
    ]
    (call,) = log.read_text().splitlines()
    assert call.endswith(" -- celery-beat.service old.service")


def test_it_asks_systemd_nothing_without_units(run: Any, path: Path) -> None:
    log = systemctl(path, SYSTEMCTL)
    run(stack="shop")
    assert not log.exists()


def test_a_host_whose_systemd_does_not_run_has_no_units(run: Any, path: Path) -> None:
    systemctl(path, "#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n")
    code, answer = run(stack="shop", units=["celery-beat.service"])
    assert (code, answer["units"]) == (0, [])


STARTING = """#!/bin/sh
echo "$@" >> "$0.log"
case "$(wc -l < "$0.log")" in
    1) state=start-pre ;;
    2) state=start ;;
    *) state=running ;;
esac
printf 'MainPID=0\nLoadState=loaded\nActiveState=activating\nSubState=%s\n' $state
"""


def test_it_waits_while_a_unit_is_starting(run: Any, path: Path) -> None:
    log = systemctl(path, STARTING)
    _, answer = run(stack="shop", units=["huey-periodic.service"], wait=20)
    assert answer["starting"] == []
    assert len(log.read_text().splitlines()) == 3


def test_it_says_what_is_starting_and_waits_only_if_asked(run: Any, path: Path) -> None:
    log = systemctl(path, STARTING)
    _, answer = run(stack="shop", units=["huey-periodic.service"])
    assert answer["starting"] == ["huey-periodic.service"]
    assert len(log.read_text().splitlines()) == 1


def test_the_socket_of_a_supervisord_that_is_gone_means_no_programs(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "supervisor.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    monkeypatch.setattr(look, "SOCKET", path)
    code, answer = run(stack="shop", programs=["celery-beat"])
    assert (code, answer["programs"][0]["state"]) == (0, "")


def test_a_supervisord_that_does_not_answer_is_no_answer(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpc = importlib.import_module("ansible.module_utils.supervisord_rpc")
    monkeypatch.setattr(rpc, "TIMEOUT", 0.1)
    path = tmp_path / "supervisor.sock"
    monkeypatch.setattr(look, "SOCKET", path)
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()
        code, answer = run(stack="shop")
    assert code == 1
    assert answer["msg"].startswith(f"supervisord does not answer at {path}: timed out")


def test_a_stack_is_required(run: Any) -> None:
    code, answer = run(units=["celery-beat.service"])
    assert code == 1
    assert "stack" in answer["msg"]


def test_hidden_processes_fail_with_the_cure(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "take_census", functools.partial(look.take_census, proc=tmp_path))
    code, answer = run(stack="shop")
    assert code == 1
    assert "hides other users' processes" in answer["msg"]
    assert "become: true" in answer["msg"]


def test_everything_returned_is_documented(run: Any) -> None:
    _, answer = run(stack="shop")
    documented = yaml.safe_load(module.RETURN)
    assert set(answer) - {"changed", "invocation"} == set(documented)
    assert set(documented["host_identity"]["contains"]) == set(answer["host_identity"])
    processes = load("module_utils/scheduler_processes")
    assert set(documented["schedulers"]["contains"]) == set(processes.Scheduler.__annotations__)
    assert set(documented["lurking"]["contains"]) == set(processes.Lurker.__annotations__)
    assert set(documented["units"]["contains"]) == set(processes.UnitState.__annotations__)
    assert set(documented["programs"]["contains"]) == set(processes.ProgramState.__annotations__)


def test_the_options_are_documented(run: Any) -> None:
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    _, answer = run(stack="shop")
    assert set(answer["invocation"]["module_args"]) == set(documented)
