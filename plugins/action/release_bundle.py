# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Pack the project's code on the controller, named by its content.

No host is contacted: a task that uses this is delegated to the controller. Arguments:

    source: dict with one of
        path: directory of the project on the controller, relative to the bundle's root or absolute.
        git: repository, of which `version` (branch, tag or commit) is checked out below cache_dir.
        package: requirement from the Python index.
    requirements: file of locked requirements, relative to the source; empty when there is none.
    extra_requirements: list of requirements beside the project's own.
    furniture: list of texts, what a host adds to the code: interpreter, shared and writable paths.
    cache_dir: directory on the controller for the archives, relative or absolute like `path`.

Result:

    id: 12 hexadecimal digits that change with the code, the requirements, the furniture and nothing
        else.
    archive: path of a .tar.gz of the code.
    requirements_id: the same for what the environment is made of.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# What a working copy holds beside the project: never shipped, never part of its identity.
LEFT_OUT = {".git", ".hg", ".venv", "venv", "__pycache__", "node_modules", ".mypy_cache"}
LEFT_OUT |= {".pytest_cache", ".ruff_cache", ".tox"}
INCLUDED = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)[\s=]+(\S+)", re.MULTILINE)
LOCAL = re.compile(r"^\s*(?:-e\b|--editable\b|\.|file:)", re.MULTILINE)


def project_files(source: Path) -> list[Path]:
    """Return the project's files and links, sorted, relative to `source`."""
    return sorted(
        path.relative_to(source)
        for path in source.rglob("*")
        if (path.is_file() or path.is_symlink())
        and not LEFT_OUT & set(path.relative_to(source).parts)
        and path.suffix != ".pyc"
    )


def pack(source: Path, files: list[Path]) -> bytes:
    """Return a tar of the files that depends on names, contents and the executable bit alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in files:
            info = archive.gettarinfo(str(source / name), arcname=str(name))
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            info.mode = 0o755 if info.mode & 0o100 else 0o644
            if info.isreg():
                with (source / name).open("rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)
    return buffer.getvalue()


def requirement_texts(path: Path) -> list[str]:
    """Return the text of a requirements file and of all that it includes.

    Raises:
        AnsibleActionFail: a file does not exist.
    """
    if not path.is_file():
        raise AnsibleActionFail(f"app_requirements names {path.name}, which {path.parent} lacks.")
    text = path.read_text(encoding="utf-8")
    return [text] + [
        more for name in INCLUDED.findall(text) for more in requirement_texts(path.parent / name)
    ]


def digest(*parts: bytes | str) -> str:
    """Return 12 hexadecimal digits for a sequence of texts."""
    sums = [hashlib.sha256(p.encode() if isinstance(p, str) else p).digest() for p in parts]
    return hashlib.sha256(b"".join(sums)).hexdigest()[:12]


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible has no types
    """The action behind `release_bundle`."""

    _requires_connection = False
    _VALID_ARGS = frozenset(
        {"source", "requirements", "extra_requirements", "furniture", "cache_dir"}
    )

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Pack the project and return how it is named and where the archive is."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        root = Path(constants.CONFIG_FILE).parent if constants.CONFIG_FILE else Path()
        cache = root / args["cache_dir"]
        origin = args["source"]
        source = root / origin["path"] if origin.get("path") else None
        if source and not source.is_dir():
            raise AnsibleActionFail(f"app_source.path is {source}, which is not a directory.")
        if origin.get("git"):
            source = cache / "source"
            done = self._check_out(origin, source, task_vars)
            if done.get("failed"):
                return {**result, **done}

        code = pack(source, project_files(source)) if source else pack(Path(), [])
        texts = [*args["extra_requirements"], origin.get("package") or ""]
        if source and args["requirements"]:
            texts += requirement_texts(source / args["requirements"])
        if any(LOCAL.search(text) for text in texts):
            texts.append(digest(code))  # The environment holds the project's own code as well.
        requirements_id = digest(*texts)
        name = digest(code, requirements_id, *args["furniture"])

        archive = cache / f"{name}.tar.gz"
        if not archive.exists():
            archive.parent.mkdir(parents=True, exist_ok=True)
            # Another run may be writing the same.
            scratch = archive.with_suffix(f".{os.getpid()}")
            scratch.write_bytes(gzip.compress(code, compresslevel=1, mtime=0))
            scratch.replace(archive)
        return {
            **result,
            "changed": False,
            "id": name,
            "archive": str(archive),
            "requirements_id": requirements_id,
        }

    def _check_out(
        self, origin: dict[str, Any], source: Path, task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Have a version of a repository in a directory; return what ansible.builtin.git says."""
        found: dict[str, Any] = self._execute_module(
            module_name="ansible.builtin.git",
            module_args={
                "repo": origin["git"],
                "version": origin["version"],
                "dest": str(source),
                "force": True,
            },
            task_vars=task_vars,
        )
        return found
