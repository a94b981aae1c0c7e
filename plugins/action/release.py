# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Bring a release to a host: look, build the environment once, ship what is missing.

The module of the same name documents `state`, `place` and the result. What this action takes
beside them:

    For both `looked` and `present`:
        code: archive of the project on the controller.
        env_content: the environment file; `place.env_sum` is worked out here.
    For `looked`:
        at_once: bool, make the release in the same module run where nothing but its code is
            missing.
        build: dict, how the environment is built where it is missing:
            cache_dir: directory on the controller that keeps what was built.
            code: archive of the project on the controller.
            requirements: file of locked requirements, relative to the project; empty for none.
            beside: list of requirements beside those.
            environment: dict of environment variables for the build.
        An empty dict asks for a release that is on the host already.
    For `present`, without `place` and `keep`:
        look: the result of `looked`, which has these.

What `looked` returns beside what the module does:

    archive: the environment's archive on the controller; empty when the host needs none.
    is_built: whether that archive is there. It is not in check mode, and not where the hosts'
        platform is not the controller's: then one of the hosts has to build it.
    scratch: path on the controller for that host to send the archive to; no other run's.
    inputs, entry: what the module process_set takes to switch to the release: `inputs`, and the
        `entry` of its journal.
    manages: `paths` and `packages`, as the module drift records them.
    asked: `place` and `keep`, as they were given.

An environment is built under a lock: the host that comes first builds, all others of its platform
wait and find the archive. So do other runs on the same controller.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import getpass
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible.module_utils
import ansible.plugins
from ansible import constants
from ansible.errors import AnsibleActionFail

ROOT = Path(__file__).resolve().parents[2]

# Ansible puts a project's module_utils before modules only, and finds no helpers of actions at all.
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))
ansible.plugins.__path__.append(str(ROOT / "plugins"))
from ansible.module_utils.release_platform import platform_of  # noqa: E402
from ansible.plugins.plugin_utils.light_action import LightAction, packed  # noqa: E402

# Before there is a process for each host.
packed("release")
PINS = ROOT / "requirements" / "build.txt"
URL_CREDENTIALS = re.compile(r"://[^/\s@]+@")
SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|KEY", re.IGNORECASE)
OUTPUT_SHOWN = 3000  # Characters of a failed build.
# What of the current release is looked at by the next run: the link, and what tells which it is.
LINKED = ("", "/.release", "/.venv")
# Bytes of a project's archive that are sent before it is known whether the host needs them.
AT_ONCE_MAX = 1024 * 1024
BUILD_SETTINGS = {
    "UV_SYSTEM_CERTS": "true",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_NO_EDITABLE": "1",  # The environment outlives the directory that it is built in.
    "UV_NO_PROGRESS": "1",
}
# What the operator's own shell may say of another Python.
FOREIGN = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON"}


