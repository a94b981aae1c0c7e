#!/usr/bin/python
# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Make a host run exactly the intended set of supervised services."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: process_set
short_description: Make a host run exactly the intended set of supervised services
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Compares the files and units that one stack should have on a host with what is there, writes
    what differs, prunes what is no longer intended, reloads the manager once, and starts or
    restarts exactly what changed.
  - A unit is one of systemd or a program of supervisord. A service that gets its socket from the
    manager has two of them.
  - Units start in three stages, each when the one before is up. Those of O(units[].scheduler)
    follow all services, and a target of systemd, which is never restarted, follows everything.
  - A unit is restarted when its file changed, or when that or one of O(units[].newer_than) is newer
    than its process. So a run that was interrupted between writing a file and restarting its
    service is completed by the next one.
  - "A file that carries the line C(# stack: NAME) of this O(stack) and is not in O(files) is
    pruned. A file that carries another stack's name is never touched."
  - A file in the way that no stack owns is kept beside the new one as C(FILE.replaced-by-STACK).
  - A unit that does not start is rolled back to its former file, started from that, and the run
    fails with the last lines of its log.
  - A cluster that this stack has on a host, by the same line in C(corosync.conf), is ended before
    anything is started, unless one of O(units) is held by it.
  - Always looks at both managers. What this stack has under the other one than O(manager) is
    stopped and removed before anything is started. If a new unit then does not come up, all of them
    are removed, and the other manager gets its files back and runs them.
  - Normally called through the action plugin of the same name, which renders O(files) and
    O(units) from service specs.
options:
  manager:
    description: What supervises the services on this host.
    type: str
    choices: [systemd, supervisord]
    default: systemd
  stack:
    description: Name of the stack that owns the set.
    type: str
    required: true
  files:
    description: Every file of the set.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: "The whole text. Its first ten lines must hold the line C(# stack: NAME)."
        type: str
        required: true
      mode:
        description: Permissions, octal.
        type: str
        default: "0644"
  forget:
    description:
      - Patterns of the files that units which must not run here left. They are removed once these
        are stopped.
    type: list
    elements: path
    default: []
  only:
    description:
      - Names, without suffix, of the units and programs that this run may touch. What else is due
        on the host stays so. Empty for all.
    type: list
    elements: str
    default: []
  inputs:
    description:
      - What the processes of O(units) read, to be switched together with them. If a unit then does
        not come up, every input, every file and every unit of this run goes back to what it was.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: What is switched, in one step.
        type: path
        required: true
      link:
        description: Where O(inputs[].path) shall point to.
        type: path
        default: ""
      next:
        description: A file that takes the place of O(inputs[].path), if it is there. Never shown.
        type: path
        default: ""
  leave_schedulers:
    description:
      - Units with O(units[].scheduler) are left as they are; another run without this option has to
        follow. What O(inputs) held before stays on the host until that has ended well. If a
        scheduler does not come up there, all units go back.
      - Nothing at all is done where more is due than O(inputs) and restarts, nor in check mode; the
        run that follows does and says it.
    type: bool
    default: false
  journal:
    description: Where a line of JSON is appended for each run that switches an input.
    type: dict
    suboptions:
      path:
        description: A file on the host.
        type: path
        required: true
      entry:
        description:
          - What is noted besides C(from), C(result) (C(ok), C(rolled back) or C(failed)),
            C(seconds) and, for a failure, C(why).
        type: dict
        required: true
  census:
    description:
      - Has the host asked who schedules when all is done; the options are those of
        M(scheduler_census).
    type: dict
    suboptions:
      units:
        description: Units of systemd.
        type: list
        elements: str
        default: []
      programs:
        description: Programs of supervisord.
        type: list
        elements: str
        default: []
      names:
        description: Names of services.
        type: list
        elements: str
        default: []
      wait:
        description: Seconds.
        type: int
        default: 0
  ask:
    description: Has the services asked whether they work, while the host is compared.
    type: dict
    suboptions:
      seconds:
        description: For how long a web server may take to answer. Units with C(health) are asked.
        type: float
        required: true
      urls:
        description: Other web servers of this host that are asked.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: The unit without suffix, under which RV(answers) has what it answered.
            type: str
            required: true
          address:
            description: As in O(units[].health.address).
            type: str
            required: true
          path:
            description: As in O(units[].health.path).
            type: str
            required: true
          status:
            description: As in O(units[].health.status).
            type: list
            elements: int
            required: true
      argv:
        description: A command that asks others; empty for none.
        type: list
        elements: str
        default: []
      stdin:
        description: What it reads.
        type: str
        default: ""
  directories:
    description:
      - Directories that must exist. A missing one is made, for root and the group C(adm), C(0750).
    type: list
    elements: path
    default: []
  units:
    description: Every unit that should be enabled and running.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of a program, or of a unit with its suffix.
        type: str
        required: true
      files:
        description: Paths of those O(files) that make this unit what it is.
        type: list
        elements: path
        required: true
      newer_than:
        description: Paths (links are not followed) whose change asks for a restart of this unit.
        type: list
        elements: path
        default: []
      follows:
        description: Names of units whose start asks for a restart of this one.
        type: list
        elements: str
        default: []
      ready:
        description:
          - A command that succeeds once the unit works. Not for systemd, which has it in the unit.
        type: list
        elements: str
        default: []
      start_timeout:
        description:
          - Seconds until the unit must work. systemd, which has them in the unit, takes them for
            O(units[].health) alone.
        type: float
        default: 90
      health:
        description:
          - What the unit's process must answer over HTTP once it is started. Its former process,
            which may answer at the same address, is not meant.
        type: dict
        suboptions:
          address:
            description: The address on this host, as ADDRESS:PORT.
            type: str
            required: true
          path:
            description: What is asked for.
            type: str
            required: true
          status:
            description: The status codes that are well.
            type: list
            elements: int
            required: true
      settle:
        description: Seconds for which the unit must stay up to count as started.
        type: float
        default: 0
      scheduler:
        description: Start this unit only after all others are up.
        type: bool
        default: false
      held:
        description:
          - A cluster starts, stops and restarts this unit. Its files are written and removed like
            all others, but it is never enabled, started or restarted here. One that systemd would
            start by itself is stopped and disabled.
        type: bool
        default: false
      handover:
        description:
          - At a restart the new process starts at once, while the former one finishes its work in a
            scope of its own. Where that cannot be done, the restart waits for it, with a warning.
        type: bool
        default: false
      stop_timeout:
        description: Seconds that the former process has for that, at the most.
        type: float
        default: 30
      stop_signal:
        description: The signal that tells it to stop, without C(SIG).
        type: str
        default: TERM
      memory_max:
        description: Its limit of memory, such as C(512M); empty for none.
        type: str
        default: ""
  masked:
    description:
      - Units of systemd that must not run on this host, whichever the O(manager). They are stopped,
        disabled, removed and masked.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Says what would be done and does nothing.
  diff_mode:
    support: full
    description: Shows every file that differs.
