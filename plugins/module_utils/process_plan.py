# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What a reconcile has to do, told from what is wanted and what is there; knows no manager."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ansible.module_utils.process_inputs import Input
from ansible.module_utils.stack_files import TARGET, owner_of

MASK = Path("/dev/null")
# Enough for the tracebacks of a web worker and of its master, which ends after it.
LAST_WORDS = 80


class SetError(Exception):
    """The set could not be reached; the message is for the operator."""


@dataclass
class Unit:
    """One wanted unit, as in the module's option `units`."""

    name: str
    files: list[str]
    newer_than: list[str] = field(default_factory=list)
    follows: list[str] = field(default_factory=list)
    settle: float = 0
    start_timeout: float = 90
    ready: list[str] = field(default_factory=list)
    health: dict[str, Any] | None = None
    scheduler: bool = False
    held: bool = False
    handover: bool = False
    stop_timeout: float = 30
    stop_signal: str = "TERM"
    memory_max: str = ""


@dataclass
class State:
    """What a manager says of a unit.

    `up`: it runs or is coming up by itself. `enabled`: it comes back after a reboot. `since`: when
    its process started, seconds since the epoch; None when it has none. `stale`: the manager has
    not read its file yet.
    """

    up: bool = False
    enabled: bool = False
    since: float | None = None
    stale: bool = False


@dataclass
class Plan:
    """What has to be done to get from what is there to what is wanted.

    `write`, `prune`, `mask`, `keep`, `make`, `forget` and `switch` hold paths; the others names of
    units.
    `stop` are held units that the manager would start by itself, `outdated` those that their
    cluster has to restart, with the reason.
    """

    write: list[str] = field(default_factory=list)
    prune: list[str] = field(default_factory=list)
    mask: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    make: list[str] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)
    switch: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    restart: dict[str, str] = field(default_factory=dict)
    stop: list[str] = field(default_factory=list)
    outdated: dict[str, str] = field(default_factory=dict)
    reload: bool = False

    def starts(self, name: str) -> bool:
        """Tell whether a unit is started or restarted."""
        return name in self.start or name in self.restart

    def changes(self) -> bool:
        """Tell whether anything at all has to be done."""
        return any(vars(self).values())

    def only_switches(self) -> bool:
        """Tell whether another release comes, and nothing else has to be done for it."""
        others = {name: value for name, value in vars(self).items() if value}
        return bool(self.switch) and others.keys() <= {"switch", "restart"}


class Manager(Protocol):
    """What a reconcile asks of a process manager.

    `draining`: unit name -> the scope that this run left its former process in.
    """

    draining: dict[str, str]

    def files(self) -> dict[str, str]:
        """Return path -> text of every file on the host that defines a unit, whoever owns it."""

    def unit_of(self, path: str) -> str | None:
        """Return the unit that the file at `path` defines; None for any other file."""

    def states(self, names: list[str]) -> dict[str, State]:
        """Return unit name -> state; a unit that the manager does not know may be missing."""

    def check(self, texts: dict[str, str]) -> None:
        """Raise SetError when one of these files (path -> text) would not be understood."""

    def stop(self, names: list[str]) -> None:
        """Stop units, wait until they are gone, and keep them from coming back by themselves."""

    def reload(self) -> None:
        """Read all files anew."""

    def enable(self, names: list[str]) -> None:
        """Let units come back after a reboot."""

    def restart(self, names: list[str]) -> None:
        """Start units, those that run anew; whether they come up is what `watch` tells.

        A target is started and never restarted.
        """

    def hand_over(self, units: list[Unit]) -> list[str]:
        """Let the processes of units that run finish their work beside those of the next restart.

        Returns the names of the units whose restart then takes no time; `draining` has the scope
        of each. Whatever keeps another from being handed over is said in a warning.
        """

    def watch(self, units: list[Unit]) -> dict[str, str]:
        """Wait until all units just restarted are up; return name -> last words of those not."""

    def retire(self) -> None:
        """Clear up after this manager's last unit on the host."""


