"""Ask Celery's broker which workers answer, and which beats: those that schedule at this moment.

Arguments: APP; seconds that a worker may take to answer; seconds in which one beat must answer, 0
if none has to; the NODES that should answer. Prints JSON: {"nodes": [name of a node, a beat's twice
if two of that name answer], "unknown": why beats that answer nothing may schedule all the same, or
""}.
Ends with the reason as the last line of stderr where the broker does not answer.

A standby of RedBeat does not answer, nor does a beat that has stopped ticking.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

# Seconds without a further answer after which everybody has answered who can.
SILENCE = 1.0


def why_unknown(app: Any) -> str:
    """Return why a beat of this APP would not answer; empty if it would."""
    import celery
    from celery import beat

    # Since Celery 5.7, by default off.
    if not hasattr(beat, "BeatPidbox"):
        return f"the beat of Celery {celery.__version__} answers nothing, that of 5.7 does"
    if not app.conf.beat_enable_remote_control:
        return "beat_enable_remote_control is off"
    if not app.connection_for_read().supports_exchange_type("fanout"):
        return "this kind of broker carries no questions to beat"
    return ""


def ask(app: Any) -> list[str]:
    """Return the names of all nodes that answer."""
    # Without destinations: nobody knows the names of those that should not be there.
    replies = app.control.broadcast("ping", reply=True, timeout=SILENCE)
    return [name for reply in replies or [] for name in reply]


def main(name: str, seconds: float, beat_seconds: float, wanted: set[str]) -> None:
    """Ask until the nodes WANTED and exactly one beat have answered, or their time is over."""
    from celery.app.utils import find_app

    app = find_app(name)
    unknown = why_unknown(app)
    with app.connection_for_read(connect_timeout=5) as connection:
        connection.ensure_connection(max_retries=1)
    begin = time.monotonic()
    workers: set[str] = set()
    while True:
        answers = ask(app)
        beats = [node for node in answers if node.startswith("celerybeat@")]
        # A worker that is busy may answer a question too late, and the next one in time.
        workers.update(node for node in answers if node not in beats)
        # Two beats may be one that is just handing over.
        limit = 0.0 if wanted <= workers and len(beats) < 2 else seconds
        if not beats and not unknown:
            limit = max(limit, beat_seconds)
        if time.monotonic() - begin >= limit:
            break
    print(json.dumps({"nodes": [*sorted(workers), *sorted(beats)], "unknown": unknown}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), set(sys.argv[4:]))
