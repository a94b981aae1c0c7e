# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Let a process finish its work beside its successor, in a scope of systemd of its own.

Works wherever systemd is PID 1, also for a program of supervisord.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.module_utils.process_scopes import description, guard_name, scope_name
from ansible.module_utils.systemd_show import parse_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ansible.module_utils.basic import AnsibleModule
    from ansible.module_utils.process_plan import Unit

PROC = Path("/proc")
SIZES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
MANAGER = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
# Seconds in which systemd does what it was asked for.
PATIENCE = 5.0
# Of version 2 the only one; where version 1 is in use, the two by which systemd finds a process.
HIERARCHIES = [Path("/sys/fs/cgroup") / one for one in ("", "systemd", "unified")]
OWN = ("", "name=systemd")
# Seconds for which a former process goes on as before if nobody says that its successor works.
START_PATIENCE = 300
# Rounds in which no process forks away from its adoption.
ROUNDS = 5
# Where systemd makes a service's own directories for temporary files.
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108

# Tells the former main process to stop when it gets USR1, or by itself when nobody came to that in
# time. When its time to finish is over as well, that is told in the journal of the service, and all
# that is left is killed. $0 is the scope, $1 and $2 the seconds for the one and the other, $3 the
# signal, $4 the process, $5 the service's unit, $6 a log beside the journal or empty.
GUARD = """
sleep "$1" &
trap 'kill $!' USR1
wait $!
trap : USR1
kill -s "$3" "$4"
sleep "$2"
said="$0 was given $2 s to finish its work, which are over: it is killed."
printf 'MESSAGE=%s\nPRIORITY=4\nOBJECT_SYSTEMD_UNIT=%s\n' "$said" "$5" | logger --journald
[ -z "$6" ] || echo "$said" >>"$6"
exec systemctl kill --signal=KILL "$0"
"""


class DrainError(Exception):
    """A process cannot be handed over; the message says why."""


def memory_bytes(size: str) -> int | None:
    """Return the bytes of a size such as "512M"; None for any other kind of limit."""
    found = re.fullmatch(r"([0-9]+)([KMGT]?)", size)
    return int(found[1]) * SIZES.get(found[2], 1) if found else None


def pids_in(cgroup: str, proc: Path = PROC) -> set[int]:
    """Return the processes in a unit's control group (as systemd names it) and below it.

    A unit without a process has a group without a name, in which there is none.
    """
    found: set[int] = set()
    for directory in proc.iterdir() if cgroup else ():
        if directory.name.isdigit():
            try:
                lines = (directory / "cgroup").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # systemd's own hierarchy: the only one of version 2, or that of its name.
            paths = {
                line.split(":", 2)[2]
                for line in lines
                if line.split(":")[1] in ("", "name=systemd")
            }
            if any(path == cgroup or path.startswith(f"{cgroup}/") for path in paths):
                found.add(int(directory.name))
    return found


def descendants(pid: int, proc: Path = PROC) -> list[int]:
    """Return the children of a process, those of them, and so on."""
    parents = {}
    for directory in proc.iterdir():
        if directory.name.isdigit():
            try:
                stat = (directory / "stat").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(directory.name)] = int(stat.rpartition(")")[2].split()[1])
    found, fresh = [], {pid}
    while fresh:
        fresh = {one for one, parent in parents.items() if parent in fresh}
        found += sorted(fresh)
    return found


