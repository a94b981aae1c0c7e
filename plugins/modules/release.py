#!/usr/bin/python
# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Look at, prepare and list the releases of a project on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release
short_description: Look at, prepare and list the releases of a project on a host
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - A release is C(HOME/releases/ID), with C(.venv) that links to C(HOME/venvs/KEY), and a file
    C(.release) that holds ID. Both directories are made beside their place as C(NAME.new) and
    renamed, so that they are whole or not there. A run that was interrupted is completed by the
    next one.
  - Nothing that runs is changed. C(HOME/current) is switched elsewhere.
  - Normally called through the action plugin of the same name, which builds the environment and
    ships what is missing.
options:
  state:
    description:
      - With V(looked) says what is there and what V(present) would do; changes nothing, unless
        O(at_once) lets it.
      - With V(present) makes the release, its directories and the next environment file, and
        removes the releases and environments that nobody needs.
      - With V(listed) says which releases there are, and what the journal says; changes nothing.
    type: str
    choices: [looked, present, listed]
    default: looked
  place:
    description: Where the stack is on the host, and what its release needs there.
    type: dict
    required: true
    suboptions:
      home:
        description: Directory of the stack, such as C(/opt/shop).
        type: path
        required: true
      user:
        description: The services' user. Needs to exist for V(present).
        type: str
      state_dir:
        description: Directory of the services' data; shared paths are kept in its C(shared).
        type: path
      python:
        description: The interpreter of the environment.
        type: path
        default: /usr/bin/python3
      release:
        description: ID of the release.
        type: str
      requirements_id:
        description: What the environment is made of; with O(place.python) it makes its key.
        type: str
        default: ""
      writable:
        description: Directories of the user within the release, relative to it.
        type: list
        elements: str
        default: []
      shared:
        description: Paths of the release, relative to it, that all releases share.
        type: list
        elements: str
        default: []
      directories:
        description: Further directories of the user, absolute.
        type: list
        elements: path
        default: []
      files:
        description:
          - What else the host needs, in this order, as path to a dict of C(owner), C(group),
            C(mode) and C(content); a directory has no content.
        type: dict
        default: {}
      env_file:
        description: The environment file that the services read.
        type: path
      env_sum:
        description: SHA-256 of what it shall hold.
        type: str
  packages:
    description: For V(looked), packages of the distribution, as apt takes them.
    type: list
    elements: str
    default: []
  at_once:
    description:
      - For V(looked), does what V(present) would in the same run, if that needs no environment, no
        package and no user that is missing, and no other code than O(code_content).
    type: bool
    default: false
  code:
    description: Archive of the project on the host.
    type: path
  code_content:
    description: The same archive itself, in base64.
    type: str
  environment:
    description: Archive of the environment on the host.
    type: path
  env_content:
    description: The environment file.
    type: str
  keep:
    description: How many releases stay, the one that is asked for and the current one included.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: List the releases
  release:
    state: listed
    place:
      home: /opt/shop
  register: releases
"""

RETURN = r"""
platform:
  description: What decides whether an environment runs here.
  returned: looked
  type: str
  sample: 3.11.2 cpython-311-x86_64-linux-gnu x86_64 glibc 2.36
environment_key:
  description: Name of the environment.
  returned: looked
  type: str
has_environment:
  description: Is it there?
  returned: looked
  type: bool
has_release:
  description: Is the release there, with an environment that runs?
  returned: looked
  type: bool
env_changes:
  description: Shall the environment file change at the switch?
  returned: looked
  type: bool
due:
  description: The paths that V(present) would make or remove. Empty after O(at_once) has.
  returned: looked
  type: list
  elements: str
made:
  description: The paths that were made or removed.
  returned: looked, present
  type: list
  elements: str
has_user:
  description: Does the services' user exist?
  returned: looked
  type: bool
missing_packages:
  description: Those of O(packages) that are not installed.
  returned: looked
  type: list
  elements: str
current:
  description: ID of the current release, empty without one.
  returned: looked, listed
  type: str
releases:
  description: All releases, newest first.
  returned: looked, listed
  type: list
  elements: dict
  contains:
    id:
      description: The release.
      type: str
    mtime:
      description: When it was made, in seconds since 1970.
      type: int
    current:
      description: Is it the current one?
      type: bool
