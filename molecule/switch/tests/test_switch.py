"""The manager is switched on a live fleet, there and back, and then the queue.

The tests build on each other, in their order: each begins where the one before it left the fleet.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from fleet import (
    SCHEDULER,
    SERVICES,
    STACK,
    Fleet,
    Page,
    changed,
    names,
    other_inventory,
)

WORKERS = names("workers")


def deploy(fleet: Fleet, playbook: str, wanted: Path) -> None:
    """Deploy with other choices; see that verify likes it and a second run changes nothing."""
    result = fleet.playbook(playbook, inventory=wanted)
    assert result.returncode == 0, result.stdout
    result = fleet.playbook("verify", inventory=wanted)
    assert f"Exactly one scheduler runs, on {SCHEDULER}" in result.stdout, result.stdout
    again = fleet.playbook(playbook, inventory=wanted)
    assert changed(again.stdout) == [], again.stdout


def put_under_load(page: Page) -> list[str]:
    """Start a long task for each worker, and many short ones behind them."""
    long = [page.run_task(task="slow", seconds="20") for _ in WORKERS]
    for task_id in long:
        page.reached(task_id, ("STARTED",), 30)
    return [*long, *(page.run_task(task="add", x=str(n), y="1") for n in range(20))]


def all_succeeded(page: Page, tasks: list[str]) -> None:
    ended = {task_id: page.finished(task_id, 60)["state"] for task_id in tasks}
    assert set(ended.values()) == {"SUCCESS"}, ended


def one_scheduler_at_a_time(page: Page) -> None:
    """Each process's ticks arrived without a hole, and no two processes ticked in turns."""
    sent = defaultdict(list)
    numbers = defaultdict(list)
    for tick in page.ticks():
        if tick["entry"] == "tick-second":
            sender = (tick["sender_host"], tick["sender_started"])
            sent[sender].append(datetime.fromisoformat(tick["sent"]))
            numbers[sender].append(tick["sequence"])
    for sender, found in numbers.items():
        assert sorted(found) == list(range(1, len(found) + 1)), (sender, "lost or doubled ticks")
    spans = sorted((min(moments), max(moments)) for moments in sent.values())
    assert len(spans) > 1
    assert all(one[1] < other[0] for one, other in pairwise(spans)), spans


def test_systemd_to_supervisord(fleet: Fleet, page: Page, tmp_path: Path) -> None:
    tasks = put_under_load(page)
    deploy(fleet, "services", other_inventory(tmp_path, stack_process_manager="supervisord"))
    all_succeeded(page, tasks)
    one_scheduler_at_a_time(page)
    for host in {host for _, host in SERVICES}:
        assert fleet[host].run(f"grep -l '^# stack: {STACK}' /etc/systemd/system/*").stdout == ""
        active = fleet[host].check_output("systemctl list-units --plain --no-legend --type service")
        assert [name for name, _ in SERVICES if f"{name}.service" in active] == []
    for name, host in SERVICES:
        fleet.service(name, host, "supervisord").wait_until_running()


def test_supervisord_to_systemd(fleet: Fleet, page: Page, tmp_path: Path) -> None:
    tasks = put_under_load(page)
    deploy(fleet, "services", other_inventory(tmp_path, stack_process_manager="systemd"))
    all_succeeded(page, tasks)
    one_scheduler_at_a_time(page)
    for host in {host for _, host in SERVICES}:
        assert fleet[host].run(f"grep -l '^# stack: {STACK}' /etc/supervisor/conf.d/*").stdout == ""
        assert fleet[host].run(f"ls /usr/local/lib/{STACK}").stdout == ""
        assert fleet[host].run("systemctl is-active supervisor").stdout == "inactive\n"
        assert fleet[host].run("systemctl is-enabled supervisor").stdout == "disabled\n"
    for name, host in SERVICES:
        assert fleet.service(name, host, "systemd").is_running, (name, host)


def test_celery_to_huey(fleet: Fleet, page: Page, tmp_path: Path) -> None:
    # The site and not only its services: the project learns its queue from its environment.
    wanted = other_inventory(tmp_path, {"flower": []}, stack_task_queue="huey")
    result = fleet.playbook("../site", inventory=wanted)
    assert result.returncode == 0, result.stdout
    deploy(fleet, "services", wanted)
    for host in fleet.hosts:
        assert fleet[host].run("pgrep -af '[b]in/celery'").stdout == ""
        for name in ("celery-worker", "celery-beat", "flower"):
            assert not fleet.service(name, host, "systemd").is_defined, (name, host)
    assert fleet.service("huey-periodic", SCHEDULER, "systemd").is_running
    for host in WORKERS:
        assert fleet.service("huey-worker", host, "systemd").is_running
    assert page.finished(page.run_task(task="add", x="2", y="40"), 30)["state"] == "SUCCESS"
