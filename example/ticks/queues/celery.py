"""Celery; `example.celery` puts the sender's stamp on a tick."""

import json
from typing import Any

from celery import current_app, shared_task
from django.db import InterfaceError
from django.db import OperationalError as DatabaseError
from django_celery_results.models import TaskResult
from kombu.exceptions import OperationalError

from ticks.queues.description import TickFunction, description

ENTRY = "tick-second"
SILENCE = 5
ERRORS = (OperationalError,)

task = shared_task


def tick(function: TickFunction) -> Any:
    def run(self: Any, entry: str) -> None:
        function(entry, self.request.id, self.request.headers["tick"])

    return shared_task(
        run,
        bind=True,
        name=f"{function.__module__}.{function.__name__}",
        # Thousands an hour, each with its own row in Tick.
        ignore_result=True,
        # A restart of the database must not look like a lost tick.
        autoretry_for=(InterfaceError, DatabaseError),
        max_retries=20,
        retry_backoff=True,
        retry_backoff_max=30,
    )


def send(task: Any, *args: Any) -> str:
    # A visitor does not wait for retries.
    return task.apply_async(args, retry=False).id


def find(task_id: str) -> dict[str, Any]:
    found = TaskResult.objects.filter(task_id=task_id).first()
    return describe(found) if found else description(task_id=task_id)


def latest(limit: int) -> list[dict[str, Any]]:
    return [
        describe(found) for found in TaskResult.objects.order_by("-date_created", "-id")[:limit]
    ]


def check() -> None:
    options = {"socket_timeout": 1, "socket_connect_timeout": 1}
    with current_app.connection_for_write(connect_timeout=1, transport_options=options) as broker:
        broker.ensure_connection(max_retries=1, timeout=1)


def clean() -> None:
    """Leave it to Celery, whose beat has an entry of its own for it."""


def describe(found: TaskResult) -> dict[str, Any]:
    """Return a stored result's description; an error without its traceback."""
    value = json.loads(found.result) if found.result else None
    if found.status == "FAILURE" and isinstance(value, dict):
        value = f"{value.get('exc_type')}: {' '.join(map(str, value.get('exc_message', [])))}"
    return description(
        task_id=found.task_id,
        state=found.status,
        name=found.task_name,
        args=str(json.loads(found.task_args)) if found.task_args else None,
        # Until a task is done, Celery keeps the worker's pid here.
        result=value,
        worker=found.worker,
        created=found.date_created,
        started=found.date_started,
        done=found.date_done,
    )
