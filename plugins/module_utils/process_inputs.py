# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What the processes of a set read: the link to their release and their environment file.

They are switched together with the units, so that a set whose units do not come up gets back what
it ran from.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Bytes of a failure's words that the journal of deploys keeps.
WHY = 4000


@dataclass(frozen=True)
class Input:
    """One path that is switched: a link gets the target `link`, or a file `next` takes its place.

    Exactly one of the two is given. No file `next`: the present one stays.
    """

    path: str
    link: str = ""
    next: str = ""

    def is_due(self) -> bool:
        """Tell whether something has to be switched."""
        if self.link:
            return target_of(Path(self.path)) != self.link
        return Path(self.next).exists()

    def words(self) -> tuple[str, str]:
        """Return what a diff shows as before and after; never what a file holds."""
        if self.link:
            return target_of(Path(self.path)) or "", self.link
        return "the present one", "another one, which is not shown"


def target_of(path: Path) -> str | None:
    """Return what a link points to; None where there is no link."""
    return str(path.readlink()) if path.is_symlink() else None


def put_link(path: Path, target: str, changed_ns: int | None = None) -> None:
    """Make a link or let it point elsewhere in one step; `changed_ns` is its time stamp then."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    if changed_ns is not None:
        os.utime(scratch, ns=(changed_ns, changed_ns), follow_symlinks=False)
    scratch.replace(path)


@dataclass
class Switch:
    """The switch of inputs, and the way back."""

    inputs: list[Input]
    former_links: dict[Path, tuple[str, int] | None] = field(default_factory=dict)
    former_files: dict[Path, Path | None] = field(default_factory=dict)
    undone: bool = False

    def do(self) -> None:
        """Switch every input that is due."""
        for one in self.inputs:
            path = Path(one.path)
            if not one.is_due():
                continue
            if one.link:
                before = target_of(path)
                self.former_links[path] = (
                    None if before is None else (before, path.lstat().st_mtime_ns)
                )
                put_link(path, one.link)
                continue
            kept = path.with_name(f"{path.name}.former")
            kept.unlink(missing_ok=True)
            if path.exists():
                os.link(path, kept)
            self.former_files[path] = kept if kept.exists() else None
            # When it was written says nothing of when it began to count.
            os.utime(one.next)
            Path(one.next).replace(path)

    def undo(self, *, as_old: bool) -> None:
        """Give back what `do` has switched, once.

        With its former time stamp, if `as_old`: a process that was not restarted meanwhile is not
        older than it. Without, the next run restarts all that read it.
        """
        if self.undone:
            return
        self.undone = True
        for path, before in self.former_links.items():
            if before:
                put_link(path, before[0], before[1] if as_old else None)
            else:
                path.unlink()
        for path, kept in self.former_files.items():
            if kept is None:
                path.unlink()
                continue
            if not as_old:
                os.utime(kept)
            kept.replace(path)

    def keep(self) -> None:
        """Forget the way back."""
        for kept in self.former_files.values():
            if kept:
                kept.unlink()

    def switched(self) -> bool:
        """Tell whether anything was switched."""
        return bool(self.former_links or self.former_files)

    def origin(self) -> str:
        """Return the name of the directory that the first switched link pointed to, if any."""
        return next((Path(one[0]).name for one in self.former_links.values() if one), "")


def note(path: Path, entry: dict[str, Any]) -> None:
    """Append a line of JSON to a journal that root writes; of a long `why`, its end counts."""
    line = {**entry, "why": entry["why"][-WHY:]} if "why" in entry else entry
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a") as journal:
        journal.write(json.dumps(line) + "\n")
