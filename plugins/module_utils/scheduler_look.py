# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""The census of a host, for the modules that take it.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.process_drain import (
    PATTERN,
    PROPERTIES,
    parse_blocks,
    parse_scopes,
    release_in,
    release_of,
)
from ansible.module_utils.scheduler_processes import (
    UnitState,
    lurkers,
    nobodys,
    parse_units,
    program_states,
    read_programs,
    read_units,
    running_programs,
    systemctl_show,
    take_census,
)
from ansible.module_utils.supervisord_files import SOCKET

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

NAMES = {"type": "list", "elements": "str", "default": []}
# What both modules take; scheduler_census documents it.
OPTIONS = {
    "units": NAMES,
    "programs": NAMES,
    "names": NAMES,
    "wait": {"type": "int", "default": 0},
}


def look_at_services(
    module: AnsibleModule, stack: str, names: list[str], pids: dict[str, int]
) -> dict[str, Any]:
    """Return what drains and which releases run.

    Args:
        module: the module that asks.
        stack: name of the stack.
        names: its services on this host.
        pids: the main processes of those that are programs of supervisord.
    """
    blocks: list[dict[str, str]] = []
    if names and module.get_bin_path("systemctl"):
        services = [f"{name}.service" for name in names]
        properties = ",".join(("MainPID", *PROPERTIES))
        code, shown, _ = module.run_command(
            ["systemctl", "show", f"--property={properties}", *services, PATTERN]
        )
        blocks = parse_blocks(shown) if code == 0 else []
    now, monotonic = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
    main = {
        block["Id"][: -len(".service")]: int(block["MainPID"])
        for block in blocks
        if block.get("Id", "").endswith(".service") and block.get("MainPID")
    }
    found = {name: pids.get(name) or main.get(name) for name in names}
    running = {name: release_of(pid, stack) for name, pid in found.items() if pid}
    return {
        "draining": parse_scopes(blocks, stack, now=now, monotonic=monotonic),
        "releases": {
            "current": release_in(Path(f"/opt/{stack}/current"), stack),
            "running": {name: release for name, release in running.items() if release},
        },
    }


def memory_total(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Return the memory of the host in bytes, 0 if that cannot be told."""
    found = re.search(r"^MemTotal: *(\d+) kB", meminfo.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _look(module: AnsibleModule, stack: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return what `census` does, but for the identity of the host; do not wait."""
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
    # The states before the processes: what is not starting any more has become its program by then.
    units: list[UnitState] = []
    if asked and module.get_bin_path("systemctl"):
        code, shown, _ = module.run_command(systemctl_show(asked))
        # Without a running systemd there is no state to tell, and nothing it could start.
        units = parse_units(asked, shown) if code == 0 else []
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
    return {
        "schedulers": found["schedulers"],
        "other_stacks": found["other_stacks"],
        "units": units,
        "programs": programs,
        "lurking": lurking,
        "starting": [one["name"] for one in (*units, *programs) if one["starting"]],
        "foreign_units": {
            name: owner for name, owner in found["foreign"].items() if name in given["names"]
        },
        **look_at_services(
            module, stack, given["names"], {name: pid for pid, name in running.items()}
        ),
    }


def identity() -> dict[str, str]:
    """Return `hostname` and `machine_id` of this host, the latter empty if it has none."""
    machine_id = Path("/etc/machine-id")
    return {
        "hostname": socket.gethostname(),
        "machine_id": machine_id.read_text().strip() if machine_id.exists() else "",
    }


def census(module: AnsibleModule, stack: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return what scheduler_census documents; end the module where there is no answer.

    Args:
        module: the module that asks.
        stack: name of the stack to count for.
        given: the values of OPTIONS.
    """
    deadline = time.monotonic() + given["wait"]
    answer = _look(module, stack, given)
    while answer["starting"] and time.monotonic() < deadline:
        time.sleep(1)
        answer = _look(module, stack, given)
    return {**answer, "memory_total": memory_total(), "host_identity": identity()}