class BuildError(Exception):
    """A command of the build failed; its message is what it said."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock of this machine, waiting for it as long as it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def command(argv: list[str], directory: Path, environment: Mapping[str, str]) -> None:
    """Run a command of the build.

    Raises:
        BuildError: it failed.
    """
    own = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    done = subprocess.run(  # noqa: S603
        argv, cwd=directory, env={**own, **environment}, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        said = done.stdout.strip()[-OUTPUT_SHOWN:]
        raise BuildError(f"{Path(argv[0]).name} {argv[1]}: {without_secrets(said, environment)}")


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """Return what a build said without the credentials of a private index."""
    for name, value in environment.items():
        if value and SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return URL_CREDENTIALS.sub("://***@", text)


def uv(cache: Path, environment: Mapping[str, str]) -> str:
    """Return the path of the pinned uv, which is installed where it is missing."""
    pins = PINS.read_bytes() + sys.version.encode()
    home = cache / f"uv-{hashlib.sha256(pins).hexdigest()[:12]}"
    with locked(home.with_suffix(".lock")):
        if not (home / "whole").exists():
            shutil.rmtree(home, ignore_errors=True)
            command([sys.executable, "-m", "venv", str(home)], cache, {})
            pip = [str(home / "bin/python"), "-m", "pip", "install", "--require-hashes"]
            command([*pip, "--requirement", str(PINS)], cache, environment)
            (home / "whole").touch()
    return str(home / "bin/uv")


def pack(directory: Path, archive: Path) -> None:
    """Pack an environment, readable for all whatever the umask here, in one step."""

    def normal(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = int(member.mtime)
        if not member.issym():
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    scratch = archive.with_name(f"{archive.name}.{os.getpid()}")
    with tarfile.open(scratch, "w:gz", compresslevel=1) as packed:
        for path in sorted(directory.iterdir()):
            packed.add(path, arcname=path.name, filter=normal)
    scratch.replace(archive)


def build(archive: Path, python: str, given: Mapping[str, Any]) -> None:
    """Build an environment on this machine and keep it as an archive.

    Args:
        archive: where to keep it. Is not there yet, and its lock is held.
        python: the interpreter.
        given: the argument `build`.

    Raises:
        BuildError: requirements cannot be installed.
    """
    cache = archive.parent
    scratch = archive.with_name(f"{archive.name}.build")
    shutil.rmtree(scratch, ignore_errors=True)  # Of a run that was interrupted.
    project, made = scratch / "project", scratch / "environment"
    try:
        project.mkdir(parents=True, mode=0o700)
        with tarfile.open(given["code"]) as code:
            code.extraction_filter = lambda member, path: member  # We have packed it ourselves.
            code.extractall(project)  # noqa: S202
        asked = {name: str(value) for name, value in given["environment"].items()}
        tool = uv(cache, asked)
        settings = {
            "UV_CACHE_DIR": str(cache / "wheels"),
            **BUILD_SETTINGS,
            **asked,
            "VIRTUAL_ENV": str(made),
        }
        command([tool, "venv", "--relocatable", f"--python={python}", str(made)], scratch, settings)
        install = [tool, "pip", "install", "--compile-bytecode"]
        if given["requirements"]:
            command([*install, "--requirement", given["requirements"]], project, settings)
        if given["beside"]:
            command([*install, *given["beside"]], project, settings)
        pack(made, archive)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def build_once(archive: Path, python: str, given: Mapping[str, Any]) -> None:
    """Build an environment unless its archive is there; see `build`."""
    came = time.time()
    failure = archive.with_name(f"{archive.name}.failed")
    with locked(archive.with_name(f"{archive.name}.lock")):
        if archive.exists():
            return
        # Another host of this run has failed while this one waited: it would fail as well.
        if failure.exists() and failure.stat().st_mtime > came:
            raise BuildError(failure.read_text(encoding="utf-8"))
        failure.unlink(missing_ok=True)
        try:
            build(archive, python, given)
        except BuildError as error:
            failure.touch(mode=0o600)
            failure.write_text(str(error), encoding="utf-8")
            raise


def platform_here(python: str) -> str:
    """Return the platform of an interpreter on the controller, empty if there is none."""
    try:
        return str(platform_of(python))
    except (OSError, subprocess.CalledProcessError):
        return ""


def difference(paths: list[str]) -> dict[str, str]:
    """Return what --diff shows of paths that are made or removed."""
    return {"before": "", "after": "".join(f"{one}\n" for one in paths), "after_header": "due"}


def handed_over(place: Mapping[str, Any], is_new: bool) -> dict[str, Any]:
    """Return what the roles that follow need to know of a release; see the head of this file.

    Args:
        place: as the module takes it.
        is_new: the release comes from the controller; else the host goes back to it.
    """
    home, env_file = place["home"], place["env_file"]
    current = f"{home}/current"
    release = place["release"]
    paths = [*place["files"], *place["directories"], str(Path(env_file).parent)]
    return {
        "inputs": [
            {"path": current, "link": f"{home}/releases/{release}"},
            {"path": env_file, "next": f"{env_file}.next"},
        ],
        "entry": {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "who": f"{getpass.getuser()}@{socket.gethostname()}",
            "action": "release" if is_new else "rollback",
            "release": release,
        },
        "manages": {
            "paths": list(dict.fromkeys([*paths, *(f"{current}{one}" for one in LINKED)])),
            "packages": ["python3"] if place["python"] == "/usr/bin/python3" else [],
        },
    }


class ActionModule(LightAction):  # type: ignore[misc]  # loaded by path
    """The action behind `release`."""

    _supports_check_mode = True
    _VALID_ARGS = frozenset(
        {
            "state",
            "place",
            "packages",
            "keep",
            "build",
            "look",
            "code",
            "env_content",
            "at_once",
        }
    )

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Do what the state asks for."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        variables = task_vars or {}
        if args.get("state") == "looked":
            return {**result, **self.look(args, variables)}
        if args.get("state") == "present":
            return {**result, **self.prepare(args, variables)}
        return {**result, **self.ask(args, variables)}

    def ask(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Run the module."""
        answer: dict[str, Any] = self._execute_module(
            module_name="release", module_args=args, task_vars=variables
        )
        return answer

    def look(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Ask what is there, and have the environment built if the host needs it."""
        given, code, env = args.pop("build"), args.pop("code"), args.pop("env_content")
        args["place"] = {**args["place"], "env_sum": hashlib.sha256(env.encode()).hexdigest()}
        at_once = args.pop("at_once", False) and Path(code).stat().st_size <= AT_ONCE_MAX
        more = {}
        if at_once and not self._task.check_mode:
            content = base64.b64encode(Path(code).read_bytes()).decode()
            more = {"at_once": True, "code_content": content, "env_content": env}
        found = self.ask({**args, **more}, variables)
        if found.get("failed"):
            return found
        found["diff"] = difference(found["made"])
        found.update(archive="", is_built=True, **handed_over(args["place"], bool(given)))
        found["manages"]["packages"] += args["packages"]
        # What takes long to work out; `present` needs it again.
        found["asked"] = {"place": args["place"], "keep": args["keep"]}
        if found["has_release"]:
            return found
        if not given:
            known = ", ".join(one["id"] for one in found["releases"]) or "none"
            raise AnsibleActionFail(
                f"{variables.get('inventory_hostname')} does not have the release "
                f"{args['place']['release']}, only {known}: choose another one with "
                f"-e release=ID, or deploy it with playbooks/release.yml. Nothing was changed."
            )
        if found["has_environment"]:
            return found

        root = Path(constants.CONFIG_FILE).parent if constants.CONFIG_FILE else Path()
        archive = (root / given["cache_dir"]).resolve() / f"{found['environment_key']}.tar.gz"
        python = args["place"]["python"]
        found.update(archive=str(archive), scratch=f"{archive}.{os.getpid()}")
        if (
            not archive.exists()
            and not self._task.check_mode
            and platform_here(python) == found["platform"]
        ):
            try:
                build_once(archive, python, given)
            except BuildError as error:
                raise AnsibleActionFail(
                    f"The environment could not be built on this machine; nothing that runs was "
                    f"touched. Correct app_requirements or app_build_environment. {error}"
                ) from error
        found["is_built"] = archive.exists()
        return found

    def prepare(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Ship what is missing, and have it put in its place."""
        look = args["look"]
        due = [str(one) for one in look["due"]]
        diff = difference(due)
        if not due or self._task.check_mode:
            return {"changed": bool(due), "diff": diff}

        asked = {"state": "present", **look["asked"], "env_content": args["env_content"]}
        try:
            if not look["has_release"]:
                asked["code"] = self.ship(args["code"], "code.tar.gz")
                if not look["has_environment"]:
                    asked["environment"] = self.ship(look["archive"], "environment.tar.gz")
            return {**self.ask(asked, variables), "diff": diff}
        finally:
            if self._connection._shell.tmpdir:
                self._remove_tmp_path(self._connection._shell.tmpdir)

    def ship(self, archive: str, name: str) -> str:
        """Copy an archive to the host and return its path there."""
        if not self._connection._shell.tmpdir:
            self._make_tmp_path()
        path: str = self._connection._shell.join_path(self._connection._shell.tmpdir, name)
        self._transfer_file(archive, path)
        return path
