# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""The files of units and programs on a host, each of which carries its stack's name.

Apart from what reconciles them: a host that is only looked at compiles no more than it needs.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import re
from pathlib import Path

UNIT_DIR = Path("/etc/systemd/system")
# A unit of systemd that only holds the others together: starting or restarting it does so to them.
TARGET = ".target"
SUFFIXES = {".service", ".socket", TARGET, ".timer"}
OWNER = re.compile(r"^# stack: (\S+)$", re.MULTILINE)


def owner_of(text: str) -> str | None:
    """Return the stack named in a file's first ten lines, or None when no stack owns it."""
    found = OWNER.search("\n".join(text.splitlines()[:10]))
    return found.group(1) if found else None


def read_files(directory: Path, suffixes: set[str]) -> dict[str, str]:
    """Return path -> text of the regular files (not links) in `directory` with such a suffix."""
    return {
        str(path): path.read_text(encoding="utf-8", errors="replace")
        for path in (sorted(directory.iterdir()) if directory.is_dir() else [])
        if path.suffix in suffixes and path.is_file() and not path.is_symlink()
    }


def write_file(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step; readers see the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A suffix that no manager reads.
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    scratch.chmod(mode)
    scratch.replace(path)