previous:
  description:
    - The release that was in use before the current one, as the journal says, else the newest
      other one; empty without one.
  returned: listed
  type: str
journal:
  description: The last deploys of this host, oldest first.
  returned: listed
  type: list
  elements: dict
"""

import base64
import compileall
import contextlib
import fnmatch
import grp
import hashlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.release_platform import platform_of

JOURNAL_TAIL = 64 * 1024  # Bytes: some hundred deploys.
JOURNAL_SHOWN = 20
OWNER = "root"  # Of what the services read and must not write.
LEFTOVER_AGE = 24 * 3600  # Seconds: no run takes that long.

Place = dict[str, Any]


class ReleaseError(Exception):
    """Something that the operator has to change."""


# --- looking ---------------------------------------------------------------------------------


def environment_key(requirements_id: str, python: str, platform: str) -> str:
    """Return the name of the environment for requirements, an interpreter and its platform."""
    return hashlib.sha256("\0".join((requirements_id, python, platform)).encode()).hexdigest()[:16]


def release_of(directory: Path) -> str:
    """Return the ID that a release's directory says it holds, empty for none."""
    try:
        return (directory / ".release").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def runs_on(environment: Path, platform: str) -> bool:
    """Say whether an environment exists and is one of the platform's Python version."""
    version = ".".join(platform.split(".")[:2])
    libraries = environment / "lib"
    return (environment / "bin/python").exists() and any(libraries.glob(f"*{version}"))


def is_right(path: str | Path, owner: str, group: str, mode: str, checksum: str = "") -> bool:
    """Say whether a path is as it should be.

    Args:
        path: the file or directory.
        owner: name of its user.
        group: name of its group.
        mode: its permissions, octal with four digits.
        checksum: SHA-256 of the file; empty for a directory.
    """
    try:
        found = Path(path).lstat()
        names = [pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name]
    except (OSError, KeyError):
        return False
    if [*names, f"{stat.S_IMODE(found.st_mode):04o}"] != [owner, group, mode]:
        return False
    if not checksum:
        return stat.S_ISDIR(found.st_mode)
    return (
        stat.S_ISREG(found.st_mode)
        and hashlib.sha256(Path(path).read_bytes()).hexdigest() == checksum
    )


def is_env_file(path: Path, place: Place) -> bool:
    """Say whether a file is the environment file as it should be."""
    return is_right(path, OWNER, place["user"], "0640", place["env_sum"])


def has_file(path: str, wanted: Mapping[str, str]) -> bool:
    """Say whether one of `files` is there as it should be."""
    content = wanted.get("content")
    checksum = "" if content is None else hashlib.sha256(content.encode()).hexdigest()
    return is_right(path, wanted["owner"], wanted["group"], wanted["mode"], checksum)


def has_user(name: str) -> bool:
    """Say whether a user exists."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def missing_packages(packages: list[str]) -> list[str]:
    """Return the packages that are not installed; NAME=VERSION asks for a version."""
    if not packages:
        return []
    names = {one: one.partition("=")[0].partition("/")[0] for one in packages}
    shown = subprocess.run(  # noqa: S603
        ["/usr/bin/dpkg-query", "--show", "--showformat",
         "${Package} ${Package}:${Architecture} ${Version} ${db:Status-Status}\n", *names.values()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    versions = {}
    for line in shown.stdout.splitlines():
        name, full_name, version, *status = line.split(" ")
        if status == ["installed"]:
            versions[name] = versions[full_name] = version
    return [
        one
        for one, name in names.items()
        if not fnmatch.fnmatch(versions.get(name, ""), one.partition("=")[2] or "?*")
    ]


def releases_in(home: Path) -> list[dict[str, Any]]:
    """Return the releases that are whole, newest first, as the module's result describes them."""
    current = os.path.realpath(home / "current")
    found = [
        {
            "id": one.name,
            "mtime": int(one.stat().st_mtime),
            "current": os.path.realpath(one) == current,
        }
        for one in (home / "releases").glob("*")
        if release_of(one) == one.name
    ]
    return sorted(found, key=lambda one: (one["mtime"], one["id"]), reverse=True)