notes:
  - Waits for a service to stop, at the most its own stop time-out; not for one that is handed over.
  - O(manager=supervisord) needs the system's Python, for which supervisord is packaged.
"""

EXAMPLES = r"""
- name: Run one worker and no scheduler
  process_set:
    stack: shop
    files:
      - path: /etc/systemd/system/celery-worker.service
        content: "{{ unit_text }}"
    units:
      - name: celery-worker.service
        files: [/etc/systemd/system/celery-worker.service]
        newer_than: [/etc/shop/shop.env, /opt/shop/current]
        settle: 3
    masked: [celery-beat.service]
"""

RETURN = r"""
written:
  description: Paths of the files that were made or changed.
  returned: always
  type: list
  elements: str
pruned:
  description: Names of the units that were stopped and removed.
  returned: always
  type: list
  elements: str
masked:
  description: Names of the units that were masked now.
  returned: always
  type: list
  elements: str
enabled:
  description: Names of the units that were enabled now.
  returned: always
  type: list
  elements: str
started:
  description: Names of the units that were not running and were started.
  returned: always
  type: list
  elements: str
restarted:
  description: Units that were restarted, with the reason.
  returned: always
  type: dict
  sample: {"celery-worker.service": "/etc/shop/shop.env is newer than the process"}
draining:
  description:
    - Units whose former process finishes its work beside the new one, with the scope of systemd
      that holds it.
  returned: always
  type: dict
  sample: {"celery-worker.service": "celery-worker-draining-4711.scope"}
stopped:
  description: Held units that were enabled, and were stopped and disabled now.
  returned: always
  type: list
  elements: str
outdated:
  description:
    - Held units that run with something old, with the reason. They count as a change, but it is
      their cluster that has to restart them.
  returned: always
  type: dict
