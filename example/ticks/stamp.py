"""The stamp that a tick's sender puts on it.

It proves two things about the scheduler, whatever happens to the message later: which
process sent the tick, and whether all its ticks arrived (a hole in `sequence` is a lost one).
"""

import os
import socket
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any


def due(entry: str, sent: datetime, previous: datetime | None) -> datetime:
    """Return the time for which the tick of `entry` was scheduled.

    A crontab entry is due at the full minute. An interval counts from the process's previous
    send, which the first tick of a process does not have: it counts as due when sent.
    """
    if entry == "tick-minute":
        return sent.replace(second=0, microsecond=0)
    if entry == "tick-second" and previous:
        return min(previous + timedelta(seconds=1), sent)
    return sent


class Sender:
    """Counts what this process sends. Host, pid and start together name the process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.started = datetime.now(UTC)
        self.previous: dict[str, datetime] = {}
        self.sequence: Counter[str] = Counter()

    def stamp(self, entry: str) -> dict[str, Any]:
        """Return the stamp of the next tick of `entry`, JSON-ready, times as ISO 8601 in UTC."""
        sent = datetime.now(UTC)
        scheduled = due(entry, sent, self.previous.get(entry))
        self.previous[entry] = sent
        self.sequence[entry] += 1
        return {
            "scheduled": scheduled.isoformat(),
            "sent": sent.isoformat(),
            "sequence": self.sequence[entry],
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self.started.isoformat(),
        }


sender = Sender()
# A forked process (a scheduler embedded in a worker) is another sender.
os.register_at_fork(after_in_child=sender.reset)