def read_journal(home: Path) -> list[dict[str, Any]]:
    """Return the last entries of the journal, oldest first; what cannot be read is left out."""
    try:
        with (home / "deploys.jsonl").open("rb") as journal:
            size = journal.seek(0, os.SEEK_END)
            journal.seek(max(0, size - JOURNAL_TAIL))
            lines = journal.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def previous_release(releases: list[dict[str, Any]], journal: list[dict[str, Any]]) -> str:
    """Return the ID of the release before the current one, empty without one.

    One whose last entry is not good is none: beat may not have come up after all else had.
    """
    others = [one["id"] for one in releases if not one["current"]]
    seen = set()
    for entry in reversed(journal):
        name = entry.get("release")
        if entry.get("result") == "ok" and name in others and name not in seen:
            return str(name)
        seen.add(name)
    return others[0] if others else ""


def shared_directories(place: Place) -> list[str]:
    """Return the directories of the shared paths, the outer ones first."""
    base = Path(place["state_dir"]) / "shared"
    made = [base] if place["shared"] else []
    for path in place["shared"]:
        made += reversed([base / path, *list((base / path).parents)[: len(Path(path).parts) - 1]])
    return list(dict.fromkeys(str(one) for one in made))


def look(place: Place) -> dict[str, Any]:
    """Return what is there, and what is due; see the module's result."""
    home, user = Path(place["home"]), place["user"]
    release = home / "releases" / place["release"]
    try:
        platform = platform_of(place["python"])
    except (OSError, subprocess.CalledProcessError) as error:
        raise ReleaseError(f"app_python {place['python']} does not run: {error}") from error
    key = environment_key(place["requirements_id"], place["python"], platform)
    environment = home / "venvs" / key
    has_environment = environment.is_dir()
    has_release = release_of(release) == place["release"] and runs_on(release / ".venv", platform)
    env_file = Path(place["env_file"])
    next_file = Path(f"{env_file}.next")
    env_changes = not is_env_file(env_file, place)

    due = [path for path, wanted in place["files"].items() if not has_file(path, wanted)]
    due += [
        path
        for path in (*shared_directories(place), *place["directories"])
        if not is_right(path, user, user, "0750")
    ]
    if not has_release:
        due += [] if has_environment else [str(environment)]
        due.append(str(release))
    is_next_right = is_env_file(next_file, place)
    if (env_changes and not is_next_right) or (not env_changes and os.path.lexists(next_file)):
        due.append(str(next_file))
    releases = releases_in(home)
    return {
        "has_user": has_user(user),
        "platform": platform,
        "environment_key": key,
        "has_environment": has_environment,
        "has_release": has_release,
        "env_changes": env_changes,
        "due": due,
        "releases": releases,
        "current": next((one["id"] for one in releases if one["current"]), ""),
    }


# --- making ----------------------------------------------------------------------------------


def remove(path: Path) -> None:
    """Remove whatever is at the path, if anything is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unpack(archive: str, directory: Path) -> None:
    """Unpack an archive into a new, empty directory.

    Raises:
        ReleaseError: tar cannot read it.
    """
    remove(directory)
    directory.mkdir(mode=0o755)
    done = subprocess.run(  # noqa: S603
        ["/usr/bin/tar", "--extract", f"--file={archive}", "--no-same-owner", "--same-permissions"],
        cwd=directory, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ReleaseError(f"{archive} could not be unpacked: {done.stderr.strip()}")


def put(new: Path, path: Path) -> None:
    """Rename a directory into its place; a broken one that is there goes away."""
    if os.path.lexists(path):
        broken = path.with_name(f"{path.name}.broken.new")
        remove(broken)
        path.rename(broken)
        new.rename(path)
        remove(broken)
    else:
        new.rename(path)


def link(target: Path, path: Path) -> None:
    """Make a link in place of whatever the project has there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path)
    path.symlink_to(target)


def compile_project(directory: Path, place: Place, final: Path) -> None:
    """Compile a project: its services cannot write there, so what is not made now is never kept.

    A file that does not compile may be meant for another Python, or for nobody.
    """
    if os.path.realpath(place["python"]) == os.path.realpath(sys.executable):
        compileall.compile_dir(str(directory), ddir=str(final), quiet=2)
        return
    subprocess.run(  # noqa: S603
        [place["python"], "-m", "compileall", "-qq", "-d", str(final), str(directory)],
        capture_output=True, check=False,
    )  # fmt: skip


