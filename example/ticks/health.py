"""/healthz: do the database and the broker answer?"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from ticks.queues import queue

logger = logging.getLogger(__name__)

# For both parts together, in seconds.
BUDGET = 1.8


def check_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        connection.close()


class Check:
    """A check in a thread of its own, so that a server that hangs cannot hold the answer up.

    While one hangs no second one is started, however often the probe asks.
    """

    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self.name = name
        self.function = function
        self.lock = threading.Lock()
        self.future: Future[None] | None = None

    def start(self) -> Future[None]:
        with self.lock:
            if self.future is None or self.future.done():
                self.future = Future()
                threading.Thread(target=self._run, args=(self.future,), daemon=True).start()
            return self.future

    def _run(self, future: Future[None]) -> None:
        try:
            self.function()
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    def outcome(self, future: Future[None], deadline: float) -> str:
        """Return "ok" or what failed; the class of an error only, its text may hold a URL."""
        if not wait([future], timeout=max(0, deadline - time.monotonic())).done:
            return "no answer in time"
        error = future.exception()
        return f"failed: {type(error).__name__}" if error else "ok"


CHECKS = (Check("database", check_database), Check("broker", queue.check))


class HealthMiddleware:
    """Answers /healthz before anything else, also to a Host header no site of ours has."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.health() if request.path == "/healthz" else self.get_response(request)

    def health(self) -> JsonResponse:
        """Return 200, or 503 if a part does not answer; the body names each part's outcome."""
        deadline = time.monotonic() + BUDGET
        running = [(check, check.start()) for check in CHECKS]
        parts = {check.name: check.outcome(future, deadline) for check, future in running}
        healthy = set(parts.values()) == {"ok"}
        if not healthy:
            logger.warning("healthz: %s", parts)
        return JsonResponse(parts, status=200 if healthy else 503)
