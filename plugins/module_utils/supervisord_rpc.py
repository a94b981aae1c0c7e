# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Talk to supervisord over its unix socket.

Runs on managed hosts: Python 3.9 or newer, standard library only. A module of its own, because its
imports cost more than all that a host without supervisord has to do.
"""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any

# Seconds; supervisord answers at once, or is not well.
TIMEOUT = 10.0
# What a call raises that gets no answer; xmlrpc.client.Fault, a refusal, is among them.
NO_ANSWER = (OSError, xmlrpc.client.Error, http.client.HTTPException)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self.path = path
        self.timeout = timeout

    def make_connection(self, host: object) -> _Connection:
        return _Connection(self.path, self.timeout)


def connect(path: Path, timeout: float) -> Any:
    """Return what has supervisord's calls as methods; `path` is its socket, nothing is asked yet.

    A call waits `timeout` seconds for its answer and raises one of NO_ANSWER where none comes.
    """
    transport = _Transport(path, timeout)
    return xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor


def process_info(path: Path) -> list[dict[str, Any]]:
    """Return what supervisord with the socket PATH says of its programs; nothing if it is gone.

    Raises:
        RuntimeError: supervisord runs but does not answer.
    """
    try:
        answer = connect(path, TIMEOUT).getAllProcessInfo()
    except (FileNotFoundError, ConnectionRefusedError):
        return []  # A supervisord that was killed leaves its socket behind.
    except NO_ANSWER as error:
        raise RuntimeError(f"supervisord does not answer at {path}: {error}") from error
    return list(answer)
