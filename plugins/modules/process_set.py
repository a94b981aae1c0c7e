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
  - A unit is restarted when its file changed, or when one of O(units[].newer_than) is newer than
    its process. So a run that was interrupted between writing a file and restarting its service
    is completed by the next one.
  - "A file that carries the line C(# stack: NAME) of this O(stack) and is not in O(files) is
    pruned. A file that carries another stack's name is never touched."
  - A file in the way that no stack owns is kept beside the new one as C(FILE.replaced-by-STACK).
  - A unit that does not start is rolled back to its former file, started from that, and the run
    fails with the last lines of its journal.
  - Normally called through the action plugin of the same name, which renders O(files) and
    O(units) from service specs.
options:
  manager:
    description: What supervises the services on this host.
    type: str
    choices: [systemd]
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
  units:
    description: Every unit that should be enabled and running.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name with its suffix, such as V(celery-worker.service).
        type: str
        required: true
      newer_than:
        description: Paths (links are not followed) whose change asks for a restart of this unit.
        type: list
        elements: path
        default: []
      settle:
        description: Seconds for which the unit must stay up to count as started.
        type: float
        default: 0
      scheduler:
        description: Start this unit only after all others are up.
        type: bool
        default: false
  masked:
    description:
      - Units that must not run on this host. They are stopped, disabled, removed and masked.
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
  - "C(systemctl restart) waits for a service to stop: at the most its own stop time-out."
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
kept:
  description: Copies of files that were in the way and that no stack owned.
  returned: always
  type: list
  elements: str
"""

import re
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

UNIT_DIR = Path("/etc/systemd/system")
MASK = Path("/dev/null")
# Enough for the tracebacks of a web worker and of its master, which ends after it.
LAST_WORDS = 80
OWNER = re.compile(r"^# stack: (\S+)$", re.MULTILINE)
UNIT_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "NRestarts",
    "MainPID",
    "ExecMainStartTimestampMonotonic",
)


class SetError(Exception):
    """The set could not be reached; the message is for the operator."""


@dataclass
class Unit:
    """One wanted unit, as in the option `units`."""

    name: str
    newer_than: list[str]
    settle: float
    scheduler: bool


@dataclass
class Plan:
    """What has to be done to get from what is there to what is wanted."""

    write: list[str] = field(default_factory=list)
    prune: list[str] = field(default_factory=list)
    mask: list[str] = field(default_factory=list)
    keep: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    restart: dict[str, str] = field(default_factory=dict)
    reload: bool = False

    def changes(self) -> bool:
        """Tell whether anything at all has to be done."""
        return bool(
            self.write
            or self.prune
            or self.mask
            or self.enable
            or self.start
            or self.restart
            or self.reload
        )


def owner_of(text: str) -> str | None:
    """Return the stack named in a file's first ten lines, or None when no stack owns it."""
    found = OWNER.search("\n".join(text.splitlines()[:10]))
    return found.group(1) if found else None


def read_files(directory: Path) -> dict[str, str]:
    """Return path -> text of the regular unit files (not links, not drop-ins) in `directory`."""
    suffixes = {".service", ".socket", ".target", ".timer"}
    found = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        if path.suffix in suffixes and path.is_file() and not path.is_symlink():
            found[str(path)] = path.read_text(encoding="utf-8", errors="replace")
    return found


def is_masked(path: Path) -> bool:
    """Tell whether a unit path is a link to /dev/null, which is how systemd masks a unit."""
    return path.is_symlink() and path.readlink() == MASK


def is_up(status: dict[str, str]) -> bool:
    """Tell whether a unit runs or is just coming up by itself, as after a boot."""
    return status.get("ActiveState") in ("active", "reloading") or (
        status.get("ActiveState") == "activating" and status.get("SubState") != "auto-restart"
    )


def started_at(status: dict[str, str], now: float, monotonic: float) -> float:
    """Return when a unit's main process started, as seconds since the epoch.

    systemd tells it in microseconds of CLOCK_MONOTONIC; its wall-clock form has whole seconds
    only, too coarse to compare with a file's time stamp. `now` and `monotonic` are the two clocks
    read at the same moment.
    """
    return now - (monotonic - int(status.get("ExecMainStartTimestampMonotonic") or 0) / 1e6)


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


