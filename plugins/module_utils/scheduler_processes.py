# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Find the processes of a host that schedule periodic tasks.

A process is judged by what its argv means to the program that reads it, not by a text pattern:
`celery -A beat worker` schedules nothing, `celery -A shop worker -EB` does.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from ansible.module_utils.stack_files import UNIT_DIR, owner_of
from ansible.module_utils.supervisord_files import CONF_DIR, is_launching

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

# What systemd is asked for, for `unit_states`.
PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID")

BEAT = "celery beat"
EMBEDDED = "celery worker with embedded beat"
HUEY = "huey consumer with periodic tasks"

PYTHON = re.compile(r"(python|pypy)[0-9.]*[a-z]*")
# Programs that run another Python program within their own process.
RUNNERS = {"cProfile", "coverage", "debugpy", "monkey", "pdb", "profile", "trace", "viztracer"}
DJANGO_ADMIN = {"django", "django-admin"}

# What setproctitle leaves of argv. A title that did not fit may be cut before its ")".
BEAT_TITLE = "[celery beat]"
WORKER_TITLE = re.compile(r"\[celeryd: [^\]]*:MainProcess\] -\w+- \((.*)")

UNIT_NAME = re.compile(r"[\w:.\\-]+(@[\w:.\\-]+)?\.service", re.ASCII)
# Services in which people log in: what runs there was started by hand.
LOGIN = re.compile(r"(user|sshd?|autovt|([a-z]+-)?getty)[@.]")

SECRET = r"[\w.-]*(?:passw|passphrase|secret|token|credential|api[_-]?key|auth)[\w.-]*"  # noqa: S105
SECRET_OPTION = re.compile(rf"--?{SECRET}", re.IGNORECASE)
SECRET_VALUE = re.compile(rf"({SECRET}=|--{SECRET}\s+)\S+", re.IGNORECASE)
URL_USERINFO = re.compile(r"://\S*@")

# The settings that a deployment lays over the project's, in the environment of its processes.
SETTINGS = "STACK_CELERY_SETTINGS"


class Valued(NamedTuple):
    """The options of a command that take a value; all its others are flags."""

    short: str
    long: frozenset[str]

    def including(self, other: Valued) -> Valued:
        """Return the options of both."""
        return Valued(self.short + other.short, self.long | other.long)


class Scheduler(TypedDict):
    """A process that schedules periodic tasks; `started` in seconds since the epoch.

    `scheduler` is the class that its command or the deployment's settings choose for Celery's
    beat; empty where that is the project's own choice, or Huey.
    """

    pid: int
    ppid: int
    user: str
    argv: list[str]
    command: str
    kind: str
    scheduler: str
    started: float
    unit: str | None
    program: str | None


class ForeignScheduler(Scheduler):
    """A scheduler of another stack on the same host."""

    stack: str


class Lurker(TypedDict):
    """A unit or program of nobody's that would schedule if it were started.

    `state` is systemd's or supervisord's word; `enabled`: it starts by itself.
    """

    name: str
    manager: str
    kind: str
    state: str
    enabled: bool


class Census(TypedDict):
    """The schedulers of one host: this stack's, and others'.

    `foreign` has, by the name of a service without suffix, the other stack that owns its file.
    """

    schedulers: list[Scheduler]
    other_stacks: list[ForeignScheduler]
    foreign: dict[str, str]


class UnitState(TypedDict):
    """What systemd says of a unit, in its own words; `main_pid` is 0 without a process.

    `starting` is true until the unit has become its program.
    """

    name: str
    load: str
    active: str
    enabled: str
    main_pid: int
    starting: bool


class ProgramState(TypedDict):
    """What supervisord says of a program, and its file.

    `state` is empty where supervisord does not know the program or does not run, `pid` 0 without a
    process. `starting` is true while the program's launcher has not become the program. `defined`:
    a file has it; only then `autostart` and `log` (a path, may be empty) say something.
    """

    name: str
    state: str
    pid: int
    starting: bool
    defined: bool
    autostart: bool
    log: str


class Definition(NamedTuple):
    """What a file says of a unit or a supervisord program; `stack` is None for nobody's.

    `kind`: which scheduler its command would become, None for none.
    """

    stack: str | None
    user: str | None
    autostart: bool = True
    log: str = ""
    kind: str | None = None


def _valued(short: str, long: str) -> Valued:
    return Valued(short, frozenset(f"--{name}" for name in long.split()))


