"""Exactly one scheduler: by census, by the ticks themselves, and against every second one."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import INVENTORY, STACK, Fleet, Page, names, wait_for

SCHEDULER = names("scheduler")[0]
OTHERS = [name for name in names("all") if name != SCHEDULER]
ROGUE = next(name for name in names("workers") if name != SCHEDULER)


def test_exactly_one_scheduler_runs_by_census(fleet: Fleet) -> None:
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout
    assert f"Exactly one scheduler runs, on {SCHEDULER}" in result.stdout


def test_exactly_one_beat_process_runs_by_ps(fleet: Fleet) -> None:
    """Counted without our own census, which could be wrong in the same way twice."""
    found = [
        (name, line)
        for name, host in fleet.hosts.items()
        for line in host.check_output("ps -eo pid=,args=").splitlines()
        if re.search(r"bin/celery .*\bbeat\b", line)
    ]
    assert [name for name, _ in found] == [SCHEDULER], found


def test_every_second_is_ticked_once_for_20_seconds(fleet: Fleet) -> None:
    time.sleep(20)
    rows = fleet.sql(
        "SELECT sender_host, sender_pid, sequence, extract(epoch FROM sent) FROM ticks_tick "
        "WHERE entry = 'tick-second' AND sent > now() - interval '20 seconds' ORDER BY sent"
    )
    ticks = [row.split("|") for row in rows.splitlines()]
    assert {host for host, *_ in ticks} == {SCHEDULER}
    assert len({pid for _, pid, *_ in ticks}) == 1, "more than one process sent ticks"
    sequence = [int(number) for _, _, number, _ in ticks]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence))), "lost or doubled"
    # Beat's own loop adds some milliseconds to each second.
    assert 16 <= len(ticks) <= 21, ticks


def test_no_tick_was_ever_doubled(fleet: Fleet) -> None:
    """Over the whole life of the fleet: two messages for one second of one entry."""
    doubled = fleet.sql(
        "SELECT a.sender_host, a.sent, b.sender_host, b.sent FROM ticks_tick a, ticks_tick b "
        "WHERE a.entry = 'tick-second' AND b.entry = a.entry AND a.id < b.id "
        "AND abs(extract(epoch FROM a.sent - b.sent)) < 0.5 "
        "AND (a.sender_host, a.sender_pid) <> (b.sender_host, b.sender_pid) LIMIT 5"
    )
    assert doubled == ""


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("unit", ["celery-beat", "huey-periodic"])
def test_a_scheduler_is_masked_where_it_must_not_run(fleet: Fleet, name: str, unit: str) -> None:
    assert fleet[name].run(f"systemctl is-enabled {unit}").stdout.strip() == "masked"
    started = fleet[name].run(f"systemctl start {unit}")
    assert started.failed
    assert "masked" in started.stderr


def test_a_second_copy_on_the_schedulers_host_is_refused(fleet: Fleet) -> None:
    unit = fleet[SCHEDULER].check_output("systemctl cat celery-beat")
    command = re.search(r"^ExecStart=(.*?[^\\])$", unit, re.MULTILINE | re.DOTALL)
    assert command
    said = fleet[SCHEDULER].run(f"{STACK}-shell timeout 20 {command.group(1)}")
    assert said.rc == 75, said


def test_the_unit_refuses_to_run_on_a_clone(fleet: Fleet) -> None:
    """The file of the scheduler, carried to another host as a disk image would carry it."""
    unit = fleet[SCHEDULER].check_output("systemctl cat celery-beat")
    clone, path = "clone-of-beat.service", "/run/systemd/system/clone-of-beat.service"
    foreign = unit.replace(f"# stack: {STACK}", "")
    host = fleet[ROGUE]
    try:
        host.check_output("mkdir -p /run/systemd/system && printf %%s %s > %s", foreign, path)
        host.check_output("systemctl daemon-reload")
        started = host.run(f"systemctl start {clone}")
        assert started.failed
        assert "Assertion failed" in started.stderr
    finally:
        host.run(f"systemctl stop {clone}; rm -f {path}; systemctl daemon-reload")


@pytest.fixture(scope="module")
def titles(fleet: Fleet) -> Iterator[str]:
    """A directory with setproctitle on the host of the second beat, to be put on PYTHONPATH."""
    host, where = fleet[ROGUE], "/opt/setproctitle"
    host.check_output(
        f"python3 -m venv {where} && {where}/bin/pip install --quiet setproctitle==1.3.7"
    )
    yield host.check_output(f"echo {where}/lib/python3*/site-packages")
    host.check_output(f"rm -rf {where}")


@pytest.mark.parametrize(
    ("command", "titled", "shown"),
    [
        ("celery -A example beat --pidfile= -s /tmp/second", False, "celery -A example beat"),
        (
            "celery -A example worker -B -s /tmp/second -n second@%h -Q none",
            False,
            "celery -A example worker -B",
        ),
        ("celery -A example beat --pidfile= -s /tmp/second", True, "[celery beat]"),
    ],
    ids=["beat", "worker -B", "setproctitle"],
)
def test_a_second_scheduler_started_by_hand_is_found_and_named(
    fleet: Fleet, titles: str, command: str, titled: bool, shown: str
) -> None:
    host = fleet[ROGUE]
    path = f"PYTHONPATH={titles} " if titled else ""
    # Every program in this chain replaces itself by the next: the process keeps its number.
    pid = host.check_output(
        f"{path}setsid nohup {STACK}-shell {command} </dev/null >/tmp/second.log 2>&1 & echo $!"
    )
    try:
        wait_for(
            lambda: shown in host.run(f"ps -o args= -p {pid}").stdout,
            30,
            lambda: host.check_output("cat /tmp/second.log; ps -ef"),
        )
        result = fleet.playbook("verify")
        assert result.returncode != 0, result.stdout
        said = " ".join(result.stdout.split())
        assert "second scheduler" in said
        for word in (ROGUE, f"pid {pid}", shown):
            assert word in said, (word, said)
    finally:
        host.run(f"pkill -9 -g {pid}; rm -f /tmp/second*")
        # It did tick; what the fleet did by itself is still to be judged.
        fleet.sql(f"DELETE FROM ticks_tick WHERE sender_host = '{ROGUE}'")
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout


@pytest.fixture
def moved(fleet: Fleet, tmp_path: Path) -> Iterator[Path]:
    """An inventory in which another worker schedules; afterwards all is as deployed."""
    inventory = tmp_path / "inventory"
    shutil.copytree(INVENTORY, inventory)
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    hosts["all"]["children"]["scheduler"]["hosts"] = {ROGUE: None}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    yield inventory
    result = fleet.playbook("services")
    assert result.returncode == 0, result.stdout


def test_a_scheduler_that_moves_is_never_two(fleet: Fleet, moved: Path) -> None:
    begin = fleet.sql("SELECT now()")
    assert fleet.playbook("services", "--check", inventory=moved).returncode == 0
    result = fleet.playbook("services", inventory=moved)
    assert result.returncode == 0, result.stdout
    assert fleet[SCHEDULER].run("systemctl is-enabled celery-beat").stdout == "masked\n"
    assert fleet[ROGUE].service("celery-beat").is_running
    result = fleet.playbook("verify", inventory=moved)
    assert f"Exactly one scheduler runs, on {ROGUE}" in result.stdout

    def handed_over() -> str:
        return fleet.sql(
            f"SELECT (SELECT max(sent) FROM ticks_tick WHERE sender_host = '{SCHEDULER}') < "
            "(SELECT min(sent) FROM ticks_tick "
            f"WHERE sender_host = '{ROGUE}' AND sent > '{begin}')"
        )

    wait_for(lambda: handed_over() != "", 30, lambda: "the new scheduler does not tick")
    assert handed_over() == "t"
    # What the old inventory says is now a second scheduler's place.
    result = fleet.playbook("verify")
    assert result.returncode != 0
    assert f"schedules on {ROGUE}, which must not" in " ".join(result.stdout.split())


@pytest.fixture
def silent(fleet: Fleet) -> Iterator[str]:
    """A worker that is switched off."""
    container = fleet.container(ROGUE)
    container.stop(timeout=20)
    yield ROGUE
    container.start()

    def back() -> bool:
        code, said = container.exec_run("systemctl is-active celery-worker")
        return code == 0 and said == b"active\n"

    wait_for(back, 90, lambda: f"{ROGUE} did not come back")


def test_a_host_that_does_not_answer_stops_the_run(fleet: Fleet, silent: str) -> None:
    """It may hold a scheduler, also when --limit leaves it out."""
    words = f'add -e \'{{"stack_dead_hosts": ["{silent}"]}}\''
    for limit in ("all", SCHEDULER):
        result = fleet.playbook("services", "--limit", limit)
        assert result.returncode != 0
        assert f"{silent} did not answer" in result.stdout
        assert words in result.stdout
        assert "Reconcile the services" not in result.stdout
    result = fleet.playbook("services", "-e", f'{{"stack_dead_hosts": ["{silent}"]}}')
    assert result.returncode == 0, result.stdout


def test_the_page_knows_the_scheduler(page: Page) -> None:
    active = [one for one in page.json("/api/ticks?limit=1")["schedulers"] if one["active"]]
    assert [one["host"] for one in active] == [SCHEDULER], json.dumps(active)
