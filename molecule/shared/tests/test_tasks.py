"""Tasks go from the page over the broker to a worker, and their results into the database."""

from __future__ import annotations

import time

from conftest import STACK, Fleet, Page, names, wait_for


def test_the_page_and_its_health_answer(page: Page) -> None:
    assert page.json("/healthz") == {"database": "ok", "broker": "ok"}
    assert "<table" in page.get("/")


def test_static_files_were_collected(page: Page) -> None:
    link = page.get("/").split('rel="stylesheet" href="')[1].split('"')[0]
    assert "{" in page.get(link)


def test_a_task_from_the_page_completes_and_its_result_is_in_the_database(
    fleet: Fleet, page: Page
) -> None:
    task_id = page.run_task(task="add", x="2", y="40")
    assert page.finished(task_id, 30)["state"] == "SUCCESS"
    row = fleet.sql(
        "SELECT status, result, worker FROM django_celery_results_taskresult "
        f"WHERE task_id = '{task_id}'"
    )
    status, result, worker = row.split("|")
    assert (status, float(result)) == ("SUCCESS", 42.0)
    assert worker in [f"celery@{name}" for name in names("workers")]


def test_every_worker_takes_ticks(fleet: Fleet) -> None:
    def all_did() -> bool:
        seen = fleet.sql("SELECT DISTINCT worker_host FROM ticks_tick").splitlines()
        return sorted(seen) == names("workers")

    wait_for(all_did, 30, lambda: "a worker took no tick in 30 s")


def test_a_running_task_survives_a_restart_of_its_worker(fleet: Fleet, page: Page) -> None:
    task_id = page.run_task(task="slow", seconds="15")
    started: dict[str, str] = {}

    def running() -> bool:
        started.update(page.json(f"/tasks/{task_id}/?format=json"))
        return started["state"] == "STARTED"

    wait_for(running, 20, lambda: f"the task did not start: {started}")
    host = fleet[str(started["worker"]).split("@")[1]]
    begin = time.monotonic()
    host.check_output("systemctl restart celery-worker")
    assert time.monotonic() - begin > 5, "the restart did not wait for the task"
    task = page.finished(task_id, 10)
    assert task["state"] == "SUCCESS", task
    assert host.service("celery-worker").is_running


def test_the_examples_own_tests_pass_in_its_release(fleet: Fleet) -> None:
    said = fleet.one("workers").check_output(
        f"{STACK}-shell env DATABASE_URL=sqlite://:memory: CELERY_BROKER_URL=memory:// "
        "python manage.py test 2>&1"
    )
    assert "\nOK" in said
