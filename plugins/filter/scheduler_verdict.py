# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Judge whether exactly one scheduler runs in a fleet, in sentences an operator can act on."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
  - With RedBeat, each expected host runs one, of which the one that answers on the broker
    schedules. The others stand by and are no second schedulers, nor is one that was started by hand
    and asks for RedBeat's lock; the latter and a missing standby are warnings.
  - With Pacemaker, one of the expected hosts runs it, and on the others its unit is defined but
    starts by nothing else than the cluster.
  - What still leaves one scheduler, but not safely, is returned by
    P(scheduler_warnings#filter), which takes the same arguments.
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
    description:
      - The hosts that must run one scheduler each, or of which one must with Pacemaker.
      - Empty if the stack wants none.
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
  engine:
    description: What keeps one of several schedulers the one; empty where there is but one.
    type: str
    choices: ["", redbeat, pacemaker]
    default: ""
  live:
    description:
      - The hosts whose beat answered on the broker as C(celerybeat@HOST), a host twice if two did.
        Each must be a process that the census found.
      - Or a text that says why that cannot be known; or null if nobody asked.
    type: raw
  cluster:
    description:
      - What Pacemaker says, with C(quorum) (bool), C(holder) (host or empty), C(online) (list of
        hosts) and C(failed) (list of sentences); empty if it does not answer on any host.
      - Null if nobody asked.
    type: dict
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
      runs or could start one; with an engine, if one of them schedules.
  type: list
  elements: str
"""

Census = Mapping[str, Any]
Scheduler = Mapping[str, Any]
Unit = Mapping[str, Any]
Program = Mapping[str, Any]
# The hosts whose scheduler answered on the broker, one of them twice if two did; or in words why
# that cannot be known; or None if nobody asked.
Live = Sequence[str] | str | None

SUPERVISOR = "supervisor.service"
PROGRAM = "supervisord's program"
# Also `redbeat:RedBeatScheduler`, `redbeat.schedulers.RedBeatScheduler`.
REDBEAT = re.compile(r"redbeat([.:]schedulers)?[.:]RedBeatScheduler")


def scheduler_verdict(*arguments: Any, **options: Any) -> list[str]:
    """Return a sentence for each thing that stands against exactly one scheduler; see `judge`."""
    return judge("scheduler_verdict", *arguments, **options).wrong


def scheduler_warnings(*arguments: Any, **options: Any) -> list[str]:
    """Return a sentence for each thing that leaves one scheduler, but not safely; see `judge`."""
    return judge("scheduler_warnings", *arguments, **options).warnings


def scheduler_roles(*arguments: Any, **options: Any) -> dict[str, list[str]]:
    """Return the hosts that schedule and those that stand by; see `judge`.

    Returns:
        `schedules`, `standby` and `unknown`: hosts that run a scheduler and do one or the other.
    """
    fleet = judge("scheduler_roles", *arguments, **options).fleet
    running = fleet.running
    if fleet.engine == "redbeat" and not fleet.asked:
        return {"schedules": [], "standby": [], "unknown": running}
    schedules, standby = running, []
    if fleet.engine == "redbeat":
        schedules = [host for host in running if fleet.live[host]]
        standby = [host for host in running if not fleet.live[host]]
    elif fleet.engine == "pacemaker":
        standby = [host for host in fleet.expected if fleet.may_take_over(host)]
    return {"schedules": schedules, "standby": standby, "unknown": []}


def left_behind(censuses: Mapping[str, Census | None], outside: Sequence[str]) -> list[str]:
    """Say which hosts that a run leaves out would go on scheduling without asking RedBeat's lock.

    Args:
        censuses: What the module scheduler_census returned, by host; None where it did not.
        outside: The hosts that shall schedule with RedBeat and are not in the run.
    """
    return [
        f"{host} schedules and does not ask for RedBeat's lock, and --limit leaves it out: leave "
        "--limit away."
        for host in outside
        for one in ((censuses.get(host) or {}).get("schedulers") or [])
        if not _asks_for_the_lock(one)
    ]


def judge(
    name: str,
    censuses: Mapping[str, Census | None],
    expected: Sequence[str],
    dead: Sequence[str] = (),
    managers: Mapping[str, str] = MappingProxyType({}),
    *,
    engine: str = "",
    live: Live = None,
    cluster: Mapping[str, Any] | None = None,
) -> _Verdict:
    """Judge a fleet.

    Args:
        name: The filter that asks.
        censuses: What the module scheduler_census returned, by host; None where it did not.
        expected: The hosts that must run one scheduler each; of which one must, under Pacemaker.
        dead: The hosts that need not answer.
        managers: host -> "systemd" or "supervisord"; systemd where none is given.
        engine: What chooses the one of several that schedules: "redbeat" or "pacemaker".
        live: See `Live`.
        cluster: `quorum` (bool), `holder` (host or ""), `online` (hosts), `failed` (sentences);
            empty if Pacemaker does not answer, None if nobody asked.

    Raises:
        AnsibleFilterError: An argument has another shape.
    """
    if not isinstance(censuses, Mapping):
        raise AnsibleFilterError(f"{name} needs a mapping of host to census")
    if isinstance(expected, str) or isinstance(dead, str):
        raise AnsibleFilterError(f"{name} needs lists of hosts: expected, dead")
    fleet = _Fleet(
        censuses=censuses,
        expected=expected,
        dead=dead,
        managers=managers,
        engine=engine,
        asked=live is not None and not isinstance(live, str),
        why_unknown=live if isinstance(live, str) else "",
        live=Counter() if live is None or isinstance(live, str) else Counter(live),
        cluster=cluster,
    )
    verdict = _Verdict(fleet)
    verdict.give()
    return verdict


@dataclass
class _Fleet:
    """What is known of a fleet; the arguments of `judge`."""

    censuses: Mapping[str, Census | None]
    expected: Sequence[str]
    dead: Sequence[str]
    managers: Mapping[str, str]
    engine: str
    asked: bool
    why_unknown: str
    live: Counter[str]
    cluster: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        self.hosts = list(dict.fromkeys([*self.expected, *self.censuses]))
        self.answers: dict[str, Census] = {
            host: census
            for host, census in self.censuses.items()
            if census and "schedulers" in census
        }
        self.silent = [
            host for host in self.hosts if host not in self.answers and host not in self.dead
        ]
        self.count = sum(len(census["schedulers"]) for census in self.answers.values())
        self.right = {
            host: self._right(host, self.answers[host])
            for host in self.expected
            if host in self.answers
        }
        self.running = [host for host, one in self.right.items() if one]

    def supervised(self, host: str) -> bool:
        return self.managers.get(host) == "supervisord"

    def _right(self, host: str, census: Census) -> Scheduler | None:
        """Return the scheduler that runs where it must on a host."""
        main_pids = {unit["main_pid"] for unit in census["units"]}
        main_pids |= {program["pid"] for program in census["programs"]}
        return max(
            (one for one in census["schedulers"] if _in_own_place(one, census)),
            key=lambda one: (
                bool(one["program"]) == self.supervised(host),
                one["pid"] in main_pids,
            ),
            default=None,
        )

    def may_take_over(self, host: str) -> bool:
        """Tell whether Pacemaker could start the scheduler on a host."""
        census = self.answers.get(host)
        online = host in self.cluster.get("online", ()) if self.cluster is not None else True
        return bool(census and online and not self.right[host] and _defined(census))

    def held(self, one: Scheduler) -> bool:
        """Tell whether RedBeat's lock holds a scheduler back while another one schedules."""
        return self.engine == "redbeat" and _asks_for_the_lock(one)


class _Verdict:
    """The sentences on a fleet: what is wrong, and what is a warning only."""

    def __init__(self, fleet: _Fleet) -> None:
        self.fleet = fleet
        self.wrong: list[str] = []
        self.warnings: list[str] = []

    def give(self) -> None:
        fleet = self.fleet
        for host in fleet.hosts:
            census = fleet.answers.get(host)
            if host in fleet.silent:
                self.wrong.append(self.silent(host))
            elif census and host in fleet.expected:
                if fleet.engine == "pacemaker":
                    self.in_the_cluster(host, census)
                else:
                    self.where_it_must_run(host, census)
                self.beside(host, census)
            elif census:
                self.where_it_must_not_run(host, census)
            elif host in fleet.expected:
                self.dead(host)
        if fleet.engine == "pacemaker" and fleet.right:
            self.cluster()
        if fleet.engine == "redbeat":
            self.lock()
        self.broker()
        for host, census in fleet.answers.items():
            self.lurking(host, census)
        self.clones()

    # --- A host -----------------------------------------------------------------------------

    def silent(self, host: str) -> str:
        fleet = self.fleet
        must_run = host in fleet.expected
        census = fleet.censuses.get(host)
        reason = str((census or {}).get("msg") or "").strip().partition("\n")[0]
        lead = f"{host} did not answer{f' ({reason})' if reason else ''}"
        if fleet.live[host]:
            return (
                f"{lead}, but its scheduler answers on the broker as {_node(host)}: it runs, so "
                "bring back the way to that host."
            )
        # Whoever adds these words replaces the ones of this run.
        words = json.dumps({"stack_dead_hosts": [*fleet.dead, host]})
        moves = must_run and not fleet.engine
        return (
            f"{lead} and may hold {'the' if moves else 'a'} scheduler: bring it back, or if you "
            f"know that it is off, "
            f"{'put another host into the group scheduler and ' if moves else ''}add -e '{words}'."
        )

    def dead(self, host: str) -> None:
        if self.fleet.engine:
            self.warnings.append(
                f"{host} is no standby, as it is listed in stack_dead_hosts; {self.left(host)}."
            )
            return
        self.wrong.append(
            f"No scheduler runs on {host}, which must run it but is listed in stack_dead_hosts: "
            "put another host into the group 'scheduler' and run site.yml."
        )

    def where_it_must_run(self, host: str, census: Census) -> None:
        fleet = self.fleet
        if fleet.right[host]:
            return
        why = (_program_state if fleet.supervised(host) else _unit_state)(host, census)
        if fleet.engine and fleet.running:
            self.warnings.append(f"{host} is no standby: {why}; {self.left(host)}.")
            return
        lead = f"No scheduler runs anywhere, and {host} must run it"
        if fleet.count:
            where = "as its program" if fleet.supervised(host) else "in its unit"
            lead = f"No scheduler runs {where} on {host}, which must run it"
        elif fleet.silent:
            lead = f"No host that answered runs a scheduler, and {host} must run it"
        self.wrong.append(f"{lead}: {why}.")

    def left(self, host: str) -> str:
        """Say who could take over, a standby less."""
        others = [one for one in self.fleet.running if one != host]
        if self.fleet.engine == "pacemaker":
            return "the cluster has a node less to move to"
        if len(others) < 2:  # One of them schedules.
            return f"if {others[0]} fails, nobody takes over" if others else "nobody takes over"
        return f"{' and '.join(others)} can still take over from each other"

    def beside(self, host: str, census: Census) -> None:
        """Tell what else schedules, or could, on a host that must run a scheduler."""
        fleet = self.fleet
        right = fleet.right[host]
        if right:
            running = [_place(one) for one in census["schedulers"] if _in_own_place(one, census)]
            for threat, cure in _threats(census, *running):
                self.wrong.append(
                    f"{threat} on {host} beside {_place(right)}, which must be the only one: {cure}"
                )
        for one in census["schedulers"]:
            if one is right:
                continue
            if right is None or _embedded(one):
                self.stray(host, one)
                continue
            cure = _stop(host, one)
            if _place(one) == _place(right):
                cure = _kill(host, one)
            elif _in_own_place(one, census):
                cure = f"run site.yml, which leaves one, or {_stop_own(host, one)}"
            beside = f"beside pid {right['pid']} of {_place(right)} also {_what(one)}"
            if fleet.held(one):
                self.warnings.append(
                    f"{host} runs a standby too many: {beside}, {_origin(one)}; {cure}."
                )
                continue
            self.wrong.append(
                f"{host} runs more than one scheduler: {beside}, {_origin(one)}"
                f"{self.past_the_lock()}; {cure}."
            )

    def past_the_lock(self) -> str:
        return ", which does not ask for RedBeat's lock" if self.fleet.engine == "redbeat" else ""

    def where_it_must_not_run(self, host: str, census: Census) -> None:
        running = set()
        for one in census["schedulers"]:
            if not _in_own_place(one, census):
                self.stray(host, one)
                continue
            running.add(_place(one))
            self.wrong.append(
                f"{_place(one)} schedules on {host}, which must not: {_what(one)}; run site.yml, "
                f"which removes it, or {_stop_own(host, one)}."
            )
        for threat, cure in _threats(census, *running):
            self.wrong.append(f"{threat} on {host}, which must not schedule: {cure}")

    def stray(self, host: str, one: Scheduler) -> None:
        """Say how to end a scheduler that runs in no place of the stack's, or inside a worker."""
        fleet = self.fleet
        which = "A second scheduler" if fleet.count > 1 else "A scheduler"
        held = fleet.held(one) and (host in fleet.expected or not fleet.live[host])
        if held:
            which = "A standby that nobody deployed"
        where = f"inside a worker on {host}" if _embedded(one) else f"on {host}"
        cure = _stop(host, one)
        place = _place(one)
        if place and not _orphan(one):
            if _embedded(one):
                cure = f"take its option for beat out of {place} and restart that on {host}"
            elif _huey(one):
                cure = f"add --no-periodic to {place} and restart that on {host}"
        past = "" if fleet.held(one) else self.past_the_lock()
        sentence = f"{which} runs {where}, {_origin(one)}{past}: {_what(one)}; {cure}."
        (self.warnings if held else self.wrong).append(sentence)

    def lurking(self, host: str, census: Census) -> None:
        """Tell which units and programs of nobody's would start a scheduler by themselves."""
        told = {one["program"] or one["unit"] for one in census["schedulers"]}
        told |= {one["name"] for one in (*census["units"], *census["programs"])}
        for one in census["lurking"]:
            if one["name"] in told or not one["enabled"]:
                continue
            place, when, cure = one["name"], "at the next boot", "systemctl disable --now"
            if one["manager"] == "supervisord":
                place, when = f"{PROGRAM} {one['name']}", "with supervisord"
                cure = "supervisorctl stop"
            self.wrong.append(
                f"{place} on {host} would start a second scheduler ({one['kind']}) {when}, though "
                f"it is {one['state'] or 'not loaded'} now: `{cure} {_short(one['name'])}` on "
                f"{host}, and delete its file."
            )

    # --- The fleet --------------------------------------------------------------------------

    def lock(self) -> None:
        """Tell whether exactly one holds RedBeat's lock, by who answers on the broker."""
        fleet = self.fleet
        if not fleet.running:
            return
        names = " and ".join(fleet.running)
        see = f"see {_log(fleet, fleet.running[0])}"
        if not fleet.asked:
            if fleet.why_unknown:
                self.warnings.append(
                    f"Which of {names} schedules now cannot be known ({fleet.why_unknown}): "
                    f"{see} for 'Acquired lock'."
                )
            return
        live = fleet.live - Counter(
            host
            for host, census in fleet.answers.items()
            for one in census["schedulers"]
            if not fleet.held(one) and one is not fleet.right.get(host)
        )
        if not live:
            self.wrong.append(
                f"Nobody schedules: {names} run a scheduler, but none of them answers on the "
                "broker. The lock of one that died ends by itself after celery_beat_lock_timeout; "
                f"if it does not, the lock's Redis may be away: {see}."
            )
        elif live.total() > 1:
            self.wrong.append(
                f"{live.total()} schedulers are live at once, {' and '.join(live.elements())}, "
                "though RedBeat's lock lets one: they do not ask the same Redis for it; stop all "
                f"but one, {see}."
            )

    def broker(self) -> None:
        """Compare who answers on the broker as a scheduler with the processes of the hosts."""
        fleet = self.fleet
        find = "the broker's list of connections has its address"
        for host, times in fleet.live.items():
            answers = f"answers on the broker as {_node(host)}"
            if host in fleet.dead:
                self.wrong.append(
                    f"{host} is listed in stack_dead_hosts, but a scheduler {answers}: it is not "
                    "dead; switch it off, or take it out of that list."
                )
            elif host not in fleet.hosts:
                self.wrong.append(
                    f"A second scheduler runs on no host of the inventory: it {answers}; {find}: "
                    "stop it there."
                )
            elif host in fleet.answers:
                seen = [one for one in fleet.answers[host]["schedulers"] if "beat" in one["kind"]]
                if times > len(seen):
                    self.wrong.append(
                        f"A second scheduler {answers}, but {host} runs {len(seen) or 'none'}: it "
                        f"is a clone of that host, or a container; {find}: stop it there."
                    )
        if fleet.engine == "redbeat" or not fleet.asked:
            return
        for host in fleet.running:
            one = fleet.right[host]
            if one and not _huey(one) and not fleet.live[host]:
                self.wrong.append(
                    f"The scheduler on {host} runs but does not answer on the broker as "
                    f"{_node(host)}: {_what(one)} is frozen or cut off; see {_log(fleet, host)}."
                )

    def clones(self) -> None:
        """Tell which hosts are one machine, or copies of one."""
        fleet = self.fleet
        by_id: dict[str, list[str]] = {}
        for host, census in fleet.answers.items():
            by_id.setdefault(census["host_identity"]["machine_id"], []).append(host)
        for machine_id, hosts in by_id.items():
            if len(hosts) < 2 or not machine_id:
                continue
            names = [fleet.answers[host]["host_identity"]["hostname"] for host in hosts]
            same = len(set(names)) < len(names)
            sentence = (
                f"{' and '.join(hosts)} have the same machine id, {machine_id}"
                f"{', and the same host name' if same else ''}: one is a clone of the other, so "
                "give it its own (`rm /etc/machine-id; systemd-machine-id-setup` there, and "
                "reboot); or one machine stands twice in the inventory."
            )
            # The name alone still keeps a scheduler's unit from starting on a clone.
            risky = same and set(hosts) & set(fleet.expected)
            (self.wrong if risky else self.warnings).append(sentence)

    # --- Pacemaker --------------------------------------------------------------------------

    def in_the_cluster(self, host: str, census: Census) -> None:
        """Judge a node of the cluster: only Pacemaker may start the scheduler there."""
        fleet = self.fleet
        for unit in census["units"]:
            if unit["enabled"].startswith("enabled"):
                name = _short(unit["name"])
                self.wrong.append(
                    f"{unit['name']} on {host} would start at the next boot, past the cluster: "
                    f"`systemctl disable {name}` on {host}."
                )
        if not fleet.right[host] and not _defined(census):
            self.warnings.append(
                f"{host} is no standby: {_unit_state(host, census)}; {self.left(host)}."
            )

    def cluster(self) -> None:
        """Compare what Pacemaker says with what runs."""
        fleet = self.fleet
        told, running = fleet.cluster, fleet.running
        nodes = [host for host in fleet.expected if host not in fleet.dead]
        if not nodes:
            return
        see = f"see `crm_mon -1` on {nodes[0]}"
        why = "see `systemctl status pacemaker corosync` there"
        if told is not None:
            online = [host for host in fleet.expected if host in told.get("online", ())]
            offline = [host for host in nodes if host not in online]
            holder = told.get("holder", "")
            spare = len(online) - len(fleet.expected) // 2 - 1
            if not online:
                why = f"Pacemaker answers on none of them; {why}"
            elif not told["quorum"]:
                why = f"the cluster has no quorum (online: {', '.join(online)}); {see}"
                if running:
                    self.wrong.append(f"A scheduler runs on {running[0]}, but {why}.")
            else:
                why = f"the cluster runs it {f'on {holder}' if holder else 'nowhere'}; {see}"
                self.warnings += [
                    f"{host} is not online in the cluster: "
                    f"{f'{spare} more may' if spare > 0 else 'no further node may'} fail before "
                    "nobody schedules; see `systemctl status pacemaker corosync` there."
                    for host in offline
                ]
            for host in running if online else ():
                one = fleet.right[host]
                if one and host != holder:
                    self.wrong.append(
                        f"The scheduler on {host} was started past the cluster, which runs it "
                        f"{f'on {holder}' if holder else 'nowhere'}: {_what(one)}; "
                        f"`systemctl stop {_short(one['unit'] or '')}` on {host}."
                    )
            (self.warnings if running else self.wrong).extend(
                f"The cluster notes a failure: {failure}; {see}, and when the cause is gone, "
                "`crm_resource --cleanup` there."
                for failure in told.get("failed", ())
            )
        if not running:
            self.wrong.insert(
                0, f"No scheduler runs anywhere, and one of {', '.join(nodes)} must run it: {why}."
            )
        elif len(running) > 1 and told is None:
            self.wrong.append(
                f"{len(running)} hosts schedule at once, {' and '.join(running)}; {see}."
            )


def _threats(census: Census, *known: str) -> Iterator[tuple[str, str]]:
    """Name what could become a scheduler on a host, but for the KNOWN places.

    Yields:
        What is defined, and in which state with what to do about it.
    """
    foreign = census["foreign_units"]
    for unit in census["units"]:
        name = unit["name"]
        if unit["load"] in ("masked", "not-found") or name in known or _short(name) in foreign:
            continue
        threat = "would start at the next boot"
        if not unit["enabled"].startswith("enabled"):
            threat = f"could be started, though it is {unit['enabled'] or 'not enabled'}"
        yield (
            f"{name} is defined",
            f"it is {unit['active']} now but {threat}; run site.yml, which removes and masks it.",
        )
    for program in census["programs"]:
        place = f"{PROGRAM} {program['name']}"
        there = program["defined"] or program["state"]
        if not there or place in known or program["name"] in foreign:
            continue
        threat = "would start with supervisord"
        if not program["autostart"]:
            threat = "could be started, though not by itself"
        yield (
            f"{place} is defined",
            f"it is {program['state'] or 'not loaded'} now but {threat}; run site.yml, which "
            "removes it.",
        )


def _defined(census: Census) -> bool:
    return any(unit["load"] not in ("masked", "not-found") for unit in census["units"])


def _node(host: str) -> str:
    return f"celerybeat@{host}"


def _log(fleet: _Fleet, host: str) -> str:
    """Return where the scheduler of a host logs."""
    one, census = fleet.right[host], fleet.answers[host]
    if one and one["program"]:
        logs = {program["name"]: program["log"] for program in census["programs"]}
        return f"{logs.get(one['program']) or 'its log'} on {host}"
    return f"`journalctl -u {_short(one['unit'] or '') if one else ''}` on {host}"


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


def _asks_for_the_lock(one: Scheduler) -> bool:
    return bool(REDBEAT.fullmatch(one["scheduler"]))


def _short(unit: str) -> str:
    return unit.removesuffix(".service")


def latest_censuses(
    hostvars: Mapping[str, Mapping[str, Any]],
    hosts: Iterable[str],
    outside: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Census]:
    """Return host -> what its latest census said, of those that this run has registered.

    A host that was not asked has nothing, one that did not answer no `schedulers`.

    Args:
        hostvars: host -> its variables.
        hosts: those of the inventory.
        outside: results of roles/verify/tasks/outside.yml.
    """
    found: dict[str, Census] = {}
    for host in hosts:
        known = hostvars[host]
        # In a move alone, behind the others; by the reconcile or by verify; by the first look.
        counted, reconciled = known.get("__verify_counted"), known.get("__process_manager_result")
        if counted is None and reconciled is not None:
            counted = reconciled.get("census") or reconciled
        found[host] = counted or known.get("__verify_census") or {}
    return found | {one["__verify_host"]: one for one in outside}


class FilterModule:
    """The filters, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return filter by name."""
        return {
            "scheduler_verdict": scheduler_verdict,
            "scheduler_warnings": scheduler_warnings,
            "scheduler_roles": scheduler_roles,
            "left_behind": left_behind,
            "latest_censuses": latest_censuses,
        }