def make_release(place: Place, code: str, key: str) -> None:
    """Unpack, furnish and compile a release beside its place, then rename it."""
    home, user = Path(place["home"]), place["user"]
    release = home / "releases" / place["release"]
    new = release.with_name(f"{release.name}.new")
    unpack(code, new)
    compile_project(new, place, release)
    for path in place["writable"]:
        (new / path).mkdir(parents=True, exist_ok=True)
        shutil.chown(new / path, user, user)
    for path in place["shared"]:
        link(Path(place["state_dir"]) / "shared" / path, new / path)
    link(home / "venvs" / key, new / ".venv")
    (new / ".release").write_text(place["release"], encoding="utf-8")
    put(new, release)


def write_file(path: Path, wanted: Mapping[str, str]) -> None:
    """Write a file in one step, or make a directory; nobody else can read it at any moment."""
    content = wanted.get("content")
    if content is None:
        path.mkdir(parents=True, exist_ok=True)
        made = path
    else:
        made = path.with_name(f".{path.name}.new")
        made.unlink(missing_ok=True)
        handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as opened:
            opened.write(content)
    shutil.chown(made, wanted["owner"], wanted["group"])
    made.chmod(int(wanted["mode"], 8))
    if made != path:
        made.replace(path)


def prepare(
    place: Place, found: dict[str, Any], code: str | None, environment: str | None, env: str
) -> None:
    """Make what `look` found to be due.

    Args:
        place: as the module takes it.
        found: what `look` returned.
        code: archive of the project.
        environment: archive of the environment.
        env: the environment file.

    Raises:
        ReleaseError: something is due whose archive was not shipped.
    """
    home, due = Path(place["home"]), set(found["due"])
    os.umask(0o022)
    for directory in (home, home / "releases", home / "venvs"):
        directory.mkdir(mode=0o755, exist_ok=True)
    user = place["user"]
    owned = {"owner": user, "group": user, "mode": "0750"}
    directories = [*shared_directories(place), *place["directories"]]
    for path, wanted in {**place["files"], **dict.fromkeys(directories, owned)}.items():
        if path in due:
            write_file(Path(path), wanted)
    if not found["has_release"]:
        target = home / "venvs" / found["environment_key"]
        new = target.with_name(f"{target.name}.new")
        remove(new)  # Of a run that was interrupted.
        if not found["has_environment"]:
            if not environment:
                raise ReleaseError(f"{target} is missing, and no archive of it was shipped.")
            unpack(environment, new)
            put(new, target)
        if not code:
            raise ReleaseError(f"{place['release']} is missing, and no archive of it was shipped.")
        make_release(place, code, found["environment_key"])
    next_file = Path(f"{place['env_file']}.next")
    if str(next_file) in due:
        if found["env_changes"]:
            root = {"owner": OWNER, "group": user, "mode": "0640", "content": env}
            write_file(next_file, root)
        else:
            next_file.unlink()


# --- pruning ---------------------------------------------------------------------------------


def used_by_processes(directory: Path, proc: Path = Path("/proc")) -> set[str]:
    """Return the names in a directory that a process works in or was started from."""
    prefix = f"{os.path.realpath(directory)}/"
    used = set()
    for process in proc.glob("[0-9]*"):
        texts = []
        for name in ("cwd", "exe", "root"):
            try:
                texts.append(str((process / name).readlink()))
            except OSError:
                continue  # It has ended, or is one of the kernel's.
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace")
            texts += arguments.split("\0")
        except OSError:
            continue
        used |= {text[len(prefix) :].split("/")[0] for text in texts if text.startswith(prefix)}
    return used


