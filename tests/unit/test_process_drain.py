"""How a process is handed over; that it works is proven on the test hosts."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from loading import load

drain = load("module_utils/process_drain")
scopes = load("module_utils/process_scopes")
units = load("module_utils/systemd_show")
plans = load("module_utils/process_plan")


def process(proc: Path, pid: int, parent: int = 1, *, cgroup: str = "", name: str = "x") -> None:
    """Put a process into a directory that looks like /proc."""
    directory = proc / str(pid)
    directory.mkdir()
    (directory / "stat").write_text(f"{pid} ({name}) S {parent} 0 0")
    (directory / "cgroup").write_text(cgroup)


@pytest.mark.parametrize(
    ("cgroup", "inside"),
    [
        ("0::/system.slice/web.service\n", True),
        ("0::/system.slice/web.service/below\n", True),
        ("9:name=systemd:/system.slice/web.service\n8:pids:/\n", True),
        # What only another hierarchy says, and another unit.
        ("9:name=systemd:/\n8:pids:/system.slice/web.service\n", False),
        ("0::/system.slice/web.service-draining-1.scope\n", False),
    ],
)
def test_the_processes_of_a_unit_are_those_of_its_control_group(
    tmp_path: Path, cgroup: str, inside: bool
) -> None:
    process(tmp_path, 7, cgroup=cgroup)
    assert drain.pids_in("", tmp_path) == set()
    (tmp_path / "self").mkdir()
    assert drain.pids_in("/system.slice/web.service", tmp_path) == ({7} if inside else set())


def test_a_programs_processes_are_all_below_its_launcher(tmp_path: Path) -> None:
    process(tmp_path, 5)
    process(tmp_path, 6, 5, name="a) b (c")
    process(tmp_path, 3, 6)
    process(tmp_path, 8, 1)
    assert drain.descendants(5, tmp_path) == [6, 3]
    assert drain.descendants(3, tmp_path) == []


def test_a_scope_is_asked_for_with_all_that_bounds_it() -> None:
    properties = drain.scope_properties(
        description="shop: web", seconds=90, memory_max="2G", after=["-.mount", "redis.service"]
    )
    call = drain.start_call("web-draining-7.scope", [7, 8], properties)
    said = " ".join(call)
    assert call[:3] == ["busctl", "--", "call"]
    assert "web-draining-7.scope fail 8 PIDs au 2 7 8 Description s shop: web " in said
    assert " RuntimeMaxUSec t 90000000 KillSignal i 18 TimeoutStopUSec t 90000000 " in said
    assert " After as 2 -.mount redis.service MemoryMax t 2147483648 0" in said


@pytest.mark.parametrize(
    ("size", "found"), [("1024", 1024), ("2K", 2048), ("512M", 2**29), ("50%", None), ("", None)]
)
def test_a_limit_of_memory_is_told_in_bytes(size: str, found: int | None) -> None:
    assert drain.memory_bytes(size) == found


def test_what_drains_is_read_from_its_scope(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cwd").symlink_to("/opt/shop/releases/ab12")
    scope = {
        "Id": "x-celery-worker-draining-7.scope",
        "Description": "shop: x-celery-worker drains until 1970-01-01T00:20:00+00:00",
        "ActiveState": "active",
        "ActiveEnterTimestampMonotonic": "40000000",
    }
    others = [
        {**scope, "Description": "blog: web drains until 1970-01-01T00:20:00+00:00"},
        {**scope, "Id": "celery-worker.service"},
        {**scope, "ActiveState": "inactive"},
        {},
    ]
    found = scopes.parse_scopes([scope, *others], "shop", now=1000, monotonic=100, proc=tmp_path)
    assert found == [
        {
            "unit": "x-celery-worker",
            "pid": 7,
            "since": 940.0,
            "until": 1200.0,
            "release": "ab12",
        }
    ]


def test_a_release_is_told_only_of_its_own_stack(tmp_path: Path) -> None:
    for name, target in (
        ("a", "/opt/shop/releases/ab12"),
        ("b", "/opt/shop/releases/ab12/sub"),
        ("c", "/opt/blog/releases/ab12"),
    ):
        (tmp_path / name).symlink_to(target)
    found = [scopes.release_in(tmp_path / name, "shop") for name in ("a", "b", "c", "missing")]
    assert found == ["ab12", "ab12", "", ""]


def test_blocks_of_systemctl_are_told_apart() -> None:
    assert units.parse_blocks("Id=a\nX=1=2\n\nId=b\n") == [{"Id": "a", "X": "1=2"}, {"Id": "b"}]
    assert units.parse_blocks("") == []


def guard(tmp_path: Path, *times: str) -> tuple[Any, Any, Path]:
    """Start the guard of a program; return both, and the log. Nothing is asked of systemd."""
    for name in ("logger", "systemctl"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/log\n')
        (tmp_path / name).chmod(0o755)
    program = subprocess.Popen(["sleep", "60"])
    arguments = ["x.scope", *times, "TERM", str(program.pid), "x.service", str(tmp_path / "log")]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = drain.GUARD.strip()
    return (
        subprocess.Popen(["sh", "-c", script, *arguments], env=environment),
        program,
        tmp_path / "log",
    )


def test_a_guard_tells_its_process_to_stop_when_it_is_let_go(tmp_path: Path) -> None:
    watching, program, log = guard(tmp_path, "60", "60")
    try:
        time.sleep(0.3)
        assert program.poll() is None
        watching.send_signal(signal.SIGUSR1)
        assert program.wait(timeout=5) == -signal.SIGTERM
        # Once more does nothing, and what is left has its time.
        watching.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
        assert watching.poll() is None
        assert not log.exists()
    finally:
        program.kill()
        subprocess.run(["pkill", "-P", str(watching.pid)], check=False)
        watching.kill()
        watching.wait()


def test_a_guard_acts_by_itself_when_the_time_is_over(tmp_path: Path) -> None:
    watching, program, log = guard(tmp_path, "0", "0")
    watching.wait(timeout=5)
    assert program.wait(timeout=5) == -signal.SIGTERM
    words = log.read_text()
    assert "x.scope was given 0 s to finish its work, which are over: it is killed." in words
    assert words.endswith("systemctl kill --signal=KILL x.scope\n")
