"""Two hosts could schedule, and RedBeat's lock lets one: what faults do to its ticks.

Each test leaves both of them running; which one schedules is the lock's to say.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import partial

import pytest
from faults import (
    active,
    broker_away,
    cut_off,
    kill,
    link_cut,
    measured,
    paused,
    power_off,
    power_on,
    powered_off,
    run,
    stopped,
    until_running,
    until_scheduler_and_standby_run,
)
from fleet import PERIODIC, Fleet, Page, names

LOCK = names("lock")[0]
SCHEDULERS = names("scheduler")
LASTING = {
    "power-off of its host": powered_off,
    "pause of its host": paused,
    "SIGSTOP": stopped,
    "its host cut off": cut_off,
    "its link to the lock cut": partial(link_cut, to=LOCK, port=6379),
}


@pytest.fixture(autouse=True)
def both_run(fleet: Fleet) -> None:
    """A standby is there before a test makes its fault."""
    until_running(fleet, *names("all"))
    until_scheduler_and_standby_run(fleet, *SCHEDULERS)


def test_the_scheduler_is_killed(fleet: Fleet, page: Page) -> None:
    with measured(page, "kill -9 of beat", gap=15):
        kill(fleet, active(page))


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_of_30_seconds(fleet: Fleet, page: Page, fault: str) -> None:
    make: partial[AbstractContextManager[None]] = partial(LASTING[fault], fleet, active(page))
    with measured(page, f"{fault}, 30 s", gap=15), make():
        time.sleep(30)


def test_the_scheduler_stops(fleet: Fleet, page: Page) -> None:
    host = active(page)
    with measured(page, "graceful stop", gap=3):
        run(fleet, host, f"systemctl stop {PERIODIC}")
    assert active(page) != host
    run(fleet, host, f"systemctl start {PERIODIC}")


def test_both_restart_at_once(fleet: Fleet, page: Page) -> None:
    with measured(page, "both beats restarted at once", gap=15):
        for host in SCHEDULERS:
            run(fleet, host, f"systemctl restart --no-block {PERIODIC}")


def test_the_broker_is_away(fleet: Fleet, page: Page) -> None:
    with measured(page, "RabbitMQ away 15 s, from its return", gap=20) as window:
        with broker_away(fleet):
            time.sleep(15)
        window.healed()


def test_a_beat_that_is_started_by_hand_waits_for_the_lock(fleet: Fleet, page: Page) -> None:
    command = "celery -A example beat --pidfile= --loglevel=info"
    # Counted before what that host ticked is forgotten.
    with (
        fleet.started_by_hand(command, "celery -A example beat"),
        measured(page, "a beat started by hand", gap=3),
    ):
        time.sleep(15)


def test_all_hosts_restart_at_once(fleet: Fleet, page: Page) -> None:
    with measured(page, "all hosts lose power at once"):
        power_off(fleet, *names("all"))
        power_on(fleet, *names("all"))
