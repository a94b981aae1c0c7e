"""Print what broker, workers, queues, schedule and database say, as the project sees them.

Runs in the project's environment and changes nothing. Its argument is JSON:

    queue: "celery" or "huey".  app: the Celery application, or the path of the Huey instance.
    nodes: the Celery nodes to ask; empty asks whoever answers.  queues: names of Celery's queues.
    schedule: path of beat's schedule file.  argv: of the running beat, empty without one.
    started: when that began, seconds since the epoch.  rabbitmq: URL of its management API.

Each part is a line of JSON by itself, {"PART": ...}, in this order: what was printed counts, even
if a later part hangs and the whole is ended from outside. A part that could not be asked has the
key `error`, a reason in words. Times are ISO 8601 in UTC.

    broker: {kind, version, ...}; Redis also memory_used, memory_max (bytes, 0 for no limit),
        clients, blocked, rejected, append_only, write_error; RabbitMQ connections, alarms; SQLite
        size (bytes).
    project: {} if the project's code can be loaded.
    queues: {NAME: waiting}.
    workers: {NODE: {pool, concurrency, active, reserved, done, heartbeat, oldest}}; oldest is
        {task, seconds} of the task that has been running for the longest, or null.
    schedule: {kind, next, entry, synced, now} or {kind, reason, now}; now is when it was read,
        synced says that it is written at every tick. Huey stores none, and has instead last, when
        something was due before. RedBeat also lock: {age, left, timeout} in seconds, or null when
        nobody holds it.
    database: {kind}.
"""

from __future__ import annotations

import contextlib
import json
import os
import shelve
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

CONNECT = 3  # Seconds until a broker or database that says nothing counts as silent.
ANSWER = 5  # Seconds until a worker that says nothing counts as silent.
DAYS = 8  # Huey's schedule is searched for so long: it has days of the week, but no dates.

UTC = timezone.utc  # noqa: UP017 (Python 3.9 has no other name)
Choices = dict[str, Any]


def iso(when: datetime) -> str:
    """Return a time that has a zone as ISO 8601 in UTC."""
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)


