"""Where the scheduler lives, why it may not move, and how its schedule is carried."""

from __future__ import annotations

import dbm
import dbm.dumb
import json
import pickle
import subprocess
import sys
from collections import OrderedDict, deque
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from loading import load

ROOT = Path(__file__).parents[2]
FILES = ROOT / "roles/verify/files"
move = load("filter/scheduler_move")


def census(
    *places: str, enabled: str = "enabled", starting: tuple[str, ...] = (), program: str = ""
) -> dict[str, Any]:
    return {
        "schedulers": [{"unit": place, "program": program or None} for place in places],
        "units": [{"name": "celery-beat.service", "enabled": enabled}],
        "starting": list(starting),
    }


BEAT = "celery-beat.service"


@pytest.mark.parametrize(
    ("censuses", "homes"),
    [
        ({"a": census(BEAT), "b": census(), "c": None, "d": {}}, {"a": "celery-beat"}),
        ({"a": census("supervisor.service", program="celery-beat")}, {"a": "celery-beat"}),
        # Under the prefix that it was deployed with.
        ({"a": census("old-huey-periodic.service")}, {"a": "old-huey-periodic"}),
        # By hand, in a service of another kind, inside a worker, by a cluster.
        ({"a": census("session-1.scope", "cron.service", "celery-worker.service")}, {}),
        ({"a": census(BEAT, enabled="disabled")}, {}),
        ({"a": census(starting=("huey-periodic.service",))}, {"a": "huey-periodic"}),
        # One that comes back and asks first is no home while another one schedules.
        ({"a": census(starting=(BEAT,)), "b": census(BEAT)}, {"b": "celery-beat"}),
        ({"a": census(BEAT), "b": census(BEAT)}, {"a": "celery-beat", "b": "celery-beat"}),
    ],
)
def test_a_home_is_where_the_scheduler_starts_by_itself(
    censuses: dict[str, Any], homes: dict[str, str]
) -> None:
    assert move.scheduler_homes(censuses) == homes


@pytest.mark.parametrize(
    ("homes", "wanted", "refused"),
    [
        (["a"], ["b"], True),
        (["a"], ["a"], False),
        (["a"], ["b", "a"], False),
        (["a"], [], False),
        ([], ["b"], False),
        (["a", "b"], ["b"], False),
    ],
)
def test_an_inventory_that_would_move_it_is_refused(
    homes: list[str], wanted: list[str], refused: bool
) -> None:
    said = move.silent_move(dict.fromkeys(homes, "celery-beat"), wanted)
    assert said == (
        [
            "The scheduler runs on a, the inventory says b: put a into the group scheduler, or "
            "move it with ansible-playbook playbooks/move_scheduler.yml -e to=b."
        ]
        if refused
        else []
    )


FLEET = {
    "hosts": ["a", "b", "c"],
    "reached": ["a", "b"],
    "dead": ["c"],
    "releases": ["a", "b"],
    "mode": "static",
    "engine": "",
    "queue": "celery",
    "prefix": "my-",
    "problems": [],
}


@pytest.mark.parametrize(
    ("to", "homes", "fleet", "words"),
    [
        ("", ["a"], {}, "-e to=HOST"),
        ("b", ["a"], {"queue": "none"}, "no scheduler"),
        ("b", ["a"], {"mode": "failover"}, "failover mode restart my-celery-beat on the host"),
        ("b", [], {"mode": "failover", "engine": "pacemaker"}, "--move -r my-celery-beat -N b`"),
        ("z", ["a"], {}, "no host z"),
        ("c", ["a"], {}, "c is listed in stack_dead_hosts"),
        ("b", ["a"], {"releases": ["a"]}, "b gets no release"),
        ("b", ["a"], {"reached": ["a"]}, "leave --limit away"),
        ("b", [], {}, "nothing to move"),
        ("b", ["a", "b"], {}, "several hosts (a, b)"),
        ("b", ["a"], {"problems": ["One by hand.", "Two."]}, "One by hand. Two."),
    ],
)
def test_a_move_is_refused_in_one_sentence(
    to: str, homes: list[str], fleet: dict[str, Any], words: str
) -> None:
    said = move.move_refusal(dict.fromkeys(homes, "celery-beat"), to, {**FLEET, **fleet})
    assert said.startswith("The scheduler was not moved: ")
    assert words in said
    assert said.endswith(".")
    assert not said.endswith("..")


@pytest.mark.parametrize("to", ["a", "b"])
def test_a_move_is_allowed_also_to_where_it_is(to: str) -> None:
    assert move.move_refusal({"a": "celery-beat"}, to, FLEET) == ""


def run(code: str, path: Path) -> str:
    return subprocess.run(
        [sys.executable, "-", path], input=code, capture_output=True, text=True, check=True
    ).stdout


def export(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(run((FILES / "export_schedule.py").read_text(), path))
    return said


def test_the_schedule_is_carried_whatever_it_is_written_with(tmp_path: Path) -> None:
    old, new = tmp_path / "old/celerybeat-schedule", tmp_path / "new/celerybeat-schedule"
    # Objects that are made, called, filled and given a state.
    held = {"a": timedelta(1), "b": partial(int, "1"), "c": OrderedDict(d=1), "e": deque([1])}
    entries = {b"entries": pickle.dumps(held), b"__version__": pickle.dumps("5.7.0")}
    for path in (old, new):
        path.parent.mkdir()
    with dbm.dumb.open(str(old), "n") as file:
        for key, value in entries.items():
            file[key] = value
    # What the new host has is older, and written in another way.
    for stale in ("celerybeat-schedule", "celerybeat-schedule.db"):
        (new.parent / stale).write_text("stale")
    exported = json.dumps(export(old))
    run((FILES / "import_schedule.py").read_text() + f"\n\nmain({exported!r})\n", new)
    with dbm.open(str(new), "r") as file:
        assert {key: file[key] for key in file.keys()} == entries  # noqa: SIM118


def test_a_schedule_that_beat_could_not_read_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "celerybeat-schedule"
    assert export(path) == {}
    path.write_text("no database")
    said = export(path)
    assert list(said) == ["aside", "why"]
    (kept,) = said["aside"]
    assert Path(kept).read_text() == "no database"
    assert not Path(kept).name.startswith("celerybeat-schedule")
    with dbm.open(str(path), "n") as file:
        file[b"entries"] = pickle.dumps({"tick": timedelta(1)})[:-4]
    assert export(path)["why"]
    assert list(tmp_path.glob("celerybeat-schedule*")) == []
