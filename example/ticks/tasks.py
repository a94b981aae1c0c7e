"""The tasks, for whichever queue."""

import os
import socket
import time
from typing import Any

from django.utils import timezone

from ticks.models import Tick
from ticks.queues import queue

SLOW_MAX_SECONDS = 3600


@queue.task
def add(x: float, y: float) -> float:
    return x + y


@queue.task
def slow(seconds: float) -> float:
    """Sleep for `seconds` (0 to 3600) in short steps and return how long it really took."""
    if not 0 <= seconds <= SLOW_MAX_SECONDS:
        raise ValueError(f"seconds must be between 0 and {SLOW_MAX_SECONDS}.")
    start = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))
    return round(time.monotonic() - start, 3)


@queue.task
def ping() -> str:
    """Prove that a task gets to a worker and its result back."""
    return "pong"


@queue.tick
def record_tick(entry: str, task_id: str, stamp: dict[str, Any]) -> None:
    """Store one tick of the schedule's `entry` with its sender's stamp and this worker."""
    received = timezone.now()
    if entry == "tick-minute":
        Tick.objects.expired().delete()
        queue.clean()
    Tick.objects.record(
        task_id=task_id,
        stamp=stamp,
        received=received,
        task="ticks.tasks.record_tick",
        entry=entry,
        worker_host=socket.gethostname(),
        worker_pid=os.getpid(),
    )
