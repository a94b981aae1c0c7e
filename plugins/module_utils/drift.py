# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What a role left on a host when it last ended well, and what is different now.

A record holds what the role manages (its spec), the state in which that was, and hashes of what the
role was told. One record a role, in a directory that only root reads.

A spec has, each of them optional:

    paths: paths of files, links and directories.
    units: names of systemd units that run.
    masked: names of systemd units that must not be able to run.
    held: names of units that something else than systemd starts and stops.
    packages: names of Debian packages.
    marked: name of a stack: all files of its units and programs, these units and these programs.
    memory: what its services may use, as the filter `service_specs` returns it; kept for the next
        run, which has to know it before it changes anything.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import json
import pwd
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.stack_files import SUFFIXES, UNIT_DIR, owner_of, read_files, write_file
from ansible.module_utils.supervisord_files import CONF_DIR, LAUNCHER_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Spec = Mapping[str, Any]
    # Kind (`paths`, `units`, `programs`, `packages`) -> names.
    Members = Mapping[str, list[str]]
    # Kind (`paths`, `units`, `programs`, `packages`) -> name -> property -> value.
    State = Mapping[str, Mapping[str, Mapping[str, Any]]]

FORMAT = 1
DPKG_STATUS = Path("/var/lib/dpkg/status")
PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload", "DropInPaths")


class RecordError(Exception):
    """A record that cannot be read; the message is for the operator."""


# --- what is there ----------------------------------------------------------------------------


