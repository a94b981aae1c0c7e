# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""The census of a host, for the modules that take it.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.process_scopes import PATTERN, parse_scopes, release_in, release_of
from ansible.module_utils.process_scopes import PROPERTIES as OF_SCOPES
from ansible.module_utils.scheduler_processes import PROPERTIES as OF_UNITS
from ansible.module_utils.scheduler_processes import (
    lurkers,
    nobodys,
    program_states,
    read_programs,
    read_units,
    running_programs,
    take_census,
    unit_states,
)
from ansible.module_utils.supervisord_files import SOCKET
from ansible.module_utils.systemd_show import Shown, show

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ansible.module_utils.basic import AnsibleModule

NAMES = {"type": "list", "elements": "str", "default": []}
# What both modules take; scheduler_census documents it.
OPTIONS = {
    "units": NAMES,
    "programs": NAMES,
    "names": NAMES,
    "wait": {"type": "int", "default": 0},
}


def look_at_services(stack: str, running: dict[str, int], scopes: list[Any]) -> dict[str, Any]:
    """Return what drains and which releases run.

    Args:
        stack: name of the stack.
        running: its services on this host, those that run, to their main processes.
        scopes: what systemd says of those that match PATTERN.
    """
    now, monotonic = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
    releases = {name: release_of(pid, stack) for name, pid in running.items()}
    return {
        "draining": parse_scopes(scopes, stack, now=now, monotonic=monotonic),
        "releases": {
            "current": release_in(Path(f"/opt/{stack}/current"), stack),
            "running": {name: release for name, release in releases.items() if release},
        },
    }


def memory_total(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the memory of the host in bytes, 0 if that cannot be told."""
    found = re.search(r"^MemTotal: *(\d+) kB", meminfo.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _look(
    module: AnsibleModule,
    stack: str,
    given: dict[str, Any],
    more: Iterable[str],
    of_more: Iterable[str],
) -> tuple[dict[str, Any], Shown]:
    """Return what `census_and_units` does, but for the identity of the host; do not wait."""
    definitions = read_programs()
    answers: list[dict[str, Any]] = []
    if SOCKET.exists():
        from ansible.module_utils.supervisord_rpc import process_info  # Its imports take a while.

        try:
            answers = process_info(SOCKET)
        except RuntimeError as error:
            module.fail_json(msg=str(error))
    unit_files = read_units()
    stray_units, stray_programs = nobodys(unit_files), nobodys(definitions)
    asked = list(dict.fromkeys([*given["units"], *stray_units]))
    services = {name: f"{name}.service" for name in given["names"]}
    # The states before the processes: what is not starting any more has become its program by then.
    # Without a running systemd there is no state to tell, and nothing it could start.
    shown, scopes = show(
        module,
        [*asked, *services.values(), *more],
        [*OF_UNITS, *OF_SCOPES, *of_more],
        PATTERN if services else "",
    )
    units = unit_states(asked, shown)
    names = dict.fromkeys([*given["programs"], *stray_programs])
    programs = program_states(names, stack, definitions, answers)
    lurking = lurkers({**stray_units, **stray_programs}, units, programs)
    units = [unit for unit in units if unit["name"] in given["units"]]
    programs = [program for program in programs if program["name"] in given["programs"]]
    try:
        running = running_programs(answers)
        found = take_census(stack, unit_files, definitions, running)
    except PermissionError as error:
        module.fail_json(msg=f"Cannot see all processes: {error}; run this with become: true")
    pids = {name: int(shown.get(unit, {}).get("MainPID") or 0) for name, unit in services.items()}
    pids.update((name, pid) for pid, name in running.items() if name in services)
    answer = {
        "schedulers": found["schedulers"],
        "other_stacks": found["other_stacks"],
        "units": units,
        "programs": programs,
        "lurking": lurking,
        "starting": [one["name"] for one in (*units, *programs) if one["starting"]],
        "foreign_units": {
            name: owner for name, owner in found["foreign"].items() if name in given["names"]
        },
        **look_at_services(stack, {name: pid for name, pid in pids.items() if pid}, scopes),
    }
    return answer, shown


def identity() -> dict[str, str]:
    """Return `hostname` and `machine_id` of this host, the latter empty if it has none."""
    machine_id = Path("/etc/machine-id")
    return {
        "hostname": os.uname().nodename,
        "machine_id": machine_id.read_text().strip() if machine_id.exists() else "",
    }


def census_and_units(
    module: AnsibleModule,
    stack: str,
    given: dict[str, Any],
    units: Iterable[str] = (),
    properties: Iterable[str] = (),
) -> tuple[dict[str, Any], Shown]:
    """Return what scheduler_census documents, and what systemd says of further units.

    Ends the module where there is no answer.

    Args:
        module: the module that asks.
        stack: name of the stack to count for.
        given: the values of OPTIONS.
        units: names of the further units.
        properties: what is to be known of these.
    """
    deadline = time.monotonic() + given["wait"]
    answer, shown = _look(module, stack, given, units, properties)
    while answer["starting"] and time.monotonic() < deadline:
        time.sleep(1)
        answer, shown = _look(module, stack, given, units, properties)
    return {**answer, "memory_total": memory_total(), "host_identity": identity()}, shown


def census(module: AnsibleModule, stack: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return what scheduler_census documents; see `census_and_units`."""
    return census_and_units(module, stack, given)[0]
