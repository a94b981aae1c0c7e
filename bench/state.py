"""What a host shall have, taken from hosts that site.yml deployed: the goal of all contenders.

A state is what bench/look.py says, less what a fresh host has, as a dict with the same keys.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.hosts import CACHE, PROJECT, ROOT, STACK, ansible, apps, container, on, on_all, run

State = dict[str, Any]
HOME = f"/opt/{STACK}"
CURRENT = f"{HOME}/current"
# What is deployed: the first release, one with changed code, one with a changed requirement.
SOURCES = (
    "site.yml",
    "ansible.cfg",
    "playbooks",
    "roles",
    "plugins",
    "templates",
    "example",
    "bench/state.py",
    "bench/look.py",
)
RELEASES = ("base", "code", "requirement")
LOOK = (ROOT / "bench/look.py").read_text()
# In the unit of the scheduler, and never the same on two hosts.
MACHINE_ID = "@machine-id@"


def write_project(release: str, number: int = 0) -> None:
    """Make the project's source what a release is made of; the number tells apart several."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    shutil.copytree(ROOT / "example", PROJECT, ignore=shutil.ignore_patterns("__pycache__"))
    if release == "code":
        with (PROJECT / "ticks/views.py").open("a") as source:
            source.write(f"\n# Release {number} with changed code.\n")
    if release == "requirement":
        locked = CACHE / "requirement.txt"
        if not locked.exists():
            _lock_older(locked)
        shutil.copy(locked, PROJECT / "requirements.txt")


def _lock_older(path: Path) -> None:
    """Lock the project's requirements as they are, but for an older whitenoise."""
    pinned = (ROOT / "example/requirements.txt").read_text()
    version = re.search(r"^whitenoise==(\S+)", pinned, re.MULTILINE)
    if not version:
        raise RuntimeError("example/requirements.txt pins no whitenoise.")
    scratch = path.with_suffix(".in")
    source = (ROOT / "example/requirements.in").read_text()
    scratch.write_text(source.replace("whitenoise", f"whitenoise<{version[1]}"))
    path.with_suffix(".partial").write_text(pinned)
    argv = ["uv", "pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes"]
    argv += ["--no-header", "--quiet", "--no-emit-index-url", "--no-emit-find-links"]
    argv += ["--upgrade-package", "whitenoise", "--output-file", str(path.with_suffix(".partial"))]
    run([*argv, scratch])
    path.with_suffix(".partial").replace(path)


def look(host: str) -> State:
    """Return what is on a host."""
    found: State = json.loads(on(host, "python3", "-", STACK, stdin=LOOK))
    return found


def machine_id(host: str) -> str:
    """Return a host's machine id."""
    return on(host, "cat", "/etc/machine-id").strip()


def less(found: State, fresh: State) -> State:
    """Return a state without what a fresh host has."""
    return {
        **found,
        "packages": sorted(set(found["packages"]) - set(fresh["packages"])),
        **{
            key: {path: what for path, what in found[key].items() if fresh[key].get(path) != what}
            for key in ("directories", "files", "links", "units")
        },
    }


def general(state: State, this: str, other: str) -> State:
    """Return a state with one host's machine id in place of another's, or of its placeholder."""
    done: State = json.loads(json.dumps(state).replace(this, other))
    return done


def source_key(inventory: Path) -> str:
    """Return a digest of all that decides what site.yml makes of the hosts."""
    whole = hashlib.sha256(inventory.read_bytes())
    for top in SOURCES:
        paths = sorted((ROOT / top).rglob("*")) if (ROOT / top).is_dir() else [ROOT / top]
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                whole.update(f"{path}\0".encode() + path.read_bytes())
    return whole.hexdigest()


class Goals:
    """The state that each host shall have with each release, and the archives of these."""

    def __init__(self, count: int, releases: list[str]) -> None:
        """Take the first `count` hosts, and those of RELEASES that they will get."""
        self.hosts = apps(count)
        self.releases = releases
        self.directory = CACHE / f"goals-{count}"

    def are_of(self, key: str) -> bool:
        """Return whether the stored states were made of the same sources."""
        path = self.directory / "key"
        stored = path.read_text().split() if path.exists() else [""]
        return stored[0] == key and set(self.releases) <= set(stored[1:])

    def note(self, key: str) -> None:
        """Note what the stored states were made of."""
        (self.directory / "key").write_text(" ".join([key, *self.releases]))

    def collect(self) -> None:
        """Deploy the releases with site.yml to fresh hosts, and keep what they have then."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True, mode=0o700)
        fresh = look(self.hosts[0])
        (self.directory / "fresh.json").write_text(json.dumps(fresh))
        for release in self.releases:
            write_project(release)
            ansible("site.yml", "fleet")
            for host, found in zip(self.hosts, on_all(self.hosts, look), strict=True):
                state = general(less(found, fresh), machine_id(host), MACHINE_ID)
                path = self.directory / f"{release}-{host}.json"
                path.write_text(json.dumps(state, indent=1))
            for tree in found["trees"]:
                self._pack(self.hosts[-1], tree)

    def _pack(self, host: str, tree: str) -> None:
        """Keep an archive of a release or an environment, as it is on a host."""
        archive = self.archive(tree)
        if archive.exists():
            return
        argv = ["docker", "exec", container(host), "tar", "-C", tree, "-c"]
        packed = subprocess.run(
            [*argv, "--exclude=./static_root/*", "."], check=True, stdout=subprocess.PIPE
        ).stdout
        archive.write_bytes(packed)

    def archive(self, tree: str) -> Path:
        """Return the path of the archive of a release or an environment."""
        return self.directory / f"{Path(tree).parent.name}-{Path(tree).name}.tar"

    def load(self, release: str) -> dict[str, State]:
        """Return the state of each host with a release."""
        return {
            host: general(
                json.loads((self.directory / f"{release}-{host}.json").read_text()),
                MACHINE_ID,
                machine_id(host),
            )
            for host in self.hosts
        }

    def check(self, release: str) -> None:
        """Compare the hosts with their states.

        Raises:
            RuntimeError: a host has something else; says what.
        """
        fresh = json.loads((self.directory / "fresh.json").read_text())
        wanted = self.load(release)
        for host, found in zip(self.hosts, on_all(self.hosts, look), strict=True):
            problems = differences(wanted[host], less(found, fresh))
            if problems:
                raise RuntimeError(f"{host} with release {release}: {'; '.join(problems)}")


def trees_of(states: dict[str, State]) -> set[str]:
    """Return the releases and environments that states name."""
    return {tree for state in states.values() for tree in state["trees"]}


def differences(wanted: State, found: State) -> list[str]:
    """Return what differs between two states, in words; never a content, which may be secret."""
    problems = [
        f"{key} are {found[key]}, not {wanted[key]}"
        for key in ("packages", "user")
        if wanted[key] != found[key]
    ]
    for key in ("directories", "files", "links", "units", "trees"):
        for path in sorted(wanted[key].keys() | found[key].keys()):
            one, other = wanted[key].get(path), found[key].get(path)
            if one != other:
                words = "" if key == "files" else f" ({other}, not {one})"
                problems.append(f"{key}: {path} differs{words}")
    return problems
