"""What the page and the API show of a task, whichever queue it went through."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

# Called with the schedule's entry, the message's id and its sender's stamp.
TickFunction = Callable[[str, str, dict[str, Any]], None]
FINAL_STATES = {"SUCCESS", "FAILURE", "REVOKED", "IGNORED"}


def description(
    *,
    task_id: str,
    state: str = "PENDING",
    name: str | None = None,
    args: str | None = None,
    result: Any = None,
    worker: str | None = None,
    created: datetime | None = None,
    started: datetime | None = None,
    done: datetime | None = None,
) -> dict[str, Any]:
    """Return a task in the words of Celery's states; without more, one nobody has reported on."""
    final = state in FINAL_STATES
    return {
        "id": task_id,
        "name": name,
        "args": args.replace(",)", ")") if args else None,
        "state": state,
        "result": result if final else None,
        "worker": worker,
        "created": created,
        "started": started,
        "done": done if final else None,
        "final": final,
    }
