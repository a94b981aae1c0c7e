"""What the fleet answered, as one document: what is wrong in it, and what is known."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from loading import load

filters = load("filter/fleet_status")

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
PART = {
    "broker": {
        "kind": "redis",
        "version": "7.0.15",
        "memory_used": 1000,
        "memory_max": 0,
        "clients": 9,
        "blocked": 2,
        "rejected": 0,
        "append_only": True,
        "write_error": False,
    },
    "project": {},
    "database": {"kind": "postgresql"},
    "queues": {"celery": 3},
    "workers": {
        "celery@worker1": {
            "pool": "prefork",
            "concurrency": 2,
            "active": 1,
            "reserved": 0,
            "done": 7,
            "heartbeat": "2027-01-15T08:00:00Z",
            "oldest": {"task": "slow", "seconds": 12},
        }
    },
    "schedule": {
        "kind": "file",
        "synced": True,
        "next": "2027-01-15T08:00:01Z",
        "entry": "tick-second",
        "now": "2027-01-15T08:00:00Z",
    },
}


def scheduler(host: str, tick: float | None = 0.4) -> dict[str, Any]:
    process = {
        "pid": 412,
        "program": None,
        "unit": "celery-beat.service",
        "kind": "celery beat",
        "started": NOW - 3600,
    }
    line = "beat: Scheduler: Sending due task tick-second (ticks.tasks.record_tick)"
    return {
        "groups": ["workers", "scheduler"],
        "census": {"schedulers": [process], "starting": []},
        "looked": {
            "now": NOW,
            "release": "abc",
            "disks": [],
            "tick": None if tick is None else {"time": NOW - tick, "line": line},
        },
        "probe": {"set": {"started": []}, "log": "/var/log/shop/{}.log"},
    }


def answers(**more: Any) -> dict[str, Any]:
    hosts = {
        "broker1": {
            "groups": ["brokers"],
            "census": {"schedulers": []},
            "looked": {
                "now": NOW,
                "release": None,
                "disks": [{"path": "/var/lib/redis", "free": 60, "size": 100}],
                "tick": None,
            },
            "probe": {},
        },
        "worker1": scheduler("worker1"),
    }
    return {
        "now": NOW,
        "stack": "shop",
        "prefix": "",
        "shell": "shop-shell",
        "engine": "",
        "queue": "celery",
        "broker": "redis",
        "broker_host": "broker1",
        "database": "postgresql",
        "database_host": "broker1",
        "nodes": ["celery@worker1"],
        "huey": {"workers": 2, "type": "thread"},
        "dead": [],
        "roles": {"schedules": ["worker1"], "standby": [], "unknown": []},
        "cluster": None,
        "hosts": hosts,
        "from": "worker1",
        "asked": said(),
        "ended": "",
        "problems": [],
        "warnings": [],
        "queue_warning": 1000,
        "disk_warning": 5,
        **more,
    }


def said(**more: Any) -> str:
    return "\n".join(json.dumps({part: answer}) for part, answer in {**PART, **more}.items())


def schedule(**more: Any) -> dict[str, Any]:
    return {**PART["schedule"], **more}


def test_a_healthy_fleet_is_ok() -> None:
    document = filters.fleet_status(answers())
    assert (document["status"], document["problems"], document["warnings"]) == ("ok", [], [])
    assert document["scheduler"]["host"] == "worker1"
    assert document["scheduler"]["last_tick"] == {
        "time": "2027-01-15T07:59:59Z",
        "age": 0.4,
        "task": "tick-second (ticks.tasks.record_tick)",
    }
    assert document["next_due"]["in"] == 1
    assert document["workers"][0]["answers"]
    assert document["broker"]["host"] == "broker1"
    assert json.loads(json.dumps(document)) == document


def test_a_broker_that_is_away_stands_before_what_it_causes() -> None:
    error = {"error": "ConnectionError: refused"}
    document = filters.fleet_status(
        answers(
            asked=said(broker=error, queues=error, workers=error), problems=["a worker is gone"]
        )
    )
    assert document["status"] == "wrong"
    assert document["problems"] == [
        "The broker on broker1 does not answer (asked from worker1): ConnectionError: refused.",
        "a worker is gone",
    ]
    assert document["queues"] is None
    assert document["broker"]["answers"] is False
    # Nobody knows: the broker is in between.
    assert document["workers"][0]["answers"] is None


def test_a_project_that_does_not_load_is_said() -> None:
    parts = {"broker": PART["broker"], "project": {"error": "ModuleNotFoundError: No module"}}
    asked = "\n".join(json.dumps({part: answer}) for part, answer in parts.items())
    document = filters.fleet_status(answers(asked=asked))
    assert len(document["problems"]) == 1
    assert "The project's code cannot be loaded on worker1" in document["problems"][0]
    assert document["database"]["answers"] is None
    assert document["next_due"]["time"] is None


def test_a_node_that_is_silent_is_listed() -> None:
    document = filters.fleet_status(answers(nodes=["celery@worker1", "celery@worker2"]))
    assert [(one["name"], one["answers"]) for one in document["workers"]] == [
        ("celery@worker1", True),
        ("celery@worker2", False),
    ]


@pytest.mark.parametrize(
    ("due", "late"), [("07:59:30", False), ("07:58:59", True), ("08:00:01", False)]
)
def test_an_entry_that_is_overdue_is_wrong(due: str, late: bool) -> None:
    asked = said(schedule=schedule(next=f"2027-01-15T{due}Z"))
    problems = filters.fleet_status(answers(asked=asked))["problems"]
    assert bool(problems) is late
    if late:
        assert problems[0] == (
            "worker1: tick-second was due 61 s ago and was not sent; "
            "look at /var/log/shop/celery-beat.log, then restart it."
        )


def test_a_file_that_is_written_rarely_says_nothing_once_a_later_tick_is_known() -> None:
    asked = said(schedule=schedule(next="2027-01-15T07:58:00Z", synced=False))
    document = filters.fleet_status(answers(asked=asked))
    assert document["problems"] == []
    assert document["next_due"]["time"] is None
    assert "has not written its schedule" in document["next_due"]["reason"]


def test_a_scheduler_that_has_just_started_is_not_late() -> None:
    given = answers(asked=said(schedule=schedule(next="2027-01-15T07:00:00Z")))
    given["hosts"]["worker1"]["census"]["schedulers"][0]["started"] = NOW - 20
    assert filters.fleet_status(given)["problems"] == []


@pytest.mark.parametrize(("tick", "late"), [(100.0, False), (400.0, True), (None, False)])
def test_huey_is_late_when_it_left_a_minute_out(tick: float | None, late: bool) -> None:
    asked = said(schedule=schedule(kind="huey", last="2027-01-15T07:57:00Z"))
    given = answers(asked=asked, queue="huey")
    given["hosts"]["worker1"] = scheduler("worker1", tick)
    problems = filters.fleet_status(given)["problems"]
    assert bool(problems) is late, problems


def test_huey_owes_nothing_from_before_its_start() -> None:
    asked = said(schedule=schedule(kind="huey", last="2027-01-15T06:00:00Z"))
    given = answers(asked=asked, queue="huey")
    given["hosts"]["worker1"] = scheduler("worker1", 86400)
    assert filters.fleet_status(given)["problems"] == []


def test_a_standby_is_no_second_scheduler() -> None:
    given = answers(
        engine="redbeat", roles={"schedules": ["worker2"], "standby": ["worker1"], "unknown": []}
    )
    given["hosts"]["worker2"] = scheduler("worker2")
    given["asked"] = said(schedule=schedule(lock={"age": 1, "left": 29, "timeout": 30}))
    document = filters.fleet_status(given)
    assert document["scheduler"]["host"] == "worker2"
    assert [one["host"] for one in document["standbys"]] == ["worker1"]
    assert document["more_schedulers"] == []
    assert document["lock"]["left"] == 29


def test_who_ticked_last_schedules_where_nobody_can_say() -> None:
    given = answers(
        engine="redbeat",
        roles={"schedules": [], "standby": [], "unknown": ["worker1", "worker2"]},
    )
    given["hosts"]["worker1"] = scheduler("worker1", 500)
    given["hosts"]["worker2"] = scheduler("worker2", 2)
    document = filters.fleet_status(given)
    assert document["scheduler"]["host"] == "worker2"
    assert [one["host"] for one in document["standbys"]] == ["worker1"]


def test_a_second_scheduler_is_shown_too() -> None:
    given = answers(roles={"schedules": ["worker1", "worker2"], "standby": [], "unknown": []})
    given["hosts"]["worker2"] = scheduler("worker2")
    document = filters.fleet_status(given)
    assert [one["host"] for one in document["more_schedulers"]] == ["worker2"]


def test_the_last_deploys_are_shown_and_what_is_the_same_once() -> None:
    given = deepcopy(answers())
    ok = {"action": "release", "release": "two", "who": "ann@desk", "result": "ok", "from": "one"}
    bad = {**ok, "result": "rolled back", "why": "boot\nKeyError: 'A'\nmain process exited"}
    given["hosts"]["worker1"]["looked"]["deploy"] = {**ok, "time": "2026-01-01T10:00:00Z"}
    given["hosts"]["worker2"] = deepcopy(given["hosts"]["worker1"])
    given["hosts"]["worker2"]["looked"]["deploy"] = {**ok, "time": "2026-01-01T10:00:05Z"}
    given["hosts"]["broker1"]["looked"]["deploy"] = {**bad, "time": "2026-01-01T11:00:00Z"}
    first, second = filters.fleet_status(given)["deploys"]
    assert (first["hosts"], first["result"], first["why"]) == (
        ["broker1"],
        "rolled back",
        "KeyError: 'A'",
    )
    assert (second["hosts"], second["time"], second["why"]) == (
        ["worker1", "worker2"],
        "2026-01-01T10:00:05Z",
        "",
    )


def full_disk(given: dict[str, Any]) -> None:
    given["hosts"]["broker1"]["looked"]["disks"][0]["free"] = 2


def test_what_drains_is_shown_with_its_host_and_times() -> None:
    given = deepcopy(answers())
    given["hosts"]["worker1"]["census"]["draining"] = [
        {"unit": "celery-worker", "pid": 7, "since": NOW - 60, "until": NOW + 60, "release": ""}
    ]
    (one,) = filters.fleet_status(given)["draining"]
    assert (one["host"], one["service"], one["pid"]) == ("worker1", "celery-worker", 7)
    assert (one["left"], one["release"]) == (60, None)
    assert one["since"] < one["until"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda given: given.update(asked=said(queues={"mail": 1001})), "The queue mail has 1001"),
        (lambda given: given.update(dead=["worker9"]), "worker9 is taken to be off"),
        (full_disk, "broker1: the disk of /var/lib/redis is nearly full, 2 %"),
        (
            lambda given: given.update(
                asked=said(broker={**PART["broker"], "memory_max": 1050}),
            ),
            "Redis on broker1 uses 95 % of the memory",
        ),
    ],
)
def test_a_warning_is_no_problem(change: Any, words: str) -> None:
    given = deepcopy(answers())
    change(given)
    document = filters.fleet_status(given)
    assert document["status"] == "warning"
    assert document["problems"] == []
    assert len(document["warnings"]) == 1
    assert words in document["warnings"][0]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"write_error": True}, "cannot write to its disk"),
        ({"alarms": ["memory"]}, "lets nobody send because of memory"),
    ],
)
def test_a_broker_that_takes_nothing_is_wrong(state: dict[str, Any], words: str) -> None:
    given = answers(asked=said(broker={**PART["broker"], **state}))
    assert words in filters.fleet_status(given)["problems"][0]


def test_a_host_that_is_silent_leaves_the_rest_of_the_screen() -> None:
    given = answers(problems=["broker1 did not answer"])
    given["hosts"]["broker1"] = {"groups": ["brokers"], "census": {}, "looked": None, "probe": {}}
    document = filters.fleet_status(given)
    assert document["hosts"]["broker1"]["answers"] is False
    assert document["scheduler"]["host"] == "worker1"


def test_asking_that_broke_off_is_said() -> None:
    given = answers(asked=json.dumps({"broker": PART["broker"]}), ended="it took longer than 20 s")
    problems = filters.fleet_status(given)["problems"]
    assert problems == ["Asking from worker1 broke off: it took longer than 20 s."]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.42, "0.4 s"), (-61, "61 s"), (600, "10 min"), (7300, "2 h"), (200000, "2 days")],
)
def test_a_duration_reads_well(seconds: float, words: str) -> None:
    assert filters.duration(seconds) == words
