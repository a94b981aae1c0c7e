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
TIMEOUT = 10


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def make_connection(self, host: object) -> _Connection:
        return _Connection(self.path)


def process_info(path: Path) -> list[dict[str, Any]]:
    """Return what supervisord with the socket PATH says of its programs; nothing if it is gone.

    Raises:
        RuntimeError: supervisord runs but does not answer.
    """
    server = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(path))
    try:
        answer: Any = server.supervisor.getAllProcessInfo()
    except (FileNotFoundError, ConnectionRefusedError):
        return []  # A supervisord that was killed leaves its socket behind.
    except (OSError, xmlrpc.client.Error, http.client.HTTPException) as error:
        raise RuntimeError(f"supervisord does not answer at {path}: {error}") from error
    return list(answer)