def start_call(name: str, pids: Sequence[int], properties: Sequence[str]) -> list[str]:
    """Return the busctl command that makes a scope; a property is NAME, TYPE and its values."""
    return [
        # Behind "--": the root file system is the unit "-.mount".
        *("busctl", "--", "call", *MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail"),
        # Each value's type stands before it, so a property begins behind a ";" here.
        str(1 + list(properties).count(";")),
        *("PIDs", "au", str(len(pids)), *map(str, pids)),
        *(word for word in properties if word != ";"),
        "0",
    ]


def scope_properties(
    *, description: str, seconds: float, memory_max: str, after: Sequence[str]
) -> list[str]:
    """Return the properties of a scope, each behind a ";"; see `start_call`."""
    micro = str(int(seconds * 1e6))
    wanted = [
        *(";", "Description", "s", description),
        *(";", "RuntimeMaxUSec", "t", micro),
        # When the host shuts down: TERM to all of them would kill running tasks, and the main
        # process has been told to stop already. So nothing but time until SIGKILL.
        *(";", "KillSignal", "i", str(int(signal.SIGCONT))),
        *(";", "TimeoutStopUSec", "t", micro),
        # No trace is left of one that failed.
        *(";", "CollectMode", "s", "inactive-or-failed"),
    ]
    if after:
        # It stops before what it needs, a broker on the same host for one.
        wanted += [";", "After", "as", str(len(after)), *after]
    size = memory_bytes(memory_max)
    if size is not None:
        wanted += [";", "MemoryMax", "t", str(size)]
    return wanted


def temporary_directories(pid: int, unit: str, proc: Path = PROC) -> list[Path]:
    """Return the directories that systemd made for the /tmp and /var/tmp of a process alone."""
    found = []
    for directory in TEMPORARY:
        try:
            seen = (proc / str(pid) / "root" / directory.relative_to("/")).stat()
        except OSError:
            continue
        for one in directory.glob(f"systemd-private-*-{unit}-*"):
            try:
                if os.path.samestat((one / "tmp").stat(), seen):
                    found.append(one)
            except OSError:
                continue  # It is just going.
    return found


class Drain:
    """Moves processes out of their unit, so that a restart of the unit leaves them alone."""

    def __init__(self, module: AnsibleModule, stack: str) -> None:
        """Keep the module for running commands."""
        self.module = module
        self.stack = stack

    def must(self, argv: Sequence[str]) -> str:
        """Run a command and return what it printed; raise DrainError when it fails."""
        code, out, err = self.module.run_command(list(argv))
        if code:
            raise DrainError(f"{argv[0]} failed: {(err or out).strip()}")
        return str(out)

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Return properties of a unit."""
        blocks = parse_blocks(
            self.must(["systemctl", "show", f"--property={','.join(properties)}", unit])
        )
        return blocks[0] if blocks else {}

    def wait_for(self, unit: str, name: str, value: str, *others: str) -> dict[str, str]:
        """Wait until systemd says so of a unit, which takes it a moment; return what it says.

        Raises:
            DrainError: it goes on saying something else.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            shown = self.show(unit, name, *others)
            if shown.get(name) == value:
                return shown
            if time.monotonic() > deadline:
                raise DrainError(f"{unit}: {name} is {shown.get(name)}, not {value}")
            time.sleep(0.02)

    def attach(self, cgroup: str, pids: Sequence[int]) -> None:
        """Put processes into the control group of a unit; one that has ended meanwhile is left."""
        # systemd itself does so for units alone that have charge of their groups.
        for hierarchy in HIERARCHIES:
            members = hierarchy / cgroup.lstrip("/") / "cgroup.procs"
            if members.exists():
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        members.write_text(str(pid))

    def adopt(
        self,
        unit: Unit,
        main: int,
        find: Callable[[], set[int]],
        *,
        after: Sequence[str],
        log: str = "",
    ) -> str:
        """Move processes into a scope in which they may finish their work; return its name.

        Args:
            unit: the unit that is restarted.
            main: the process that will be told to stop.
            find: returns the processes that have to be in the scope, whether they are or not.
            after: units that the scope stops before.
            log: path of the service's log, beside the journal; or empty.

        Raises:
            DrainError: the processes are where they were.
        """
        service = re.sub(r"\.service$", "", unit.name)
        name: str = scope_name(service, main)
        stop = max(2.0, unit.stop_timeout)
        until = datetime.fromtimestamp(int(time.time() + START_PATIENCE + stop), timezone.utc)  # noqa: UP017 - Python 3.9
        properties = scope_properties(
            description=description(self.stack, service, until),
            seconds=START_PATIENCE + stop,
            memory_max=unit.memory_max,
            after=after,
        )
        self.must(start_call(name, sorted(find()), properties))
        shown = self.wait_for(name, "ActiveState", "active", "ControlGroup")
        for _ in range(ROUNDS):
            # What was forked meanwhile by a process that was not moved yet.
            left = find() - pids_in(shown["ControlGroup"])
            if not left:
                break
            self.attach(shown["ControlGroup"], sorted(left))
        # One second earlier than systemd, which would send a signal that nobody hears.
        times = [str(START_PATIENCE), str(int(stop) - 1)]
        more = [*times, unit.stop_signal, str(main), unit.name, log]
        try:
            self.guard(name, self.keep(main, unit.name), more)
        except (DrainError, OSError) as error:
            self.module.warn(f"{name} is told to stop at once, and not ended in time: {error}")
            os.kill(main, signal.Signals[f"SIG{unit.stop_signal}"])
        return name

    def keep(self, pid: int, unit: str) -> list[str]:
        """Put a process's own /tmp out of systemd's way, who removes it when its unit stops.

        Returns the directories, which still are what the process sees.
        """
        kept = []
        for directory in temporary_directories(pid, unit):
            aside = directory.with_name(f"{directory.name}-draining")
            directory.rename(aside)
            kept.append(str(aside))
        return kept

    def guard(self, scope: str, kept: list[str], more: list[str]) -> None:
        """Let a small service tell a scope's process to stop, end the scope in time, and clear up.

        Args:
            scope: its name.
            kept: directories to remove when it has ended.
            more: what `GUARD` takes behind the scope.
        """
        # No shell here: when systemd reloads, it reads a "$" in it anew as something else.
        clear = ["/bin/rm", "-rf", "--", *kept]
        self.must(
            ["systemd-run", "--quiet", "--collect", f"--unit={guard_name(scope)}"]
            + [f"--description={self.stack}: ends {scope} in time"]
            # What starts before another stops after it, also when the host shuts down.
            + [f"--property={one}={scope}" for one in ("BindsTo", "Before")]
            + [f"--property=ExecStopPost={shlex.join(clear)}"] * bool(kept)
            + ["/bin/sh", "-c", GUARD.strip(), scope, *more]
        )

    def let_go(self, scopes: Sequence[str]) -> None:
        """Let the processes in scopes be told to stop now, since their successors work.

        One whose successor is broken works on for a while.
        """
        guards = [guard_name(scope) for scope in scopes if scope]
        if guards:
            # The guards' children are not meant. One whose guard is gone has ended.
            only = ["--kill-who=main", "--signal=USR1"]
            self.module.run_command(["systemctl", "kill", *only, *guards])

    def spawn(self, command: str) -> int:
        """Start a command of a shell, with its redirections, as a child of init; return its pid."""
        # A shell's background processes are deaf to INT, which is what stops some services.
        reset = "env --default-signal=INT,QUIT /bin/sh -c"
        return int(
            self.must(["/bin/sh", "-c", f'{reset} "$0" & echo $!', f"exec {command} 2>/dev/null"])
        )
