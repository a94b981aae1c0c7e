# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Where the scheduler lives, and what stands against its moving."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DOCUMENTATION = r"""
name: scheduler_homes
short_description: Say on which hosts a scheduler runs in its own unit or program
version_added: "0.2.0"
author:
  - The django-background-fleet authors
description:
  - Takes what P(scheduler_census#module) returned on every host, as P(scheduler_verdict#filter)
    does.
  - One that a cluster started, or a person, lives nowhere. One that is starting counts if none
    runs.
options:
  _input:
    description: Result of the census by host.
    type: dict
    required: true
"""

EXAMPLES = r"""
homes: "{{ censuses | scheduler_homes }}"
"""

RETURN = r"""
_value:
  description: Host to the name of its scheduler's unit or program, without a suffix.
  type: dict
"""

# Whatever their prefix was when they were deployed.
SCHEDULER = re.compile(r"(.*(?:celery-beat|huey-periodic))(?:\.service)?")

Census = Mapping[str, Any]


def scheduler_homes(censuses: Mapping[str, Census | None]) -> dict[str, str]:
    """Return host -> service name, for every host that schedules by itself.

    Args:
        censuses: what the module scheduler_census returned, by host; None where it did not.
    """
    answers = {
        host: census for host, census in censuses.items() if census and "schedulers" in census
    }
    running = {
        host: [one["program"] or one["unit"] or "" for one in census["schedulers"]]
        for host, census in answers.items()
    }
    starting = {host: list(census["starting"]) for host, census in answers.items()}
    for places in (running, starting):
        homes = {
            host: found[1]
            for host, names in places.items()
            for found in [SCHEDULER.fullmatch(name) for name in names]
            if found and not _is_held(found[0], answers[host])
        }
        if homes:
            return homes
    return {}


def _is_held(name: str, census: Census) -> bool:
    """Tell whether systemd would not start this unit at boot: then a cluster does."""
    return any(
        unit["name"] == name and not unit["enabled"].startswith("enabled")
        for unit in census["units"]
    )


def silent_move(homes: Mapping[str, str], wanted: Sequence[str]) -> list[str]:
    """Say that an inventory would move the scheduler; empty if it would not.

    Several homes are no move: a failover mode that ends has them, or they are an error that is
    cleaned up.

    Args:
        homes: result of `scheduler_homes`.
        wanted: the hosts that shall schedule; empty if none shall.
    """
    if len(homes) != 1 or not wanted or set(homes) <= set(wanted):
        return []
    home = next(iter(homes))
    return [
        f"The scheduler runs on {home}, the inventory says {wanted[0]}: put {home} into the group "
        "scheduler, or move it with ansible-playbook playbooks/move_scheduler.yml "
        f"-e to={wanted[0]}."
    ]


def move_refusal(homes: Mapping[str, str], to: str, fleet: Mapping[str, Any]) -> str:
    """Return why the scheduler cannot move to a host, in one sentence; empty if it can.

    Args:
        homes: result of `scheduler_homes`.
        to: the host; empty if none was given.
        fleet: `hosts`, all of the inventory; `reached`, those of this run; `dead`; `releases`,
            those that have one; `mode`, `engine`, `queue` and `prefix` of the stack; `problems`,
            the sentences about all hosts but `to`.
    """
    dead, hosts = fleet["dead"], fleet["hosts"]
    service = fleet["prefix"] + ("huey-periodic" if fleet["queue"] == "huey" else "celery-beat")
    how = f"restart {service} on the host that schedules, and a standby takes over"
    if fleet["engine"] == "pacemaker":
        how = f"use `crm_resource --move -r {service} -N {to}` on a host of the cluster"
    reasons = {
        "say where it shall run: -e to=HOST": not to,
        "this stack has no scheduler (stack_task_queue is none)": fleet["queue"] == "none",
        f"in failover mode {how}": fleet["mode"] != "static",
        f"the inventory has no host {to}": to not in hosts,
        f"{to} is listed in stack_dead_hosts": to in dead,
        f"{to} gets no release: put it into one of the groups web, workers, scheduler or flower, "
        "and run site.yml": to not in fleet["releases"],
        "leave --limit away": bool(set(hosts) - set(dead) - set(fleet["reached"])),
        "none runs in its own unit or program, so there is nothing to move: put "
        f"{to} into the group scheduler and run site.yml": not homes,
        f"it runs on several hosts ({', '.join(homes)}): run site.yml, which leaves one": len(homes)
        > 1,
        " ".join(fleet["problems"]).removesuffix("."): bool(fleet["problems"]),
    }
    return next((f"The scheduler was not moved: {why}." for why, so in reasons.items() if so), "")


class FilterModule:
    """The filters, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return filter by name."""
        return {
            "scheduler_homes": scheduler_homes,
            "silent_move": silent_move,
            "move_refusal": move_refusal,
        }
