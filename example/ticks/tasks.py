"""Celery tasks."""

import os
import socket
import time
from typing import Any

from celery import shared_task
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from ticks.models import Tick

SLOW_MAX_SECONDS = 3600


@shared_task
def add(x: float, y: float) -> float:
    return x + y


@shared_task
def slow(seconds: float) -> float:
    """Sleep for `seconds` (0 to 3600) in short steps and return how long it really took."""
    if not 0 <= seconds <= SLOW_MAX_SECONDS:
        raise ValueError(f"seconds must be between 0 and {SLOW_MAX_SECONDS}.")
    start = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))
    return round(time.monotonic() - start, 3)


@shared_task(
    bind=True,
    # Thousands an hour, each with its own row in Tick.
    ignore_result=True,
    # A restart of the database must not look like a lost tick.
    autoretry_for=(InterfaceError, OperationalError),
    max_retries=20,
    retry_backoff=True,
    retry_backoff_max=30,
)
def record_tick(self: Any, entry: str) -> None:
    """Store one tick of the schedule's `entry` with its sender's stamp and this worker."""
    received = timezone.now()
    if entry == "tick-minute":
        Tick.objects.expired().delete()
    Tick.objects.record(
        task_id=self.request.id,
        stamp=self.request.headers["tick"],
        received=received,
        task=self.name,
        entry=entry,
        worker_host=socket.gethostname(),
        worker_pid=os.getpid(),
    )
