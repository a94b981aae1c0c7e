"""Print the last line of a log file that holds a text, and when it was written.

Arguments: path of the log, the text. Prints JSON with the keys of the journal, nothing without such
a line: {"__REALTIME_TIMESTAMP": microseconds since the epoch, "MESSAGE": line}.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path

STAMP = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})")
# Bytes from the end of each file; more than a line a second for an hour.
TAIL = 1_000_000


def tail(path: Path) -> list[str]:
    """Return the last lines of a file, none if it does not exist."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        return file.read().decode("utf-8", "replace").splitlines()


def stamp(line: str) -> datetime | None:
    """Return the time at the head of a line that Celery or Huey wrote, in the project's zone."""
    found = STAMP.match(line)
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f") if found else None


def main(path: Path, text: str) -> None:
    """Print the last line of the log at PATH, or of the file rotated before, with TEXT."""
    lines = [*tail(path.with_name(f"{path.name}.1")), *tail(path)]
    tick = next((line for line in reversed(lines) if text in line), None)
    if tick is None:
        return
    written = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    last = next((time for time in map(stamp, reversed(lines)) if time), None)
    sent = stamp(tick)
    # The zone of the stamps is the project's choice. So they are only compared with each other: the
    # newest one is when the file was written.
    age = last - sent if last and sent else timedelta(0)
    micros = int((written - age).timestamp() * 1_000_000)
    print(json.dumps({"__REALTIME_TIMESTAMP": micros, "MESSAGE": tick}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
