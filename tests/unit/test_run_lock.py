"""The run lock, as runs of ansible-playbook take it, on this machine as the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - run_lock:
        path: {lease}
        since: {since}
    - run_lock:
        path: {lease}
        since: {since}
    - ansible.builtin.raw: |-
        echo > {marks}/$PPID.started
        end=$(($(date +%s) + {seconds}))
        until [ -e {marks}/enough ] || [ $(date +%s) -ge $end ]; do sleep 0.1; done
"""
Start = Callable[..., "subprocess.Popen[str]"]


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a run that holds the lock for some seconds; the output comes through a pipe.

    A file `enough` lets it end sooner.
    It has looked at the hosts `since` this time of CLOCK_MONOTONIC, by default since its start.
    """
    runs = []

    def started(seconds: float, since: float | None = None) -> subprocess.Popen[str]:
        playbook = tmp_path / f"run{len(runs)}.yml"
        playbook.write_text(
            PLAYBOOK.format(
                lease=tmp_path / "lease",
                marks=tmp_path,
                seconds=seconds,
                since=time.monotonic() if since is None else since,
            )
        )
        runs.append(
            subprocess.Popen(
                [Path(sys.executable).with_name("ansible-playbook"), playbook.name]
                + ["-i", "localhost,", "-c", "local"],
                cwd=tmp_path,
                env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return runs[-1]

    yield started
    for run in runs:
        run.kill()
        run.communicate()


def let_a_moment_pass() -> None:
    """Wait so long that the next run does not count as one that looked before the last one ended.

    How long ago the lock was given back is known but for the time that the host's answer takes.
    """
    time.sleep(2)


def is_free(directory: Path) -> bool:
    return (directory / "lease").read_text().startswith("\n")


def test_a_second_run_is_refused_and_the_first_goes_on(start: Start, tmp_path: Path) -> None:
    first = start(60)
    wait_for(lambda: list(tmp_path.glob("*.started")) != [])
    lease = (tmp_path / "lease").read_text()
    second = start(0)
    said = " ".join(second.communicate(timeout=30)[0].split())
    assert second.returncode != 0
    for word in ("Nothing was changed", "runs run0.yml since", "lease on localhost", "20 s after"):
        assert word in said, said
    # It is renewed by itself.
    wait_for(lambda: (tmp_path / "lease").read_text() not in ("", lease))
    assert first.poll() is None
    (tmp_path / "enough").touch()
    assert first.wait(30) == 0
    wait_for(lambda: is_free(tmp_path))
    # Its pipe is closed: nothing that outlives the run holds it.
    assert "ok=3" in first.communicate(timeout=5)[0]
    let_a_moment_pass()
    assert start(0).wait(30) == 0


def test_what_was_seen_while_another_run_held_the_lock_does_not_count(
    start: Start, tmp_path: Path
) -> None:
    looked = time.monotonic()
    assert start(0).wait(30) == 0
    wait_for(lambda: is_free(tmp_path))
    late = start(0, looked)
    said = " ".join(late.communicate(timeout=30)[0].split())
    assert late.returncode != 0
    for word in ("Nothing was changed", "while this one looked at it: start this one again"):
        assert word in said, said
    assert is_free(tmp_path)
    assert not list(tmp_path.glob("*.started"))[1:], "It has not gone on."
    let_a_moment_pass()
    assert start(0).wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_dies_frees_the_lock(start: Start, tmp_path: Path, number: int) -> None:
    run = start(30)
    wait_for(lambda: list(tmp_path.glob("*.started")) != [])
    run.send_signal(number)
    run.wait(15)
    wait_for(lambda: is_free(tmp_path), 10)


def test_a_lease_that_nobody_renews_ends(start: Start, tmp_path: Path) -> None:
    now = float(Path("/proc/uptime").read_text().split()[0])
    for until, code in ((now + 60, 2), (now - 5, 0)):
        (tmp_path / "lease").write_text(f"other:1:1\n{until:.0f}\nsomebody else\n")
        assert start(0).wait(30) == code
        wait_for(lambda code=code: bool(code) or is_free(tmp_path))


def test_a_run_that_lost_its_lease_to_another_ends(start: Start, tmp_path: Path) -> None:
    run = start(60)
    wait_for(lambda: list(tmp_path.glob("*.started")) != [])
    now = float(Path("/proc/uptime").read_text().split()[0])
    theirs = f"other:1:1\n{now + 60:.0f}\nsomebody else\n"
    (tmp_path / "lease").write_text(theirs)
    assert run.wait(20) != 0
    assert (tmp_path / "lease").read_text() == theirs


def test_a_host_that_cannot_tell_is_unreachable(start: Start, tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    run = start(0)
    assert "unreachable=1" in run.communicate(timeout=30)[0]
