# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""systemd, as a reconcile uses it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.module_utils.process_drain import Drain, DrainError, pids_in
from ansible.module_utils.process_health import Health
from ansible.module_utils.process_plan import LAST_WORDS, SetError, State, Unit
from ansible.module_utils.stack_files import SUFFIXES, TARGET, UNIT_DIR, read_files
from ansible.module_utils.systemd_show import parse_blocks

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

NOTIFY_SOCKET = "/run/systemd/notify"
# Seconds for which a stand-in is a unit's main process at the most. If nobody restarts the unit in
# this time, it ends, and systemd does.
STAND_IN = 60
PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "NeedDaemonReload",
    "NRestarts",
    "MainPID",
    "ExecMainStartTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
)


def started_at(status: dict[str, str], now: float, monotonic: float) -> float | None:
    """Return when a service's process started, as seconds since the epoch; None if it has none.

    systemd tells it in microseconds of CLOCK_MONOTONIC; its wall-clock form has whole seconds
    only, too coarse to compare with a file's time stamp. `now` and `monotonic` are the two clocks
    read at the same moment.
    """
    if "ExecMainStartTimestampMonotonic" not in status:
        return None  # A socket or a target.
    # A unit whose commands before the program still run has no main process, or its former one.
    began = max(
        int(status.get(f"{one}TimestampMonotonic") or 0)
        for one in ("ExecMainStart", "InactiveExit")
    )
    return now - (monotonic - began / 1e6)


def state_of(status: dict[str, str], now: float, monotonic: float) -> State:
    """Return what the properties of `systemctl show` mean."""
    active = status.get("ActiveState")
    return State(
        # Also what is just coming up by itself, as after a boot.
        up=active in ("active", "reloading")
        or (active == "activating" and status.get("SubState") != "auto-restart"),
        enabled=status.get("UnitFileState") == "enabled",
        since=started_at(status, now, monotonic),
        stale=status.get("NeedDaemonReload") == "yes",
    )