PYTHON_OPTIONS = _valued("cmQWX", "check-hash-based-pycs")
DJANGO_OPTIONS = _valued("", "settings pythonpath verbosity")
CELERY_OPTIONS = _valued("Ab", "app broker result-backend loader config workdir").including(
    DJANGO_OPTIONS
)
# Up to Celery 4 a worker took the global options too.
WORKER_OPTIONS = CELERY_OPTIONS.including(
    _valued(
        "cfIlnOPQsSX",
        """autoscale concurrency exclude-queues executable gid heartbeat-interval hostname include
        logfile loglevel max-memory-per-child max-tasks-per-child optimization pidfile pool
        pool-start-method prefetch-multiplier queues schedule schedule-filename scheduler
        soft-time-limit statedb time-limit uid umask""",
    )
)
BEAT_OPTIONS = CELERY_OPTIONS.including(
    _valued(
        "flnsS",
        """executable gid hostname logfile loglevel max-interval pidfile schedule scheduler uid
        umask""",
    )
)
HUEY_OPTIONS = _valued(
    "bcdgklLmMstw",
    """backoff delay extra-locks graceful-signal health-check-interval logfile max-delay max-tasks
    scheduler-interval shutdown-timeout worker-type workers""",
)


def scheduler_kind(argv: Sequence[str]) -> str | None:
    """Return which kind of scheduler a process with ARGV (not empty) is; None if it is none."""
    if argv[0].startswith(BEAT_TITLE):
        return BEAT
    title = WORKER_TITLE.match(argv[0])
    if title:
        return _worker(title[1].rstrip(")").split())
    program, arguments = _program(argv)
    if program == "huey_consumer":
        return _huey(arguments)
    if program == "celery":
        return _celery(arguments)
    if "manage" in program or program in DJANGO_ADMIN:
        return _management_command(arguments)
    return None


def scheduler_class(argv: Sequence[str]) -> str:
    """Return which class ARGV chooses for Celery's beat; empty if it leaves that to settings."""
    title = argv[0].startswith("[celery")
    words = argv[0].rstrip(")").split() if title else _program(argv)[1]
    if scheduler_kind(argv) == BEAT:
        names, valued = {"-S", "--scheduler"}, BEAT_OPTIONS
    else:
        names, valued = {"--scheduler"}, WORKER_OPTIONS  # There -S is another option.
    chosen = [value for option, value, _ in _options(words, valued) if option in names]
    return chosen[-1] if chosen else ""