def _name(lookup: Callable[[int], Any], number: int) -> str:
    """Return the name of a user or group, or its number if it has none."""
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def observe_path(path: Path) -> dict[str, Any]:
    """Return what is at a path; empty if nothing is.

    Keys: `type`; of a link `target`; else `mode`, `owner`, `group`; of a file also `sha256`;
    of both file and link `written`, its time in nanoseconds: what was changed and changed back may
    have been read in between.
    """
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if stat.S_ISLNK(status.st_mode):
        return {"type": "link", "target": str(path.readlink()), "written": status.st_mtime_ns}
    found: dict[str, Any] = {
        "type": "directory" if stat.S_ISDIR(status.st_mode) else "file",
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": _name(pwd.getpwuid, status.st_uid),
        "group": _name(grp.getgrgid, status.st_gid),
    }
    if stat.S_ISREG(status.st_mode):
        found["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        found["written"] = status.st_mtime_ns
    return found


def marked_files(stack: str, root: Path = Path("/")) -> list[Path]:
    """Return the files of units, programs and launchers that carry the line `# stack: STACK`."""
    places = (
        (UNIT_DIR, SUFFIXES),
        (CONF_DIR, {".conf"}),
        (LAUNCHER_DIR / stack, {""}),
    )
    return [
        Path("/") / Path(path).relative_to(root)
        for place, suffixes in places
        for path, text in read_files(root / place.relative_to("/"), suffixes).items()
        if owner_of(text) == stack
    ]


def package_versions(names: Iterable[str], status: str) -> dict[str, dict[str, str]]:
    """Return package -> its `version`; empty for one that is not installed.

    Args:
        names: the packages.
        status: the text of /var/lib/dpkg/status.
    """
    found: dict[str, dict[str, str]] = {}
    for name in names:
        start = f"\n{status}".find(f"\nPackage: {name}\n")
        fields = dict(re.findall(r"^(\S+): (.*)$", status[start:].partition("\n\n")[0], re.M))
        is_there = start >= 0 and fields.get("Status", "").endswith(" installed")
        found[name] = {"version": fields["Version"]} if is_there else {}
    return found


def members(spec: Spec) -> dict[str, list[str]]:
    """Return kind -> the names of what a spec means at this moment; reads the marked files."""
    marked = marked_files(spec["marked"]) if spec.get("marked") else []
    # A template of units has no state.
    units = [path.name for path in marked if path.parent == UNIT_DIR and "@." not in path.name]
    return {
        "paths": [*spec.get("paths", []), *map(str, marked)],
        "units": list(
            dict.fromkeys(name for key in ("units", "masked", "held") for name in spec.get(key, []))
            | dict.fromkeys(units)
        ),
        "programs": [path.stem for path in marked if path.parent == CONF_DIR],
        "packages": list(spec.get("packages", [])),
    }


def observe(
    wanted: Sequence[Members], shown: Mapping[str, Mapping[str, str]], running: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the state of what each of several specs means.

    Args:
        wanted: what that is, from `members`.
        shown: what systemd says of the units, by name, at least their PROPERTIES.
        running: program -> state, of all that supervisord knows.
    """
    packages = list(dict.fromkeys(name for one in wanted for name in one["packages"]))
    text = DPKG_STATUS.read_text(errors="replace") if packages else ""
    versions = package_versions(packages, text)
    return [
        {
            "paths": {path: observe_path(Path(path)) for path in one["paths"]},
            "units": {
                name: {key: shown.get(name, {}).get(key, "") for key in PROPERTIES}
                for name in one["units"]
            },
            "programs": {
                name: {"state": running[name]} if name in running else {}
                for name in one["programs"]
            },
            "packages": {name: versions[name] for name in one["packages"]},
        }
        for one in wanted
    ]


# --- what is different ------------------------------------------------------------------------


def _path_words(path: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    kind = now.get("type") or was["type"]
    if not was or not now:
        return [f"{kind} {path} is {'gone' if was else 'new'}"]
    if was["type"] != kind:
        return [f"{path} is a {kind}, was a {was['type']}"]
    if kind == "link" and was["target"] != now["target"]:
        return [f"link {path} -> {now['target']}, was {was['target']}"]
    words = [
        f"{key} {now[key]}, was {was[key]}"
        for key in ("mode", "owner", "group")
        if key in was and was[key] != now[key]
    ]
    if was.get("sha256") != now.get("sha256"):
        words.insert(0, "its content changed")
    elif was.get("written") != now.get("written"):
        words.insert(0, "it was written anew")
    return [f"{kind} {path}: {', '.join(words)}"] if words else []


def _unit_words(
    name: str, was: Mapping[str, Any], now: Mapping[str, Any], *, held: bool
) -> list[str]:
    if not was or not now:
        return [f"unit {name} is {'gone' if was else 'new'}"]
    words = [
        f"{now[key] or 'unknown'}, was {was[key] or 'unknown'}"
        for key in ("LoadState", "ActiveState", "UnitFileState")
        if was[key] != now[key] and not (held and key == "ActiveState")
    ]
    if now["NeedDaemonReload"] == "yes":
        words.append("systemd has not read its file")
    # A cluster makes one for what it runs.
    if was["DropInPaths"] != now["DropInPaths"] and not held:
        words.append(
            f"its drop-ins are {now['DropInPaths'] or 'none'}, were {was['DropInPaths'] or 'none'}"
        )
    return [f"unit {name}: {'; '.join(words)}"] if words else []


def _plain_words(
    kind: str, key: str, name: str, was: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    if was and now:
        said = f"{was[key]} -> {now[key]}" if kind == "package" else f"{now[key]}, was {was[key]}"
        glue = " " if kind == "package" else ": "
        return [] if was[key] == now[key] else [f"{kind} {name}{glue}{said}"]
    return [f"{kind} {name} is {'gone' if was else 'new'}"] if was or now else []


def state_differences(was: State, now: State, held: Iterable[str]) -> list[str]:
    """Return in which way a role's things differ; empty if they do not.

    Args:
        was: their state in the record.
        now: their state now, of the same kinds.
        held: units whose ActiveState is not this role's.
    """
    words: list[str] = []
    for kind in ("packages", "paths", "units", "programs"):
        for name in dict.fromkeys([*was[kind], *now[kind]]):
            one, other = was[kind].get(name, {}), now[kind].get(name, {})
            if one == other and other.get("NeedDaemonReload") != "yes":
                continue
            if kind == "paths":
                words += _path_words(name, one, other)
            elif kind == "units":
                words += _unit_words(name, one, other, held=name in held)
            elif kind == "packages":
                words += _plain_words("package", "version", name, one, other)
            else:
                words += _plain_words("program", "state", name, one, other)
    return words


def input_differences(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return which inputs differ, by their names (name -> hash); their values are not known."""
    words = []
    for name in sorted({*was, *now}):
        if name not in now:
            words.append(f"input {name} is gone")
        elif name not in was:
            words.append(f"input {name} is new")
        elif was[name] != now[name]:
            words.append(f"input {name} changed")
    return words


def unfit(state: State, spec: Spec) -> list[str]:
    """Return why a state is not one to record, as sentences: it would count as right from then."""
    loose = {*spec.get("masked", []), *spec.get("held", [])}
    words = [f"{path} is missing" for path, one in state["paths"].items() if not one]
    words += [f"package {name} is missing" for name, one in state["packages"].items() if not one]
    for name, one in state["units"].items():
        if one["NeedDaemonReload"] == "yes":
            words.append(f"systemd has not read the file of {name}")
        elif name in spec.get("masked", []):
            if one["LoadState"] != "masked" or one["ActiveState"] == "active":
                words.append(f"{name} is not masked, but {one['LoadState']}")
        elif name not in loose and one["ActiveState"] != "active":
            words.append(f"{name} is {one['ActiveState']}")
    words += [
        f"{name} is {one.get('state', 'unknown to supervisord')}"
        for name, one in state["programs"].items()
        if one.get("state") != "RUNNING"
    ]
    return words


# --- records ----------------------------------------------------------------------------------


class Records:
    """The records of one host."""

    def __init__(self, directory: Path) -> None:
        """Keep where they are; nothing is read or made yet."""
        self.directory = directory

    def _path(self, role: str) -> Path:
        return self.directory / f"{role}.json"

    def _mark(self, role: str) -> Path:
        return self.directory / f"{role}.begun"

    def read(self, role: str) -> dict[str, Any]:
        """Return the record of a role.

        Raises:
            RecordError: there is none, or none that says anything.
        """
        try:
            record: dict[str, Any] = json.loads(self._path(role).read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise RecordError("no deployment of it is recorded") from None
        except (OSError, ValueError) as error:
            raise RecordError(f"its record cannot be read ({error})") from None
        form = record.get("format") if isinstance(record, dict) else None
        if form != FORMAT:
            raise RecordError(f"its record has the format {form}, not {FORMAT}")
        keys = {"identity": dict, "inputs": dict, "release": str, "spec": dict, "state": dict}
        for key, kind in keys.items():
            if not isinstance(record.get(key), kind):
                raise RecordError(f"its record has no {key}")
        if self._mark(role).exists():
            raise RecordError("a run that changed it did not end well")
        return record

    def begin(self, roles: Iterable[str]) -> list[str]:
        """Note that roles are about to run: their records say nothing until they are written.

        Returns those of which that was not noted before.
        """
        self._make()
        new = [role for role in roles if not self._mark(role).exists()]
        for role in new:
            self._mark(role).touch(mode=0o600)
        return new

    def spare(self, roles: Iterable[str]) -> None:
        """Note that roles were not run after all; their records say what they said before."""
        for role in roles:
            with contextlib.suppress(FileNotFoundError):
                self._mark(role).unlink()

    def write(self, role: str, record: Mapping[str, Any]) -> None:
        """Replace the record of a role, which has ended well."""
        self._make()
        text = json.dumps({"format": FORMAT, **record}, sort_keys=True)
        write_file(self._path(role), f"{text}\n", 0o600)
        with contextlib.suppress(FileNotFoundError):
            self._mark(role).unlink()

    def _make(self) -> None:
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.directory.chmod(0o700)


def differences(
    record: Mapping[str, Any],
    *,
    identity: Mapping[str, str],
    inputs: Mapping[str, str],
    release: str,
    state: State,
) -> list[str]:
    """Return in which way a role's host or inputs differ from its record; empty if they do not."""
    words = []
    if record["identity"] != identity:
        words.append(
            f"the record was made on another machine, {record['identity'].get('hostname')}"
        )
    words += input_differences(record["inputs"], inputs)
    if record["release"] != release:
        words.append(f"release {release}, was {record['release']}")
    try:
        return words + state_differences(record["state"], state, record["spec"].get("held", []))
    except (KeyError, TypeError, AttributeError):
        return [*words, "its record cannot be understood"]
