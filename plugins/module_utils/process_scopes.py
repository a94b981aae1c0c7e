# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Which processes drain on a host, and which releases run.

A process that drains is in a scope of systemd. That has no file; its name and description say what
it is:

    celery-worker-draining-4711.scope  "shop: celery-worker drains until 2026-01-31T15:03:00+00:00"

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

PROC = Path("/proc")
# What systemd is asked for, so that `parse_scopes` finds them.
PATTERN = "*-draining-*.scope"
PROPERTIES = ("Id", "Description", "ActiveState", "ActiveEnterTimestampMonotonic")
NAME = re.compile(r"(.+)-draining-([0-9]+)\.scope")
DESCRIPTION = re.compile(r"(\S+): .* drains until (\S+)")


class Draining(TypedDict):
    """A process that drains; the times are in seconds since the epoch, `release` may be empty."""

    unit: str
    pid: int
    since: float
    until: float
    release: str


def scope_name(service: str, pid: int) -> str:
    """Return the name of the scope in which a service's former main process drains."""
    return f"{service}-draining-{pid}.scope"


def guard_name(scope: str) -> str:
    """Return the name of the service that ends a scope in time."""
    return f"{scope[: -len('.scope')]}-guard.service"


def description(stack: str, service: str, until: datetime) -> str:
    """Return the description of a scope in which a service's former process drains."""
    return f"{stack}: {service} drains until {until.isoformat()}"


def release_in(link: Path, stack: str) -> str:
    """Return the release that a link leads into; empty when that cannot be told."""
    try:
        found = re.match(rf"/opt/{re.escape(stack)}/releases/([^/ ]+)", str(link.readlink()))
    except OSError:
        return ""
    return found[1] if found else ""


def release_of(pid: int, stack: str, proc: Path = PROC) -> str:
    """Return the release that a process was started from; empty when that cannot be told."""
    return release_in(proc / str(pid) / "cwd", stack)


def parse_scopes(
    blocks: Sequence[Mapping[str, str]],
    stack: str,
    *,
    now: float,
    monotonic: float,
    proc: Path = PROC,
) -> list[Draining]:
    """Return what drains of a stack.

    Args:
        blocks: `PROPERTIES` of units, of which only those of such scopes count.
        stack: the name of the stack.
        now: the wall clock.
        monotonic: CLOCK_MONOTONIC at the same moment.
        proc: where the processes are.
    """
    found = []
    for block in blocks:
        name = NAME.fullmatch(block.get("Id", ""))
        said = DESCRIPTION.fullmatch(block.get("Description", ""))
        if name and said and said[1] == stack and block.get("ActiveState") != "inactive":
            from datetime import datetime  # Takes a while, and most hosts do without.

            began = int(block.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
            pid = int(name[2])
            found.append(
                Draining(
                    unit=name[1],
                    pid=pid,
                    since=now - (monotonic - began),
                    until=datetime.fromisoformat(said[2]).timestamp(),
                    release=release_of(pid, stack, proc),
                )
            )
    return found
