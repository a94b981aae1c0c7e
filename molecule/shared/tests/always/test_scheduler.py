"""Exactly one scheduler: by census, by the process table, and by the ticks themselves."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from fleet import OTHERS, PERIODIC, PERIODIC_ARGV, SCHEDULER, STACK, Fleet, Page, manager, wait_for


def sent(tick: dict[str, str]) -> datetime:
    return datetime.fromisoformat(tick["sent"])


def test_exactly_one_scheduler_runs_by_census(fleet: Fleet) -> None:
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout
    assert f"Exactly one scheduler runs, on {SCHEDULER}" in result.stdout


def test_exactly_one_scheduler_runs_by_ps(fleet: Fleet) -> None:
    """Counted without our own census, which could be wrong in the same way twice."""

    def found() -> list[tuple[str, str]]:
        return [
            (name, line)
            for name, host in fleet.hosts.items()
            for line in host.check_output("ps -eo args=").splitlines()
            if re.search(PERIODIC_ARGV, line) and not re.match(r"\S*/(ba)?sh ", line)
        ]

    assert [name for name, _ in found()] == [SCHEDULER], found()


@pytest.mark.only(queue="celery")
def test_every_second_is_ticked_once(page: Page) -> None:
    """Twenty ticks that follow each other; a busy machine takes longer than twenty seconds."""
    begin = datetime.now(UTC)
    found: list[dict[str, str]] = []

    def all_are_there() -> bool:
        """A worker may still hold one that others overtook."""
        found[:] = sorted(
            (one for one in page.ticks() if one["entry"] == "tick-second" and sent(one) > begin),
            key=sent,
        )
        numbers = [int(tick["sequence"]) for tick in found]
        return len(found) >= 20 and numbers == list(range(numbers[0], numbers[-1] + 1))

    wait_for(all_are_there, 200, lambda: f"lost, doubled or too few since {begin}: {found}")
    assert {tick["sender_host"] for tick in found} == {SCHEDULER}
    assert len({tick["sender_pid"] for tick in found}) == 1, "more than one process sent ticks"
    # Never faster than one a second; beat may send a late one's successor a little earlier.
    assert sent(found[-1]) - sent(found[0]) > timedelta(seconds=0.9 * (len(found) - 1))


def test_every_minute_is_ticked_once(page: Page) -> None:
    """By the process that schedules now, since its first tick."""

    def own() -> list[dict[str, str]]:
        ticks = [tick for tick in page.ticks() if tick["entry"] == "tick-minute"]
        return [tick for tick in ticks if tick["sender_started"] == ticks[0]["sender_started"]]

    # The last tick may still be of the process before this one.
    wait_for(lambda: len(own()) > 1, 200, lambda: f"ticks of the minute: {own()}")
    ticks = own()
    assert {tick["sender_host"] for tick in ticks} == {SCHEDULER}
    minutes = sorted(datetime.fromisoformat(tick["scheduled"][:16]) for tick in ticks)
    assert minutes == [minutes[0] + timedelta(minutes=index) for index in range(len(minutes))]


def test_no_tick_was_ever_doubled(page: Page) -> None:
    """Over the whole life of the fleet, whoever ticked."""
    ticks = sorted(page.ticks(), key=sent)
    seconds = [tick for tick in ticks if tick["entry"] == "tick-second"]
    doubled = [
        (one, other)
        for one, other in pairwise(seconds)
        if sent(other) - sent(one) < timedelta(seconds=0.5)
        and one["sender_started"] != other["sender_started"]
    ]
    assert doubled == []
    minutes = [tick["scheduled"][:16] for tick in ticks if tick["entry"] == "tick-minute"]
    assert sorted(set(minutes)) == sorted(minutes)


@pytest.mark.only(several_hosts=True)
def test_a_scheduler_is_masked_where_it_must_not_run(fleet: Fleet) -> None:
    for name in OTHERS:
        for unit in ("celery-beat", "huey-periodic"):
            assert fleet[name].run(f"systemctl is-enabled {unit}").stdout.strip() == "masked"
            started = fleet[name].run(f"systemctl start {unit}")
            assert started.failed
            assert "masked" in started.stderr
            assert not fleet.service(unit, name).is_defined


def test_the_other_queues_scheduler_is_masked_everywhere(fleet: Fleet) -> None:
    other = {"celery-beat": "huey-periodic", "huey-periodic": "celery-beat"}[PERIODIC]
    said = fleet[SCHEDULER].run(f"systemctl is-enabled {other}")
    assert said.stdout.strip() == "masked"


def test_a_second_copy_on_the_schedulers_host_is_refused(fleet: Fleet) -> None:
    """The very command of the manager, while the manager runs it already."""
    service = fleet.service(PERIODIC, SCHEDULER)
    if manager(SCHEDULER) == "systemd":
        found = re.search(r"^ExecStart=(.*?[^\\])$", service.definition, re.MULTILINE | re.DOTALL)
        assert found
        command = found.group(1)
    else:
        command = f"/usr/local/lib/{STACK}/{PERIODIC}"
    said = fleet[SCHEDULER].run(f"{STACK}-shell timeout 90 {command}")
    assert said.rc == 75, said


def test_the_page_knows_the_scheduler(page: Page) -> None:
    active = [one for one in page.json("/api/ticks?limit=1")["schedulers"] if one["active"]]
    assert [one["host"] for one in active] == [SCHEDULER], json.dumps(active)
