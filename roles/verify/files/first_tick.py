"""Wait until a scheduler has sent something since it started, and print the line it wrote.

Arguments: seconds to wait; its unit of systemd; its log, empty under systemd. Prints nothing when
the time is over.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SENT = ("Sending due task", "Enqueueing periodic task")
# What beat and Huey's consumer write when they start.
STARTED = ("beat: Starting", "Huey consumer started")


def journal(unit: str) -> list[str]:
    """Return the lines of a unit since its last start."""
    show = ["systemctl", "show", "--property=InvocationID", "--value", unit]
    invocation = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    command = ["journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat", "--no-pager"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603


def since_start(log: Path) -> list[str]:
    """Return the lines of a log since the last start."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [n for n, line in enumerate(lines) if any(word in line for word in STARTED)]
    return lines[starts[-1] :] if starts else []


def main(seconds: float, unit: str, log: str) -> None:
    """Print the first line that tells of something sent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in since_start(Path(log)) if log else journal(unit):
            if any(word in line for word in SENT):
                print(line)
                return
        time.sleep(0.5)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3])
