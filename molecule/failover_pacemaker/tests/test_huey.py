"""The same three hosts with Huey, whose scheduler is the cluster's too; then with one host again.

The tests build on each other, in their order, and on the fleet that the tests of Celery left.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

from cluster import SCHEDULERS, holder, settle
from faults import now, power_off, power_on, read
from fleet import Fleet, Page, changed, other_inventory, wait_for

MINUTE = timedelta(minutes=1)


def deployed(fleet: Fleet, directory: Path, hosts: list[str], **choices: str) -> Path:
    """Deploy a copy of the inventory with other choices and other hosts that could schedule."""
    made = other_inventory(directory, {"scheduler": hosts}, **choices)
    result = fleet.playbook("../site", inventory=made)
    assert result.returncode == 0, result.stdout
    return made


def minutes(page: Page, since: datetime) -> dict[datetime, list[str]]:
    """Return minute -> the hosts that sent its tick, of those that were due since a moment."""
    found: dict[datetime, list[str]] = {}
    for one in read(page):
        if one.entry == "tick-minute" and one.sent >= since:
            found.setdefault(one.sent.replace(second=0, microsecond=0), []).append(one.host)
    return found


def wait_for_minutes(page: Page, since: datetime, number: int, seconds: float) -> None:
    wait_for(
        lambda: len(minutes(page, since)) >= number, seconds, lambda: str(minutes(page, since))
    )


def test_celery_to_huey(fleet: Fleet, page: Page, tmp_path: Path) -> None:
    settle(fleet)
    wanted = deployed(fleet, tmp_path, SCHEDULERS, stack_task_queue="huey")
    # After a switch of everything, nothing is left to do.
    again = fleet.playbook("services", "--check", inventory=wanted)
    assert again.returncode == 0, again.stdout
    assert changed(again.stdout) == []
    for host in fleet.hosts:
        # The tests' own measurement of the machine's pace starts a celery, too.
        found = fleet[host].run("pgrep -af '[b]in/celery' | grep -v ' report$'").stdout
        assert found == "", host
    running = [h for h in SCHEDULERS if fleet.service("huey-periodic", h).is_running]
    assert running == [holder(fleet)]


def test_its_host_loses_power(fleet: Fleet, page: Page) -> None:
    settle(fleet)
    begin = now()
    wait_for_minutes(page, begin, 1, 150)
    host = holder(fleet)
    # In the middle of a minute: another host has time until the next one.
    time.sleep((20 - time.time() % 60) % 60)
    power_off(fleet, host)
    try:
        wait_for_minutes(page, begin, 3, 200)
    finally:
        power_on(fleet, host)
    settle(fleet)
    found = minutes(page, begin)
    assert {len(hosts) for hosts in found.values()} == {1}, found
    # The cluster notices within seconds, and Huey then starts five seconds into the next minute.
    missed = [m for m in (min(found) + MINUTE * n for n in range(len(found))) if m not in found]
    assert missed == [], found
    assert found[max(found)] != [host]


def test_back_to_one_host(fleet: Fleet, page: Page, tmp_path: Path) -> None:
    """Pacemaker's scheduler ends before a static one starts, and its cluster with it."""
    settle(fleet)
    begin = now()
    one = SCHEDULERS[0]
    deployed(fleet, tmp_path, [one], stack_task_queue="huey", stack_scheduler_mode="static")
    for host in SCHEDULERS:
        services = fleet[host].run("systemctl is-active pacemaker corosync").stdout.split()
        assert services == ["inactive", "inactive"]
        services = fleet[host].run("systemctl is-enabled pacemaker corosync").stdout.split()
        assert services == ["disabled", "disabled"]
        assert not fleet[host].file("/etc/corosync/corosync.conf").exists
        assert not fleet[host].file("/etc/corosync/authkey").exists
        assert fleet.service("huey-periodic", host).is_running == (host == one)
        assert fleet.service("huey-periodic", host).is_defined == (host == one)
    wait_for_minutes(page, begin, 1, 150)
    assert {len(hosts) for hosts in minutes(page, begin).values()} == {1}
