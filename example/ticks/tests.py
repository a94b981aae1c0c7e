"""Tests of what the fleet's tests rely on: stamps, records, bounds and health.

They run for the task queue that the environment chooses; what is told of a queue is the same.
"""

# Run by Django's own runner; pytest is not among the requirements.
# ruff: noqa: PT009, PT027

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from django.test import TestCase, override_settings
from django.utils import timezone
from example.environment import TASK_QUEUE

from ticks import health
from ticks.models import Tick
from ticks.queues import queue
from ticks.queues.description import description
from ticks.stamp import Sender, due
from ticks.tasks import add, record_tick, slow

NOON = datetime(2030, 1, 1, 12, 0, 30, 250000, tzinfo=UTC)
STATIC = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}


def record(sender: Sender, entry: str = queue.ENTRY, task_id: str = "") -> str:
    task_id = task_id or str(uuid.uuid4())
    Tick.objects.record(
        task_id=task_id,
        stamp=sender.stamp(entry),
        received=timezone.now(),
        task="ticks.tasks.record_tick",
        entry=entry,
        worker_host="worker",
        worker_pid=1,
    )
    return task_id


def sent_stamps(times: int) -> list[dict]:
    """Return the stamps on one tick's message after each time that it was sent."""
    stamps = []
    if TASK_QUEUE == "huey":
        tick = record_tick.s()
        for _ in range(times):
            queue.stamp_tick("enqueued", tick)
            stamps.append(dict(tick.kwargs["stamp"]))
    else:
        from example.celery import stamp_tick

        headers: dict = {}
        for _ in range(times):
            stamp_tick(headers=headers, body=(("tick-second",), {}, {}))
            stamps.append(dict(headers["tick"]))
    return stamps


@contextmanager
def at_once(task: Any) -> Iterator[None]:
    """Run a task where it is sent, with all that is noted about it."""
    if TASK_QUEUE == "huey":
        with patch.object(queue.huey, "_immediate", True):
            yield
    else:
        # Celery reads the one at every call, the other when it makes the task.
        task.app.conf.task_always_eager = True
        with patch.object(task, "store_eager_result", True):
            yield
        task.app.conf.task_always_eager = False


class StampTests(TestCase):
    def test_each_entry_has_its_own_sequence(self) -> None:
        sender = Sender()
        entries = ("tick-second", "tick-second", "tick-minute")
        self.assertEqual([sender.stamp(entry)["sequence"] for entry in entries], [1, 2, 1])

    def test_interval_is_due_a_second_after_the_last_send_and_crontab_at_the_minute(self) -> None:
        late = NOON + timedelta(seconds=3)
        self.assertEqual(due("tick-second", late, NOON), NOON + timedelta(seconds=1))
        self.assertEqual(due("tick-second", late, None), late)
        self.assertEqual(due("tick-minute", late, None), NOON.replace(second=0, microsecond=0))

    def test_a_retry_keeps_the_first_senders_stamp(self) -> None:
        first, second = sent_stamps(2)
        self.assertEqual(first, second)
        self.assertEqual(first["pid"], os.getpid())


class TickTests(TestCase):
    def test_a_message_delivered_twice_is_one_tick(self) -> None:
        sender = Sender()
        task_id = record(sender)
        record(sender, task_id=task_id)
        tick = Tick.objects.get()
        self.assertEqual((tick.sequence, tick.deliveries), (1, 2))

    def test_only_ticks_older_than_the_retention_expire(self) -> None:
        sender = Sender()
        old = record(sender)
        record(sender)
        Tick.objects.filter(task_id=old).update(sent=timezone.now() - timedelta(hours=7))
        self.assertEqual(str(Tick.objects.expired().get().task_id), old)

    def schedulers(self) -> list[dict]:
        return self.client.get("/api/ticks").json()["schedulers"]

    def test_a_lost_tick_is_reported_missing(self) -> None:
        sender = Sender()
        record(sender)
        sender.stamp(queue.ENTRY)
        record(sender)
        self.assertEqual(self.schedulers()[0]["missing"], 1)

    def test_senders_that_overlap_are_all_active_a_predecessor_is_not(self) -> None:
        before, after = Sender(), Sender()
        record(before)
        record(after)
        self.assertEqual([sender["active"] for sender in self.schedulers()], [True, False])
        record(before)
        self.assertEqual([sender["active"] for sender in self.schedulers()], [True, True])


class TaskTests(TestCase):
    def ran(self, task: Any, *args: float) -> dict:
        with at_once(task):
            task_id = queue.send(task, *args)
        return self.client.get(f"/tasks/{task_id}/?format=json").json()

    def test_a_task_tells_its_result_and_its_worker(self) -> None:
        task = self.ran(add, 2, 40)
        self.assertEqual((task["state"], task["result"], task["final"]), ("SUCCESS", 42, True))
        self.assertEqual(task["name"], "ticks.tasks.add")
        self.assertIn("2, 40", task["args"])
        self.assertTrue(task["worker"])

    def test_a_failed_task_tells_its_error(self) -> None:
        task = self.ran(slow, 3601)
        self.assertEqual(task["state"], "FAILURE")
        self.assertEqual(task["result"], "ValueError: seconds must be between 0 and 3600.")

    def test_a_running_task_has_no_result_yet(self) -> None:
        # Celery keeps the worker's pid there.
        running = description(task_id="1", state="STARTED", result={"pid": 7})
        self.assertEqual((running["result"], running["final"]), (None, False))

    def test_a_task_nobody_has_reported_on_is_pending(self) -> None:
        task = self.client.get(f"/tasks/{uuid.uuid4()}/?format=json").json()
        self.assertEqual((task["state"], task["result"], task["final"]), ("PENDING", None, False))


@override_settings(STORAGES=STATIC)
class PageTests(TestCase):
    def test_arguments_out_of_bounds_are_refused(self) -> None:
        bad = (
            {"task": "add", "args": [1]},
            {"task": "add", "args": [1, 1e10]},
            {"task": "add", "args": [True, "nan"]},
            {"task": "slow", "args": [301]},
            {"task": "record_tick", "args": ["tick-second"]},
            [],
        )
        for body in bad:
            with self.subTest(body=body):
                answer = self.client.post("/api/tasks", json.dumps(body), "application/json")
                self.assertEqual(answer.status_code, 400)
        answer = self.client.post("/tasks/", {"task": "slow", "seconds": "301"})
        self.assertContains(answer, "less than or equal to 300", status_code=400)

    def test_slow_refuses_more_than_an_hour(self) -> None:
        # A task of Huey's queues itself when it is called.
        with self.assertRaises(ValueError):
            getattr(slow, "call_local", slow)(3601)

    def test_health_names_the_part_that_fails_and_no_more(self) -> None:
        broken = health.Check("broker", self.fail_with_secret)
        with patch.object(health, "CHECKS", (health.Check("database", int), broken)):
            answer = self.client.get("/healthz", headers={"host": "unknown.invalid"})
        self.assertEqual(answer.status_code, 503)
        self.assertEqual(answer.json(), {"database": "ok", "broker": "failed: OSError"})

    @staticmethod
    def fail_with_secret() -> None:
        raise OSError("redis://:secret@broker")