def reason(error: BaseException) -> str:
    """Return an error as one line."""
    words = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def redis_state(url: str) -> dict[str, Any]:
    """Ask a Redis how it is."""
    from redis import Redis

    client = Redis.from_url(url, socket_connect_timeout=CONNECT, socket_timeout=CONNECT)
    info = client.info()
    states = (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status"))
    return {
        "kind": "redis",
        "version": info["redis_version"],
        "memory_used": info["used_memory"],
        "memory_max": info.get("maxmemory", 0),
        "clients": info["connected_clients"],
        "blocked": info["blocked_clients"],
        "rejected": info["rejected_connections"],
        "append_only": bool(info.get("aof_enabled")),
        "write_error": any(state not in (None, "ok") for state in states),
    }


def rabbitmq_state(url: str, api: str) -> dict[str, Any]:
    """Ask a RabbitMQ how it is; its management API says more, but is not everywhere."""
    import base64
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, Request, build_opener

    from kombu import Connection

    with Connection(url, connect_timeout=CONNECT) as connection:
        connection.ensure_connection(max_retries=1, timeout=CONNECT)
        properties = connection.connection.server_properties
    state: dict[str, Any] = {"kind": "rabbitmq", "version": str(properties.get("version", "?"))}
    if not api:
        return state
    parts = urlsplit(url)
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    headers = {"Authorization": f"Basic {base64.b64encode(user).decode()}"}

    def ask(path: str) -> Any:
        request = Request(api + path, headers=headers)  # noqa: S310 (the URL is the inventory's)
        with build_opener(ProxyHandler({})).open(request, timeout=CONNECT) as answer:
            return json.load(answer)

    # It may be closed to this user, or still starting: the broker itself has answered.
    with contextlib.suppress(OSError, ValueError, KeyError):
        state["connections"] = ask("overview")["object_totals"]["connections"]
        try:
            ask("health/checks/alarms")
            state["alarms"] = []
        except HTTPError as error:
            said = json.load(error)
            state["alarms"] = [one.get("resource", "?") for one in said.get("alarms", [])]
    return state


def broker(choices: Choices) -> dict[str, Any]:
    """Ask the broker of the environment, without the project's code, which may be broken."""
    name = "HUEY_URL" if choices["queue"] == "huey" else "CELERY_BROKER_URL"
    url = os.environ.get(name, "")
    scheme = urlsplit(url).scheme
    if scheme in ("redis", "rediss"):
        return redis_state(url)
    if scheme in ("amqp", "amqps", "pyamqp"):
        return rabbitmq_state(url, choices["rabbitmq"])
    if scheme == "sqlite":
        path = unquote(urlsplit(url).path)
        path = path[1:] if path.startswith("//") else path
        files = Path(path).parent.glob(f"{Path(path).name}*")
        return {"kind": "sqlite", "size": sum(one.stat().st_size for one in files)}
    return {"kind": scheme or "none"}


def load(choices: Choices) -> Any:
    """Return the project's Celery application or Huey instance; raises what its code raises."""
    import django

    if os.environ.get("DJANGO_SETTINGS_MODULE"):
        django.setup()
    if choices["queue"] == "celery":
        from celery.app.utils import find_app

        app = find_app(choices["app"])
        app.set_current()
        # So that unpickled schedules find their application in every thread.
        app.set_default()
        return app
    module, _, name = (choices["app"] or "huey.contrib.djhuey.HUEY").rpartition(".")
    return getattr(import_module(module), name)


def celery_queues(app: Any, choices: Choices) -> dict[str, int]:
    """Return queue -> waiting messages."""
    lengths = {}
    with app.connection_for_read(connect_timeout=CONNECT) as connection:
        connection.ensure_connection(max_retries=1, timeout=CONNECT)
        for queue in choices["queues"]:
            # A new channel for each: the broker closes one that asks for an unknown queue.
            with connection.channel() as channel:
                try:
                    lengths[queue] = channel.queue_declare(queue, passive=True).message_count
                except connection.channel_errors:
                    # Redis keeps no empty queue; RabbitMQ makes it on first use.
                    lengths[queue] = 0
    return lengths


def celery_workers(app: Any, choices: Choices) -> dict[str, Any]:
    """Return node -> what it says of itself; a silent one is not in it."""
    wanted = choices["nodes"] or None
    stats = app.control.inspect(wanted, timeout=ANSWER).stats() or {}
    heartbeat = iso(now())
    asked = app.control.inspect(list(stats), timeout=ANSWER)
    active = (asked.active() or {}) if stats else {}
    reserved = (asked.reserved() or {}) if stats else {}
    workers = {}
    for node, said in stats.items():
        pool = said.get("pool", {})
        running = active.get(node, [])
        oldest = min(running, key=lambda one: one.get("time_start") or 0, default=None)
        begun = (oldest or {}).get("time_start")
        workers[node] = {
            "pool": str(pool.get("implementation", "?")).partition(":")[0].rpartition(".")[2],
            "concurrency": pool.get("max-concurrency"),
            "active": len(running),
            "reserved": len(reserved.get(node, [])),
            "done": sum(said.get("total", {}).values()),
            "heartbeat": heartbeat,
            "oldest": {"task": oldest["name"], "seconds": round(now().timestamp() - begun)}
            if oldest and begun
            else None,
        }
    return workers


def option(argv: list[str], *names: str) -> str:
    """Return the value of the last of these options in an argv, empty if it has none."""
    found = ""
    for index, word in enumerate(argv):
        for name in names:
            if word == name:
                found = argv[index + 1] if index + 1 < len(argv) else ""
            elif name.startswith("--") and word.startswith(f"{name}="):
                found = word.partition("=")[2]
            elif not name.startswith("--") and word.startswith(name) and not word.startswith("--"):
                found = word[2:]
    return found


def due(schedule: Any, last: datetime) -> datetime:
    """Return when an entry is due that ran last at a time; may be past."""
    return now() + schedule.remaining_estimate(last)


def earliest(times: dict[str, datetime]) -> dict[str, Any]:
    """Return the first of entry -> time, for people."""
    if not times:
        return {"reason": "the schedule has no entries"}
    entry = min(times, key=lambda name: times[name])
    return {"next": iso(times[entry]), "entry": entry}


def file_schedule(app: Any, choices: Choices) -> dict[str, Any]:
    """Read beat's file from a copy: opening the live one would lock it."""
    path = option(choices["argv"], "-s", "--schedule") or choices["schedule"]
    # Python gives the file one of these endings, or makes several.
    ends = ("", ".db", ".dat", ".dir", ".bak")
    files = [Path(path + end) for end in ends if Path(path + end).exists()]
    if not files:
        return {"reason": f"there is no schedule file {path} yet"}
    with tempfile.TemporaryDirectory() as folder:
        for one in files:
            shutil.copy(one, folder)
        with shelve.open(str(Path(folder) / Path(path).name), "r") as store:  # noqa: S301 (beat's)
            entries = dict(store["entries"])
    return earliest({name: due(one.schedule, one.last_run_at) for name, one in entries.items()})


def memory_schedule(app: Any, choices: Choices) -> dict[str, Any]:
    """Work it out: nothing is stored, intervals begin with the process."""
    from celery.schedules import maybe_schedule

    times = {}
    for name, entry in app.conf.beat_schedule.items():
        schedule = maybe_schedule(entry["schedule"])
        if schedule.app is None:
            schedule.app = app
        interval = getattr(schedule, "run_every", None)
        if interval is None:
            times[name] = due(schedule, now())
        elif choices["started"]:
            begun = datetime.fromtimestamp(choices["started"], UTC)
            times[name] = begun + ((now() - begun) // interval + 1) * interval
    if not times and app.conf.beat_schedule:
        return {"reason": "a schedule in memory counts from beat's start, and no beat runs"}
    return earliest(times)


def database_schedule(app: Any, choices: Choices) -> dict[str, Any]:
    """Read the entries of django-celery-beat."""
    from django_celery_beat.models import PeriodicTask

    return earliest(
        {
            one.name: due(one.schedule, one.last_run_at or one.date_changed)
            for one in PeriodicTask.objects.filter(enabled=True)
        }
    )


def redbeat_schedule(app: Any, choices: Choices) -> dict[str, Any]:
    """Read RedBeat's sorted set of due times, and its lock."""
    from redbeat.schedulers import ensure_conf, get_redis

    ensure_conf(app)
    client, conf = get_redis(app), app.redbeat_conf
    left = client.pttl(conf.lock_key) / 1000
    first = client.zrange(conf.schedule_key, 0, 0, withscores=True)
    times = {}
    for key, score in first:
        name = key.decode() if isinstance(key, bytes) else key
        name = name[len(conf.key_prefix) :] if name.startswith(conf.key_prefix) else name
        times[name] = datetime.fromtimestamp(score, UTC)
    lock = {"age": round(max(0, conf.lock_timeout - left), 1), "left": round(left, 1)}
    return {
        **earliest(times),
        "lock": {**lock, "timeout": conf.lock_timeout} if left >= 0 else None,
    }


READERS: dict[str, Callable[[Any, Choices], dict[str, Any]]] = {
    "file": file_schedule,
    "memory": memory_schedule,
    "database": database_schedule,
    "redbeat": redbeat_schedule,
}


def celery_schedule(app: Any, choices: Choices) -> dict[str, Any]:
    """Return what beat sends next, and when, from wherever its scheduler keeps that."""
    from celery.utils.imports import symbol_by_name

    path = option(choices["argv"], "-S", "--scheduler") or app.conf.beat_scheduler
    scheduler = symbol_by_name(path)
    names = [one.__name__ for one in scheduler.__mro__]
    known = {"PersistentScheduler": "file", "DatabaseScheduler": "database"}
    known["RedBeatScheduler"] = "redbeat"
    kind = next((known[name] for name in names if name in known), "")
    if f"{scheduler.__module__}.{scheduler.__name__}" == "celery.beat.Scheduler":
        kind = "memory"
    if not kind:
        return {"kind": str(path), "reason": f"this cannot read the scheduler {path}"}
    # By default a file and a database are written every three minutes only.
    synced = kind in ("redbeat", "memory") or app.conf.beat_sync_every == 1
    return {"kind": kind, "synced": synced, **READERS[kind](app, choices)}


def huey_schedule(instance: Any, choices: Choices) -> dict[str, Any]:
    """Return Huey's next full minute with a task; it stores none."""
    if os.environ.get("DJANGO_SETTINGS_MODULE"):
        from django.utils.module_loading import autodiscover_modules

        autodiscover_modules("tasks")
    tasks = list(instance._registry.periodic_tasks)
    if not tasks:
        return {"kind": "huey", "reason": "no periodic task is registered"}
    # As Huey's scheduler does: without a zone, in UTC unless it was told otherwise.
    zone = UTC if getattr(instance, "utc", True) else None
    minute = datetime.now(zone).replace(second=0, microsecond=0, tzinfo=None)

    def found(steps: range) -> tuple[str, str] | None:
        """Return when something is due in the first of these minutes in which anything is."""
        for step in steps:
            then = minute + timedelta(minutes=step)
            for task in tasks:
                if task.validate_datetime(then):
                    when = then.replace(tzinfo=zone) if zone else then.astimezone()
                    return iso(when), task.name
        return None

    coming, last = found(range(1, DAYS * 24 * 60)), found(range(-2, -24 * 60, -1))
    if not coming:
        return {"kind": "huey", "reason": f"no periodic task is due within {DAYS} days"}
    return {
        "kind": "huey",
        "next": coming[0],
        "entry": coming[1],
        "last": last[0] if last else None,
    }


def database(choices: Choices) -> dict[str, Any]:
    """Ask the project's database for nothing."""
    from django.conf import settings
    from django.db import connection

    if not settings.DATABASES:
        return {"kind": "none"}
    if connection.vendor in ("postgresql", "mysql"):
        connection.settings_dict.setdefault("OPTIONS", {}).setdefault("connect_timeout", CONNECT)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return {"kind": connection.vendor}


def main(choices: Choices) -> None:
    """Print all parts."""
    # The project may print what it likes.
    out, sys.stdout = sys.stdout, sys.stderr

    def tell(part: str, ask: Callable[[], Any]) -> BaseException | None:
        error: BaseException | None = None
        try:
            answer = ask()
        except (Exception, SystemExit) as caught:
            answer, error = {"error": reason(caught)}, caught
        print(json.dumps({part: answer}), file=out, flush=True)
        return error

    broken_broker = tell("broker", lambda: broker(choices))
    loaded: list[Any] = []
    if tell("project", lambda: loaded.append(load(choices)) or {}):
        return
    one = loaded[0]
    tell("database", lambda: database(choices))
    celery = choices["queue"] == "celery"

    def needs_broker(ask: Callable[[], Any]) -> Callable[[], Any]:
        def refuse() -> Any:
            raise ConnectionError("the broker does not answer")

        return refuse if broken_broker else ask

    if celery:
        tell("queues", needs_broker(lambda: celery_queues(one, choices)))
        tell("workers", needs_broker(lambda: celery_workers(one, choices)))
        tell("schedule", lambda: {**celery_schedule(one, choices), "now": iso(now())})
    else:
        tell("queues", needs_broker(lambda: {one.name: one.pending_count()}))
        tell("schedule", lambda: {**huey_schedule(one, choices), "now": iso(now())})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
