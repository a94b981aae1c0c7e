"""The scheduler moves while it ticks, and its former host comes back without having seen that."""

from __future__ import annotations

import json
import time
from pathlib import Path

from faults import active, measured, now, power_off, power_on, run
from fleet import PERIODIC, SCHEDULER, Fleet, Page, names, other_inventory

STANDBY = next(name for name in names("workers") if name != SCHEDULER)


def move(fleet: Fleet, to: str) -> None:
    result = fleet.playbook("move_scheduler", "-e", f"to={to}")
    assert result.returncode == 0, result.stdout


def test_the_scheduler_moves_there_and_back(fleet: Fleet, page: Page) -> None:
    for to in (STANDBY, SCHEDULER):
        # Six modules and the start of beat lie between the last tick and the next.
        with measured(page, "move to another host", gap=10, work=6):
            move(fleet, to)


def test_the_former_host_comes_back_after_a_move_that_it_did_not_see(
    fleet: Fleet, page: Page, tmp_path: Path
) -> None:
    wanted = other_inventory(tmp_path, {"scheduler": [STANDBY]})
    dead = json.dumps({"stack_dead_hosts": [SCHEDULER]})
    assert active(page) == SCHEDULER
    begin = int(now().timestamp())
    with measured(page, "former host back after it was replaced", settle=15):
        power_off(fleet, SCHEDULER)
        try:
            result = fleet.playbook("services", "-e", dead, inventory=wanted)
            assert result.returncode == 0, result.stdout
        finally:
            power_on(fleet, SCHEDULER)
        # It is enabled there, and tries.
        time.sleep(15)
    state = run(fleet, SCHEDULER, f"systemctl is-active {PERIODIC} || true").strip()
    assert state == "activating", state
    said = run(fleet, SCHEDULER, f"journalctl --no-pager --unit {PERIODIC} --since=@{begin}")
    assert f"This host does not schedule: celerybeat@{STANDBY} does." in said
    assert active(page) == STANDBY
    result = fleet.playbook("services", inventory=wanted)
    assert result.returncode == 0, result.stdout
    assert run(fleet, SCHEDULER, f"systemctl is-enabled {PERIODIC} || true").strip() == "masked"
    move(fleet, SCHEDULER)
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout
