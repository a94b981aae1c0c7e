"""Huey; what happens to a task is kept in the table of TaskState."""

import socket
import sqlite3
from datetime import timedelta
from functools import wraps
from typing import Any

from django.conf import settings
from django.utils import timezone
from huey import crontab
from huey.api import PeriodicTask, Task
from huey.contrib.djhuey import close_db, db_periodic_task, db_task
from huey.signals import SIGNAL_ENQUEUED, SIGNAL_INTERRUPTED
from redis.exceptions import RedisError

from ticks.models import TaskState
from ticks.queues.description import TickFunction, description
from ticks.stamp import sender

# Huey's schedule has no seconds.
ENTRY = "tick-minute"
SILENCE = 90
ERRORS = (RedisError, sqlite3.OperationalError)
STATE_RETENTION = timedelta(days=1)

huey = settings.HUEY

task = db_task()


def tick(function: TickFunction) -> Any:
    # A restart of the database must not look like a lost tick.
    @db_periodic_task(crontab(), context=True, retries=20, retry_delay=10)
    @wraps(function)
    def run(stamp: dict[str, Any], task: Task) -> None:
        function(ENTRY, task.id, stamp)

    return run


@huey.signal(SIGNAL_ENQUEUED)
def stamp_tick(_signal: str, task: Task) -> None:
    """Write into a tick who sends it; runs in the sending process, here the scheduler."""
    # A retry is sent by a worker: it carries the first sender's stamp on.
    if isinstance(task, PeriodicTask) and "stamp" not in task.kwargs:
        task.kwargs["stamp"] = sender.stamp(ENTRY)


def send(task: Any, *args: Any) -> str:
    return task(*args).id


def find(task_id: str) -> dict[str, Any]:
    found = TaskState.objects.filter(task_id=task_id).first()
    return describe(found) if found else description(task_id=task_id)


def latest(limit: int) -> list[dict[str, Any]]:
    return [describe(found) for found in TaskState.objects.order_by("-created", "-id")[:limit]]


def check() -> None:
    huey.pending_count()


def clean() -> None:
    """Forget old tasks here and in Huey's storage, which keeps a result until it is read."""
    old = TaskState.objects.filter(created__lt=timezone.now() - STATE_RETENTION)
    for task_id in old.values_list("task_id", flat=True):
        huey.delete(str(task_id))
    old.delete()


def describe(found: TaskState) -> dict[str, Any]:
    return description(
        task_id=str(found.task_id),
        state=found.state,
        name=found.name,
        args=found.args,
        result=found.result,
        worker=found.worker,
        created=found.created,
        started=found.started,
        done=found.done,
    )


@huey.pre_execute()
@close_db
def note_start(task: Task) -> None:
    if not isinstance(task, PeriodicTask):
        TaskState.objects.update_or_create(
            task_id=task.id,
            defaults={
                "name": f"{type(task).__module__}.{type(task).__name__}",
                "args": repr(tuple(task.args)),
                "state": "STARTED",
                "worker": f"huey@{socket.gethostname()}",
                "started": timezone.now(),
            },
        )


@huey.post_execute()
@close_db
def note_end(task: Task, value: Any, error: Exception | None) -> None:
    if error:
        note(task, "FAILURE", f"{type(error).__name__}: {error}")
    else:
        note(task, "SUCCESS", value)


@huey.signal(SIGNAL_INTERRUPTED)
@close_db
def note_interruption(_signal: str, task: Task) -> None:
    """Huey runs a task only once: one that was cut off has failed."""
    note(task, "FAILURE", "the worker was stopped")


def note(task: Task, state: str, result: Any) -> None:
    now = timezone.now()
    TaskState.objects.filter(task_id=task.id).update(state=state, result=result, done=now)
