# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Judge whether exactly one scheduler runs in a fleet, in sentences an operator can act on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: scheduler_verdict
short_description: Say what stands against exactly one scheduler in a fleet
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Takes what P(scheduler_census#module) returned on every host of a stack, and says in one
    sentence each what is wrong and what to do about it.
  - A scheduler is where it belongs if it runs on an expected host, in one of the systemd units or
    supervisord programs that the census was asked for, and not inside a worker.
positional: expected
options:
  _input:
    description:
      - Result of the census by host.
      - A host whose result is null, missing or without a list of schedulers did not answer. It may
        hold a scheduler, so it is a problem unless it is in O(dead).
    type: dict
    required: true
  expected:
    description: The hosts that must run one scheduler each; empty if the stack wants none.
    type: list
    elements: str
    required: true
  dead:
    description: Hosts known to be off, which need not answer.
    type: list
    elements: str
    default: []
  managers:
    description: The process manager of each host, V(systemd) where none is given.
    type: dict
    default: {}
seealso:
  - plugin: scheduler_census
    plugin_type: module
    description: Finds the schedulers of a host.
"""

EXAMPLES = r"""
- name: Find the schedulers of every host
  scheduler_census:
    stack: shop
    units:
      - celery-beat.service
  become: true
  register: census

- name: Refuse anything but one scheduler on the host of the group scheduler
  ansible.builtin.assert:
    that: not problems
    fail_msg: "{{ problems | join('\n') }}"
  vars:
    answers: >-
      {{ groups['all'] | map('extract', hostvars) | map(attribute='census', default=none) }}
    censuses: "{{ dict(groups['all'] | zip(answers)) }}"
    problems: "{{ censuses | scheduler_verdict(groups['scheduler'], dead=['worker3']) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description:
    - A sentence for each problem, those of the expected hosts first.
    - Empty if every expected host runs one scheduler in its unit or program, and no other host
      runs or could start one.
  type: list
  elements: str
"""

Census = Mapping[str, Any]
Scheduler = Mapping[str, Any]
Unit = Mapping[str, Any]
Program = Mapping[str, Any]

SUPERVISOR = "supervisor.service"
PROGRAM = "supervisord's program"


def scheduler_verdict(
    censuses: Mapping[str, Census | None],
    expected: Sequence[str],
    dead: Sequence[str] = (),
    managers: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Return a sentence for each thing that stands against exactly one scheduler.

    Args:
        censuses: What the module scheduler_census returned, by host; None where it did not.
        expected: The hosts that must run one scheduler each.
        dead: The hosts that need not answer.
        managers: host -> "systemd" or "supervisord"; systemd where none is given.

    Raises:
        AnsibleFilterError: An argument has another shape.
    """
    if not isinstance(censuses, Mapping):
        raise AnsibleFilterError("scheduler_verdict needs a mapping of host to census")
    if isinstance(expected, str) or isinstance(dead, str):
        raise AnsibleFilterError("scheduler_verdict needs lists of hosts: expected, dead")
    answers = {
        host: census for host, census in censuses.items() if census and "schedulers" in census
    }
    count = sum(len(census["schedulers"]) for census in answers.values())
    hosts = dict.fromkeys([*expected, *censuses])
    silent = [host for host in hosts if host not in answers and host not in dead]

    problems: list[str] = []
    for host in hosts:
        if host in silent:
            problems.append(_silent(host, censuses.get(host), host in expected, dead))
        elif host in answers and host in expected:
            supervised = managers.get(host) == "supervisord"
            problems += _where_it_must_run(host, answers[host], count, bool(silent), supervised)
        elif host in answers:
            problems += _where_it_must_not_run(host, answers[host], count)
        elif host in expected:
            problems.append(
                f"No scheduler runs on {host}, which must run it but is listed in "
                "stack_dead_hosts: put another host into the group 'scheduler' and run site.yml."
            )
    return problems


def _where_it_must_run(
    host: str, census: Census, count: int, silence: bool, supervised: bool
) -> Iterator[str]:
    own = [one for one in census["schedulers"] if _in_own_place(one, census)]
    main_pids = {unit["main_pid"] for unit in census["units"]}
    main_pids |= {program["pid"] for program in census["programs"]}
    right = max(
        own,
        key=lambda one: (bool(one["program"]) == supervised, one["pid"] in main_pids),
        default=None,
    )
    if right is None:
        lead = f"No scheduler runs anywhere, and {host} must run it"
        if count:
            where = "as its program" if supervised else "in its unit"
            lead = f"No scheduler runs {where} on {host}, which must run it"
        elif silence:
            lead = f"No host that answered runs a scheduler, and {host} must run it"
        why_not = _program_state if supervised else _unit_state
        yield f"{lead}: {why_not(host, census)}."
    for one in census["schedulers"]:
        if one is right:
            continue
        if right is None or _embedded(one):
            yield _stray(host, one, count)
            continue
        cure = _stop(host, one)
        if _place(one) == _place(right):
            cure = _kill(host, one)
        elif one in own:
            cure = f"run site.yml, which leaves one, or {_stop_own(host, one)}"
        yield (
            f"{host} runs more than one scheduler: beside pid {right['pid']} of {_place(right)} "
            f"also {_what(one)}, {_origin(one)}; {cure}."
        )


def _where_it_must_not_run(host: str, census: Census, count: int) -> Iterator[str]:
    running = set()
    for one in census["schedulers"]:
        if not _in_own_place(one, census):
            yield _stray(host, one, count)
            continue
        running.add(one["program"] or one["unit"])
        yield (
            f"{_place(one)} schedules on {host}, which must not: {_what(one)}; run site.yml, which "
            f"removes it, or {_stop_own(host, one)}."
        )
    foreign = census["foreign_units"]
    for unit in census["units"]:
        name = unit["name"]
        if unit["load"] in ("masked", "not-found") or name in running or _short(name) in foreign:
            continue
        threat = "would start at the next boot"
        if not unit["enabled"].startswith("enabled"):
            threat = f"could be started, though it is {unit['enabled'] or 'not enabled'}"
        yield (
            f"{name} is defined on {host}, which must not schedule: it is {unit['active']} now but "
            f"{threat}; run site.yml, which removes and masks it."
        )
    for program in census["programs"]:
        name = program["name"]
        if not (program["defined"] or program["state"]) or name in running or name in foreign:
            continue
        threat = "would start with supervisord"
        if not program["autostart"]:
            threat = "could be started, though not by itself"
        yield (
            f"{PROGRAM} {name} is defined on {host}, which must not schedule: it is "
            f"{program['state'] or 'not loaded'} now but {threat}; run site.yml, which removes it."
        )


def _silent(host: str, census: Census | None, must_run: bool, dead: Sequence[str]) -> str:
    reason = str((census or {}).get("msg") or "").strip().partition("\n")[0]
    # Whoever adds these words replaces the ones of this run.
    words = json.dumps({"stack_dead_hosts": [*dead, host]})
    return (
        f"{host} did not answer{f' ({reason})' if reason else ''} and may hold "
        f"{'the' if must_run else 'a'} scheduler: bring it back, or if you know that it is off, "
        f"{'put another host into the group scheduler and ' if must_run else ''}add -e '{words}'."
    )


def _stray(host: str, one: Scheduler, count: int) -> str:
    """Say how to end a scheduler that runs in no place of the stack's, or inside a worker."""
    which = "A second scheduler" if count > 1 else "A scheduler"
    where = f"inside a worker on {host}" if _embedded(one) else f"on {host}"
    cure = _stop(host, one)
    place = _place(one)
    if place and not _orphan(one):
        if _embedded(one):
            cure = f"take its option for beat out of {place} and restart that on {host}"
        elif _huey(one):
            cure = f"add --no-periodic to {place} and restart that on {host}"
    return f"{which} runs {where}, {_origin(one)}: {_what(one)}; {cure}."


def _in_own_place(one: Scheduler, census: Census) -> bool:
    """Tell whether it runs as one of the programs or in one of the units that may be it."""
    if _embedded(one):
        return False
    if one["program"]:
        return one["program"] in {program["name"] for program in census["programs"]}
    return one["unit"] in {unit["name"] for unit in census["units"]}


def _embedded(one: Scheduler) -> bool:
    return "embedded" in one["kind"]


def _huey(one: Scheduler) -> bool:
    return "huey" in one["kind"]


def _orphan(one: Scheduler) -> bool:
    """Tell whether supervisord started it and has lost it."""
    return one["unit"] == SUPERVISOR and not one["program"]


def _what(one: Scheduler) -> str:
    return f"pid {one['pid']} of user {one['user']}, `{one['command']}`"


def _place(one: Scheduler) -> str:
    """Return what runs it, in words; empty if a person does."""
    return f"{PROGRAM} {one['program']}" if one["program"] else one["unit"] or ""


def _origin(one: Scheduler) -> str:
    if _orphan(one):
        return f"left in {SUPERVISOR} by no program of it"
    return f"started by {_place(one)}" if _place(one) else "started by hand"


def _kill(host: str, one: Scheduler) -> str:
    # SIGTERM makes a Huey consumer drop its running tasks.
    return f"stop it with `kill {'-INT ' if _huey(one) else ''}{one['pid']}` on {host}"


def _stop(host: str, one: Scheduler) -> str:
    if one["program"]:
        # Killed, it would be started again.
        return f"stop it with {_stop_own(host, one)} and take that program away"
    if not one["unit"] or _orphan(one):
        return _kill(host, one)
    # The service may be one that only carries it, such as cron's.
    return f"{_kill(host, one)}, or stop {one['unit']} if that is only there to run it"


def _stop_own(host: str, one: Scheduler) -> str:
    if one["program"]:
        return f"`supervisorctl stop {one['program']}` on {host}"
    return f"`systemctl disable --now {_short(one['unit'])}` on {host}"


DEPLOY = "and deploy it with `ansible-playbook site.yml`"
STARTING = "has not finished starting (Huey's scheduler waits for the next minute); ask again"


def _unit_state(host: str, census: Census) -> str:
    """Say in which state the unit is that should schedule, and what to do."""
    if not census["units"]:
        return f"systemd does not answer there; see `systemctl status` on {host}"
    unit = min(census["units"], key=lambda one: one["load"] in ("masked", "not-found"))
    name = _short(unit["name"])
    journal = f"see `journalctl -u {name}` on {host}"
    states = {
        "masked": f"is masked; {journal} {DEPLOY}, which unmasks it",
        "not-found": f"is not found; {journal} {DEPLOY}",
        "failed": f"has failed; {journal} and `systemctl restart {name}` there",
        "inactive": f"is stopped; {journal} and `systemctl start {name}` there",
        "activating": f"is starting again and again; {journal}",
        "active": f"is active but schedules nothing; {journal} and `systemctl cat {name}` there",
        "starting": f"{STARTING}, or {journal}",
    }
    state = unit["load"] if unit["load"] in states else unit["active"]
    state = "starting" if unit["starting"] else state
    return f"{unit['name']} {states.get(state, f'is {state}; {journal}')}"


def _program_state(host: str, census: Census) -> str:
    """Say in which state the program is that should schedule, and what to do."""
    programs = census["programs"]
    program = min(programs, key=lambda one: not (one["defined"] or one["state"]))
    name, log = program["name"], f"see {program['log'] or 'its log'} on {host}"
    states = {
        "": f"is not loaded; see `systemctl status supervisor` on {host} and "
        "`supervisorctl update` there",
        "FATAL": f"has failed; {log} and `supervisorctl start {name}` there",
        "STOPPED": f"is stopped; {log} and `supervisorctl start {name}` there",
        "EXITED": f"has ended; {log} and `supervisorctl start {name}` there",
        "BACKOFF": f"is starting again and again; {log}",
        "RUNNING": f"runs but schedules nothing; {log} and `supervisorctl status` there",
        "starting": f"{STARTING}, or {log}",
    }
    state = "starting" if program["starting"] else program["state"]
    words = states.get(state, f"is {state}; {log}")
    if not (program["defined"] or program["state"]):
        words = f"is not defined on {host}; deploy it with `ansible-playbook site.yml`"
    return f"{PROGRAM} {name} {words}"


def _short(unit: str) -> str:
    return unit.removesuffix(".service")


class FilterModule:
    """The filter, for Ansible."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return filter by name."""
        return {"scheduler_verdict": scheduler_verdict}
