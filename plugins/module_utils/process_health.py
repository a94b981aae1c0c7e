# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Whether a web server's new process answers well, while its former one answers beside it.

Both accept from one socket, so a request of anybody may reach either. A connection is therefore
opened first, the process that has accepted it is looked up in /proc, and only if that is one of the
new ones it is asked. The kernel's proc_pid_net(5) has a line for each connection: local and remote
address, and the inode of the socket, which is 0 until somebody has accepted it.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PROC = Path("/proc")
# Seconds in which a process that is there accepts a connection, and in which it answers.
ACCEPTANCE = 1.0
ANSWER = 10.0
# Wrong answers in a row that make a release a bad one, and seconds between two. A database that
# was just restarted may take as long; visitors get such answers meanwhile, too.
TRIES = 5
PAUSE = 1.0
# Bytes of a body that are taken, so that the process does not find its client gone.
BODY = 64 * 1024


class NoAnswerError(Exception):
    """Nothing has been learned of the new processes yet; the message says what was seen."""


def hex_address(address: str, port: int) -> str:
    """Return an address as /proc/net/tcp writes it: words of 32 bits in the machine's order."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    words = [packed[at : at + 4][::-1].hex() for at in range(0, len(packed), 4)]
    return f"{''.join(words)}:{port:04x}".upper()


def inode_of(server: tuple[Any, ...], client: tuple[Any, ...], proc: Path = PROC) -> str | None:
    """Return the inode of the accepted end of a connection on this machine, None without one.

    Args:
        server: address and port that the client is connected to.
        client: its own.
        proc: where the kernel tells.
    """
    wanted = [hex_address(*end[:2]) for end in (server, client)]
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # A machine without IPv6.
        for line in lines:
            fields = line.split()
            # A server of IPv6 that IPv4 reaches: the same with a prefix.
            ends = zip(fields[1:3], wanted)  # noqa: B905 - strict= needs Python 3.10
            if all(field.endswith(end) for field, end in ends) and fields[9] != "0":
                return fields[9]
    return None


def holds(pid: int, inode: str, proc: Path = PROC) -> bool:
    """Return whether a process has a socket open."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for one in (proc / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                if str(one.readlink()) == f"socket:[{inode}]":
                    return True
    return False


def expect_accepted(connection: socket.socket, find: Callable[[], Iterable[int]]) -> None:
    """Wait until a connection on this machine is accepted.

    Raises:
        NoAnswerError: nobody does, or another process than those that `find` returns.
    """
    ends = connection.getpeername(), connection.getsockname()
    deadline = time.monotonic() + ACCEPTANCE
    while not (inode := inode_of(*ends)):
        if time.monotonic() > deadline:
            raise NoAnswerError("no process accepts connections")
        time.sleep(0.02)
    if not any(holds(pid, inode) for pid in find()):
        raise NoAnswerError("only the former process accepts connections")


def answer_of(
    address: str,
    path: str,
    find: Callable[[], Iterable[int]] | None,
    seconds: float = ANSWER,
) -> int:
    """Return the status with which one of some processes answers a GET.

    Args:
        address: ADDRESS:PORT on this machine.
        path: what to ask for.
        find: returns the processes; None where any may answer.
        seconds: for how long it may take to answer.

    Raises:
        NoAnswerError: another process has accepted, or nobody, or it does not answer.
    """
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds) as connection:
            if find:
                expect_accepted(connection, find)
            request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            with connection.makefile("rb") as said:
                words = said.readline().split()
                said.read(BODY)
    except OSError as error:
        raise NoAnswerError(f"it does not answer: {error}") from error
    if len(words) < 2 or not words[1].isdigit():
        raise NoAnswerError("it closes the connection without an answer")
    return int(words[1])


def answer_now(health: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return how a web server answers, whichever process: `url`, `status`, `msg`, `wanted`.

    One that was just restarted may have no connections of its own yet, so a wrong answer is not
    the last one; one that does not answer (status -1, and `msg` says why) is not asked again.

    Args:
        health: as the module's option `units` has it.
        seconds: for how long it may take to answer.
    """
    url = f"http://{health['address']}{health['path']}"
    found: dict[str, Any] = {"url": url, "wanted": health["status"]}
    for attempt in range(TRIES):
        time.sleep(PAUSE * bool(attempt))
        try:
            status = answer_of(health["address"], health["path"], None, seconds)
        except NoAnswerError as error:
            return {**found, "status": -1, "msg": str(error)}
        if status in health["status"]:
            break
    return {**found, "status": status}


class Health:
    """Asks the new process of one unit until it is known whether that works."""

    def __init__(self, health: dict[str, Any], patience: float) -> None:
        """Take what is asked for (see the module's option `units`), and seconds to wait for it."""
        self.health = health
        self.deadline = time.monotonic() + patience
        self.next = 0.0
        self.wrong = 0

    def ask(self, find: Callable[[], Iterable[int]]) -> str | None:
        """Ask once, if it is time to.

        Returns:
            "" if it works, why if it does not, and None as long as nobody knows.
        """
        if time.monotonic() < self.next:
            return None
        where = f"GET http://{self.health['address']}{self.health['path']}"
        try:
            status = answer_of(self.health["address"], self.health["path"], find)
        except NoAnswerError as error:
            if time.monotonic() > self.deadline:
                return f"{where}: {error}."
            return None
        if status in self.health["status"]:
            return ""
        self.wrong += 1
        self.next = time.monotonic() + PAUSE
        wanted = ", ".join(map(str, self.health["status"]))
        return f"{where} is answered with {status}, not {wanted}." if self.wrong >= TRIES else None
