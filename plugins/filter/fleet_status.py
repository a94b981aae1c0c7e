# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What a fleet answered, as one document for the status screen and for machines."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

DOCUMENTATION = r"""
name: fleet_status
short_description: Put what a fleet answered into one document
version_added: "0.2.0"
author:
  - The django-background-fleet authors
description:
  - Takes the answers that C(roles/verify/tasks/status.yml) registered and returns the document that
    C(playbooks/status.yml) shows, with everything that is wrong, worst first.
  - A key of the document is always there; what could not be asked is null, and a sentence among
    the problems says why. Times are ISO 8601 in UTC, ages in seconds.
options:
  _input:
    description:
      - The choices and answers. C(now) is the time in seconds since the epoch, C(hosts) maps each
        host to its C(groups), C(census), C(looked) (what C(host_status.py) printed) and C(probe),
        C(asked) is what C(fleet_status.py) printed on the host C(from), and C(ended) its result.
    type: dict
    required: true
"""

EXAMPLES = r"""
document: "{{ __verify_answers | fleet_status }}"
"""

RETURN = r"""
_value:
  description: The document; C(docs/operations.md) says what its keys mean.
  type: dict
"""

LATE = 60  # Seconds for which an entry may be due before that is wrong.
HUEY_LATE = 120  # Huey looks once a minute.
GRACE = 90  # Seconds after its start for which a scheduler is not called late.
FULL = 0.9  # Part of its memory that a broker may use.
SENT = re.compile(r"(?:Sending due|Enqueueing periodic) task (.*)")

Document = dict[str, Any]


def iso(seconds: float | None) -> str | None:
    """Return seconds since the epoch as ISO 8601 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(time: str | None) -> float | None:
    """Return what `iso` was given."""
    return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp() if time else None


def duration(seconds: float) -> str:
    """Return a span of time as people say it, such as "0.4 s", "12 s", "3 min", "5 h", "2 days"."""
    seconds = abs(float(seconds))
    for limit, unit, name in ((10, 1, "s"), (120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if limit == 10 else 0}f} {name}"
    return f"{seconds / 86400:.0f} days"


def parts(text: str | None) -> dict[str, Any]:
    """Return the parts that fleet_status.py printed, one to a line."""
    found: dict[str, Any] = {}
    for line in (text or "").splitlines():
        found.update(json.loads(line))
    return found


def without_error(part: Any) -> Any:
    """Return a part's answer, None where there is none."""
    return None if part is None or "error" in part else part


def schedulers(answers: Mapping[str, Any]) -> list[Document]:
    """Return every process that schedules, the one that ticked last before all others."""
    now = answers["now"]
    found = []
    for host, one in answers["hosts"].items():
        tick = (one["looked"] or {}).get("tick")
        for index, process in enumerate((one["census"] or {}).get("schedulers") or []):
            last = None
            # The tick is that of the host's first scheduler.
            if tick and index == 0:
                sent = SENT.search(tick["line"])
                last = {
                    "time": iso(tick["time"]),
                    # By the host's own clock, and when it was read: asking all takes a while.
                    "age": round(one["looked"]["now"] - tick["time"], 1),
                    "task": (sent[1] if sent else tick["line"]).strip(),
                }
            found.append(
                {
                    "host": host,
                    "service": process["program"] or process["unit"] or process["kind"],
                    "pid": process["pid"],
                    "since": iso(process["started"]),
                    "age": round(now - process["started"]),
                    "last_tick": last,
                }
            )
    return found


def split(
    found: list[Document], answers: Mapping[str, Any]
) -> tuple[list[Document], list[Document]]:
    """Return those that schedule, and those that stand by."""
    standby, unknown = answers["roles"]["standby"], answers["roles"]["unknown"]
    if unknown and found:
        # Only who schedules ticks: the last one who did it is.
        newest = min(found, key=lambda one: (one["last_tick"] or {}).get("age", float("inf")))
        standby = [host for host in unknown if host != newest["host"]]
    return (
        [one for one in found if one["host"] not in standby],
        [one for one in found if one["host"] in standby],
    )


