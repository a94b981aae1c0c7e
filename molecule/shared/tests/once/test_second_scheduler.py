"""Against every second scheduler: by hand, on a clone, by a move."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from fleet import (
    PERIODIC,
    QUEUE,
    ROGUE,
    SCHEDULER,
    STACK,
    Fleet,
    Page,
    changed,
    flat,
    manager,
    other_inventory,
    wait_for,
)

BY_HAND = {
    "celery": (
        "celery -A example beat --pidfile= -s /tmp/second",
        "celery -A example beat",
    ),
    "huey": ("python manage.py run_huey", "manage.py run_huey"),
}[QUEUE]


def test_a_second_scheduler_started_by_hand_is_found_and_named(fleet: Fleet) -> None:
    command, shown = BY_HAND
    with fleet.started_by_hand(command, shown) as pid:
        result = fleet.playbook("verify")
        assert result.returncode != 0, result.stdout
        said = flat(result.stdout)
        for word in ("more than one scheduler" if ROGUE == SCHEDULER else "second scheduler",):
            assert word in said
        for word in (ROGUE, f"pid {pid}", shown):
            assert word in said, (word, said)
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout


@pytest.mark.only(several_hosts=True)
def test_a_clone_of_the_schedulers_host_refuses_to_schedule(fleet: Fleet) -> None:
    """The files of the scheduler, carried to another host as a disk image would carry them."""
    host = fleet[ROGUE]
    if manager(SCHEDULER) == "systemd":
        unit = fleet.service(PERIODIC, SCHEDULER).definition
        clone, path = "clone-of-scheduler.service", "/run/systemd/system/clone-of-scheduler.service"
        foreign = unit.replace(f"# stack: {STACK}", "")
        try:
            host.check_output("mkdir -p /run/systemd/system && printf %%s %s > %s", foreign, path)
            host.check_output("systemctl daemon-reload")
            started = host.run(f"systemctl start {clone}")
            assert started.failed
            assert "Assertion failed" in started.stderr
        finally:
            host.run(f"systemctl stop {clone}; rm -f {path}; systemctl daemon-reload")
        return
    launcher = fleet[SCHEDULER].check_output(f"cat /usr/local/lib/{STACK}/{PERIODIC}")
    try:
        host.check_output("printf %%s %s > /usr/local/bin/clone", launcher)
        started = host.run(f"{STACK}-shell timeout 20 sh /usr/local/bin/clone")
        assert started.rc == 78, started
        assert "deployed to another host than" in started.stderr
    finally:
        host.run("rm -f /usr/local/bin/clone")


@pytest.fixture
def moved(fleet: Fleet, tmp_path: Path) -> Iterator[Path]:
    """An inventory in which another worker schedules; afterwards all is as deployed."""
    yield other_inventory(tmp_path, {"scheduler": [ROGUE]})
    result = fleet.playbook("move_scheduler", "-e", f"to={SCHEDULER}")
    assert result.returncode == 0, result.stdout


@pytest.mark.only(several_hosts=True)
def test_a_scheduler_that_moves_is_never_two(fleet: Fleet, page: Page, moved: Path) -> None:
    last = max(datetime.fromisoformat(tick["sent"]) for tick in page.ticks())
    result = fleet.playbook("services", inventory=moved)
    assert result.returncode != 0
    said = flat(result.stdout)
    assert f"The scheduler runs on {SCHEDULER}, the inventory says {ROGUE}: put" in said
    assert "Reconcile the services" not in said
    result = fleet.playbook("move_scheduler", "-e", f"to={ROGUE}")
    assert result.returncode == 0, result.stdout
    assert f"group scheduler, replace {SCHEDULER} by {ROGUE}" in flat(result.stdout)
    assert not fleet.service(PERIODIC, SCHEDULER).is_defined
    fleet.service(PERIODIC, ROGUE).wait_until_running()

    def sent_by(host: str) -> list[datetime]:
        return [
            moment
            for tick in page.ticks()
            if tick["sender_host"] == host
            and (moment := datetime.fromisoformat(tick["sent"])) > last
        ]

    wait_for(lambda: sent_by(ROGUE) != [], 90, lambda: "the new scheduler does not tick")
    # Huey may have sent nothing more before the move.
    assert max(sent_by(SCHEDULER), default=last) < min(sent_by(ROGUE))
    # Told so, the inventory has nothing left to do.
    result = fleet.playbook("services", inventory=moved)
    assert result.returncode == 0, result.stdout
    assert changed(result.stdout) == []
    result = fleet.playbook("verify", inventory=moved)
    assert f"Exactly one scheduler runs, on {ROGUE}" in result.stdout