def make_plan(
    *,
    stack: str,
    wanted: dict[str, str],
    present: dict[str, str],
    units: list[Unit],
    status: dict[str, dict[str, str]],
    masked: list[str],
    directory: Path = UNIT_DIR,
    clocks: tuple[float, float] = (0.0, 0.0),
) -> Plan:
    """Compare what is wanted with what is there.

    Args:
        stack: the owner of the set.
        wanted: path -> text of every file of the set.
        present: path -> text of every unit file on the host, whoever owns it.
        units: what must be enabled and running.
        status: unit name -> properties as `systemctl show` prints them; absent when unknown.
        masked: units that must not be able to run.
        directory: where the unit files live.
        clocks: (wall, monotonic) seconds, read when `status` was.

    Returns:
        The plan; nothing has been changed.

    Raises:
        SetError: a wanted path belongs to another stack.
    """
    plan = Plan()
    claimed = {*wanted, *(str(directory / name) for name in masked)}
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
        Path(path).name
        for path, text in present.items()
        if owner_of(text) == stack and path not in claimed
    ]
    plan.mask = [name for name in masked if not is_masked(directory / name)]
    plan.reload = any(one.get("NeedDaemonReload") == "yes" for one in status.values())

    for unit in units:
        now = status.get(unit.name, {})
        path = str(directory / unit.name)
        socket = f"{Path(unit.name).stem}.socket"
        if path in plan.write or now.get("UnitFileState") != "enabled":
            plan.enable.append(unit.name)
        if not is_up(now):
            plan.start.append(unit.name)
        elif socket in plan.start or socket in plan.restart:
            # systemd refuses to open a socket whose service already runs.
            plan.restart[unit.name] = f"{socket} is opened anew"
        elif path in plan.write:
            plan.restart[unit.name] = "its file changed"
        elif unit.newer_than:
            newer = newest_input([path, *unit.newer_than], started_at(now, *clocks))
            if newer:
                plan.restart[unit.name] = f"{newer} is newer than the process"
    return plan


class Systemd:
    """The few calls to systemd that a reconcile needs."""

    def __init__(self, module: AnsibleModule) -> None:
        """Keep the module for running commands."""
        self.module = module

    def call(self, *args: str) -> tuple[int, str]:
        """Run systemctl; return its status and what it said."""
        code, out, err = self.module.run_command(["systemctl", *args])
        return code, (out + err).strip()

    def must(self, *args: str) -> None:
        """Run systemctl and raise SetError when it fails."""
        code, said = self.call(*args)
        if code:
            raise SetError(f"systemctl {' '.join(args)} failed: {said}")

    def show(self, names: list[str]) -> dict[str, dict[str, str]]:
        """Return unit name -> properties."""
        if not names:
            return {}
        code, said = self.call("show", f"--property={','.join(UNIT_PROPERTIES)}", *names)
        if code:
            raise SetError(f"systemd does not answer on this host: {said}")
        blocks = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in said.split("\n\n")
        ]
        return dict(zip(names, blocks, strict=True))

    def journal(self, name: str, since: float) -> str:
        """Return the last lines that a unit logged since a moment (epoch seconds)."""
        _, out, _ = self.module.run_command(
            ["journalctl", "--unit", name, "--since", f"@{int(since)}"]
            + ["--no-pager", "--quiet", "--output", "short-precise"]
        )
        # Together with --since, --lines would take the first ones.
        return "\n".join(str(out).splitlines()[-LAST_WORDS:])

    def check(self, files: dict[str, str], names: list[str]) -> None:
        """Let systemd read the new files before they replace the old ones.

        Raises:
            SetError: a file has a line that systemd does not understand.
        """
        with tempfile.TemporaryDirectory() as scratch:
            for path, text in files.items():
                (Path(scratch) / Path(path).name).write_text(text, encoding="utf-8")
            # Only the words about the files themselves count: a program or a unit that is not
            # there yet is found when the service starts.
            _, out, err = self.module.run_command(
                ["systemd-analyze", "verify", "--man=no", *(str(Path(scratch) / n) for n in names)]
            )
            wrong = [line for line in (out + err).splitlines() if line.startswith(f"{scratch}/")]
            if wrong:
                raise SetError("systemd refuses a unit file:\n" + "\n".join(wrong))


def write_file(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step; readers see the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    scratch.chmod(mode)
    scratch.replace(path)


def bring_up(
    systemd: Systemd, units: list[Unit], plan: Plan, former: dict[str, str]
) -> dict[str, str]:
    """Start and restart what the plan says and wait until it stays up.

    Args:
        systemd: the manager.
        units: the units to consider; those that the plan does not name are left alone.
        plan: says what to start and what to restart.
        former: path -> text of the files as they were before this run.

    Returns:
        Unit name -> last journal lines of those that did not come up. Each of them runs from its
        former file again, or is stopped where there was none.
    """
    due = [unit for unit in units if unit.name in plan.start or unit.name in plan.restart]
    if not due:
        return {}
    names = [unit.name for unit in due]
    began = time.time()
    systemd.call("reset-failed", *names)
    systemd.call("restart", *names)

    before = systemd.show(names)
    deadline = time.monotonic() + max(unit.settle for unit in due)
    failed: set[str] = set()
    while True:
        for name, status in systemd.show(names).items():
            same = (status.get("MainPID"), status.get("NRestarts")) == (
                before[name].get("MainPID"),
                before[name].get("NRestarts"),
            )
            if status.get("ActiveState") != "active" or not same:
                failed.add(name)
        if failed or time.monotonic() >= deadline:
            break
        time.sleep(0.5)

    if failed:
        time.sleep(1)  # Its last words are still on their way to the journal.
    said = {name: systemd.journal(name, began) for name in sorted(failed)}
    for name in sorted(failed):
        roll_back(systemd, UNIT_DIR / name, former, was_running=name in plan.restart)
    return said


def roll_back(systemd: Systemd, path: Path, former: dict[str, str], *, was_running: bool) -> None:
    """Put a unit's former file back and run from it; without one, leave the unit stopped."""
    if str(path) in former:
        if path.read_text(encoding="utf-8") == former[str(path)]:
            return  # The file is not what broke it: systemd goes on trying.
        write_file(path, former[str(path)], 0o644)
        systemd.call("daemon-reload")
        if was_running:
            systemd.call("restart", path.name)
        return
    systemd.call("disable", "--now", path.name)
    path.unlink(missing_ok=True)
    systemd.call("daemon-reload")


def remove(systemd: Systemd, plan: Plan, stack: str) -> None:
    """Take away what must not be there: stop before delete, delete before mask."""
    gone = [*plan.prune, *plan.mask]
    known = systemd.show(gone)
    running = [n for n in gone if known[n].get("ActiveState") not in ("inactive", "failed")]
    if running:
        systemd.must("stop", *running)
    for name in gone:
        if known[name].get("LoadState") == "loaded":
            systemd.call("disable", name)
    for kept in plan.keep:
        Path(kept).rename(f"{kept}.replaced-by-{stack}")
    for name in gone:
        (UNIT_DIR / name).unlink(missing_ok=True)
    for name in plan.mask:
        (UNIT_DIR / name).symlink_to(MASK)


def apply(
    systemd: Systemd,
    plan: Plan,
    *,
    stack: str,
    wanted: dict[str, dict[str, Any]],
    units: list[Unit],
    former: dict[str, str],
) -> None:
    """Carry the plan out, the scheduler last.

    Raises:
        SetError: systemd refused a file, or a unit did not come up.
    """
    if plan.write:
        texts = {path: one["content"] for path, one in wanted.items()}
        systemd.check(texts, [Path(path).name for path in plan.write])
    remove(systemd, plan, stack)
    for path in plan.write:
        write_file(Path(path), wanted[path]["content"], int(wanted[path]["mode"], 8))
    if plan.write or plan.prune or plan.mask or plan.reload:
        systemd.must("daemon-reload")
    if plan.enable:
        systemd.must("reenable", *plan.enable)

    failed: dict[str, str] = {}
    for last in (False, True):
        batch = [unit for unit in units if unit.scheduler is last]
        failed = failed or bring_up(systemd, batch, plan, former)
    if failed:
        raise SetError(
            "\n".join(
                f"{name} did not stay up. Its last words:\n{journal}"
                for name, journal in failed.items()
            )
        )


def main() -> None:
    """Run the module."""
    file_spec = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
    }
    unit_spec = {
        "name": {"type": "str", "required": True},
        "newer_than": {"type": "list", "elements": "path", "default": []},
        "settle": {"type": "float", "default": 0},
        "scheduler": {"type": "bool", "default": False},
    }
    module = AnsibleModule(
        argument_spec={
            "manager": {"type": "str", "choices": ["systemd"], "default": "systemd"},
            "stack": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "dict", "default": [], "options": file_spec},
            "units": {"type": "list", "elements": "dict", "default": [], "options": unit_spec},
            "masked": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    stack: str = given["stack"]
    wanted = {one["path"]: one for one in given["files"]}
    units = [Unit(**one) for one in given["units"]]
    systemd = Systemd(module)

    unowned = [path for path, one in wanted.items() if owner_of(one["content"]) != stack]
    if unowned:
        module.fail_json(msg=f"These files do not carry the line '# stack: {stack}': {unowned}")

    try:
        former = read_files(UNIT_DIR)
        clocks = (time.time(), time.clock_gettime(time.CLOCK_MONOTONIC))
        plan = make_plan(
            stack=stack,
            wanted={path: one["content"] for path, one in wanted.items()},
            present=former,
            units=units,
            status=systemd.show([unit.name for unit in units]),
            masked=given["masked"],
            clocks=clocks,
        )
        if plan.changes() and not module.check_mode:
            apply(systemd, plan, stack=stack, wanted=wanted, units=units, former=former)
    except (SetError, OSError) as error:
        module.fail_json(msg=str(error))

    module.exit_json(
        changed=plan.changes(),
        written=plan.write,
        pruned=plan.prune,
        masked=plan.mask,
        enabled=plan.enable,
        started=plan.start,
        restarted=plan.restart,
        kept=[f"{path}.replaced-by-{stack}" for path in plan.keep],
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
                "before_header": name,
                "after_header": f"{name} (removed)",
                "before": text,
                "after": "",
            }
            for name in [*plan.prune, *plan.mask]
            for text in [former.get(str(UNIT_DIR / name), "")]
            if text
        ],
    )


if __name__ == "__main__":
    main()
