"""Tasks go from the page over the broker to a worker, and their results into the database."""

from __future__ import annotations

import pytest
from fleet import STACK, WORKER, Fleet, Page, host_of, names, wait_for


def test_the_page_and_its_health_answer(page: Page) -> None:
    assert page.json("/healthz") == {"database": "ok", "broker": "ok"}
    assert "<table" in page.get("/")


def test_static_files_were_collected(page: Page) -> None:
    link = page.get("/").split('rel="stylesheet" href="')[1].split('"')[0]
    assert "{" in page.get(link)


def test_a_task_from_the_page_completes(page: Page) -> None:
    task = page.finished(page.run_task(task="add", x="2", y="40"), 30)
    assert (task["state"], float(task["result"])) == ("SUCCESS", 42.0)
    assert host_of(task) in names("workers") + names("scheduler")


@pytest.mark.only(queue="celery", database="postgresql")
def test_celerys_result_is_in_the_database(fleet: Fleet, page: Page) -> None:
    task_id = page.run_task(task="add", x="2", y="40")
    page.finished(task_id, 30)
    row = fleet.one("database").check_output(
        "cd / && runuser -u postgres -- psql -d %s -Atc %s",
        STACK,
        f"SELECT status, result FROM django_celery_results_taskresult WHERE task_id = '{task_id}'",
    )
    status, result = row.split("|")
    assert (status, float(result)) == ("SUCCESS", 42.0)


def test_every_worker_takes_its_share(fleet: Fleet, page: Page) -> None:
    """More tasks at once than one worker has room for."""
    count = 3 * len(names("workers"))
    tasks = [page.finished(one, 60) for one in [slow(page, 3) for _ in range(count)]]
    assert {task["state"] for task in tasks} == {"SUCCESS"}
    assert {host_of(task) for task in tasks} >= set(names("workers"))
    for name in names("workers"):
        service = fleet.service(WORKER, name)
        assert "ticks.tasks.slow" in service.log, "the log does not tell what the worker does"


def slow(page: Page, seconds: int) -> str:
    return page.run_task(task="slow", seconds=str(seconds))


@pytest.mark.only(camera=True)
def test_the_camera_sees_all_workers(fleet: Fleet) -> None:
    service = fleet.service("celery-events", names("scheduler")[0])
    seen = f"workers: {', '.join(f'celery@{name}' for name in names('workers'))}"
    wait_for(lambda: seen in service.log, 60, lambda: service.log[-2000:])
