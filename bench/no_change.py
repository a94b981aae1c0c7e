"""Time a run of site.yml that has nothing to do, against the same work written the usual way.

The usual way is bench/one_task_per_file.yml: a task for each file, directory and unit, with
Ansible's default settings. Both run against the demo's hosts (`bin/demo` first), one after the
other in turns, and both must change nothing. Prints a table with the ratio of the medians and
writes .artefacts/bench-no_change.json (seconds).

Usage: bench/no_change [ROUNDS]   (default 3)
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INVENTORY = ROOT / "inventories/demo"
COLLECTED = ROOT / ".cache/demo/bench-files.json"


def play(playbook: str, *, defaults: bool, args: tuple[str, ...] = ()) -> tuple[float, int]:
    """Run a playbook on the demo and return its seconds and the number of its tasks' host results.

    Args:
        playbook: path from the root.
        defaults: use Ansible's default settings instead of the project's.
        args: further arguments of ansible-playbook.

    Raises:
        SystemExit: the playbook failed or changed something: the figure would mean nothing.
    """
    configuration = ROOT / ("bench/defaults.cfg" if defaults else "ansible.cfg")
    begin = time.perf_counter()
    said = subprocess.run(
        ["ansible-playbook", playbook, "-i", INVENTORY, *args],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(configuration), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - begin
    recap = said.stdout.split("PLAY RECAP")[-1]
    changed = sum(map(int, re.findall(r"changed=(\d+)", recap)))
    if said.returncode or changed:
        sys.exit(f"{said.stdout[-3000:]}\n{playbook} failed, or changed {changed} things.")
    return seconds, sum(map(int, re.findall(r"\bok=(\d+)", recap)))


def main(rounds: int) -> None:
    """Measure, print and store the ratio."""
    play("bench/collect.yml", defaults=False)
    try:
        ours, usual = [], []
        for _ in range(rounds):
            ours.append(play("site.yml", defaults=False))
            usual.append(play("bench/one_task_per_file.yml", defaults=True))
    finally:
        COLLECTED.unlink(missing_ok=True)  # It holds the hosts' secrets.

    rows = {"site.yml": ours, "one task per file": usual}
    medians = {
        name: statistics.median(seconds for seconds, _ in runs) for name, runs in rows.items()
    }
    ratio = medians["site.yml"] / medians["one task per file"]
    print(f"{'no-change run, 4 hosts':24} {'median s':>9} {'runs':>20} {'results':>8}")
    for name, runs in rows.items():
        each = " ".join(f"{seconds:.1f}" for seconds, _ in runs)
        print(f"{name:24} {medians[name]:9.1f} {each:>20} {runs[-1][1]:8d}")
    print(f"{'ratio':24} {ratio:9.2f}")
    report = ROOT / ".artefacts/bench-no_change.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps({"runs": rows, "medians": medians, "ratio": ratio}, indent=2))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
