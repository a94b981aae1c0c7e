"""What the ticks of a time say about its schedulers: pure functions of ticks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

# Of two processes: no entry is due twice within so many seconds.
TOO_CLOSE = timedelta(seconds=0.5)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Tick:
    """One tick: what the schedule calls it, when it was sent, for when, and by which process."""

    entry: str
    sent: datetime
    scheduled: datetime
    host: str
    # Host, pid and start together name a process.
    sender: tuple[str, int, str]
    sequence: int


@dataclass(frozen=True)
class Count:
    """What a window of time holds.

    gap: the longest time between two ticks of the second, its ends included, in seconds.
    duplicates: ticks of the second that a second scheduler sent.
    twice, missing: the minutes (HH:MM) that were sent more than once or not at all.
    lost: ticks of the second that were sent and never recorded.
    """

    gap: float
    duplicates: int
    twice: list[str]
    missing: list[str]
    lost: int


def tick(row: dict[str, Any]) -> Tick:
    """Return a tick as the page's JSON tells it."""
    return Tick(
        entry=row["entry"],
        sent=datetime.fromisoformat(row["sent"]),
        scheduled=datetime.fromisoformat(row["scheduled"]),
        host=row["sender_host"],
        sender=(row["sender_host"], row["sender_pid"], row["sender_started"]),
        sequence=row["sequence"],
    )


def longest_gap(moments: Iterable[datetime]) -> float:
    """Return the longest time between two moments that follow each other, in seconds."""
    steps = [(other - one).total_seconds() for one, other in pairwise(sorted(moments))]
    return max(steps, default=0.0)


def doubled(ticks: list[Tick]) -> list[Tick]:
    """Return the ticks that a second scheduler sent.

    That is a tick of an older process after the first one of its successor, or one that follows
    another process's so closely that it cannot have been due.
    """
    ordered = sorted(ticks, key=lambda tick: tick.sent)
    first: dict[tuple[str, int, str], datetime] = {}
    for one in ordered:
        first.setdefault(one.sender, one.sent)
    late = {
        one
        for one in ordered
        if any(first[one.sender] < moment < one.sent for moment in first.values())
    }
    # Only where one hands over to the next: a late tick is counted once.
    close = {
        other
        for one, other in pairwise(one for one in ordered if one not in late)
        if one.sender != other.sender and other.sent - one.sent < TOO_CLOSE
    }
    return sorted(late | close, key=lambda tick: tick.sent)


def holes(ticks: list[Tick]) -> int:
    """Return how many numbers are missing between the processes' first and last ticks."""
    numbers: defaultdict[tuple[str, int, str], set[int]] = defaultdict(set)
    for one in ticks:
        numbers[one.sender].add(one.sequence)
    return sum(max(found) - min(found) + 1 - len(found) for found in numbers.values())


def count(ticks: list[Tick], begin: datetime, end: datetime, gap_from: datetime) -> Count:
    """Count what was sent from `begin` to `end`; the gap only from `gap_from` on."""
    window = [one for one in ticks if begin <= one.sent <= end]
    seconds = [one for one in window if one.entry == "tick-second"]
    minutes = sorted(f"{one.scheduled:%H:%M}" for one in window if one.entry == "tick-minute")
    # Sent at its minute, or as soon as a scheduler was there again: with the window's last second.
    first = begin.replace(second=0, microsecond=0) + MINUTE
    due = [first + MINUTE * n for n in range(int((end - first) / MINUTE) + 1)]
    wanted = [f"{moment:%H:%M}" for moment in due if moment < end - timedelta(seconds=2)]
    return Count(
        gap=longest_gap([gap_from, *(one.sent for one in seconds if one.sent > gap_from), end]),
        duplicates=len(doubled(seconds)),
        twice=sorted({minute for minute in minutes if minutes.count(minute) > 1}),
        missing=[minute for minute in wanted if minute not in minutes],
        lost=holes(seconds),
    )


@dataclass(frozen=True)
class Row:
    """A row of the table: a fault, its bar (None: no promise) and what was counted.

    pace: how many times as long as on an idle machine a start of Celery took meanwhile, from 1.
    work: CPU seconds that have to be spent before ticks flow again. The bar is for an idle machine;
        these take as many times as long on a busy one.
    """

    fault: str
    gap_bar: float | None
    duplicates_bar: int | None
    count: Count
    pace: float = 1.0
    work: float = 2.0

    @property
    def allowed(self) -> float:
        """The longest gap, in seconds, on a machine that is as busy as this one was."""
        bar = float("inf") if self.gap_bar is None else self.gap_bar
        return bar + (self.pace - 1) * self.work

    @property
    def duplicates_allowed(self) -> float:
        """The duplicates on such a machine: none stays none; more is a time, at a tick a second."""
        bar = float("inf") if self.duplicates_bar is None else self.duplicates_bar
        return bar + (self.pace - 1) * self.work if bar else 0.0

    @property
    def wrong(self) -> list[str]:
        """What is worse than the bar; no minute is ever sent twice where no tick is doubled."""
        found = []
        if self.count.gap > self.allowed:
            found.append(
                f"a gap of {self.count.gap:.1f} s, at most {self.gap_bar:g} s is promised, and "
                f"{self.allowed:.1f} s on a machine as busy as this"
            )
        if self.count.duplicates > self.duplicates_allowed:
            found.append(f"{self.count.duplicates} duplicates, not {self.duplicates_allowed:.1f}")
        if self.duplicates_bar == 0 and self.count.twice:
            found.append(f"minutes sent twice: {self.count.twice}")
        return found

    def worse(self, other: Row) -> Row:
        """Return the row of two windows of the same fault."""
        one, two = self.count, other.count
        both = Count(
            max(one.gap, two.gap),
            one.duplicates + two.duplicates,
            sorted({*one.twice, *two.twice}),
            sorted({*one.missing, *two.missing}),
            one.lost + two.lost,
        )
        longest = self if one.gap >= two.gap else other
        return replace(longest, count=both)

    @property
    def line(self) -> str:
        """The row in Markdown."""
        gap = "" if self.gap_bar is None else f"{self.gap_bar:g} s"
        duplicates = "" if self.duplicates_bar is None else str(self.duplicates_bar)
        found = self.count
        return (
            f"| {self.fault} | {gap} | {found.gap:.1f} s | {self.pace:.1f} | {duplicates} "
            f"| {found.duplicates} | {len(found.twice)} | {len(found.missing)} | {found.lost} |"
        )


HEAD = (
    "| fault | gap at most | measured | pace | duplicates at most | measured | minutes twice "
    "| minutes missing | ticks lost |",
    "|---|---|---|---|---|---|---|---|---|",
)