kept:
  description: Copies of files that were in the way and that no stack owned.
  returned: always
  type: list
  elements: str
forgotten:
  description: Files that were removed because of O(forget).
  returned: always
  type: list
  elements: str
answers:
  description:
    - Unit without suffix to what it answered, as C(url), C(status) and C(msg), with the good ones
      as C(wanted).
  returned: O(ask)
  type: dict
said:
  description: What O(ask.argv) ended with, as C(rc), C(stdout) and C(stderr); null without it.
  returned: O(ask)
  type: dict
census:
  description: What M(scheduler_census) returns; null without O(census).
  returned: always
  type: dict
switched:
  description: Paths of the O(inputs) that were switched.
  returned: always
  type: list
  elements: str
"""

import grp
import os
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.process_cluster import Cluster
from ansible.module_utils.process_health import answer_now
from ansible.module_utils.process_inputs import Input, Switch, note
from ansible.module_utils.process_plan import (
    MASK,
    Manager,
    Plan,
    SetError,
    Unit,
    in_stages,
    is_masked,
    make_plan,
)
from ansible.module_utils.process_supervisord import Supervisord
from ansible.module_utils.process_systemd import Systemd
from ansible.module_utils.scheduler_look import OPTIONS, census
from ansible.module_utils.stack_files import UNIT_DIR, owner_of, write_file


class RolledBackError(SetError):  # type: ignore[misc]  # ansible has no types
    """A unit did not come up, and what was there before has been given back; `why` is its words."""

    def __init__(self, why: list[str], undone: list[str]) -> None:
        """Take the words of the units, and those about what was given back."""
        super().__init__("\n".join([*why, *undone]))
        self.why = "\n".join(why)


def names_of(managers: list[Manager], paths: list[str]) -> list[str]:
    """Return the units that the files at `paths` define."""
    return [name for one in managers for path in paths for name in [one.unit_of(path)] if name]


def schedulers_of(units: list[Unit]) -> set[str]:
    """Return the schedulers' names as all managers know them, without a suffix."""
    return {Path(unit.name).stem for unit in units if unit.scheduler}


def make_directory(path: Path) -> None:
    """Make a directory that root writes and the system's readers of logs may read."""
    path.mkdir(parents=True)
    os.chown(path, 0, grp.getgrnam("adm").gr_gid)
    path.chmod(0o750)


def restart(manager: Manager, units: list[Unit], running: Collection[str]) -> None:
    """Start units; those of the names in `running` hand over, if they can."""
    over = [unit for unit in units if unit.handover and unit.name in running]
    if over:
        manager.hand_over(over)
    manager.restart([unit.name for unit in units])


def bring_up(manager: Manager, units: list[Unit], running: Collection[str]) -> dict[str, str]:
    """Start and restart units and wait until they stay up; `running` names those that run.

    Returns:
        Unit name -> last words of those that did not.
    """
    if not units:
        return {}
    restart(manager, units, running)
    failed: dict[str, str] = manager.watch(units)
    return failed


def roll_back(
    manager: Manager,
    units: list[Unit],
    failed: Collection[str],
    former: dict[str, str],
    plan: Plan,
    *,
    is_switched: bool,
) -> dict[str, str]:
    """Put the former files of units back and run from them; one that had none is stopped.

    Args:
        manager: what runs the units.
        units: those that did not come up; where inputs were switched, all that read them since.
        failed: the names of the first.
        former: path -> text of the files as they were before this run.
        plan: what was done.
        is_switched: inputs were switched, and have been given back.

    Returns:
        Unit name -> last words of those that do not come up from what was there before either.
    """
    again = []
    reload = False
    for unit in units:
        is_new = not any(path in former for path in unit.files)
        differing = [p for p in map(Path, unit.files) if p.read_text("utf-8") != former.get(str(p))]
        if not differing and not is_switched:
            continue  # The files are not what broke it: the manager goes on trying.
        if is_new:
            manager.stop([unit.name])
        elif is_switched or unit.name in plan.restart:
            again.append(unit)
        for path in differing:
            reload = True
            if str(path) in former:
                put_back(path, former[str(path)])
            else:
                path.unlink()
    if reload:
        manager.reload()
    if again:
        restart(manager, again, {unit.name for unit in again if unit.name not in failed})
    # Also for the former processes that were handed over: they end when their successors work.
    return manager.watch(again) if again else {}


def put_back(path: Path, text: str) -> None:
    """Write a file as it was before this run."""
    write_file(path, text, 0o755 if text.startswith("#!") else 0o644)


