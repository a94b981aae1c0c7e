"""The same fleet under supervisord: its scheduler is killed, and so is supervisord; then failover.

The tests build on each other, in their order.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from faults import (
    active,
    broker_away,
    kill,
    measured,
    run,
    until_scheduler_and_standby_run,
)
from fleet import PERIODIC, SCHEDULER, Fleet, Page, names, other_inventory

STANDBY = next(name for name in names("workers") if name != SCHEDULER)
SUPERVISORD = {"stack_process_manager": "supervisord"}
FAILOVER = {
    **SUPERVISORD,
    "stack_scheduler_mode": "failover",
    "celery_beat_lock_timeout": 10,
    "celery_beat_max_interval": 2,
}


def deploy(fleet: Fleet, playbook: str, wanted: Path) -> None:
    for name in (playbook, "verify"):
        result = fleet.playbook(name, inventory=wanted)
        assert result.returncode == 0, result.stdout


def test_the_switch_to_supervisord(fleet: Fleet, page: Page, tmp_path: Path) -> None:
    with measured(page, "switch to supervisord, a run of services.yml"):
        deploy(fleet, "services", other_inventory(tmp_path, **SUPERVISORD))


def test_the_scheduler_is_killed(fleet: Fleet, page: Page) -> None:
    with measured(page, "kill -9 of beat under supervisord", gap=5):
        kill(fleet, SCHEDULER, under="supervisord")


def test_supervisord_is_killed(fleet: Fleet, page: Page) -> None:
    with measured(page, "kill -9 of supervisord", gap=15):
        run(fleet, SCHEDULER, "systemctl kill --kill-whom=main --signal=KILL supervisor")


@pytest.fixture
def both_run(fleet: Fleet) -> None:
    """A standby is there before a test makes its fault."""
    until_scheduler_and_standby_run(fleet, SCHEDULER, STANDBY, under="supervisord")


def test_the_switch_to_failover(fleet: Fleet, page: Page, tmp_path: Path) -> None:
    with measured(page, "static to failover, a run of site.yml"):
        deploy(
            fleet,
            "../site",
            other_inventory(tmp_path, {"scheduler": [SCHEDULER, STANDBY]}, **FAILOVER),
        )


@pytest.mark.usefixtures("both_run")
def test_redbeat_is_killed(fleet: Fleet, page: Page) -> None:
    with measured(page, "RedBeat: kill -9 of beat", gap=15):
        kill(fleet, active(page), under="supervisord")


@pytest.mark.usefixtures("both_run")
def test_redbeat_stops(fleet: Fleet, page: Page) -> None:
    host = active(page)
    with measured(page, "RedBeat: graceful stop", gap=3):
        run(fleet, host, f"supervisorctl stop {PERIODIC}")
    assert active(page) != host
    run(fleet, host, f"supervisorctl start {PERIODIC}")


@pytest.mark.usefixtures("both_run")
def test_redbeats_broker_and_lock_are_away(fleet: Fleet, page: Page) -> None:
    with measured(page, "RedBeat: broker and lock away 15 s, from their return", gap=10) as window:
        with broker_away(fleet):
            time.sleep(15)
        window.healed()
