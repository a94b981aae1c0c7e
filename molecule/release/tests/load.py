"""Requests at a steady pace, each on a connection of its own, and what became of them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from threading import Event
from types import TracebackType

# Longer than any request may take: one that is not answered by then is lost.
TIMEOUT = 90.0


class Load:
    """A context in which web hosts are asked for a file all the time.

    One that the web server itself answers: /healthz waits for others, and says so with 503.

    failed: what went wrong with each request that got no 200. answered: how many did.
    """

    def __init__(self, *addresses: str, rate: float = 40.0, threads: int = 20) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._addresses = addresses
        self._pause = threads / rate
        self._threads = threads
        self._over = Event()
        self._pool = ThreadPoolExecutor(threads)

    def __enter__(self) -> Load:
        for number in range(self._threads):
            self._pool.submit(self._ask, self._addresses[number % len(self._addresses)])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._pool.shutdown()

    def _ask(self, address: str) -> None:
        while not self._over.is_set():
            begin = time.monotonic()
            connection = HTTPConnection(address, 8000, timeout=TIMEOUT)
            try:
                connection.request("GET", "/static/ticks/style.css")
                status = connection.getresponse().status
            except (OSError, HTTPException) as wrong:
                self.failed.append(f"{address} after {time.monotonic() - begin:.1f} s: {wrong!r}")
            else:
                if status == 200:
                    self.answered += 1
                else:
                    self.failed.append(f"{address}: {status}")
            finally:
                connection.close()
            self._over.wait(max(0.0, self._pause - (time.monotonic() - begin)))
