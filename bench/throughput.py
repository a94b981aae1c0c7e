"""How fast a worker works under each manager and started by hand."""

from __future__ import annotations

import math
import statistics
import subprocess
import time

from bench.hosts import STACK, container, on, redis
from bench.measure import store, table
from bench.traffic import SHELL, deploy, wait_for

# Seconds for which one worker works before the next one does.
SLICE = 2.0
# Runs on a host: fills the queue with tasks that do nothing and leave no result.
FILLER = """
import sys
import django
django.setup()
from example.celery import app
from ticks.tasks import ping
with app.producer_pool.acquire(block=True) as producer:
    for _ in range(int(sys.argv[1])):
        ping.apply_async(ignore_result=True, producer=producer)
"""


class ByHand:
    """A worker that somebody starts in a shell."""

    def __init__(self, host: str, argv: list[str]) -> None:
        """Take the unit's command."""
        self.host, self.argv = host, argv

    def start(self) -> int:
        """Start it in the background, its log in a file, and return its process."""
        script = f'echo $$ >/run/by-hand.pid; exec {SHELL} "$@" >/var/log/by-hand.log 2>&1'
        argv = ["docker", "exec", "-d", container(self.host), "sh", "-c", script, "sh", *self.argv]
        subprocess.run(argv, check=True)
        return int(on(self.host, "sh", "-c", "sleep 1; cat /run/by-hand.pid"))


class Supervised:
    """The worker under its manager."""

    def __init__(self, host: str, start: str, pid: str) -> None:
        """Take the manager's commands that start it and that print its process."""
        self.host, self.commands = host, (start, pid)

    def start(self) -> int:
        """Start it and return its process."""
        start, pid = self.commands
        on(self.host, *start.split())
        return int(on(self.host, *pid.split()))


class Held:
    """A worker that only works in its turns: in between, all its processes are stopped.

    So the three have the same database, broker and moment: a machine that is shared changes its
    speed by more within a minute than they differ.
    """

    def __init__(self, worker: ByHand | Supervised) -> None:
        """Start a worker, wait until it has worked, and hold it."""
        host = worker.host
        fill(500)
        pid = worker.start()
        if not wait_for(f"the worker of {host}", lambda: redis("LLEN", "celery") == 0, 60):
            raise RuntimeError(f"The worker of {host} does not work.")
        # Each of them leads a process group, which its children are in.
        loop = 'while read -r signal; do kill "-$signal" "-$0" && echo done; done'
        self.gate = subprocess.Popen(
            ["docker", "exec", "-i", container(host), "sh", "-c", loop, str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.send("STOP")

    def send(self, signal: str) -> None:
        """Send all its processes a signal."""
        assert self.gate.stdin is not None  # noqa: S101 - both are pipes, for mypy
        assert self.gate.stdout is not None  # noqa: S101
        self.gate.stdin.write(f"{signal}\n")
        if self.gate.stdout.readline() != "done\n":
            raise RuntimeError("A worker could not be told to stop or to go on.")

    def tasks_per_second(self, seconds: float) -> float:
        """Let it work for some seconds and return how fast it was."""
        begin, many = time.monotonic(), int(redis("LLEN", "celery"))
        self.send("CONT")
        time.sleep(seconds)
        self.send("STOP")
        end, few = time.monotonic(), int(redis("LLEN", "celery"))
        if few == 0:
            raise RuntimeError("The queue is empty: give a larger --count.")
        return (many - few) / (end - begin)

    def end(self) -> None:
        """Let it go on."""
        self.send("CONT")
        self.gate.communicate()


def fill(count: int) -> None:
    """Fill the queue up to a number of tasks that do nothing."""
    missing = count - redis("LLEN", "celery")
    on("app1", SHELL, "python", "-c", FILLER, str(missing))


def throughput(rounds: int, count: int) -> None:
    """Compare a worker's tasks per second under our unit, our program and started by hand."""
    deploy(2, ["app2"])
    argv = on(
        "app1",
        "sh",
        "-c",
        "tr '\\0' '\\n' </proc/$(systemctl show -P MainPID celery-worker)/cmdline",
    )
    workers: dict[str, ByHand | Supervised] = {
        "by hand": ByHand("app1", argv.split()),
        "systemd": Supervised(
            "app1", "systemctl start celery-worker", "systemctl show -P MainPID celery-worker"
        ),
        "supervisord": Supervised(
            "app2", "supervisorctl start celery-worker", "supervisorctl pid celery-worker"
        ),
    }
    on("app1", "systemctl", "stop", f"{STACK}.target")
    on("app2", "supervisorctl", "stop", "all")
    redis("DEL", "celery")
    held = {name: Held(worker) for name, worker in workers.items()}
    measured: dict[str, list[float]] = {name: [] for name in workers}
    names = list(workers)
    for number in range(rounds):
        fill(count)
        for name in names[number % 3 :] + names[: number % 3]:
            measured[name].append(held[name].tasks_per_second(SLICE))
        print(" ".join(f"{name} {found[-1]:.0f}" for name, found in measured.items()), flush=True)
    for worker in held.values():
        worker.end()
    rows = []
    for name, found in measured.items():
        pairs = list(map(float.__truediv__, found, measured["by hand"]))
        error = statistics.stdev(pairs) / math.sqrt(rounds) if rounds > 1 else 0
        ratio = sum(found) / sum(measured["by hand"])
        rows.append([name, f"{statistics.mean(found):.0f}", f"{ratio:.3f}", f"{error:.3f}"])
    print("\n" + table(["worker", "tasks/s", "/ by hand", "standard error"], rows))
    store("throughput", measured)