def command_kind(command: str) -> str | None:
    """Return which kind of scheduler the text of a COMMAND starts, also behind a wrapper."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    for position, word in enumerate(words):
        kind = scheduler_kind(words[position:]) or (" " in word and command_kind(word))
        if kind:
            return kind
    return None


def masked(argv: Sequence[str]) -> list[str]:
    """Return ARGV with secrets replaced by *** and unprintable characters by ?."""
    shown: list[str] = []
    previous = ""
    for word in argv:
        if SECRET_OPTION.fullmatch(previous):
            shown.append("***")
        else:
            safe = SECRET_VALUE.sub(r"\1***", URL_USERINFO.sub("://***@", word))
            shown.append("".join(letter if letter.isprintable() else "?" for letter in safe))
        previous = word
    return shown


def take_census(
    stack: str,
    units: Mapping[str, Definition],
    programs: Mapping[str, Definition],
    running: Mapping[int, str],
    proc: Path = Path("/proc"),
) -> Census:
    """Find all schedulers below PROC.

    Args:
        stack: Name of the stack to count for.
        units: The host's unit files, as `read_units` returns them.
        programs: The host's supervisord programs, as `read_programs` returns them.
        running: pid -> name of supervisord's programs.
        proc: Where the process file system is mounted.

    Returns:
        Every scheduler once: what a scheduler forked is not listed beside it.

    Raises:
        PermissionError: PROC does not show all processes to this user.
    """
    found = _schedulers(proc)
    owners = _Owners(stack, units, programs)
    census = Census(schedulers=[], other_stacks=[], foreign=owners.foreign())
    boot = _boot_time(proc) if found else 0
    for process in found.values():
        parent = found.get(process.ppid)
        if parent and (parent.kind == process.kind or process.argv == (BEAT_TITLE,)):
            continue
        argv = masked(process.argv)
        unit = unit_of(process.cgroup)
        program = _program_of(proc, process, running)
        scheduler = Scheduler(
            pid=process.pid,
            ppid=process.ppid,
            user=_user_name(process.uid),
            argv=argv,
            command=" ".join(argv),
            kind=process.kind,
            scheduler=scheduler_class(process.argv) or process.settings_class,
            started=boot + process.started,
            unit=unit,
            program=program,
        )
        owner = owners.of(unit, program, process.uid)
        if owner == stack:
            census["schedulers"].append(scheduler)
        else:
            census["other_stacks"].append(ForeignScheduler(**scheduler, stack=owner))
    return census


def unit_of(cgroup: str) -> str | None:
    """Return the service that the text of /proc/PID/cgroup names; None for none or a login."""
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("name=systemd", ""):
            services = [part for part in path.split("/") if part.endswith(".service")]
            if services and not any(map(LOGIN.match, services)):
                return services[-1]
    return None


def unit_states(units: Iterable[str], shown: Mapping[str, Mapping[str, str]]) -> list[UnitState]:
    """Return the state of each of UNITS, in their order.

    SHOWN is what systemd says of them, by name; of one that is not there no state can be told.
    """
    return [
        UnitState(
            name=name,
            load=shown[name]["LoadState"],
            active=shown[name].get("ActiveState", ""),
            enabled=shown[name].get("UnitFileState", ""),
            main_pid=int(shown[name].get("MainPID", "0")),
            starting=shown[name].get("SubState") in ("start-pre", "start"),
        )
        for name in units
        if name in shown
    ]


def read_units(directory: Path = UNIT_DIR) -> dict[str, Definition]:
    """Return name, with suffix, -> definition of every service that has a file in DIRECTORY."""
    units = {}
    for file in directory.glob("*.service"):
        text = _read(file) if file.is_file() else ""  # A mask is a link to a device.
        user = re.search(r"^User=(\S+)", text, re.MULTILINE)
        starts = re.findall(r"^ExecStart=[-@:+!|]*(.+)", text.replace("\\\n", " "), re.MULTILINE)
        kind = next(filter(None, map(command_kind, starts)), None)
        if not UNIT_NAME.fullmatch(file.name):
            kind = None  # A template, or nothing that systemd takes for a unit: it cannot be asked.
        units[file.name] = Definition(owner_of(text), user[1] if user else None, kind=kind)
    return units


def read_programs(directory: Path = CONF_DIR) -> dict[str, Definition]:
    """Return name -> definition of every supervisord program that has a file in DIRECTORY."""
    programs: dict[str, Definition] = {}
    files = sorted(directory.glob("*.conf"))
    if not files:
        return programs
    import configparser  # Here, since most hosts do without.

    for file in files:
        text = _read(file)
        # As supervisord makes its own parser.
        parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
        with contextlib.suppress(configparser.Error):
            parser.read_string(text)
        for section in parser.sections():
            kind, _, name = section.partition(":")
            if kind in ("program", "fcgi-program"):
                options = parser[section]
                programs[name.strip()] = Definition(
                    owner_of(text),
                    options.get("user"),
                    options.get("autostart", "true").lower() not in ("false", "no", "off", "0"),
                    options.get("stdout_logfile", ""),
                    command_kind(options.get("command", "")),
                )
    return programs


def nobodys(definitions: Mapping[str, Definition]) -> dict[str, str]:
    """Return name -> kind of the units or programs of no stack that would schedule."""
    return {name: one.kind for name, one in definitions.items() if one.kind and not one.stack}


def running_programs(answers: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Return pid -> name, as supervisorctl shows it, of what `process_info` returned."""
    return {one["pid"]: _full_name(one) for one in answers if one["pid"]}


def program_states(
    names: Iterable[str],
    stack: str,
    programs: Mapping[str, Definition],
    answers: Iterable[Mapping[str, Any]],
    proc: Path = Path("/proc"),
) -> list[ProgramState]:
    """Tell the state of each program of NAMES, in their order; see `ProgramState`."""
    known = {_full_name(one): one for one in answers}
    states = []
    for name in names:
        definition = programs.get(name)
        pid = int(known[name]["pid"]) if name in known else 0
        states.append(
            ProgramState(
                name=name,
                state=known[name]["statename"] if name in known else "",
                pid=pid,
                starting=bool(pid) and _is_launcher(proc / str(pid), stack),
                defined=definition is not None,
                autostart=bool(definition and definition.autostart),
                log=definition.log if definition else "",
            )
        )
    return states


