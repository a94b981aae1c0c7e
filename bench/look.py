"""Runs on a host: writes as JSON what the deployment manages there.

Usage: python3 - STACK < look.py. All paths are those of the stack and of systemd.

packages: those that somebody asked for, names.
user: name, home, shell.
directories: path to [owner, group, mode]. files: path to [owner, group, mode, content].
links: path to target, `current` and the masks of units among them.
units: name to [is-enabled, is-active].
trees: release and environment that are current, path to a digest of all that is in it.
"""

import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

STACK = sys.argv[1]
UNITS = Path("/etc/systemd/system")
HOME = Path("/opt") / STACK
ROOTS = [UNITS, HOME, Path("/etc") / STACK, Path("/usr/local/bin"), Path("/usr/local/lib") / STACK]
STATE = Path("/var/lib") / STACK
# Inside of these there is a tree each; systemd itself keeps which unit is enabled.
WHOLE = {HOME / "releases", HOME / "venvs"}
WHOLE_SUFFIXES = (".wants", ".requires")
# Told by a run about itself, so no two runs write the same.
RECORDS = {".jsonl", ".json", ".lock"}


def owner(path: Path) -> list[str]:
    """Return a path's owner, group and mode."""
    found = path.lstat()
    user, group = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name
    return [user, group, format(stat.S_IMODE(found.st_mode), "o")]


def digest(tree: Path) -> str:
    """Return a digest of the names, modes and sizes below a directory, static files excepted."""
    lines = []
    for parent, directories, files in os.walk(tree):
        directories[:] = sorted(set(directories) - {"static_root"})
        for name in sorted(files):
            found = (Path(parent) / name).lstat()
            lines.append(f"{parent}/{name} {found.st_mode} {found.st_size} {found.st_uid}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def systemctl(verb: str, units: list[str]) -> list[str]:
    """Return a word for each unit."""
    argv = ["systemctl", verb, *units]
    return subprocess.run(argv, stdout=subprocess.PIPE, check=False).stdout.decode().split()


def main() -> None:
    """Look and write."""
    directories: dict[str, list[str]] = {}
    files: dict[str, list[str]] = {}
    links: dict[str, str] = {}
    stack = [root for root in ROOTS if root.is_dir()]
    while stack:
        directory = stack.pop()
        directories[str(directory)] = owner(directory)
        if directory in WHOLE:
            continue
        for path in sorted(directory.iterdir()):
            if path.is_symlink():
                links[str(path)] = str(path.readlink())
            elif path.is_dir():
                if not path.name.endswith(WHOLE_SUFFIXES):
                    stack.append(path)
            elif path.suffix not in RECORDS:
                files[str(path)] = [*owner(path), path.read_bytes().decode()]
    if STATE.is_dir():
        directories[str(STATE)] = owner(STATE)
    units = sorted(Path(name).name for name in files if Path(name).parent == UNITS)
    enabled, active = (
        systemctl(verb, units) if units else [] for verb in ("is-enabled", "is-active")
    )
    user = [entry for entry in pwd.getpwall() if entry.pw_name == STACK]
    current = HOME / "current"
    trees = [current.resolve(), (current / ".venv").resolve()] if current.is_symlink() else []
    marked = subprocess.run(["apt-mark", "showmanual"], stdout=subprocess.PIPE, check=True)
    result = {
        "packages": marked.stdout.decode().split(),
        "user": [STACK, user[0].pw_dir, user[0].pw_shell] if user else [],
        "directories": directories,
        "files": files,
        "links": links,
        "units": {name: list(words) for name, *words in zip(units, enabled, active, strict=True)},
        "trees": {str(tree): digest(tree) for tree in trees},
    }
    json.dump(result, sys.stdout)


main()