def next_due(schedule: Any) -> Document:
    """Return what is due next; in = seconds, negative once it is late."""
    if schedule is None or "next" not in schedule:
        why = (schedule or {}).get("error") or (schedule or {}).get("reason")
        return {"time": None, "in": None, "entry": None, "reason": why or "it could not be asked"}
    when = seconds_of(schedule["next"])
    assert when is not None  # noqa: S101 (for mypy: `next` is a time)
    left = round(when - (seconds_of(schedule["now"]) or 0))
    return {"time": schedule["next"], "in": left, "entry": schedule["entry"], "reason": None}


def late(document: Document, schedule: Mapping[str, Any], answers: Mapping[str, Any]) -> list[str]:
    """Say that an entry was not sent when it was due; cross out a due time that is known stale."""
    now = seconds_of(schedule.get("now")) or answers["now"]
    one, due = document["scheduler"], document["next_due"]
    if one is None or one["age"] < GRACE:
        return []
    ticked = seconds_of((one["last_tick"] or {}).get("time"))
    when, entry, limit = seconds_of(due["time"]), due["entry"], LATE
    if schedule.get("last"):
        when, entry, limit = seconds_of(schedule["last"]), "its last full minute", HUEY_LATE
    if when is None or now - when < limit:
        return []
    if "last" not in schedule and not schedule.get("synced") and (ticked is None or ticked > when):
        document["next_due"] = {
            "time": None,
            "in": None,
            "entry": None,
            "reason": "beat has not written its schedule since its last tick",
        }
        return []
    # Huey remembers nothing: what was due before its start is nobody's.
    if schedule.get("last") and (
        ticked is None or ticked >= when or when < (seconds_of(one["since"]) or 0)
    ):
        return []
    log = (answers["hosts"][one["host"]]["probe"] or {}).get("log", "its log")
    return [
        f"{one['host']}: {entry} was due {duration(now - when)} ago and was not sent; "
        f"look at {log.format(one['service'].removesuffix('.service'))}, then restart it."
    ]


def celery_workers(answers: Mapping[str, Any], asked: Any) -> list[Document]:
    """Return every node that should answer or does."""
    nodes = dict.fromkeys([*answers["nodes"], *(asked or {})])
    none = dict.fromkeys(
        ("pool", "concurrency", "active", "reserved", "done", "heartbeat", "oldest")
    )
    return [
        {
            "name": node,
            "host": node.rsplit("@", 1)[-1],
            "answers": node in (asked or {}) if asked is not None else None,
            **none,
            **(asked or {}).get(node, {}),
        }
        for node in nodes
    ]


def huey_workers(answers: Mapping[str, Any]) -> list[Document]:
    """Return every host with a Huey consumer; it has no way to say what it does just now."""
    found = []
    for host, one in answers["hosts"].items():
        if "workers" not in one["groups"] or host in answers["dead"]:
            continue
        compared = (one["probe"] or {}).get("set") or {"failed": True}
        name = f"{answers['prefix']}huey-worker"
        down = compared.get("failed") or [
            unit for unit in compared.get("started", []) if unit.startswith(name)
        ]
        found.append(
            {
                "name": name,
                "host": host,
                "answers": not down,
                "pool": answers["huey"]["type"],
                "concurrency": answers["huey"]["workers"],
                **dict.fromkeys(("active", "reserved", "done", "heartbeat", "oldest")),
            }
        )
    return found


def pages(answers: Mapping[str, Any], what: str) -> list[Document]:
    """Return every host of a page, and what it answered."""
    found = []
    for host, one in answers["hosts"].items():
        if what in one["groups"] and not (what == "flower" and answers["queue"] != "celery"):
            said = (one["probe"] or {}).get(what) or {}
            status = said.get("status", -1)
            good = status in said.get("wanted", [])
            found.append({"host": host, "url": said.get("url"), "status": status, "good": good})
    return found