def remove(managers: list[Manager], plan: Plan, stack: str, schedulers: set[str]) -> None:
    """Take away what must not be there: stop before delete, delete before mask.

    `schedulers` (names without a suffix) are stopped late, since workers may take their time.
    """
    gone = [*plan.prune, *plan.mask]
    for stage in in_stages(names_of(managers, gone), schedulers):
        for manager in managers:
            names = [name for name in names_of([manager], gone) if name in stage]
            if names:
                manager.stop(names)
    for path in plan.forget:
        Path(path).unlink(missing_ok=True)
    for kept in plan.keep:
        Path(kept).rename(f"{kept}.replaced-by-{stack}")
    for path in gone:
        Path(path).unlink(missing_ok=True)
    for path in plan.mask:
        Path(path).symlink_to(MASK)


def establish(
    managers: list[Manager],
    plan: Plan,
    *,
    stack: str,
    wanted: dict[str, dict[str, Any]],
    units: list[Unit],
    former: dict[str, str],
    switch: Switch,
) -> None:
    """Write, remove, switch and start what the plan says, stage by stage; see `apply`."""
    manager = managers[0]
    schedulers = schedulers_of(units)
    remove(managers, plan, stack, schedulers)
    for path in plan.write:
        write_file(Path(path), wanted[path]["content"], int(wanted[path]["mode"], 8))
    switch.do()
    for one in managers:
        if names_of([one], [*plan.write, *plan.prune, *plan.mask]) or plan.reload:
            one.reload()
    if plan.stop:
        manager.stop(plan.stop)
    if plan.enable:
        manager.enable(plan.enable)

    started: list[Unit] = []
    for stage in in_stages([unit.name for unit in units], schedulers):
        due = [unit for unit in units if unit.name in stage and plan.starts(unit.name)]
        started += due
        failed = bring_up(manager, due, plan.restart)
        if failed:
            switch.undo(as_old=True)
            is_switched = bool(switch.former)
            concerned = [unit for unit in started if is_switched or unit.name in failed]
            concerned += [unit for unit in units if unit not in started and has_read(unit, switch)]
            lost = roll_back(manager, concerned, failed, former, plan, is_switched=is_switched)
            raise RolledBackError(last_words(failed), given_back(switch, lost))


def has_read(unit: Unit, switch: Switch) -> bool:
    """Tell whether an earlier run, which left the schedulers, has restarted a unit for a switch."""
    reads = {Path(path) for path in unit.newer_than} & switch.former.keys()
    return switch.is_adopted and bool(reads) and not unit.scheduler and not unit.held


def last_words(failed: dict[str, str]) -> list[str]:
    """Return a paragraph for each unit that did not come up."""
    return [f"{name} did not stay up. Its last words:\n{said}" for name, said in failed.items()]


def given_back(switch: Switch, lost: dict[str, str]) -> list[str]:
    """Say what a host runs from after a failure; nothing if its inputs are what they were."""
    if lost:
        return ["From what was there before it does not come up either:", *last_words(lost)]
    if not switch.former:
        return []
    before = switch.origin
    return [f"This host runs from the release {before} again." if before else "It has been undone."]


def apply(
    managers: list[Manager],
    plan: Plan,
    *,
    stack: str,
    wanted: dict[str, dict[str, Any]],
    units: list[Unit],
    former: dict[str, str],
    switch: Switch | None = None,
) -> None:
    """Carry the plan out; where that fails, give back what was taken from another manager.

    Args:
        managers: the one that shall run the units, then the others.
        plan: what to do.
        stack: the owner of the set.
        wanted: path -> `content` and `mode` of every file of the set.
        units: what must be running.
        former: path -> text of the files as they were before this run.
        switch: what the units' processes read, if anything.

    Raises:
        SetError: the manager refused a file, or a unit did not come up.
    """
    switch = switch or Switch([])
    manager, *others = managers
    for directory in plan.make:
        make_directory(Path(directory))
    if plan.write:
        manager.check({path: one["content"] for path, one in wanted.items()})
    taken = {
        path: former[path]
        for path in [*plan.prune, *plan.mask]
        if path in former.keys() - plan.keep
    }
    moved = [other for other in others if names_of([other], list(taken))]
    unmasked = [path for path in wanted if is_masked(Path(path))]
    try:
        establish(
            managers,
            plan,
            stack=stack,
            wanted=wanted,
            units=units,
            former=former,
            switch=switch,
        )
    except (SetError, OSError):
        # What an earlier run has switched has its processes running.
        if not switch.is_adopted:
            switch.undo(as_old=False)
        if moved and units:
            manager.stop([unit.name for unit in units])
            for path in wanted.keys() - former.keys():
                Path(path).unlink(missing_ok=True)
            for path in unmasked:
                Path(path).symlink_to(MASK)
            manager.reload()
            manager.retire()
            for path, text in taken.items():
                put_back(Path(path), text)
            for other in moved:
                names = names_of([other], list(taken))
                other.reload()
                other.enable(names)
                for stage in in_stages(names, schedulers_of(units)):
                    other.restart(stage)
        raise
    for one in managers:
        if names_of([one], list(taken)) and not (units and one is manager):
            one.retire()


