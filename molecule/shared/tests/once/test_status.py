"""The screen for the person on call: what it shows, what it calls wrong, how it ends."""

from __future__ import annotations

import json
from typing import Any

from fleet import PERIODIC, QUEUE, SCHEDULER, STACK, WORKER, Fleet, names

WORKERS = names("workers")


def status(fleet: Fleet, *args: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status and the document; nothing else may be on stdout."""
    result = fleet.playbook("status", "-e", "format=json", *args)
    return result.returncode, json.loads(result.stdout)


def test_the_screen_shows_the_fleet_and_nothing_else(fleet: Fleet) -> None:
    result = fleet.playbook("status")
    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith(f"{STACK} at ")
    assert "TASK [" not in result.stdout
    assert f"  scheduler   {SCHEDULER}: {PERIODIC}" in result.stdout
    assert "All is well: exactly one scheduler" in result.stdout
    for name in WORKERS:
        assert name in result.stdout


def test_machines_get_the_same_and_a_warning_has_a_status_of_its_own(fleet: Fleet) -> None:
    code, found = status(fleet, "-e", "verify_queue_warning=-1")
    assert (code, found["status"], found["problems"]) == (1, "warning", [])
    assert all("tasks waiting" in warning for warning in found["warnings"])
    assert found["scheduler"]["host"] == SCHEDULER
    # Huey has nothing but its minutes.
    assert found["scheduler"]["last_tick"]["age"] < (5 if QUEUE == "celery" else 130)
    assert found["next_due"]["in"] < (5 if QUEUE == "celery" else 61), found["next_due"]
    assert {one["host"] for one in found["workers"]} == set(WORKERS)
    assert all(one["answers"] and one["concurrency"] for one in found["workers"])
    assert found["broker"]["answers"]
    assert found["database"]["answers"]
    assert [one["hosts"] for one in found["releases"]]
    assert all(host["answers"] for host in found["hosts"].values())


def test_a_worker_that_is_stopped_is_wrong(fleet: Fleet) -> None:
    service = fleet.service(WORKER, WORKERS[-1])
    service.stop()
    try:
        code, found = status(fleet)
    finally:
        service.start()
    assert (code, found["status"]) == (2, "wrong")
    assert any(WORKER in problem and WORKERS[-1] in problem for problem in found["problems"])
    assert {one["host"]: one["answers"] for one in found["workers"]}[WORKERS[-1]] is False
    assert found["scheduler"]["host"] == SCHEDULER
