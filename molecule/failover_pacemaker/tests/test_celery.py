"""Three hosts could schedule, and Pacemaker lets one: what faults do to its ticks.

Each test leaves all three of them in the cluster; which one schedules is the cluster's to say.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from functools import partial

import pytest
from cluster import PORT, SCHEDULERS, holder, other_than, settle
from faults import (
    active,
    at_the_minutes_edge,
    cut_off,
    dropped,
    kill,
    measured,
    paused,
    power_off,
    power_on,
    powered_off,
    run,
    until_running,
)
from fleet import PERIODIC, STACK, Fleet, Page, changed, names, wait_for

GAP = 20
LASTING = {
    "power-off of its host": powered_off,
    "pause of its host": paused,
    "its host cut off": cut_off,
    "its link to the cluster cut": lambda fleet, host: dropped(
        fleet, host, f"INPUT -p udp --dport {PORT}", f"OUTPUT -p udp --dport {PORT}"
    ),
}


@pytest.fixture(autouse=True)
def all_are_there(fleet: Fleet, page: Page) -> None:
    """Two standbys are there before a test makes its fault."""
    until_running(fleet, *names("all"))
    settle(fleet)


def test_one_of_three_runs_it(fleet: Fleet, page: Page) -> None:
    running = [host for host in SCHEDULERS if fleet.service(PERIODIC, host).is_running]
    assert running == [active(page)] == [holder(fleet)]


def test_nobody_but_the_cluster_starts_it(fleet: Fleet) -> None:
    for host in SCHEDULERS:
        assert fleet[host].run(f"systemctl is-enabled {PERIODIC}").stdout == "static\n"
        key = fleet[host].file("/etc/corosync/authkey")
        assert (key.mode, key.user, key.size) == (0o400, "root", 128)
        opened = fleet[host].check_output(
            "ss -Hlnptu | grep -E 'corosync|pacemaker|pcs' | awk '{ print $5 }'"
        )
        assert opened == f"{fleet.address(host)}:{PORT}"


def test_the_scheduler_is_killed_at_the_minutes_edge(fleet: Fleet, page: Page) -> None:
    with measured(page, "kill -9 of beat, at a minute's edge", gap=GAP, every_minute=True):
        at_the_minutes_edge(lambda: kill(fleet, active(page)))


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_of_30_seconds(fleet: Fleet, page: Page, fault: str) -> None:
    make: partial[AbstractContextManager[None]] = partial(LASTING[fault], fleet, active(page))
    # Beat itself notices that it stood still, but not while it sends.
    allowed = 1 if make.func is paused else 0
    with measured(page, f"{fault}, 30 s", gap=GAP, duplicates=allowed), make():
        time.sleep(30)


def test_the_cluster_is_killed(fleet: Fleet, page: Page) -> None:
    host = active(page)
    try:
        with measured(page, "kill -9 of corosync", gap=GAP):
            run(fleet, host, "kill -9 $(systemctl show --property=MainPID --value corosync)")
    finally:
        run(fleet, host, "systemctl start pacemaker")


def test_its_host_reboots(fleet: Fleet, page: Page) -> None:
    host = active(page)
    with measured(page, "graceful stop: reboot of its host", gap=GAP):
        run(fleet, host, "systemctl reboot")
        wait_for(lambda: holder(fleet, asked=other_than(host)) != host, 60, lambda: holder(fleet))
    until_running(fleet, host)


def test_a_copy_that_is_started_by_hand_is_ended(fleet: Fleet, page: Page) -> None:
    host = active(page)
    other = other_than(host)
    with measured(page, "a second one started by hand", gap=GAP, duplicates=None):
        run(fleet, other, f"systemctl start {PERIODIC}")
        wait_for(
            lambda: len([h for h in SCHEDULERS if fleet.service(PERIODIC, h).is_running]) == 1,
            40,
            lambda: run(fleet, host, "crm_mon -1 -r"),
        )


def test_a_run_gives_back_to_the_cluster_what_is_its_own(fleet: Fleet, page: Page) -> None:
    """It restarts what is older than its environment, and systemd starts nothing at boot."""
    host = active(page)
    other = other_than(host)
    unit = f"/etc/systemd/system/{PERIODIC}.service"
    run(fleet, host, f"touch /etc/{STACK}/{STACK}.env")
    run(fleet, other, f"ln -s {unit} /etc/systemd/system/multi-user.target.wants/")
    with measured(page, "restart for a new release or environment", gap=GAP):
        result = fleet.playbook("services")
    assert result.returncode == 0, result.stdout
    assert {host, other} <= set(changed(result.stdout))
    assert fleet[other].run(f"systemctl is-enabled {PERIODIC}").stdout == "static\n"
    assert active(page) == holder(fleet)


def test_all_hosts_restart_at_once(fleet: Fleet, page: Page) -> None:
    with measured(page, "all hosts lose power at once"):
        power_off(fleet, *names("all"))
        power_on(fleet, *names("all"))
