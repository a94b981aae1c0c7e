# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Celery settings of the deployment, put over the project's own in every process of the stack.

Celery takes its loader from the environment variable CELERY_LOADER, which the deployment sets to
`stack_celery:Loader`, and hands it every app whose configuration it reads. The settings are in
STACK_CELERY_SETTINGS, a JSON object with Celery's lower-case names. Nothing in the project knows
of it. An app that brings a loader of its own (`Celery(loader=...)`) does not use this one.

A worker whose unit names a file in STACK_READY_FILE writes there when it has begun to consume, a
beat when it has its schedule and begins to tick; the latter ends at once when it is told to. A
worker that is told to end gives back at once what it has not begun. A beat whose unit says in
STACK_STILL_MAX for how many seconds its host may stand still ends when that was longer, before it
sends anything.

Runs with Celery 5.3 and later, on the Python of the project.
"""

import contextlib
import json
import logging
import os
import time
from pathlib import Path
from queue import Empty

from celery.bootsteps import StartStopStep
from celery.exceptions import ImproperlyConfigured
from celery.loaders.app import AppLoader
from celery.signals import beat_init, worker_ready

READY_FILE = "STACK_READY_FILE"
STILL_MAX = "STACK_STILL_MAX"
VARIABLE = "STACK_CELERY_SETTINGS"
STOOD_STILL = "This host stood still for %.0f s. Another one may schedule by now: beat ends."

logger = logging.getLogger("celery.beat")
worker_logger = logging.getLogger("celery.worker")


def now():
    """Return seconds on a clock that goes on while the machine is suspended and is never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_settings():
    """Return the deployment's settings, a dict.

    Raises:
        ImproperlyConfigured: the variable holds something else. Its value is not repeated: it may
            hold a password.
    """
    try:
        settings = json.loads(os.environ.get(VARIABLE) or "{}")
    except ValueError as error:
        raise ImproperlyConfigured(f"{VARIABLE} is not valid JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ImproperlyConfigured(f"{VARIABLE} is not a JSON object.")
    upper = sorted(name for name in settings if name != name.lower())
    if upper:
        raise ImproperlyConfigured(
            f"{VARIABLE} names {', '.join(upper)}: Celery's names are lower-case, without a prefix."
        )
    return settings


def tell_ready(**_):
    """Say that this process works; whoever waits for that finds another way where this fails."""
    path = os.environ.get(READY_FILE)
    if path:
        with contextlib.suppress(OSError):
            Path(path).write_text("ready\n")


def tell_ready_beat(sender, **_):
    """Say that this beat, a `celery.beat.Service`, works: it can read its schedule."""
    # Made here if it is not yet, as it would be a moment later.
    if sender.scheduler is not None:
        tell_ready()


def end_if_it_stood_still(sender, **_):
    """Let this beat, a `celery.beat.Service`, end when it slept for much longer than it meant to.

    Its host was paused or suspended then, and another one may schedule by now. Beat looks at its
    schedule first when it wakes, and would send what is due until somebody stops it.

    Raises:
        SystemExit: from the scheduler's `tick`; beat puts its schedule away and ends.
    """
    longest = float(os.environ[STILL_MAX])
    scheduler = sender.scheduler
    tick = scheduler.tick

    def tick_and_watch():
        """Send what is due, and sleep here until the next one is; beat has next to nothing left."""
        interval = tick()
        end = now() + interval
        while (left := end - now()) > 0:
            # In short pieces: what stood still during a long sleep is seen before it ends.
            piece = min(left, 1.0)
            begin = now()
            time.sleep(piece)
            late = now() - begin - piece
            if late > longest:
                logger.critical(STOOD_STILL, late)
                raise SystemExit
        # More than nothing, or beat would not look whether its schedule is to be saved.
        return min(interval, 0.001)

    scheduler.tick = tick_and_watch


def end_at_once(sender, **_):
    """Let this beat, a `celery.beat.Service`, end as soon as its schedule is put away.

    Celery 5.7 then waits for the thread that answers questions: for up to a second, and for three
    where the broker does not answer. So long nobody would schedule, for nothing: the thread holds
    nothing but its own connection, and does not keep a process alive.
    """
    scheduler = sender.scheduler
    close = scheduler.close

    def close_and_forget():
        """Put the schedule away, and whom beat would wait for out of its sight."""
        close()
        sender._pidbox = None

    scheduler.close = close_and_forget


def read_last_answer(channel):
    """Read what Redis has given, or is about to give, to a channel that consumes no longer.

    kombu has always one BRPOP under way, whose answer it would read when it closes the channel.
    Without a consumer it puts a message back. No other transport asks in advance.

    `channel` is a kombu channel of any transport.
    """
    under_way = getattr(channel, "_in_poll", None)
    # Redis answers within brpop_timeout seconds, by default one, also when there is nothing.
    if under_way and under_way.can_read(timeout=(channel.brpop_timeout or 0) + 1):
        with contextlib.suppress(Empty):
            channel._brpop_read()


def not_begun(worker):
    """Return the `celery.worker.request.Request`s that a `WorkController` has not begun.

    Those that wait for their time (`eta`, `countdown`), for their turn under a rate limit, or for
    a process or thread of the pool. Other pools begin at once.
    """
    # Only a worker has them already.
    from celery.worker import state
    from celery.worker.request import Request

    consumer = worker.consumer
    # Not its `queue`, which sorts: gevent's timer keeps greenlets.
    entries = [item.entry for item in list(consumer.timer.schedule._queue)]
    waiting = [entry.args for entry in entries if not entry.canceled]
    for bucket in consumer.task_buckets.values():
        waiting += bucket.contents if bucket else ()
    found = [args[0] for args in waiting if args and isinstance(args[0], Request)]
    reserved = list(state.reserved_requests)
    if hasattr(worker.pool, "executor"):  # Threads.
        found += reserved
    elif worker.semaphore is not None:  # Processes. The pool keeps what the next free ones get.
        kept = getattr(worker.pool._pool, "outbound_buffer", ())
        found += [one for one in reserved if not one._apply_result or one._apply_result() in kept]
    return [request for request in found if request not in state.active_requests]


class GiveBack(StartStopStep):
    """Lets a worker that is told to end give back at once what it has not begun.

    Celery (5.3 to 5.7) will not begin it any more, and keeps it all the same until its last task
    has ended: for so long nobody does it. If the worker is killed instead, Redis hands it out again
    after the visibility timeout; what answers the last BRPOP and is not read yet would be lost.
    """

    requires = ("celery.worker.components:Pool",)

    def close(self, worker):
        """Stop consuming and give back; Celery calls this before it clears its own lists."""
        tasks = worker.consumer.task_consumer
        try:
            if tasks is not None:
                tasks.cancel()
                read_last_answer(tasks.channel)
                if hasattr(worker.pool, "executor"):
                    # Threads would go on to begin what they were given.
                    worker.pool.executor.shutdown(wait=False, cancel_futures=True)
                    time.sleep(0.1)  # Who has just begun says so.
                for request in not_begun(worker):
                    if not request.message.acknowledged:
                        request.message.requeue()
        except Exception:  # The worker has to end its tasks, whatever this is.
            worker_logger.warning("Some tasks are given back at the end only.", exc_info=True)


class Loader(AppLoader):
    """Celery's usual loader, and the deployment's settings on top."""

    def __init__(self, app, **kwargs):
        """Take the app, and what the environment says; refuse malformed settings at once."""
        super().__init__(app, **kwargs)
        self.stack_settings = read_settings()
        worker_ready.connect(tell_ready)
        app.steps["worker"].add(GiveBack)
        if os.environ.get(READY_FILE):
            beat_init.connect(tell_ready_beat)
            beat_init.connect(end_at_once)
        if os.environ.get(STILL_MAX):
            beat_init.connect(end_if_it_stood_still)

    @property
    def conf(self):
        """Return the project's configuration, as the app asks for it whenever it configures itself.

        Not in `__init__`, which may run before the app has its signals.
        """
        self.app.on_after_configure.connect(self.put_on_top, weak=False)
        return super().conf

    def put_on_top(self, source, **_):
        """Make the deployment's settings the first that Celery looks at.

        They lie over what the project assigns later too; `conf.update` would not.

        `source` is the app's `celery.app.utils.Settings`.
        """
        own = dict(self.stack_settings)
        options = own.get("redbeat_redis_options")
        if isinstance(options, dict) and "sentinels" in options:
            # The name of Sentinel's master is no part of a broker's URL; the project knows it.
            transport = source.get("broker_transport_options") or {}
            own["redbeat_redis_options"] = {
                "service_name": transport.get("master_name"),
                **options,
            }
        source.maps.insert(0, own)
        for name, value in list(own.items()):
            if source[name] is not value:
                # Celery before 5.7 asks every layer for the name with the namespace first.
                prefix = source.prefix
                own[(prefix + name).upper() if prefix.isupper() else prefix + name] = value
