"""The record of every tick: who sent it, when, and who received it. With Huey, of every task."""

from datetime import datetime, timedelta
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.utils import timezone


class TickQuerySet(models.QuerySet["Tick"]):
    def record(
        self, *, task_id: str, stamp: dict[str, Any], received: datetime, **fields: Any
    ) -> None:
        """Store the tick of one message; `stamp` is what `ticks.stamp` made.

        A message that is delivered again only raises `deliveries`: the sender sent one tick.
        """
        _, created = self.get_or_create(
            task_id=task_id,
            defaults={
                **fields,
                "scheduled": datetime.fromisoformat(stamp["scheduled"]),
                "sent": datetime.fromisoformat(stamp["sent"]),
                "sequence": stamp["sequence"],
                "sender_host": stamp["host"],
                "sender_pid": stamp["pid"],
                "sender_started": datetime.fromisoformat(stamp["started"]),
                "received": received,
            },
        )
        if not created:
            self.filter(task_id=task_id).update(deliveries=models.F("deliveries") + 1)

    def expired(self) -> Self:
        """Return the ticks older than the retention."""
        age = timedelta(hours=settings.TICK_RETENTION_HOURS)
        return self.filter(sent__lt=timezone.now() - age)


class Tick(models.Model):
    task_id = models.UUIDField(unique=True)
    task = models.CharField(max_length=200)
    entry = models.CharField(max_length=100)
    scheduled = models.DateTimeField()

    sent = models.DateTimeField(db_index=True)
    # Counts from 1 for each sender and entry.
    sequence = models.PositiveBigIntegerField()
    sender_host = models.CharField(max_length=255)
    sender_pid = models.PositiveIntegerField()
    sender_started = models.DateTimeField()

    received = models.DateTimeField()
    worker_host = models.CharField(max_length=255)
    worker_pid = models.PositiveIntegerField()
    deliveries = models.PositiveIntegerField(default=1)

    objects = TickQuerySet.as_manager()

    class Meta:
        ordering = ("-sent", "-id")
        indexes = (models.Index(fields=["entry", "-sent"], name="tick_entry_sent"),)

    def __str__(self) -> str:
        return f"{self.entry} {self.sequence} of {self.sender_host}:{self.sender_pid}"

    @property
    def latency_ms(self) -> int:
        """Time from the sender to the worker."""
        return round((self.received - self.sent).total_seconds() * 1000)


class TaskState(models.Model):
    """What happened to a task of Huey's, in Celery's words, which the page speaks."""

    task_id = models.UUIDField(unique=True)
    name = models.CharField(max_length=200)
    args = models.TextField()
    state = models.CharField(max_length=20)
    result = models.JSONField(null=True)
    worker = models.CharField(max_length=255)
    created = models.DateTimeField(auto_now_add=True, db_index=True)
    started = models.DateTimeField()
    done = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name}{self.args} {self.state}"
