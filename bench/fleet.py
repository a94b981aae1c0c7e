"""Measurements on container hosts over SSH, side by side; see bench/README.md.

Usage: bench/fleet runs [-n HOSTS] [-r ROUNDS] [--only CONTENDER...] [--kinds KIND...]
       bench/fleet plot                the growth of all `runs` that were kept
       bench/fleet check [-n HOSTS]    does every contender reach the state, and mend it?
       bench/fleet web [-r ROUNDS] [--rate RATE]          requests during a release
       bench/fleet tasks [-r ROUNDS] [--rate RATE]        tasks during a release
       bench/fleet throughput [-r ROUNDS] [--count TASKS] tasks/s under each manager, in short turns
       bench/fleet down
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from bench import traffic
from bench.contenders import CONTENDERS, Goal
from bench.hosts import (
    BUILDS,
    ROOT,
    STACK,
    apps,
    create,
    create_infra,
    destroy,
    empty_infra,
    existing,
    on,
    on_all,
    remove,
    write_inventories,
)
from bench.measure import ARTEFACTS, Run, comparison, growth, store, timed
from bench.state import RELEASES, Goals, source_key, trees_of, write_project
from bench.throughput import throughput

KINDS = ("cold", "no_change", "code", "rollback", "requirement")
# The release that a kind of run brings. Each contender does them in this order.
BRINGS = {"no_change": "base", "code": "code", "rollback": "base", "requirement": "requirement"}


def fresh(count: int) -> None:
    """Replace the project's hosts by new ones, and empty what they used."""
    remove([name for name in existing() if name != "infra"])
    create(apps(count))
    empty_infra()


def start(count: int, releases: list[str]) -> Goals:
    """Set up the infrastructure, and learn from our own deployment what each host shall have.

    Nothing is learned again while the bundle, the project and the inventory are the same.

    Args:
        count: the project's hosts.
        releases: those that will be needed, the first one first.
    """
    inventory = write_inventories(count)
    write_project("base")
    create_infra()
    goals = Goals(count, releases)
    key = source_key(inventory)
    built: set[Path] | None = None
    # A host that builds an environment needs more than one that only gets it.
    while not goals.are_of(key) and built != (built := set(BUILDS.glob("*"))):
        fresh(count)
        goals.collect()
    goals.note(key)
    return goals


def go(goals: Goals, contender: str, kind: str, release: str) -> Run:
    """Bring the hosts to a release, timed, and see that they are there.

    Raises:
        RuntimeError: it changed something in a run without changes, nothing in another one, or
            the hosts do not have what they should.
    """
    goal = Goal(goals, release)
    prepare, act = CONTENDERS[contender]
    prepare(goal)
    done = timed(kind, contender, goals.hosts, partial(act, goal, kind))
    if (done.changes > 0) == (kind == "no_change"):
        raise RuntimeError(f"{contender} changed {done.changes} things in a run of kind {kind}.")
    goals.check(release)
    return done


def forget(goals: Goals) -> None:
    """Remove what other releases than the first left, so that they are new again."""
    kept = trees_of(goals.load("base"))
    for release in goals.releases[1:]:
        for tree in trees_of(goals.load(release)) - kept:
            for host in goals.hosts:
                on(host, "rm", "-rf", tree)


def settle(goals: Goals, contender: str) -> None:
    """Let a contender bring the hosts to the first release, in its own way and untimed."""
    goal = Goal(goals, "base")
    prepare, act = CONTENDERS[contender]
    prepare(goal)
    act(goal, "no_change")
    goals.check("base")


