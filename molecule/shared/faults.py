"""Faults made on the fleet, and what they did to the ticks, counted in the database.

A test makes its fault inside `measured()`, which judges the ticks of that time by when they were
sent, keeps the numbers in .artefacts/ and holds them against the row's bar. All hosts share this
machine's clock, so moments of different hosts can be compared.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import Self

from counting import HEAD, Row, Tick, count, holes, longest_gap, tick
from docker.errors import APIError
from docker.models.containers import Container
from fleet import (
    BROKER,
    PERIODIC,
    ROOT,
    SCENARIO,
    STACK,
    Fleet,
    Page,
    names,
    wait_for,
)

RESULTS = ROOT / f".artefacts/molecule-{SCENARIO.name}.faults.json"
TABLE = RESULTS.with_suffix(".md")
BROKER_UNIT = {"redis": "redis-server", "rabbitmq": "rabbitmq-server"}.get(BROKER, "")


def now() -> datetime:
    """Return the moment, in UTC."""
    return datetime.now(UTC)


rows: dict[str, Row] = {}


def table() -> list[str]:
    """Return the lines of this session's table; none if nothing was measured."""
    return [*HEAD, *(row.line for row in rows.values())] if rows else []


def record(row: Row) -> None:
    """Keep a row; of several windows of one fault, the worst numbers."""
    rows[row.fault] = rows[row.fault].worse(row) if row.fault in rows else row
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(one) for one in rows.values()], indent=1))
    TABLE.write_text("\n".join([f"**{SCENARIO.name}**", "", *table(), ""]))


def read(page: Page, limit: int = 1500) -> list[Tick]:
    """Return the latest ticks in the order of their sending; none while the page is away."""
    try:
        found = page.json(f"/api/ticks?limit={limit}")["ticks"]
    except OSError:
        return []
    return sorted((tick(row) for row in found), key=lambda one: one.sent)


def seconds_since(page: Page, moment: datetime) -> list[Tick]:
    """Return the ticks of the second that were sent since a moment."""
    return [one for one in read(page) if one.entry == "tick-second" and one.sent >= moment]


def wait_for_tick(page: Page, since: datetime, seconds: float = 120) -> Tick:
    """Wait until a tick that was sent since a moment is recorded; return the first such."""
    found: list[Tick] = []

    def there() -> bool:
        found[:] = seconds_since(page, since)
        return found != []

    wait_for(there, seconds, lambda: f"no tick since {since}; the last ones: {read(page)[-3:]}")
    return found[0]


def active(page: Page) -> str:
    """Return the host that schedules now, by its ticks."""
    return wait_for_tick(page, now() - timedelta(seconds=1)).host


class Window:
    """The time of a fault. A bar that counts from the fault's end sets `gap_from` to then."""

    def __init__(self, begin: datetime) -> None:
        self.begin = self.gap_from = begin

    def healed(self) -> None:
        """Count the gap from now on."""
        self.gap_from = now()


class Pace(threading.Thread):
    """Measures how busy the machine is, by starts of Celery on a host without faults.

    A start's own CPU time is what it takes on an idle machine. It measures between its entry and
    its exit alone: each start is work that the machine has besides.
    """

    INTERVAL = 8.0
    START = f"""
import os, subprocess, time
begin = time.monotonic()
subprocess.run(["{STACK}-shell", "celery", "-A", "example", "report"], stdout=-3, check=True)
print((time.monotonic() - begin) / (os.times().children_user + os.times().children_system))
"""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._container = Fleet().container(names("web")[0])
        self._over = threading.Event()
        self._found: list[float] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def run(self) -> None:
        # At least once, so a host that was off all the time is asked when it is back.
        while not (self._over.is_set() and self._found):
            with suppress(APIError):  # The host is off.
                status, said = self._container.exec_run(["python3", "-c", self.START])
                if status == 0:
                    self._found.append(max(1.0, float(said)))
            if self._found:
                self._over.wait(self.INTERVAL)
            else:
                time.sleep(1)

    def mean(self) -> float:
        """Return the mean of the measurements, which end with this.

        Raises:
            AssertionError: there is none, for half a minute.
        """
        self._over.set()
        self.join(30)
        assert self._found, "no start of Celery came to an end"
        return fmean(self._found)