class Systemd:
    """The few calls to systemd that a reconcile needs; see `process_plan.Manager`."""

    def __init__(self, module: AnsibleModule, stack: str = "") -> None:
        """Keep the module for running commands."""
        self.module = module
        self.drain = Drain(module, stack)
        self.draining: dict[str, str] = {}
        self.restarted_at = 0.0
        self.restarted: dict[str, dict[str, str]] = {}

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
        code, said = self.call("show", f"--property={','.join(PROPERTIES)}", *names)
        if code:
            raise SetError(f"systemd does not answer on this host: {said}")
        return dict(zip(names, parse_blocks(said)))  # noqa: B905 - strict= needs Python 3.10

    def files(self) -> dict[str, str]:
        """Return the unit files of the host; drop-ins and links are none."""
        found: dict[str, str] = read_files(UNIT_DIR, SUFFIXES)
        return found

    def unit_of(self, path: str) -> str | None:
        """Return a unit file's name."""
        return Path(path).name if Path(path).parent == UNIT_DIR else None

    def states(self, names: list[str]) -> dict[str, State]:
        """Return the states of units."""
        now, monotonic = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
        return {name: state_of(one, now, monotonic) for name, one in self.show(names).items()}

    def check(self, texts: dict[str, str]) -> None:
        """Let systemd read the new files before they replace the old ones."""
        with tempfile.TemporaryDirectory() as scratch:
            copies = []
            for path, text in texts.items():
                copies.append(Path(scratch) / Path(path).name)
                copies[-1].write_text(text, encoding="utf-8")
            # Only the words about the files themselves count: a program or a unit that is not
            # there yet is found when the service starts.
            _, out, err = self.module.run_command(
                ["systemd-analyze", "verify", "--man=no", *map(str, copies)]
            )
            wrong = [line for line in (out + err).splitlines() if line.startswith(f"{scratch}/")]
            if wrong:
                raise SetError("systemd refuses a unit file:\n" + "\n".join(wrong))

    def stop(self, names: list[str]) -> None:
        """Stop and disable units; systemd waits for each one's stop time-out at the most."""
        known = self.show(names)
        running = [n for n in names if known[n].get("ActiveState") not in ("inactive", "failed")]
        if running:
            self.must("stop", *running)
        for name in names:
            if known[name].get("LoadState") == "loaded":
                self.call("disable", name)

    def reload(self) -> None:
        """Read all unit files anew."""
        self.must("daemon-reload")

    def enable(self, names: list[str]) -> None:
        """Renew the links that start units at boot."""
        self.must("reenable", *names)

    def restart(self, names: list[str]) -> None:
        """Restart units and wait until systemd calls them started."""
        self.restarted_at = time.time()
        self.call("reset-failed", *names)
        for verb, is_target in (("restart", False), ("start", True)):
            due = [name for name in names if name.endswith(TARGET) is is_target]
            if due:
                self.call(verb, *due)
        self.restarted = self.show(names)

    def hand_over(self, units: list[Unit]) -> list[str]:
        """Let the processes of units that run drain in scopes of their own."""
        for unit in units:
            try:
                self.let_drain(unit)
            except (DrainError, OSError) as error:
                self.module.warn(f"{unit.name} is restarted after its work, not beside it: {error}")
        return [unit.name for unit in units if unit.name in self.draining]

    def let_drain(self, unit: Unit) -> None:
        """Put a stand-in in place of a unit's processes, and those into a scope.

        The stand-in ends at once when the unit is stopped, so that its restart takes no time. The
        processes go on as before until `watch` has seen the new ones work.
        """
        status = self.drain.show(
            unit.name, "ActiveState", "MainPID", "ControlGroup", "NotifyAccess", "After"
        )
        main = int(status.get("MainPID") or 0)
        if status.get("ActiveState") != "active" or not main:
            return  # Nothing works in it.
        if status["NotifyAccess"] == "none":
            raise DrainError("its unit has no NotifyAccess=main")
        cgroup = status["ControlGroup"]
        stand_in = self.drain.spawn(f"sleep {STAND_IN} >/dev/null")
        try:
            self.drain.attach(cgroup, [stand_in])
            self.announce(unit.name, main, stand_in)
        except (DrainError, OSError):
            os.kill(stand_in, signal.SIGKILL)
            raise
        try:
            scope = self.drain.adopt(
                unit,
                main,
                lambda: pids_in(cgroup) - {stand_in},
                after=status["After"].split(),
            )
        except (DrainError, OSError):
            self.announce(unit.name, stand_in, main)
            os.kill(stand_in, signal.SIGKILL)
            raise
        self.draining[unit.name] = scope

    def announce(self, name: str, old: int, new: int) -> None:
        """Tell systemd, on behalf of a unit's main process, that it is another one from now on."""
        # As sd_pid_notify(3) does it, which is root's to do.
        on_behalf = struct.pack("iII", old, 0, 0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said:
            said.sendmsg(
                [f"MAINPID={new}".encode()],
                [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, on_behalf)],
                0,
                NOTIFY_SOCKET,
            )
        self.drain.wait_for(name, "MainPID", str(new))

    def watch(self, units: list[Unit]) -> dict[str, str]:
        """Watch units for as long as the slowest one needs to settle and to answer well."""
        names = [unit.name for unit in units]
        deadline = time.monotonic() + max(unit.settle for unit in units)
        asked = {
            unit.name: Health(unit.health, unit.start_timeout) for unit in units if unit.health
        }
        failed: dict[str, str] = {}
        while True:
            for name, status in self.show(names).items():
                before = self.restarted[name]
                same = all(status.get(key) == before.get(key) for key in ("MainPID", "NRestarts"))
                if status.get("ActiveState") != "active" or not same:
                    failed[name] = ""
            for name in asked.keys() - failed.keys():
                why = asked[name].ask(lambda name=name: self.pids(name))
                if why:
                    failed[name] = why
                elif why is not None:
                    del asked[name]
            if failed or (not asked and time.monotonic() >= deadline):
                break
            time.sleep(0.1 if asked else 0.5)
        self.drain.let_go([self.draining.get(name, "") for name in names if name not in failed])
        if failed:
            time.sleep(1)  # Its last words are still on their way to the journal.
        return {
            name: "\n".join(filter(None, [why, self.journal(name)]))
            for name, why in sorted(failed.items())
        }

    def pids(self, name: str) -> set[int]:
        """Return the processes of a unit."""
        return set(pids_in(self.drain.show(name, "ControlGroup").get("ControlGroup", "")))

    def journal(self, name: str) -> str:
        """Return the last lines that a unit logged since it was restarted."""
        _, out, _ = self.module.run_command(
            ["journalctl", "--unit", name, "--since", f"@{int(self.restarted_at)}"]
            + ["--no-pager", "--quiet", "--output", "short-precise"]
        )
        # Together with --since, --lines would take the first ones.
        return "\n".join(str(out).splitlines()[-LAST_WORDS:])

    def retire(self) -> None:
        """Do nothing: systemd goes on running the host."""
