"""What the person on call sees and does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import STACK, Fleet, Page, names, wait_for

WEB = names("web")[0]


def main_pid(fleet: Fleet, name: str, unit: str) -> str:
    return str(fleet[name].check_output(f"systemctl show --property=MainPID --value {unit}"))


def changed(output: str) -> list[str]:
    """Return the hosts that a run changed, by its recap."""
    recap = output.split("PLAY RECAP")[1].splitlines()
    return [line.split()[0] for line in recap if "changed=" in line and "changed=0 " not in line]


@pytest.mark.parametrize("name", names("workers"))
def test_status_of_a_worker_reads_well(fleet: Fleet, name: str) -> None:
    def status() -> str:
        return str(fleet[name].check_output("systemctl status celery-worker --no-pager"))

    assert f"{STACK}: Celery worker (queues: celery)" in status()
    assert "active (running)" in status()
    wait_for(lambda: "Task ticks.tasks.record_tick" in status(), 30, status)


@pytest.mark.parametrize("name", names("workers"))
def test_the_target_groups_the_services(fleet: Fleet, name: str) -> None:
    host = fleet[name]
    services = host.check_output(f"systemctl list-dependencies --plain {STACK}.target")
    assert "celery-worker.service" in services
    # systemctl waits for the target alone, not for what it takes along.
    for command, state in (("stop", "inactive"), ("start", "active")):
        host.check_output(f"systemctl {command} {STACK}.target")
        wait_for(
            lambda state=state: (
                host.run("systemctl is-active celery-worker").stdout == f"{state}\n"
            ),
            60,
            lambda: host.run("systemctl status celery-worker").stdout,
        )


def test_status_shows_the_scheduler_and_all_is_well(fleet: Fleet) -> None:
    result = fleet.playbook("status")
    assert result.returncode == 0, result.stdout
    assert names("scheduler")[0] in result.stdout
    for name in names("workers"):
        assert f"celery@{name}" in result.stdout


@pytest.fixture
def restored(fleet: Fleet) -> Iterator[None]:
    """Put the services back as they were deployed."""
    yield
    result = fleet.playbook("services")
    assert result.returncode == 0, result.stdout


@pytest.mark.usefixtures("restored")
def test_only_what_changed_is_restarted(fleet: Fleet) -> None:
    before = {unit: main_pid(fleet, WEB, unit) for unit in ("web", "flower")}
    result = fleet.playbook("services", "-e", "web_timeout=61")
    assert result.returncode == 0, result.stdout
    assert changed(result.stdout) == [WEB]
    assert main_pid(fleet, WEB, "web") != before["web"]
    assert main_pid(fleet, WEB, "flower") == before["flower"]


@pytest.mark.usefixtures("restored")
def test_a_service_that_does_not_start_is_rolled_back(fleet: Fleet, page: Page) -> None:
    before = main_pid(fleet, names("scheduler")[0], "celery-beat")
    result = fleet.playbook("services", "-e", "app_wsgi=example.missing:application")
    assert result.returncode != 0
    assert "web.service did not stay up" in result.stdout
    # The end of a long traceback: the words that matter.
    assert "ModuleNotFoundError: No module named 'example.missing'" in result.stdout
    assert page.json("/healthz")["database"] == "ok"
    unit = fleet[WEB].check_output("systemctl cat web")
    assert "example.missing" not in unit
    assert main_pid(fleet, names("scheduler")[0], "celery-beat") == before


def test_a_bad_inventory_stops_nothing(fleet: Fleet) -> None:
    pids = {name: main_pid(fleet, name, "celery-worker") for name in names("workers")}
    result = fleet.playbook("services", "-e", "stack_task_queue=selery")
    assert result.returncode != 0
    assert "stack_task_queue" in result.stdout
    assert "did you mean 'celery'" in result.stdout
    assert {name: main_pid(fleet, name, "celery-worker") for name in pids} == pids


@pytest.mark.usefixtures("restored")
def test_a_pool_that_is_gone_from_the_inventory_is_gone_from_the_host(fleet: Fleet) -> None:
    pools = (
        '{"celery_worker_pools": [{"name": "default", "queues": ["celery"], "concurrency": 2},'
        ' {"name": "mail", "queues": ["mail"], "concurrency": 1}]}'
    )
    worker = fleet.one("workers")
    result = fleet.playbook("services", "-e", pools)
    assert result.returncode == 0, result.stdout
    assert worker.service("celery-worker-mail").is_running
    result = fleet.playbook("services")
    assert result.returncode == 0, result.stdout
    assert not worker.file("/etc/systemd/system/celery-worker-mail.service").exists
    assert worker.run("pgrep -f '[-]-queues mail'").failed
