"""What the fault suite counts in a list of ticks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from counting import Count, Row, Tick, count, doubled, holes, longest_gap

START = datetime(2026, 3, 29, 11, 58, 50, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ticks(host: str, *moments: float, pid: int = 1, first: int = 1) -> list[Tick]:
    """One process's ticks of the second, sent so many seconds after START."""
    return [
        Tick("tick-second", at(moment), at(moment), host, (host, pid, "t"), number)
        for number, moment in enumerate(moments, first)
    ]


def minutes(*moments: float) -> list[Tick]:
    """Ticks of the minute, each for the minute in which it was sent."""
    return [
        Tick("tick-minute", at(m), at(m).replace(second=0), "a", ("a", 1, "t"), number)
        for number, m in enumerate(moments, 1)
    ]


def test_the_longest_gap_is_between_two_that_follow_each_other() -> None:
    assert longest_gap([at(3), at(0), at(1), at(7.5)]) == 4.5
    assert longest_gap([at(0)]) == 0


def test_a_hand_over_doubles_nothing() -> None:
    assert doubled([*ticks("a", 0, 1, 2), *ticks("b", 5, 6, 7)]) == []


def test_a_restart_on_one_host_is_another_process() -> None:
    old, new = ticks("a", 0, 1, 2), ticks("a", 1.6, 2.7, pid=2)
    assert doubled([*old, *new]) == [old[2]]


def test_a_late_tick_of_the_old_process_is_a_duplicate() -> None:
    """A host that stood still sends what it had in hand, long after its successor began."""
    old, new = ticks("a", 0, 1, 30.7), ticks("b", 10, *range(11, 40))
    assert doubled([*old, *new]) == [old[2]]


def test_two_that_tick_in_turns_are_found() -> None:
    old, new = ticks("a", 0, 1, 2, 3), ticks("b", 0.6, 1.6, 2.6)
    assert doubled([*old, *new]) == old[1:]


def test_two_processes_that_share_a_second_are_one_duplicate() -> None:
    new = ticks("b", 1.3, 2.3)
    assert doubled([*ticks("a", 0, 1), *new]) == [new[0]]


def test_one_process_may_send_close_together() -> None:
    """A late entry and the next one on time are one scheduler's."""
    assert doubled(ticks("a", 0, 1.9, 2.0, 3.0)) == []


def test_a_number_that_is_missing_is_a_lost_tick() -> None:
    known = [*ticks("a", 0, 1), *ticks("a", 5, first=6), *ticks("b", 9, first=40)]
    assert holes(known) == 3


def test_a_window_counts_gap_and_minutes() -> None:
    known = [*ticks("a", 0, 1, 5, 6), *ticks("b", 16, 17, *range(18, 141)), *minutes(16, 70, 70.2)]
    found = count(known, at(0), at(140), at(0))
    assert found == Count(gap=10, duplicates=0, twice=["12:00"], missing=["12:01"], lost=0)


def test_the_gap_reaches_to_the_ends_of_its_window() -> None:
    assert count(ticks("a", 0, 1, 2), at(0), at(9), at(0)).gap == 7


def test_a_gap_can_be_counted_from_the_faults_end() -> None:
    """The broker was away from 1 to 20; the first tick came 4 s after its return."""
    known = ticks("a", 0, 1, 24, 25)
    assert count(known, at(0), at(25), at(0)).gap == 23
    assert count(known, at(0), at(25), at(20)).gap == 4


def test_a_minute_that_has_just_begun_may_still_come() -> None:
    assert count(ticks("a", *range(12)), at(0), at(11), at(0)).missing == []
    assert count(ticks("a", *range(14)), at(0), at(13), at(0)).missing == ["11:59"]


def row(gap: float = 4, duplicates: int = 0, twice: tuple[str, ...] = (), pace: float = 1) -> Row:
    return Row("kill", 5, 0, Count(gap, duplicates, list(twice), [], 0), pace, work=2)


def test_a_row_says_what_is_worse_than_its_bar() -> None:
    assert row().wrong == []
    [said] = row(gap=5.1).wrong
    assert said.startswith("a gap of 5.1 s, at most 5 s is promised")
    assert row(duplicates=2).wrong == ["2 duplicates, not 0.0"]
    assert row(twice=("12:00",)).wrong == ["minutes sent twice: ['12:00']"]
    assert Row("pause", None, None, Count(99, 9, ["12:00"], [], 0)).wrong == []


def test_a_bar_gives_a_busy_machine_the_time_that_its_work_takes_there() -> None:
    assert row(gap=7, pace=2).wrong == []
    assert row(gap=7.1, pace=2).wrong != []
    assert row(gap=7.1, pace=2, duplicates=1).wrong[1:] == ["1 duplicates, not 0.0"]


def test_a_busy_machine_gets_time_for_duplicates_only_where_some_are_promised() -> None:
    busy = Row("pause", None, 5, Count(1, 7, [], [], 0), pace=2, work=2)
    assert busy.wrong == []
    assert replace(busy, pace=1.9).wrong == ["7 duplicates, not 6.8"]
    assert replace(busy, duplicates_bar=None).wrong == []
    assert replace(busy, duplicates_bar=0).wrong == ["7 duplicates, not 0.0"]


def test_two_windows_of_one_fault_are_one_row_with_the_worst() -> None:
    both = row(gap=2, twice=("12:00",)).worse(row(gap=4.2, duplicates=1))
    assert both.count == Count(4.2, 1, ["12:00"], [], 0)
    assert both.line == "| kill | 5 s | 4.2 s | 1.0 | 0 | 1 | 1 | 0 | 0 |"