def measure(count: int, rounds: int, contenders: list[str], kinds: list[str]) -> None:
    """Measure all kinds of runs, the contenders in turns, and store the runs."""
    brought = {BRINGS[kind] for kind in kinds if kind != "cold"} | {"base"}
    if "rollback" in kinds:
        brought.add("code")
    goals = start(count, [release for release in RELEASES if release in brought])
    if "cold" not in kinds and set(existing()) != {"infra", *goals.hosts}:
        fresh(count)
    done: list[Run] = []

    def note(run: Run) -> None:
        done.append(run)
        store(f"runs-{count}", done)
        print(
            f"{run.kind:12} {run.contender:8} {run.seconds:7.2f} s  CPU {run.controller:6.2f}"
            f" + {run.fleet:6.2f} s  {run.changes:4} changes",
            flush=True,
        )

    for number in range(rounds):
        # Whoever comes first finds the machine another than whoever comes last.
        turn = contenders[number % len(contenders) :] + contenders[: number % len(contenders)]
        if "cold" in kinds:
            for contender in turn:
                fresh(count)
                note(go(goals, contender, "cold", "base"))
        for contender in turn:
            forget(goals)
            settle(goals, contender)
            for kind in KINDS[1:]:
                if kind in kinds or (kind == "code" and "rollback" in kinds):
                    note(go(goals, contender, kind, BRINGS[kind]))
            if "requirement" in kinds or ("code" in kinds and "rollback" not in kinds):
                settle(goals, contender)
    print("\n" + comparison(done))


def break_hosts(goals: Goals) -> None:
    """Change on every host a file's content, another's mode, a link, and stop a unit."""
    script = (
        f"echo '# broken' >>/etc/{STACK}/{STACK}.env; chmod 0600 /usr/local/bin/{STACK}-shell;"
        f"systemctl stop celery-worker; systemctl disable -q celery-worker;"
        f"ln -sfn /nowhere /opt/{STACK}/current"
    )
    on_all(goals.hosts, lambda host: on(host, "sh", "-c", script))


def check(count: int, contenders: list[str]) -> None:
    """Prove for each contender that it reaches the state, changes nothing then, and mends it."""
    goals = start(count, ["base"])
    for contender in contenders:
        fresh(count)
        go(goals, contender, "cold", "base")
        settle(goals, contender)
        go(goals, contender, "no_change", "base")
        break_hosts(goals)
        mended = go(goals, contender, "cold", "base")
        print(f"{contender}: reached the state, left it alone, mended {mended.changes} things")


def stored() -> list[Run]:
    """Return the runs of all stored measurements."""
    return [
        Run(**run)
        for path in sorted(ARTEFACTS.glob("bench-runs-*.json"), key=lambda path: len(path.name))
        for run in json.loads(path.read_text())
    ]


def plot() -> None:
    """Print the table of all stored runs, and draw docs/growth.svg."""
    runs = stored()
    if not runs:
        sys.exit("No measurement is stored: bench/fleet runs -n 3 makes one.")
    print(comparison(runs))
    path = Path("docs/growth.svg")
    (ROOT / path).write_text(growth(runs, "no_change"))
    print(f"\nDrawn in {path}.")


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="bench/fleet", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("runs", "check"):
        command = commands.add_parser(name)
        command.add_argument("-n", "--hosts", type=int, default=3)
        command.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
        if name == "runs":
            command.add_argument("-r", "--rounds", type=int, default=3)
            command.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    for name, option, default in (
        ("web", "rate", 100),
        ("tasks", "rate", 20),
        ("throughput", "count", 8000),
    ):
        command = commands.add_parser(name)
        rounds = 40 if name == "throughput" else 3
        command.add_argument("-r", "--rounds", type=int, default=rounds)
        command.add_argument(f"--{option}", dest="amount", type=int, default=default)
    commands.add_parser("plot")
    commands.add_parser("down")
    given = parser.parse_args()
    if given.command == "runs":
        measure(given.hosts, given.rounds, given.only, given.kinds)
    elif given.command == "check":
        check(given.hosts, given.only)
    elif given.command == "plot":
        plot()
    elif given.command == "down":
        destroy()
    else:
        {"web": traffic.web, "tasks": traffic.tasks, "throughput": throughput}[given.command](
            given.rounds, given.amount
        )


if __name__ == "__main__":
    main()