def lurkers(
    kinds: Mapping[str, str], units: Iterable[UnitState], programs: Iterable[ProgramState]
) -> list[Lurker]:
    """Tell the state of those UNITS and PROGRAMS that KINDS, from `nobodys`, has by their name."""
    found = [
        Lurker(
            name=unit["name"],
            manager="systemd",
            kind=kinds[unit["name"]],
            state=unit["active"],
            enabled=unit["enabled"].startswith("enabled"),
        )
        for unit in units
        if unit["name"] in kinds
    ]
    found += [
        Lurker(
            name=program["name"],
            manager="supervisord",
            kind=kinds[program["name"]],
            state=program["state"],
            enabled=program["autostart"],
        )
        for program in programs
        if program["name"] in kinds
    ]
    return found


# --- What an argv means -------------------------------------------------------------------------


def _options(arguments: Sequence[str], valued: Valued) -> Iterator[tuple[str, str, list[str]]]:
    """Walk ARGUMENTS as a command-line parser does.

    Yields:
        Option (empty for a positional argument), its value, the arguments that follow.
    """
    rest = list(arguments)
    only_positional = False
    while rest:
        word = rest.pop(0)
        if only_positional or word == "-" or not word.startswith("-"):
            yield "", word, rest
        elif word == "--":
            only_positional = True
        elif word.startswith("--"):
            # `celery multi` appends :NODE to an option that concerns one node.
            name = re.split("[=:]", word, maxsplit=1)[0]
            takes_next = word == name and name in valued.long and rest
            yield name, rest.pop(0) if takes_next else word[len(name) + 1 :], rest
        else:
            for index, letter in enumerate(word[1:], start=2):
                if letter in valued.short:
                    yield f"-{letter}", word[index:] or (rest.pop(0) if rest else ""), rest
                    break
                yield f"-{letter}", "", rest


def _name(word: str) -> str:
    """Return the bare name of a module or of a script's path."""
    package = re.sub(r"[./]__main__(\.py)?$", "", word)
    return re.sub(r"\.py$", "", package.rpartition("/")[2]).rpartition(".")[2]


def _program(argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return what ARGV runs, seen through a Python interpreter: its bare name and arguments."""
    if not PYTHON.fullmatch(argv[0].rpartition("/")[2]):
        return _name(argv[0]), argv[1:]
    for option, value, rest in _options(argv[1:], PYTHON_OPTIONS):
        if option == "-c":
            break
        if option in ("-m", ""):
            if _name(value) in RUNNERS:
                return _run_by_runner(rest)
            return _name(value), rest
    return "", ()


def _run_by_runner(arguments: Sequence[str]) -> tuple[str, Sequence[str]]:
    known = DJANGO_ADMIN | {"celery", "huey_consumer", "manage"}
    for position, word in enumerate(arguments, start=1):
        if _name(word) in known:
            return _name(word), arguments[position:]
    return "", ()


def _celery(arguments: Sequence[str]) -> str | None:
    for option, command, rest in _options(arguments, CELERY_OPTIONS):
        if option:
            continue
        if command == "beat":
            return BEAT
        if command == "worker" or (command == "multi" and rest[:1] in (["start"], ["restart"])):
            return _worker(rest)
        break
    return None


def _worker(arguments: Sequence[str]) -> str | None:
    options = {option for option, _, _ in _options(arguments, WORKER_OPTIONS)}
    return EMBEDDED if options & {"-B", "--beat"} else None


def _huey(arguments: Sequence[str]) -> str | None:
    for option, _, _ in _options(arguments, HUEY_OPTIONS):
        # Huey's parser takes any beginning of a long option that fits no other.
        if option == "-n" or (len(option) > 2 and "--no-periodic".startswith(option)):
            return None
    return HUEY


def _management_command(arguments: Sequence[str]) -> str | None:
    """Judge the ARGUMENTS of a project's manage.py."""
    command, rest = arguments[:1], arguments[1:]
    if command == ["run_huey"]:
        return _huey(rest)
    if command == ["celery"]:
        # Arches: `celery start -b` starts a worker with embedded beat; there -b is no broker.
        words = list(_options(rest, DJANGO_OPTIONS))
        if [word for option, word, _ in words if not option][:1] == ["start"]:
            return EMBEDDED if {"-b", "--beat"} & {option for option, _, _ in words} else None
        return _celery(rest)
    return None


# --- What /proc and the unit files say ----------------------------------------------------------


class _Process(NamedTuple):
    """A process that schedules; `started` in seconds since boot."""

    pid: int
    ppid: int
    uid: int
    started: float
    argv: tuple[str, ...]
    kind: str
    settings_class: str
    cgroup: str


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _argv(process: Path) -> tuple[str, ...]:
    return tuple(_read(process / "cmdline").rstrip("\0").split("\0"))


def _schedulers(proc: Path) -> dict[int, _Process]:
    """Return by pid every process that schedules, also those that a scheduler forked."""
    if not (proc / "1").exists():
        raise PermissionError(f"{proc} hides other users' processes")
    found = {}
    for pid in sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit()):
        try:
            argv = _argv(proc / str(pid))
            kind = scheduler_kind(argv)
            if kind:
                found[pid] = _process(proc, pid, argv, kind)
        except (FileNotFoundError, ProcessLookupError):
            continue  # It ended while we looked.
    return found


