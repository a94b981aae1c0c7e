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


def put_link(path: Path, target: str) -> None:
    """Make a link or let it point elsewhere, in one step."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(target)
    scratch.replace(path)


def former_of(path: Path) -> Path:
    """Return where what was at a path stays until all that reads the new one has come up."""
    return path.with_name(f"{path.name}.former")


@dataclass
class Switch:
    """The switch of inputs, and the way back.

    `former`: each switched path -> where that is which was there before, None for nothing.
    `origin`: name of the directory that the switched link pointed to; empty if there is none.
    `is_adopted`: an earlier run has switched, and left it to this one to end that well.
    """

    inputs: list[Input]
    former: dict[Path, Path | None] = field(default_factory=dict)
    origin: str = ""
    is_adopted: bool = False
    undone: bool = False

    def do(self) -> None:
        """Switch every input that is due; what an earlier run has left is no way back then."""
        due = [one for one in self.inputs if one.is_due()]
        if due:
            self.former, self.origin, self.is_adopted = {}, "", False
            for one in self.inputs:
                former_of(Path(one.path)).unlink(missing_ok=True)
        for one in due:
            path = Path(one.path)
            kept = former_of(path)
            if os.path.lexists(path):
                os.link(path, kept, follow_symlinks=False)
            self._note(path, kept if os.path.lexists(kept) else None)
            if one.link:
                put_link(path, one.link)
            else:
                # When it was written says nothing of when it began to count.
                os.utime(one.next)
                Path(one.next).replace(path)

    def adopt(self) -> None:
        """Take over the way back that an earlier run has left, if it still leads anywhere."""
        left = {Path(one.path): former_of(Path(one.path)) for one in self.inputs}
        there = {path: kept for path, kept in left.items() if os.path.lexists(kept)}
        if not there or not all(kept.exists() for kept in there.values()):
            return
        self.is_adopted = True
        for path, kept in there.items():
            self._note(path, kept)

    def _note(self, path: Path, kept: Path | None) -> None:
        """Note the way back for one path."""
        self.former[path] = kept
        if kept and (target := target_of(kept)) and not self.origin:
            self.origin = Path(target).name

    def undo(self, *, as_old: bool) -> None:
        """Give back what `do` has switched, once.

        With its former time stamp, if `as_old`: a process that was not restarted meanwhile is not
        older than it. Without, the next run restarts all that read it.
        """
        if self.undone:
            return
        self.undone = True
        for path, kept in self.former.items():
            if kept is None:
                path.unlink(missing_ok=True)
                continue
            if not as_old:
                os.utime(kept, follow_symlinks=False)
            kept.replace(path)

    def keep(self) -> None:
        """Forget the way back."""
        for one in self.inputs:
            former_of(Path(one.path)).unlink(missing_ok=True)


def note(path: Path, entry: dict[str, Any]) -> None:
    """Append a line of JSON to a journal that root writes; of a long `why`, its end counts."""
    line = {**entry, "why": entry["why"][-WHY:]} if "why" in entry else entry
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a") as journal:
        journal.write(json.dumps(line) + "\n")