def take_priority() -> None:
    """Let this fleet's playbooks not wait for those of other scenarios, where that is allowed.

    bin/test runs all of them at a low priority, which only root may raise again.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)


@contextmanager
def measured(
    page: Page,
    fault: str,
    *,
    gap: float | None = None,
    duplicates: int | None = 0,
    every_minute: bool = False,
    settle: float = 8.0,
    work: float = 2.0,
) -> Iterator[Window]:
    """Count the ticks around a fault, which the body makes and heals.

    Args:
        page: where the ticks are read.
        fault: the row's name; several windows of one name become one row.
        gap: seconds without a tick at most; None if nothing is promised.
        duplicates: ticks of a second scheduler at most.
        every_minute: each minute must have been sent, too.
        settle: seconds after the return of the ticks for which the ticks are still judged.
        work: CPU seconds on the way back to ticks; by default those of a start of beat.

    Raises:
        AssertionError: the numbers are worse than the bar, or no tick came back.
    """
    take_priority()
    window = Window(wait_for_tick(page, now() - timedelta(seconds=2)).sent)
    with Pace() as pace:
        yield window
        # From when ticks are back, or what is overdue besides the second would not be sent yet.
        end = wait_for_tick(page, now()).sent + timedelta(seconds=settle)
        wait_for_tick(page, end)
    # A worker that came back late may still hold ticks that others overtook.
    patience = time.monotonic() + 15
    while holes(ticks := seconds_since(page, window.begin)) and time.monotonic() < patience:
        time.sleep(1)
    last = max(one.sent for one in ticks)
    counted = count(read(page), window.begin, last, window.gap_from)
    row = Row(fault, gap, duplicates, counted, pace.mean(), work)
    record(row)
    wrong = row.wrong
    if every_minute and row.count.missing:
        wrong.append(f"minutes never sent: {row.count.missing}")
    assert not wrong, f"{fault}: {'; '.join(wrong)}\n{story(ticks)}"


def story(ticks: list[Tick]) -> str:
    """Return which process sent from when to when, for a failed test."""
    spans: dict[tuple[str, int, str], list[datetime]] = {}
    for one in ticks:
        spans.setdefault(one.sender, []).append(one.sent)
    return "\n".join(
        f"{host} pid {pid}: {len(sent)} ticks from {min(sent):%T.%f} to {max(sent):%T.%f}, "
        f"longest gap {longest_gap(sent):.1f} s"
        for (host, pid, _), sent in spans.items()
    )


# Faults. Those that end are context managers: what they broke is healed behind them.


def run(fleet: Fleet, host: str, command: str) -> str:
    """Run a shell command as root on a host, at once; return what it prints."""
    status, said = fleet.container(host).exec_run(["sh", "-c", command])
    assert status == 0, f"{host}: {command}: {status}: {said.decode()}"
    return str(said.decode())


def until_running(fleet: Fleet, *hosts: str) -> None:
    """Wait until the hosts have started."""
    for host in hosts:
        container = fleet.container(host)
        wait_for(
            lambda container=container: (
                container.exec_run(  # type: ignore[misc]
                    "systemctl is-system-running"
                ).output.strip()
                in (b"running", b"degraded")
            ),
            120,
            lambda host=host: f"{host} does not come up",  # type: ignore[misc]
        )


def until_scheduler_and_standby_run(fleet: Fleet, *hosts: str, under: str = "") -> None:
    """Wait until each host's scheduler runs and one of them has asked for the lock."""
    services = [fleet.service(PERIODIC, host, under) for host in hosts]
    wait_for(
        lambda: all(service.is_running for service in services),
        60,
        lambda: str([service.status for service in services]),
    )
    # A process that has just started has not asked for the lock yet.
    time.sleep(3)


