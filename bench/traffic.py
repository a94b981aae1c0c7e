"""What users and tasks notice of a release."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

from bench.contenders import run_ours
from bench.hosts import (
    ROOT,
    STACK,
    address,
    ansible,
    apps,
    container,
    create,
    create_infra,
    empty_infra,
    existing,
    remove,
    sql,
    write_inventories,
)
from bench.measure import store, table
from bench.state import write_project

MANAGERS = ("systemd", "supervisord")
SHELL = f"/usr/local/bin/{STACK}-shell"
# Seconds before and after a release that are looked at as well.
AROUND = 4
# Seconds of a task that is under way when the release begins.
SLOW = 20

# Runs on a host: sends ticks, which are stored with the times of both ends, until its input ends;
# says how many, and the ids of the long tasks that it sent first.
SENDER = """
import sys, threading, time, json
import django
django.setup()
from example.celery import app
from ticks.tasks import record_tick, slow
rate, longs, seconds = float(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
ids = [slow.apply_async((seconds,)).id for _ in range(longs)]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
begin, count = time.monotonic(), 0
while not ended.wait(max(0, begin + count / rate - time.monotonic())):
    record_tick.apply_async(("bench",))
    count += 1
print(json.dumps({"sent": count, "slow": ids}))
"""


def deploy(count: int, supervisord: list[str]) -> None:
    """Deploy the first release to fresh hosts."""
    write_inventories(count, supervisord)
    write_project("base")
    create_infra()
    remove([name for name in existing() if name != "infra"])
    create(apps(count))
    empty_infra()
    ansible("site.yml", "fleet")


def release(number: int) -> tuple[float, float]:
    """Bring the next release and return when that began and ended, by the clock of all hosts."""
    write_project("code", number)
    time.sleep(AROUND)
    begin = time.time()
    run_ours("code")
    end = time.time()
    time.sleep(AROUND)
    return begin, end


def beside(argv: list[Any], number: int) -> tuple[float, float, float, Any]:
    """Bring the next release while a program runs that ends at the end of its input.

    Returns:
        When the program was started, when the release began and ended, by the clock of all hosts,
        and the JSON that the program printed.
    """
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        start = time.time()
        begin, end = release(number)
        return start, begin, end, json.loads(program.communicate()[0])


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of all values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def web_round(number: int, rate: float, urls: list[str]) -> dict[str, Any]:
    """Make requests while a release comes, and return what became of them; times in seconds."""
    argv = [sys.executable, ROOT / "bench/load.py", str(rate), *urls]
    start, begin, end, outcomes = beside(argv, number)
    during = [latency for due, latency, _ in outcomes if begin <= start + due <= end]
    before = [latency for due, latency, _ in outcomes if start + due < begin - 1]
    failures = [failed for _, _, failed in outcomes if failed]
    return {
        "seconds": end - begin,
        "requests": len(outcomes),
        "failed": len(failures),
        "failures": sorted(set(failures)),
        "p50": percentile(during, 0.5),
        "p99": percentile(during, 0.99),
        "longest": max(during),
        "p50_before": percentile(before, 0.5),
        "p99_before": percentile(before, 0.99),
    }


def web(rounds: int, rate: float) -> None:
    """Count the requests that fail while two web hosts get a release, under either manager."""
    urls = [f"http://{address(host)}:8000/tasks/{uuid.uuid4()}/?format=json" for host in apps(2)]
    measured: list[dict[str, Any]] = []
    for manager in MANAGERS:
        deploy(3, apps(3) if manager == "supervisord" else [])
        for number in range(rounds):
            measured.append({"manager": manager, **web_round(number, rate, urls)})
            print(measured[-1], flush=True)
    rows = [
        [one["manager"], f"{one['seconds']:.1f}", str(one["requests"]), str(one["failed"])]
        + [
            f"{one[key] * 1000:.0f}"
            for key in ("p50", "p99", "longest", "p50_before", "p99_before")
        ]
        for one in measured
    ]
    head = ["manager", "release, s", "requests", "failed", "p50, ms", "p99", "longest"]
    print("\n" + table([*head, "p50 before", "p99 before"], rows))
    store("web", measured)


def wait_for(what: str, done: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is done and return whether that came in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            print(f"Waited {seconds:.0f} s in vain for {what}.")
            return False
        time.sleep(0.2)
    return True


def gap(column: str) -> float:
    """Return the longest time between two neighbours in a column of the ticks, in seconds.

    Behind the last one that was sent nothing is to be expected.
    """
    query = (
        f"SELECT max(extract(epoch FROM gap)) FROM (SELECT {column} - lag({column}) OVER (ORDER BY"  # noqa: S608
        f" {column}) AS gap FROM ticks_tick WHERE entry = 'bench' AND {column} <="
        " (SELECT max(sent) FROM ticks_tick WHERE entry = 'bench')) AS gaps"
    )
    return float(sql(query)[0][0])


def longest_wait() -> float:
    """Return the longest time from the sending of a tick to its beginning, in seconds."""
    query = "SELECT max(extract(epoch FROM received - sent)) FROM ticks_tick WHERE entry = 'bench'"
    return float(sql(query)[0][0])


def tasks_round(number: int, rate: float, names: list[str]) -> dict[str, Any]:
    """Send tasks while a release comes, and return what became of them; times in seconds."""
    sql("DELETE FROM ticks_tick WHERE entry = 'bench'")
    argv = ["docker", "exec", "-i", container(names[-1]), SHELL, "python", "-c", SENDER]
    _, begin, end, said = beside([*argv, str(rate), str(len(names)), str(SLOW)], number)
    sent, ids = said["sent"], ",".join(f"'{one}'" for one in said["slow"])

    def ticks() -> list[int]:
        query = "SELECT count(*), sum(deliveries) FROM ticks_tick WHERE entry = 'bench'"
        return [int(value or 0) for value in sql(query)[0]]

    def long_ones() -> int:
        query = "SELECT count(*) FROM django_celery_results_taskresult WHERE status = 'SUCCESS'"
        return int(sql(f"{query} AND task_id IN ({ids})")[0][0])

    wait_for("the ticks", lambda: ticks()[0] >= sent, 60)
    wait_for("the long tasks", lambda: long_ones() >= len(names), SLOW * 3)
    stored, deliveries = ticks()
    return {
        "seconds": end - begin,
        "sent": sent,
        "lost": sent - stored,
        "repeated": deliveries - stored,
        "long_lost": len(names) - long_ones(),
        "pause": gap("received"),
        "pause_of_sender": gap("sent"),
        "longest_wait": longest_wait(),
    }


def tasks(rounds: int, rate: float) -> None:
    """Count the tasks that get lost while three workers get a release, and the longest pause."""
    measured: list[dict[str, Any]] = []
    for manager in MANAGERS:
        names = apps(3)
        deploy(3, names if manager == "supervisord" else [])
        for number in range(rounds):
            measured.append({"manager": manager, **tasks_round(number, rate, names)})
            print(measured[-1], flush=True)
    rows = [
        [one["manager"], f"{one['seconds']:.1f}"]
        + [str(one[key]) for key in ("sent", "lost", "repeated", "long_lost")]
        + [f"{one[key]:.2f}" for key in ("pause", "pause_of_sender", "longest_wait")]
        for one in measured
    ]
    head = ["manager", "release, s", "tasks", "lost", "repeated", f"lost of 3 of {SLOW} s"]
    print("\n" + table([*head, "pause, s", "sender's pause, s", "longest wait, s"], rows))
    store("tasks", measured)
