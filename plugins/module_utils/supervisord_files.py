# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Where supervisord's programs, their launchers and its socket are on a host.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

from pathlib import Path

CONF_DIR = Path("/etc/supervisor/conf.d")
LAUNCHER_DIR = Path("/usr/local/lib")
SOCKET = Path("/run/supervisor.sock")
# What a launcher becomes on its way to the program, each for a moment, which may be a long one on a
# busy host; see templates/supervisord/launcher.j2.
STEPS = (
    ["/usr/bin/setpriv", "--no-new-privs", "--"],
    ["/usr/bin/flock", "--nonblock", "--no-fork"],
)


def run_as(command: bytes, stack: str) -> str | None:
    """Return the argument with which a launcher runs, by its /proc/PID/cmdline; None for another.

    Empty as long as it prepares its program; "stay" when it has that below, with a "keep" between
    them; "hold" for the program that holds a socket, which is in the same directory.
    """
    argv = command.decode(errors="replace").split("\0")
    if argv[:3] in STEPS:
        return ""
    # Behind the interpreter, whose line in the script may carry an option.
    for position, word in enumerate(argv[1:3], start=1):
        if word.startswith(f"{LAUNCHER_DIR}/{stack}/"):
            return argv[position + 1]
    return None


def is_launching(command: bytes, stack: str) -> bool:
    """Tell whether a process, by its /proc/PID/cmdline, has yet to start or become the program."""
    return run_as(command, stack) not in (None, "hold", "stay", "keep")


def is_staying(command: bytes, stack: str) -> bool:
    """Tell whether a process, by its /proc/PID/cmdline, is a launcher above its program."""
    return run_as(command, stack) == "stay"