def broker_problems(document: Document, asked: Mapping[str, Any], where: str) -> list[str]:
    """Say what is wrong with the broker itself."""
    state = asked.get("broker") or {}
    home = f" on {document['broker']['host']}" if document["broker"]["host"] else ""
    if "error" in state:
        return [f"The broker{home} does not answer (asked from {where}): {state['error']}."]
    problems = []
    if state.get("write_error"):
        problems.append(
            f"Redis{home} cannot write to its disk and refuses tasks: make room there, and look at "
            "`journalctl -u redis-server`."
        )
    if state.get("alarms"):
        problems.append(
            f"RabbitMQ{home} lets nobody send because of {', '.join(map(str, state['alarms']))}: "
            "let the workers catch up, or give it more room."
        )
    return problems


def own_problems(
    document: Document, asked: Mapping[str, Any], answers: Mapping[str, Any]
) -> list[str]:
    """Say what is wrong with what the services stand on."""
    where = answers["from"]
    if answers["queue"] == "none":
        return []
    if not where:
        return ["No host with the project answered: queues, workers and broker could not be asked."]
    problems = broker_problems(document, asked, where)
    if "error" in (asked.get("project") or {}):
        problems.append(
            f"The project's code cannot be loaded on {where}: {asked['project']['error']}; see "
            f"`{answers['shell']} python manage.py check` there."
        )
    if "error" in (asked.get("database") or {}):
        home = document["database"]["host"]
        problems.append(
            f"The database{f' on {home}' if home else ''} does not answer (asked from {where}): "
            f"{asked['database']['error']}."
        )
    return problems


def gaps(asked: Mapping[str, Any], answers: Mapping[str, Any]) -> list[str]:
    """Say what could not be asked, for a reason that is not the broker's."""
    problems = []
    for part in ("queues", "workers"):
        error = (asked.get(part) or {}).get("error")
        if error and "error" not in (asked.get("broker") or {}):
            problems.append(f"The {part} could not be asked from {answers['from']}: {error}.")
    if answers["ended"]:
        problems.append(f"Asking from {answers['from']} broke off: {answers['ended']}.")
    return problems


def own_warnings(document: Document, answers: Mapping[str, Any]) -> list[str]:
    """Say what will become wrong if nobody looks."""
    warnings = [
        f"{host} is taken to be off (stack_dead_hosts): nobody looked at it."
        for host in answers["dead"]
    ]
    limit = answers["queue_warning"]
    warnings += [
        f"The queue {name} has {length} tasks waiting, more than {limit}: are there enough workers?"
        for name, length in (document["queues"] or {}).items()
        if length > limit
    ]
    broker = document["broker"]
    if broker.get("memory_max") and broker["memory_used"] > FULL * broker["memory_max"]:
        used = 100 * broker["memory_used"] / broker["memory_max"]
        warnings.append(f"Redis on {broker['host']} uses {used:.0f} % of the memory that it may.")
    for host, one in answers["hosts"].items():
        for disk in (one["looked"] or {}).get("disks", []):
            free = 100 * disk["free"] / disk["size"]
            if free < answers["disk_warning"]:
                warnings.append(
                    f"{host}: the disk of {disk['path']} is nearly full, {free:.0f} % "
                    f"({disk['free'] // 2**20} MiB) is free."
                )
    return warnings


def releases(answers: Mapping[str, Any]) -> list[Document]:
    """Return each release with the hosts that have it."""
    by_release: dict[str, list[str]] = {}
    for host, one in answers["hosts"].items():
        release = (one["looked"] or {}).get("release")
        if release:
            by_release.setdefault(release, []).append(host)
    return [{"release": release, "hosts": hosts} for release, hosts in by_release.items()]