def to_prune(home: Path, keep: int, now: float, coming: str = "") -> list[Path]:
    """Return the releases, environments and leftovers that nobody needs.

    Args:
        home: directory of the stack.
        keep: how many releases stay.
        now: the wall clock.
        coming: the release that is about to become current, there or not. It stays, is one of
            those that are counted, and so is the current one, to which a rollback goes.
    """
    releases, venvs = home / "releases", home / "venvs"
    others = [one for one in releases_in(home) if one["id"] != coming]
    counted = [coming] * bool(coming) + [one["id"] for one in others]
    kept = {*counted[:keep], *(one["id"] for one in others if one["current"])}
    kept |= {previous_release(others, read_journal(home))} | used_by_processes(releases)
    linked = {
        Path(os.path.realpath(releases / name / ".venv")).name
        for name in kept
        if name and (releases / name).is_dir()
    } | used_by_processes(venvs)

    doomed = []
    for directory, needed in ((releases, kept), (venvs, linked)):
        for one in sorted(directory.glob("*")):
            if one.name.endswith(".new"):
                if now - one.lstat().st_mtime > LEFTOVER_AGE:
                    doomed.append(one)
            elif one.name not in needed:
                doomed.append(one)
    return doomed


def prune(paths: list[Path]) -> None:
    """Remove directories; each goes out of its place first, so that none is ever half there."""
    for path in paths:
        gone = path if path.name.endswith(".new") else path.with_name(f"{path.name}.old.new")
        if gone != path:
            remove(gone)
            path.rename(gone)
        remove(gone)


# --- the module ------------------------------------------------------------------------------


def run(module: AnsibleModule) -> dict[str, Any]:
    """Return the module's result, after having done what the state asks for."""
    given = module.params
    place, state = given["place"], given["state"]
    home = Path(place["home"])
    if state == "listed":
        releases, journal = releases_in(home), read_journal(home)
        return {
            "changed": False,
            "releases": releases,
            "current": next((one["id"] for one in releases if one["current"]), ""),
            "previous": previous_release(releases, journal),
            "journal": journal[-JOURNAL_SHOWN:],
        }
    found = look(place)
    found["due"] += [str(one) for one in doomed(given)]
    can = state == "present"
    if state == "looked":
        found["missing_packages"] = missing_packages(given["packages"])
        can = given["at_once"] and lacks_nothing(found, given)
    made = found["due"] if can else []
    if made and not module.check_mode:
        with shipped(given) as code:
            prepare(place, found, code, given["environment"], given["env_content"] or "")
        try:
            prune(doomed(given))
        except OSError as error:
            # The next run removes it: no deployment fails for that.
            module.warn(f"What nobody needs could not be removed: {error}")
        found["due"] = []
    return {"changed": bool(made), **found, "made": made}


def doomed(given: dict[str, Any]) -> list[Path]:
    """Return what can be removed now; takes the module's arguments."""
    place = given["place"]
    return to_prune(Path(place["home"]), given["keep"], time.time(), place["release"])


def lacks_nothing(found: dict[str, Any], given: dict[str, Any]) -> bool:
    """Say whether what is due can be made from what is here and in the module's arguments."""
    has_code = found["has_release"] or (found["has_environment"] and given["code_content"])
    return bool(has_code and found["has_user"] and not found["missing_packages"])


@contextlib.contextmanager
def shipped(given: dict[str, Any]) -> Iterator[str | None]:
    """Give the path of the project's archive, if there is one."""
    if not given["code_content"]:
        yield given["code"]
        return
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
        file.write(base64.b64decode(given["code_content"]))
        file.flush()
        yield file.name


def main() -> None:
    """Read the module's arguments, print its answer."""
    strings = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["looked", "present", "listed"],
                "default": "looked",
            },
            "place": {
                "type": "dict",
                "required": True,
                "options": {
                    "home": {"type": "path", "required": True},
                    "user": {"type": "str"},
                    "state_dir": {"type": "path"},
                    "python": {"type": "path", "default": "/usr/bin/python3"},
                    "release": {"type": "str"},
                    "requirements_id": {"type": "str", "default": ""},
                    "writable": strings,
                    "shared": strings,
                    "directories": {"type": "list", "elements": "path", "default": []},
                    "files": {"type": "dict", "default": {}},
                    "env_file": {"type": "path"},
                    "env_sum": {"type": "str"},
                },
            },
            "packages": strings,
            "at_once": {"type": "bool", "default": False},
            "code": {"type": "path"},
            "code_content": {"type": "str"},
            "environment": {"type": "path"},
            "env_content": {"type": "str", "no_log": True},
            "keep": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except ReleaseError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
