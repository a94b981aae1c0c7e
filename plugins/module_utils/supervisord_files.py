# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Where supervisord's programs, their launchers and its socket are on a host.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

from pathlib import Path

CONF_DIR = Path("/etc/supervisor/conf.d")
LAUNCHER_DIR = Path("/usr/local/lib")
# What the launcher of a service that is handed over becomes.
STAYING = "stack-launcher"
SOCKET = Path("/run/supervisor.sock")


def is_launching(command: bytes, stack: str) -> bool:
    """Tell whether a process, by its /proc/PID/cmdline, has yet to become the program."""
    argv = command.decode(errors="replace").split("\0")
    # Behind the interpreter, whose line in the script may carry an option.
    for position, word in enumerate(argv[1:3], start=1):
        if word.startswith(f"{LAUNCHER_DIR}/{stack}/"):
            # The program that holds a socket is in that directory too, and has nothing to become.
            return argv[position + 1] != "hold"
    return False


def is_staying(command: bytes) -> bool:
    """Tell whether a process, by its /proc/PID/cmdline, is a launcher that has its program below.

    Such a one has become a shell whose $0 says so: templates/supervisord/launcher.j2.
    """
    return command.split(b"\0")[1:4:2] == [b"-c", STAYING.encode()]
