"""Print a host's release and last deploy, the room on its disks, its scheduler's last logged tick.

The argument is JSON: `current`, path of the link to the release; `journal`, path of the journal of
deploys; `disks`, paths on the disks that
matter; `tick`, null or where the scheduler's log is: {line: text of a tick, log: path, or empty for
the journal of the unit `unit`}.

Prints JSON: now (seconds since the epoch), release (its name, or null), deploy (the journal's last
entry, or null), disks ({path, free, size}
in bytes), tick (null, or {time: seconds since the epoch, line}).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

STAMP = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})")
# Bytes from the end of each file; more than a line a second for an hour.
TAIL = 1_000_000
# Seconds: a journal of years without a tick would take longer to search.
PATIENCE = 5


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


def tick_of_log(path: Path, text: str) -> dict[str, Any] | None:
    """Return the last line with a text of a log, or of the file rotated before."""
    lines = [*tail(path.with_name(f"{path.name}.1")), *tail(path)]
    tick = next((line for line in reversed(lines) if text in line), None)
    if tick is None:
        return None
    written = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    last = next((when for when in map(stamp, reversed(lines)) if when), None)
    sent = stamp(tick)
    # The zone of the stamps is the project's choice. So they are only compared with each other: the
    # newest one is when the file was written.
    age = last - sent if last and sent else timedelta(0)
    return {"time": (written - age).timestamp(), "line": tick}


def tick_of_journal(unit: str, text: str) -> dict[str, Any] | None:
    """Return the last line with a text in the journal of a unit."""
    command = ["journalctl", f"--unit={unit}", f"--grep={text}", "--lines=1", "--output=json"]
    try:
        said = subprocess.run(  # noqa: S603
            [*command, "--quiet"], stdout=subprocess.PIPE, timeout=PATIENCE, check=False
        ).stdout
        line = json.loads(said.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError):
        return None
    # The journal gives a line that is no text as a list of bytes.
    message = line["MESSAGE"]
    message = message if isinstance(message, str) else bytes(message).decode("utf-8", "replace")
    return {"time": int(line["__REALTIME_TIMESTAMP"]) / 1_000_000, "line": message}


def room(path: str) -> dict[str, Any]:
    """Return how much room the disk of a path has; of the nearest directory that exists."""
    there = Path(path)
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    return {"path": path, "free": usage.free, "size": usage.used + usage.free}


def last_deploy(journal: Path) -> dict[str, Any] | None:
    """Return the last whole entry of the journal of deploys."""
    for line in reversed(tail(journal)):
        try:
            return dict(json.loads(line))
        except ValueError:  # Cut off by a full disk, or by the beginning of what was read.
            continue
    return None


def main(choices: dict[str, Any]) -> None:
    """Print all of it."""
    wanted = choices["tick"]
    tick = None
    if wanted and wanted["log"]:
        tick = tick_of_log(Path(wanted["log"]), wanted["line"])
    elif wanted and wanted["unit"]:
        tick = tick_of_journal(wanted["unit"], wanted["line"])
    current = Path(choices["current"])
    release = current.readlink().name if current.is_symlink() else None
    disks = [room(path) for path in choices["disks"]]
    deploy = last_deploy(Path(choices["journal"]))
    found = {"release": release, "deploy": deploy, "disks": disks, "tick": tick}
    print(json.dumps({"now": time.time(), **found}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
