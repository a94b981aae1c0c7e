"""What the person on call sees and does; each test leaves the fleet as it was deployed."""

from __future__ import annotations

import time

import pytest
from fleet import (
    PERIODIC,
    SCHEDULER,
    SERVICES,
    STACK,
    WORKER,
    Fleet,
    Page,
    changed,
    host_of,
    manager,
    names,
    wait_for,
)

WEB = names("web")[0]


def test_status_of_a_worker_reads_well(fleet: Fleet) -> None:
    for name in names("workers"):
        status = fleet.service(WORKER, name).status
        if manager(name) == "systemd":
            assert f"{STACK}: {WORKER.split('-')[0].capitalize()} worker" in status
            assert "active (running)" in status
        else:
            assert status.split()[:2] == [WORKER, "RUNNING"]


def test_a_running_task_survives_a_restart_of_its_worker(fleet: Fleet, page: Page) -> None:
    task_id = page.run_task(task="slow", seconds="20")
    started = page.reached(task_id, ("STARTED",), 20)
    host = host_of(started)
    # A Huey consumer that schedules works too.
    name = next(
        name
        for name, where in SERVICES
        if where == host and name in (WORKER, PERIODIC) and runs(fleet, name, host, started)
    )
    begin = time.monotonic()
    fleet.service(name, host).restart()
    assert time.monotonic() - begin > 8, "the restart did not wait for the task"
    task = page.finished(task_id, 10)
    assert task["state"] == "SUCCESS", task
    wait_for(lambda: fleet.service(name, host).is_running, 90, lambda: f"{name} did not come back")


def runs(fleet: Fleet, name: str, host: str, task: dict[str, str]) -> bool:
    """Tell whether a service's processes are the ones that a task runs in."""
    pid = str(task.get("worker_pid") or "")
    main = fleet.service(name, host).pid
    return not pid or bool(
        fleet[host].run(f"ps -o pid= --pid {main} --ppid {main}").stdout.split().count(pid)
    )


@pytest.mark.only(manager="systemd")
def test_the_target_groups_the_services(fleet: Fleet) -> None:
    host = fleet.one("workers")
    service = fleet.service(WORKER, names("workers")[-1])
    assert f"{WORKER}.service" in host.check_output(
        f"systemctl list-dependencies --plain {STACK}.target"
    )
    # systemctl waits for the target alone, not for what it takes along.
    for command, state in (("stop", False), ("start", True)):
        service.host.check_output(f"systemctl {command} {STACK}.target")
        wait_for(lambda state=state: service.is_running is state, 90, lambda: service.status)


def test_only_what_changed_is_restarted(fleet: Fleet) -> None:
    before = {(name, host): fleet.service(name, host).pid for name, host in SERVICES}
    result = fleet.playbook("services", "-e", "web_timeout=61")
    assert result.returncode == 0, result.stdout
    assert changed(result.stdout) == [WEB]
    after = {(name, host): fleet.service(name, host).pid for name, host in SERVICES}
    assert [one for one in before if before[one] != after[one]] == [("web", WEB)]
    # What follows goes on from here and puts everything back, which saves a run.


def is_healthy(page: Page) -> bool:
    try:
        return bool(page.json("/healthz")["database"] == "ok")
    except OSError:  # One that has just started is slow on a busy machine.
        return False


@pytest.mark.usefixtures("restored")
def test_a_service_that_does_not_start_is_rolled_back(fleet: Fleet, page: Page) -> None:
    before = fleet.service(PERIODIC, SCHEDULER).pid
    result = fleet.playbook("services", "-e", "app_wsgi=example.missing:application")
    assert result.returncode != 0
    name = "web.service" if manager(WEB) == "systemd" else "web"
    assert f"{name} did not stay up" in result.stdout
    # The end of a long traceback: the words that matter.
    assert "ModuleNotFoundError: No module named 'example.missing'" in result.stdout
    wait_for(lambda: is_healthy(page), 30, lambda: "the former web server does not come back")
    assert "example.missing" not in fleet.service("web", WEB).definition
    assert fleet.service(PERIODIC, SCHEDULER).pid == before


@pytest.mark.only(queue="celery")
def test_a_pool_that_is_gone_from_the_inventory_is_gone_from_the_host(fleet: Fleet) -> None:
    pools = (
        '{"celery_worker_pools": [{"name": "default", "queues": ["celery"], "concurrency": 2},'
        ' {"name": "mail", "queues": ["mail"], "concurrency": 1}]}'
    )
    mail = fleet.service("celery-worker-mail", names("workers")[0])
    result = fleet.playbook("services", "-e", pools)
    assert result.returncode == 0, result.stdout
    mail.wait_until_running()
    result = fleet.playbook("services")
    assert result.returncode == 0, result.stdout
    assert not mail.is_defined
    assert mail.host.run("pgrep -f '[-]-queues mail'").failed


def test_a_scheduler_that_crashes_comes_back(fleet: Fleet) -> None:
    service = fleet.service(PERIODIC, SCHEDULER)
    before = service.pid
    service.host.check_output(f"kill -9 {before}")
    wait_for(
        lambda: service.is_running and service.pid not in (0, before),
        120,
        lambda: service.status,
    )


@pytest.mark.only(manager="supervisord")
def test_a_supervisord_that_is_killed_leaves_no_second_scheduler(fleet: Fleet) -> None:
    """Its programs end with it: those that it starts when it is back are the only ones."""
    service = fleet.service(PERIODIC, SCHEDULER)
    before = service.pid
    service.host.check_output("systemctl kill --kill-whom=main --signal=KILL supervisor")
    wait_for(
        lambda: service.is_running and service.pid not in (0, before),
        120,
        lambda: service.status,
    )
    assert service.host.run(f"ps -p {before}").failed
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout
