# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""supervisord, as a reconcile uses it: programs, each a group of its own, behind a launcher."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.process_drain import Drain, DrainError, descendants
from ansible.module_utils.process_health import Health
from ansible.module_utils.process_plan import LAST_WORDS, SetError, State, Unit
from ansible.module_utils.stack_files import read_files
from ansible.module_utils.supervisord_files import (
    CONF_DIR,
    LAUNCHER_DIR,
    SOCKET,
    is_launching,
    is_staying,
)

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# Seconds that one which is busy with other programs may take to answer a call.
CALL_TIMEOUT = 60.0
# Seconds that a supervisord which has just been started may take to answer.
ANSWER_TIMEOUT = 10.0
UP = ("STARTING", "RUNNING")
# Not EXITED: supervisord starts that one again at once.
GONE = ("STOPPED", "FATAL", "UNKNOWN")
# Reads a configuration as supervisord does at its start, and ends.
READ_CONFIGURATION = (
    "import sys; from supervisor.options import ServerOptions;"
    " ServerOptions().realize(['-c', sys.argv[1]])"
)


def started_at(stat: str, now: float, uptime: float, ticks: int) -> float:
    """Return when a process started, as seconds since the epoch.

    supervisord tells whole seconds only, too coarse to compare with a file's time stamp.

    Args:
        stat: the text of /proc/PID/stat.
        now: the wall clock.
        uptime: seconds since boot at the same moment.
        ticks: clock ticks of a second (SC_CLK_TCK).
    """
    # The name in brackets may hold anything. The kernel rounds down to a tick, this rounds up:
    # what was written just before the start must not look newer.
    since_boot = int(stat.rpartition(")")[2].split()[19]) + 1
    return now - uptime + since_boot / ticks


class Supervisord:
    """The few calls to supervisord that a reconcile needs; see `process_plan.Manager`."""

    def __init__(self, module: AnsibleModule, stack: str) -> None:
        """Keep the module for running commands; connect on the first call."""
        self.module = module
        self.stack = stack
        self.drain = Drain(module, stack)
        self.draining: dict[str, str] = {}
        self.rpc: Any = None
        # Name -> how much of its log was there before it was restarted, and the process since.
        self.log_ends: dict[str, int] = {}
        self.pids: dict[str, int] = {}

    def answers(self) -> bool:
        """Tell whether supervisord runs; give one that is just starting a moment."""
        if self.rpc:
            return True
        from ansible.module_utils.supervisord_rpc import connect  # Its imports take a while.

        rpc = connect(SOCKET, CALL_TIMEOUT)
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while True:
            try:
                rpc.getState()
            except OSError:
                code, _, _ = self.module.run_command(["systemctl", "is-active", "supervisor"])
                if code or time.monotonic() > deadline:
                    return False
                time.sleep(0.2)
            else:
                self.rpc = rpc
                return True

    def call(self, method: str, *args: Any, may_refuse: bool = False) -> Any:
        """Call supervisord and return its answer; None for a refusal that may be.

        Raises:
            SetError: it refuses, or does not answer.
        """
        if not self.answers():
            raise SetError("supervisord does not run on this host: systemctl status supervisor")
        from xmlrpc.client import Fault

        from ansible.module_utils.supervisord_rpc import NO_ANSWER

        try:
            return getattr(self.rpc, method)(*args)
        except Fault as fault:
            if may_refuse:
                return None
            raise SetError(f"supervisord refuses {method}: {fault.faultString}") from fault
        except NO_ANSWER as error:
            raise SetError(f"supervisord does not answer {method}: {error}") from error

    def programs(self) -> dict[str, dict[str, Any]]:
        """Return program name -> what supervisord says of it."""
        # A program in a group of another name is not one of ours, even if it is called alike.
        found = self.call("getAllProcessInfo") if self.answers() else []
        return {one["name"]: one for one in found if one["group"] == one["name"]}

    def files(self) -> dict[str, str]:
        """Return everybody's program files and the launchers of this stack."""
        return {
            **read_files(CONF_DIR, {".conf"}),
            **read_files(LAUNCHER_DIR / self.stack, {""}),
        }

    def unit_of(self, path: str) -> str | None:
        """Return the program of a file in conf.d."""
        return Path(path).stem if Path(path).parent == CONF_DIR else None

    def states(self, names: list[str]) -> dict[str, State]:
        """Return the states of programs; supervisord starts what it has read at every boot."""
        now, uptime = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        states = {}
        for name, one in self.programs().items() if names else ():
            since = None
            try:
                stat = Path(f"/proc/{one['pid']}/stat").read_text(
                    encoding="utf-8", errors="replace"
                )
                since = started_at(stat, now, uptime, os.sysconf("SC_CLK_TCK"))
            except FileNotFoundError:
                pass  # It does not run.
            states[name] = State(up=one["statename"] in UP, enabled=True, since=since)
        return states

    def check(self, texts: dict[str, str]) -> None:
        """Let supervisord's own reader read the new files before they replace the old ones."""
        with tempfile.TemporaryDirectory() as scratch:
            for path, text in texts.items():
                if self.unit_of(path):
                    (Path(scratch) / Path(path).name).write_text(text, encoding="utf-8")
            main = Path(scratch) / "main"
            main.write_text("[supervisord]\n[include]\nfiles=*.conf\n", encoding="utf-8")
            code, out, err = self.module.run_command(
                [sys.executable, "-c", READ_CONFIGURATION, str(main)]
            )
            if code:
                raise SetError(f"supervisord refuses a program file: {(out + err).strip()}")

    def stop(self, names: list[str]) -> None:
        """Stop programs side by side and forget them; each has its own stop time-out."""
        known = [name for name in names if name in self.programs()]
        self.halt(known)
        for name in known:
            self.call("removeProcessGroup", name)

    def halt(self, names: list[str]) -> None:
        """Stop programs and wait until they are gone, however long their tasks take."""
        while True:
            programs = self.programs()
            left = [n for n in names if n in programs and programs[n]["statename"] not in GONE]
            for name in left:
                if programs[name]["statename"] not in ("STOPPING", "EXITED"):
                    # It may have stopped by itself.
                    self.call("stopProcess", name, False, may_refuse=True)
            if not left:
                return
            time.sleep(0.2)

    def reload(self) -> None:
        """Let supervisord read its files; what runs goes on as it was started."""
        if self.answers():
            self.call("reloadConfig")

    def enable(self, names: list[str]) -> None:
        """Do nothing: supervisord starts every program that it has a file of."""

    def restart(self, names: list[str]) -> None:
        """Restart programs, and let supervisord take over what changed in their files."""
        ((added, changed, _removed),) = self.call("reloadConfig")
        self.halt(names)
        # Also of programs that it does not run yet: their logs outlive them.
        self.log_ends = {one["name"]: self.log_size(one) for one in self.call("getAllConfigInfo")}
        for name in names:
            if name in changed:
                self.call("removeProcessGroup", name)
            if name in added or name in changed:
                self.call("addProcessGroup", name)
            # It may run already, and one that ends at once is a matter of `watch`.
            self.call("startProcess", name, False, may_refuse=True)
        self.pids = {name: one["pid"] for name, one in self.programs().items()}

    def hand_over(self, units: list[Unit]) -> list[str]:
        """Let the processes of programs that run drain in scopes of systemd."""
        programs = self.programs() if units else {}
        found = self.call("getAllConfigInfo") if programs else []
        logs = {one["name"]: one["stdout_logfile"] for one in found}
        for unit in units:
            try:
                self.let_drain(unit, programs.get(unit.name, {}), logs.get(unit.name, ""))
            except (DrainError, OSError) as error:
                self.module.warn(f"{unit.name} is restarted after its work, not beside it: {error}")
        return [unit.name for unit in units if unit.name in self.draining]

    def let_drain(self, unit: Unit, program: dict[str, Any], log: str) -> None:
        """Put everything below a program's launcher into a scope.

        A launcher that is told to stop and sees its program there ends at once and tells nobody:
        templates/supervisord/launcher.j2. The program goes on as before until `watch` has seen its
        successor work.
        """
        launcher = program.get("pid", 0)
        if program.get("statename") not in UP or self.is_launching(launcher):
            return  # Nothing works in it.
        if not is_staying(Path(f"/proc/{launcher}/cmdline").read_bytes(), self.stack):
            raise DrainError("an older version of this bundle has started it")
        family = [one for keeper in descendants(launcher)[:1] for one in descendants(keeper)]
        if not family:
            return  # It is just starting or ending.
        copier = self.copier(family[0], log)
        self.draining[unit.name] = self.drain.adopt(
            # supervisord limits no program's memory.
            replace(unit, memory_max=""),
            family[0],
            lambda: {*descendants(launcher), *copier},
            after=self.drain.show("supervisor.service", "After").get("After", "").split(),
            log=log,
        )

    def copier(self, pid: int, log: str) -> list[int]:
        """Start what writes a process's output into its log when supervisord reads it no more."""
        output = Path(f"/proc/{pid}/fd/1")
        if not log or not str(output.readlink()).startswith("pipe:"):
            return []  # The program writes it elsewhere by itself.
        return [self.drain.spawn(f"cat <{output} >>{shlex.quote(log)}")]

    def watch(self, units: list[Unit]) -> dict[str, str]:
        """Watch programs until each has left its launcher, has settled, is ready and answers."""
        asked = {
            unit.name: Health(unit.health, unit.start_timeout) for unit in units if unit.health
        }
        pending = {unit.name: unit for unit in units}
        began = time.monotonic()
        running_since: dict[str, float] = {}
        failed: dict[str, str] = {}
        while pending and not failed:
            time.sleep(0.2)
            programs = self.programs()
            for unit in units:
                one = programs.get(unit.name, {"statename": "unknown to supervisord", "pid": 0})
                pid, now = one["pid"], time.monotonic()
                if one["statename"] not in UP:
                    failed[unit.name] = one.get("spawnerr") or one["statename"]
                elif pid != self.pids.get(unit.name):
                    failed[unit.name] = "It ended and was started again."
                elif unit.name in pending:
                    if not self.is_launching(pid):
                        running_since.setdefault(unit.name, now)
                    settled = now - running_since.get(unit.name, now) >= unit.settle
                    works = unit.name in running_since and settled and self.is_ready(unit)
                    if works and unit.name in asked:
                        why = asked[unit.name].ask(lambda pid=pid: [pid, *descendants(pid)])
                        works = why == ""
                        if why:
                            failed[unit.name] = why
                    if works:
                        del pending[unit.name]
                    elif now - began > unit.start_timeout + unit.settle:
                        failed[unit.name] = f"not ready after {now - began:.0f} s"
        self.drain.let_go(
            [self.draining.get(unit.name, "") for unit in units if unit.name not in failed]
        )
        return {
            name: f"{why}\n{self.last_words(programs.get(name))}" for name, why in failed.items()
        }

    def is_launching(self, pid: int) -> bool:
        """Tell whether a process is still its launcher; one that is gone is none."""
        try:
            return bool(is_launching(Path(f"/proc/{pid}/cmdline").read_bytes(), self.stack))
        except (FileNotFoundError, ProcessLookupError):
            return False

    def is_ready(self, unit: Unit) -> bool:
        """Ask a service whether it works."""
        return not unit.ready or self.module.run_command(unit.ready)[0] == 0

    def log_size(self, program: dict[str, Any]) -> int:
        """Return how much a program has logged so far, in bytes."""
        path = Path(program["stdout_logfile"])
        return path.stat().st_size if path.is_file() else 0

    def last_words(self, program: dict[str, Any] | None) -> str:
        """Return the last lines that a program logged since it was restarted."""
        path = Path(program["stdout_logfile"] if program else "")
        if not program or not path.is_file():
            return ""
        with path.open("rb") as log:
            end = self.log_ends.get(program["name"], 0)
            # A log that became shorter has been rotated: all of it is new.
            log.seek(end if end <= self.log_size(program) else 0)
            said = log.read().decode(errors="replace")
        return "\n".join(said.splitlines()[-LAST_WORDS:])

    def retire(self) -> None:
        """Stop a supervisord that nobody has a program for; the package stays."""
        if (LAUNCHER_DIR / self.stack).is_dir() and not any((LAUNCHER_DIR / self.stack).iterdir()):
            (LAUNCHER_DIR / self.stack).rmdir()
        if not list(CONF_DIR.glob("*.conf")):
            self.module.run_command(["systemctl", "disable", "--now", "supervisor"])