@contextmanager
def noted(journal: dict[str, Any] | None, plan: Plan, switch: Switch) -> Iterator[None]:
    """Note in the journal of deploys how the body ended, if it was to switch anything.

    Also if it fails to end well what an earlier run has switched, and noted.

    Args:
        journal: `path` and `entry`; None keeps none.
        plan: what the body does.
        switch: what it switches.
    """
    began = time.monotonic()
    ended = {"result": "ok"}
    try:
        yield
    except (SetError, OSError) as error:
        ended = {"result": "failed", "why": str(error)}
        if isinstance(error, RolledBackError):
            ended = {"result": "rolled back", "why": error.why}
        raise
    finally:
        if journal and (plan.switch or (switch.is_adopted and "why" in ended)):
            seconds = round(time.monotonic() - began, 1)
            more = {"from": switch.origin, "seconds": seconds, **ended}
            note(Path(journal["path"]), {**journal["entry"], **more})


def begin(ask: dict[str, Any] | None) -> subprocess.Popen[str] | None:
    """Start the command of `ask`, if there is one; it ends by itself."""
    if not ask or not ask["argv"]:
        return None
    with tempfile.TemporaryFile("w+") as stdin:
        stdin.write(ask["stdin"])
        stdin.seek(0)
        # By env, which is there: a program that is not becomes an answer.
        return subprocess.Popen(  # noqa: S603
            ["/usr/bin/env", *ask["argv"]],
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


def heard(
    ask: dict[str, Any], units: list[Unit], command: subprocess.Popen[str] | None
) -> dict[str, Any]:
    """Return `answers` and `said`, as the module's result has them; wait for the command."""
    asked = {Path(unit.name).stem: unit.health for unit in units if unit.health}
    asked.update({one["name"]: one for one in ask["urls"]})
    found: dict[str, Any] = {"said": None}
    found["answers"] = {name: answer_now(one, ask["seconds"]) for name, one in asked.items()}
    if command:
        stdout, stderr = command.communicate()
        found["said"] = {"rc": command.returncode, "stdout": stdout, "stderr": stderr}
    return found


def main() -> None:
    """Run the module."""
    input_spec = {
        "path": {"type": "path", "required": True},
        "link": {"type": "path", "default": ""},
        "next": {"type": "path", "default": ""},
    }
    journal_spec = {
        "path": {"type": "path", "required": True},
        "entry": {"type": "dict", "required": True},
    }
    file_spec = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
    }
    health_spec = {
        "address": {"type": "str", "required": True},
        "path": {"type": "str", "required": True},
        "status": {"type": "list", "elements": "int", "required": True},
    }
    url_spec = {"name": {"type": "str", "required": True}, **health_spec}
    ask_spec = {
        "seconds": {"type": "float", "required": True},
        "urls": {"type": "list", "elements": "dict", "default": [], "options": url_spec},
        "argv": {"type": "list", "elements": "str", "default": []},
        "stdin": {"type": "str", "default": ""},
    }
    unit_spec = {
        "name": {"type": "str", "required": True},
        "files": {"type": "list", "elements": "path", "required": True},
        "newer_than": {"type": "list", "elements": "path", "default": []},
        "follows": {"type": "list", "elements": "str", "default": []},
        "ready": {"type": "list", "elements": "str", "default": []},
        "start_timeout": {"type": "float", "default": 90},
        "health": {"type": "dict", "options": health_spec},
        "settle": {"type": "float", "default": 0},
        "scheduler": {"type": "bool", "default": False},
        "held": {"type": "bool", "default": False},
        "handover": {"type": "bool", "default": False},
        "stop_timeout": {"type": "float", "default": 30},
        "stop_signal": {"type": "str", "default": "TERM"},
        "memory_max": {"type": "str", "default": ""},
    }
    module = AnsibleModule(
        argument_spec={
            "manager": {
                "type": "str",
                "choices": ["systemd", "supervisord"],
                "default": "systemd",
            },
            "stack": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "dict", "default": [], "options": file_spec},
            "directories": {"type": "list", "elements": "path", "default": []},
            "forget": {"type": "list", "elements": "path", "default": []},
            "only": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "dict", "default": [], "options": unit_spec},
            "masked": {"type": "list", "elements": "str", "default": []},
            "inputs": {"type": "list", "elements": "dict", "default": [], "options": input_spec},
            "leave_schedulers": {"type": "bool", "default": False},
            "journal": {"type": "dict", "options": journal_spec},
            "census": {"type": "dict", "options": OPTIONS},
            "ask": {"type": "dict", "options": ask_spec},
        },
        supports_check_mode=True,
    )
    given = module.params
    stack: str = given["stack"]
    wanted = {one["path"]: one for one in given["files"]}
    units = [Unit(**one) for one in given["units"]]
    inputs = [Input(**one) for one in given["inputs"]]
    known = {"systemd": Systemd(module, stack), "supervisord": Supervisord(module, stack)}
    managers: list[Manager] = [known.pop(given["manager"]), *known.values()]
    if not any(unit.held for unit in units):
        managers.append(Cluster(module))

    unowned = [path for path, one in wanted.items() if owner_of(one["content"]) != stack]
    if unowned:
        module.fail_json(msg=f"These files do not carry the line '# stack: {stack}': {unowned}")

    command = begin(given["ask"])
    try:
        former = {path: text for one in managers for path, text in one.files().items()}
        if given["only"]:
            units = [unit for unit in units if Path(unit.name).stem in given["only"]]
            wanted, former = (
                {path: one for path, one in files.items() if Path(path).stem in given["only"]}
                for files in (wanted, former)
            )
        if given["leave_schedulers"]:
            units = [unit for unit in units if not unit.scheduler]
        plan = make_plan(
            stack=stack,
            wanted={path: one["content"] for path, one in wanted.items()},
            present=former,
            units=units,
            states=managers[0].states([unit.name for unit in units]),
            masked=[str(UNIT_DIR / name) for name in given["masked"]],
            directories=given["directories"],
            forget=given["forget"],
            inputs=inputs,
        )
        if given["leave_schedulers"] and (module.check_mode or not plan.only_switches()):
            plan = Plan()
        switched = {one.path: one.words() for one in inputs if one.path in plan.switch}
        switch = Switch(inputs)
        if not plan.switch and not module.check_mode:
            switch.adopt()
        if plan.changes() and not module.check_mode:
            with noted(given["journal"], plan, switch):
                apply(
                    managers,
                    plan,
                    stack=stack,
                    wanted=wanted,
                    units=units,
                    former=former,
                    switch=switch,
                )
        if not given["leave_schedulers"] and not module.check_mode:
            switch.keep()
    except (SetError, OSError) as error:
        module.fail_json(msg=str(error))

    module.exit_json(
        changed=plan.changes(),
        written=plan.write,
        pruned=names_of(managers, plan.prune),
        masked=names_of(managers, plan.mask),
        enabled=plan.enable,
        started=plan.start,
        restarted=plan.restart,
        draining=managers[0].draining,
        stopped=plan.stop,
        outdated=plan.outdated,
        kept=[f"{path}.replaced-by-{stack}" for path in plan.keep],
        forgotten=plan.forget,
        switched=plan.switch,
        census=census(module, stack, given["census"]) if given["census"] else None,
        **(heard(given["ask"], units, command) if given["ask"] else {}),
        diff=[
            {
                "before_header": path,
                "after_header": path,
                "before": former.get(path, ""),
                "after": wanted[path]["content"],
            }
            for path in plan.write
        ]
        + [
            {
                "before_header": path,
                "after_header": f"{path} (removed)",
                "before": former[path],
                "after": "",
            }
            for path in [*plan.prune, *plan.mask]
            if path in former
        ]
        + [
            {"before_header": path, "after_header": path, "before": f"{one}\n", "after": f"{two}\n"}
            for path, (one, two) in switched.items()
        ],
    )


if __name__ == "__main__":
    main()