def _process(proc: Path, pid: int, argv: tuple[str, ...], kind: str) -> _Process:
    directory = proc / str(pid)
    stat = _stat(directory)
    status = dict(line.split(":", 1) for line in _read(directory / "status").splitlines())
    return _Process(
        pid=pid,
        ppid=int(stat[1]),
        uid=int(status["Uid"].split()[1]),  # The effective one.
        started=int(stat[19]) / os.sysconf("SC_CLK_TCK"),
        argv=argv,
        kind=kind,
        settings_class=_settings_class(directory),
        cgroup=_read(directory / "cgroup"),
    )


def _settings_class(process: Path) -> str:
    """Return the class for Celery's beat in the settings of a process's environment."""
    try:
        # Nothing else of it may leave this function: it is full of secrets.
        variables = (process / "environ").read_bytes().decode("utf-8", "replace").split("\0")
    except PermissionError:
        return ""  # The kernel hides it from a root without the right to trace.
    for variable in variables:
        name, _, value = variable.partition("=")
        if name == SETTINGS:
            with contextlib.suppress(ValueError, AttributeError):
                return str(json.loads(value).get("beat_scheduler", ""))
    return ""


def _stat(process: Path) -> list[str]:
    """Return the fields of /proc/PID/stat from the process's state on."""
    # The command's name stands in parentheses and may itself hold any of them.
    return _read(process / "stat").rpartition(")")[2].split()


def _boot_time(proc: Path) -> float:
    lines = dict(line.split(" ", 1) for line in _read(proc / "stat").splitlines())
    return float(lines["btime"])


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _uid(user: str) -> int | None:
    try:
        return int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


class _Owners:
    """Tells which stack a process belongs to, by the files that carry a stack's name."""

    def __init__(
        self, stack: str, units: Mapping[str, Definition], programs: Mapping[str, Definition]
    ) -> None:
        self.stack = stack
        self.by_unit = {name: one.stack for name, one in units.items() if one.stack}
        self.by_program = {name: one.stack for name, one in programs.items() if one.stack}
        self.by_uid: dict[int, str] = {}
        for one in (*units.values(), *programs.values()):
            uid = _uid(one.user) if one.stack and one.user else None
            # A user of this stack's is this stack's, whoever else uses it.
            if uid is not None and one.stack and self.by_uid.get(uid) != stack:
                self.by_uid[uid] = one.stack

    def of(self, unit: str | None, program: str | None, uid: int) -> str:
        """Return the stack of a process: this one unless its file or its user says otherwise."""
        template = re.sub(r"@.*\.", "@.", unit or "")
        return (
            self.by_program.get(program or "")
            or self.by_unit.get(template)
            or self.by_uid.get(uid, self.stack)
        )

    def foreign(self) -> dict[str, str]:
        """Return, by name of a service without suffix, the other stack that owns it."""
        names = {name.rpartition(".")[0]: owner for name, owner in self.by_unit.items()}
        return {
            name: owner
            for name, owner in sorted({**names, **self.by_program}.items())
            if owner != self.stack
        }


def _full_name(process: Mapping[str, Any]) -> str:
    name, group = str(process["name"]), str(process["group"])
    return name if name == group else f"{group}:{name}"


def _program_of(proc: Path, process: _Process, running: Mapping[int, str]) -> str | None:
    """Return the supervisord program that a process or one of its ancestors is."""
    pid, parent = process.pid, process.ppid
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while running and pid not in running and parent > 1:
            pid, parent = parent, int(_stat(proc / str(parent))[1])
    return running.get(pid)


def _is_launcher(process: Path, stack: str) -> bool:
    """Tell whether a program's process is still the shell that prepares it."""
    try:
        return bool(is_launching((process / "cmdline").read_bytes(), stack))
    except (FileNotFoundError, ProcessLookupError):
        return False