def pid(fleet: Fleet, host: str, name: str = PERIODIC, under: str = "") -> int:
    """Return the main process of a service, which must run."""
    found = fleet.service(name, host, under).pid
    assert found, f"{name} does not run on {host}"
    return found


def kill(fleet: Fleet, host: str, name: str = PERIODIC, under: str = "") -> None:
    """kill -9 of a service's main process."""
    run(fleet, host, f"kill -9 {pid(fleet, host, name, under)}")


def at_the_minutes_edge(act: Callable[[], None]) -> None:
    """Act a second before the next full minute, which takes a busy machine half of it.

    A beat that is killed in the milliseconds between the minute's send and its note on the disk
    repeats it: docs/guarantee.md.
    """
    time.sleep((59 - time.time() % 60) % 60)
    act()


def power_off(fleet: Fleet, *hosts: str) -> None:
    """Take the power from hosts, from all at once."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: fleet.container(host).kill(), hosts))


def power_on(fleet: Fleet, *hosts: str) -> None:
    """Start hosts, all at once, and wait until they are up."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: fleet.container(host).start(), hosts))
    until_running(fleet, *hosts)


@contextmanager
def powered_off(fleet: Fleet, host: str) -> Iterator[None]:
    """The host has no power."""
    power_off(fleet, host)
    try:
        yield
    finally:
        power_on(fleet, host)


def freeze(container: Container) -> None:
    """Pause a container; under cgroup v1 on a busy machine, that takes more than one attempt.

    The kernel does not freeze what is about to exec, and runc gives up after a thousand looks,
    thaws the container and says so: opencontainers/runc, pull requests 2791 and 4388.
    """
    for left in reversed(range(10)):
        try:
            container.pause()
            return
        except APIError as error:
            if not left or "unable to freeze" not in str(error):
                raise
        time.sleep(0.5)


@contextmanager
def paused(fleet: Fleet, host: str) -> Iterator[None]:
    """The host stands still, as a virtual machine that is moved does."""
    container = fleet.container(host)
    freeze(container)
    try:
        yield
    finally:
        container.unpause()


@contextmanager
def stopped(fleet: Fleet, host: str, name: str = PERIODIC) -> Iterator[None]:
    """SIGSTOP of a service's main process."""
    process = pid(fleet, host, name)
    run(fleet, host, f"kill -STOP {process}")
    try:
        yield
    finally:
        # It may have been killed meanwhile.
        run(fleet, host, f"kill -CONT {process} || true")


@contextmanager
def dropped(fleet: Fleet, host: str, *rules: str) -> Iterator[None]:
    """Packets that match iptables' rules (CHAIN MATCH...) are dropped without a word."""
    add = " && ".join(f"iptables -w -I {rule} -j DROP" for rule in rules)
    run(fleet, host, add)
    try:
        yield
    finally:
        run(fleet, host, add.replace(" -I ", " -D "))


def cut_off(fleet: Fleet, host: str) -> AbstractContextManager[None]:
    """The host reaches nobody, and nobody reaches it."""
    return dropped(fleet, host, "INPUT ! -i lo", "OUTPUT ! -o lo")


def link_cut(fleet: Fleet, host: str, to: str, port: int) -> AbstractContextManager[None]:
    """The host does not reach one port of another."""
    return dropped(fleet, host, f"OUTPUT -p tcp -d {fleet.address(to)} --dport {port}")


@contextmanager
def broker_away(fleet: Fleet) -> Iterator[None]:
    """The broker is stopped."""
    host = names("brokers")[0]
    run(fleet, host, f"systemctl stop {BROKER_UNIT}")
    try:
        yield
    finally:
        run(fleet, host, f"systemctl start {BROKER_UNIT}")


def restart_broker(fleet: Fleet) -> None:
    """Restart the broker."""
    run(fleet, names("brokers")[0], f"systemctl restart {BROKER_UNIT}")