def deploys(answers: Mapping[str, Any]) -> list[Document]:
    """Return what was deployed last on the hosts, the latest first; what is the same stands once.

    Of why one failed, the last line that names an error is told, else the last one.
    """
    found: dict[tuple[str, ...], Document] = {}
    for host, said in answers["hosts"].items():
        entry = (said["looked"] or {}).get("deploy")
        if not entry:
            continue
        keys = ("action", "release", "from", "who", "result")
        one = {key: str(entry.get(key) or "") for key in keys}
        why = ["", *str(entry.get("why") or "").strip().splitlines()]
        one["why"] = next((line for line in reversed(why) if "Error" in line), why[-1])
        same = found.setdefault(tuple(one.values()), {**one, "time": "", "hosts": []})
        same["time"] = max(same["time"], str(entry.get("time") or ""))
        same["hosts"].append(host)
    return sorted(found.values(), key=lambda one: str(one["time"]), reverse=True)


def draining(answers: Mapping[str, Any]) -> list[Document]:
    """Return the former processes that finish their work."""
    return [
        {
            "host": host,
            "service": one["unit"],
            "pid": one["pid"],
            "since": iso(one["since"]),
            "until": iso(one["until"]),
            "left": one["until"] - answers["now"],
            "release": one["release"] or None,
        }
        for host, said in answers["hosts"].items()
        for one in (said["census"] or {}).get("draining") or []
    ]


def fleet_status(answers: Mapping[str, Any]) -> Document:
    """Put everything that the fleet answered into one document.

    Args:
        answers: as `__verify_answers` in roles/verify/vars/status.yml puts them together.

    Returns:
        The document; docs/operations.md says what its keys mean.
    """
    asked = parts(answers["asked"])
    schedule = asked.get("schedule")
    active, standbys = split(schedulers(answers), answers)
    workers = without_error(asked.get("workers"))
    celery = answers["queue"] == "celery"
    document: Document = {
        "stack": answers["stack"],
        "time": iso(answers["now"]),
        "status": "ok",
        "problems": [],
        "warnings": [],
        "scheduler": active[0] if active else None,
        "more_schedulers": active[1:],
        "starting": [
            {"host": host, "service": name}
            for host, one in answers["hosts"].items()
            for name in (one["census"] or {}).get("starting") or []
        ],
        "standbys": standbys,
        "next_due": next_due(schedule),
        "lock": (schedule or {}).get("lock"),
        "cluster": answers["cluster"],
        "workers": celery_workers(answers, workers) if celery else huey_workers(answers),
        "queues": without_error(asked.get("queues")),
        "broker": {
            "kind": answers["broker"],
            "host": answers["broker_host"] or None,
            "answers": "error" not in asked["broker"] if "broker" in asked else None,
            **(without_error(asked.get("broker")) or {}),
        },
        "database": {
            "kind": answers["database"],
            "host": answers["database_host"] or None,
            "answers": "error" not in asked["database"] if "database" in asked else None,
        },
        "web": pages(answers, "web"),
        "flower": pages(answers, "flower"),
        "releases": releases(answers),
        "deploys": deploys(answers),
        "draining": draining(answers),
        "hosts": {
            host: {
                "answers": "schedulers" in (one["census"] or {}),
                "release": (one["looked"] or {}).get("release"),
                "disks": (one["looked"] or {}).get("disks", []),
            }
            for host, one in answers["hosts"].items()
        },
    }
    # What a service stands on before the service: it is the cause.
    document["problems"] = [
        *own_problems(document, asked, answers),
        *answers["problems"],
        *late(document, without_error(schedule) or {}, answers),
        *gaps(asked, answers),
    ]
    document["warnings"] = [*answers["warnings"], *own_warnings(document, answers)]
    if document["problems"]:
        document["status"] = "wrong"
    elif document["warnings"]:
        document["status"] = "warning"
    return document


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"fleet_status": fleet_status, "duration": duration}
