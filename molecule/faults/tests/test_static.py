"""One host schedules: what a kill, a move or a fault does to its ticks.

Each test leaves the fleet as it was deployed.
"""

from __future__ import annotations

import time

import pytest
from faults import (
    at_the_minutes_edge,
    broker_away,
    kill,
    longest_gap,
    measured,
    now,
    paused,
    power_off,
    power_on,
    read,
    restart_broker,
    run,
    stopped,
    until_running,
)
from fleet import PERIODIC, SCHEDULER, Fleet, Page, names

STANDBY = next(name for name in names("workers") if name != SCHEDULER)
# Nothing is promised while the only scheduler is down: how long it was silent is shown alone.
NO_BAR = None


@pytest.fixture(autouse=True)
def all_hosts_up(fleet: Fleet) -> None:
    """Every host is up before a test makes its fault."""
    until_running(fleet, *names("all"))


def test_ten_kills_and_restarts_repeat_no_minute_and_forget_no_interval(
    fleet: Fleet, page: Page
) -> None:
    """A process never lives for longer than 20 s; the first and the seventh end at a minute's edge.

    tick-long is due every 100 s: were its last run forgotten, it would never fire.
    """
    begin = now()
    name = "five kill -9 and five restarts, 20 s apart: each minute once"
    at_the_minutes_edge(lambda: None)
    with measured(page, name, gap=NO_BAR, every_minute=True):
        for number in range(10):
            if number % 2 == 0:
                with measured(page, "kill -9 of beat", gap=5, settle=3):
                    kill(fleet, SCHEDULER)
            else:
                run(fleet, SCHEDULER, f"systemctl restart {PERIODIC}")
            time.sleep(20 - (time.time() + 1) % 20)
    long = [one.sent for one in read(page) if one.entry == "tick-long"]
    assert len([moment for moment in long if moment > begin]) >= 2, long
    assert longest_gap([*long, now()]) < 115, long


def test_the_power_of_the_schedulers_host_fails(fleet: Fleet, page: Page) -> None:
    with measured(page, "power-off of the scheduler's host, back after 10 s", gap=NO_BAR):
        power_off(fleet, SCHEDULER)
        time.sleep(10)
        power_on(fleet, SCHEDULER)


def test_the_schedulers_host_pauses(fleet: Fleet, page: Page) -> None:
    with (
        measured(page, "pause of the scheduler's host, 30 s", gap=NO_BAR),
        paused(fleet, SCHEDULER),
    ):
        time.sleep(30)


def test_the_scheduler_is_stopped(fleet: Fleet, page: Page) -> None:
    with measured(page, "SIGSTOP of beat, 30 s", gap=NO_BAR), stopped(fleet, SCHEDULER):
        time.sleep(30)


def test_the_broker_restarts(fleet: Fleet, page: Page) -> None:
    with measured(page, "broker restart, from its return", gap=10) as window:
        restart_broker(fleet)
        window.healed()


def test_the_broker_is_away(fleet: Fleet, page: Page) -> None:
    with measured(page, "broker away 15 s, from its return", gap=10) as window:
        with broker_away(fleet):
            time.sleep(15)
        window.healed()


def test_all_hosts_restart_at_once(fleet: Fleet, page: Page) -> None:
    with measured(page, "all hosts lose power at once", gap=NO_BAR):
        power_off(fleet, *names("all"))
        power_on(fleet, *names("all"))