def in_stages(names: list[str], schedulers: set[str]) -> list[list[str]]:
    """Return the names of units in the order in which they start and stop, stage by stage.

    A scheduler, named without a suffix in `schedulers`, follows all services. A target comes last:
    before them it would take them all along.
    """
    stages: list[list[str]] = [[], [], []]
    for name in names:
        stages[2 if name.endswith(TARGET) else int(Path(name).stem in schedulers)].append(name)
    return [stage for stage in stages if stage]


def is_masked(path: Path) -> bool:
    """Tell whether a unit path is a link to /dev/null, which is how systemd masks a unit."""
    return path.is_symlink() and path.readlink() == MASK


def newest_input(paths: list[str], since: float) -> str | None:
    """Return the first of `paths` that was changed after `since` (epoch seconds), or None."""
    for path in map(Path, paths):
        try:
            changed = path.lstat().st_mtime
        except FileNotFoundError:
            continue
        if changed > since:
            return str(path)
    return None


def why_outdated(unit: Unit, written: list[str], switched: list[str], now: State) -> dict[str, str]:
    """Return unit name -> why its process must be replaced; empty when it need not be.

    `written` are those of its files that differ from what is wanted, `switched` what is about to
    change of all that processes read.
    """
    if written:
        return {unit.name: "its file changed"}
    if read := [path for path in unit.newer_than if path in switched]:
        return {unit.name: f"{read[0]} changes"}
    newer = now.since and newest_input([*unit.files, *unit.newer_than], now.since)
    return {unit.name: f"{newer} is newer than the process"} if newer else {}


def make_plan(
    *,
    stack: str,
    wanted: dict[str, str],
    present: dict[str, str],
    units: list[Unit],
    states: dict[str, State],
    masked: list[str],
    directories: list[str] | None = None,
    forget: list[str] | None = None,
    inputs: list[Input] | None = None,
) -> Plan:
    """Compare what is wanted with what is there.

    Args:
        stack: the owner of the set.
        wanted: path -> text of every file of the set.
        present: path -> text of every file of a unit on the host, whoever owns it.
        units: what must be enabled and running.
        states: unit name -> state; absent when unknown.
        masked: paths of the systemd units that must not be able to run.
        directories: paths that must exist.
        forget: patterns of files that must not.
        inputs: what the units' processes read and what is switched with them.

    Returns:
        The plan; nothing has been changed.

    Raises:
        SetError: a wanted path belongs to another stack.
    """
    plan = Plan()
    claimed = {*wanted, *masked}
    for path in sorted(claimed & present.keys()):
        owner = owner_of(present[path])
        if owner not in (None, stack):
            raise SetError(
                f"{path} belongs to the stack {owner}: set stack_unit_prefix, "
                f"so that the stacks {owner} and {stack} can share this host."
            )
        if owner is None:
            plan.keep.append(path)

    plan.write = [path for path, text in wanted.items() if present.get(path) != text]
    plan.prune = [
        path for path, text in present.items() if owner_of(text) == stack and path not in claimed
    ]
    plan.mask = [path for path in masked if not is_masked(Path(path))]
    plan.make = [path for path in directories or [] if not Path(path).is_dir()]
    plan.forget = sorted(
        str(path) for one in map(Path, forget or []) for path in one.parent.glob(one.name)
    )
    plan.switch = [one.path for one in inputs or [] if one.is_due()]
    plan.reload = any(state.stale for state in states.values())

    for unit in units:
        now = states.get(unit.name, State())
        written = [path for path in unit.files if path in plan.write]
        opened = [name for name in unit.follows if name in plan.start or name in plan.restart]
        if unit.held:
            if now.enabled:
                plan.stop.append(unit.name)
            elif now.up:
                plan.outdated.update(why_outdated(unit, written, plan.switch, now))
            continue
        if written or not now.enabled:
            plan.enable.append(unit.name)
        if not now.up:
            plan.start.append(unit.name)
        elif unit.name.endswith(TARGET):
            continue  # That the manager reads its file is all that it needs.
        elif opened:
            # systemd refuses to open a socket whose service already runs.
            plan.restart[unit.name] = f"{opened[0]} is opened anew"
        else:
            plan.restart.update(why_outdated(unit, written, plan.switch, now))
    return plan
