"""Show where the time of an Ansible run goes: tasks, the controller's processes, functions.

Runs the playbook itself, with a profiler in the main process and in each process that it starts for
a task on a host. The profiler makes the controller about twice as slow: the shares count, not the
seconds; those of the tasks are wall-clock time, on hosts and controller.

Usage: bench/profile PLAYBOOK [ARGUMENTS OF ansible-playbook...]
"""

import cProfile
import io
import os
import pstats
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

# Read by Ansible when it is imported.
os.environ.update(
    ANSIBLE_CONFIG=str(Path(__file__).resolve().parents[1] / "ansible.cfg"),
    ANSIBLE_CALLBACKS_ENABLED="ansible.posix.profile_tasks",
)

from ansible.cli.playbook import PlaybookCLI
from ansible.executor.process.worker import WorkerProcess

FUNCTIONS = 25  # Lines of each table.


def profile_workers(directory: Path) -> None:
    """Let every process of a task write its profile, named by the task, into the directory."""
    original = WorkerProcess._run

    def profiled(worker: Any) -> Any:
        profiler = cProfile.Profile()
        try:
            return profiler.runcall(original, worker)
        finally:
            # Renamed when it is whole: a worker may be ended while it writes.
            scratch = directory / f".{os.getpid()}"
            profiler.dump_stats(scratch)
            name = worker._task.get_name().replace("/", " ")[:80]
            scratch.rename(directory / f"{name}.{os.getpid()}")

    WorkerProcess._run = profiled


def functions(paths: list[Path]) -> str:
    """Return a table of the functions that took longest, with all that they called."""
    out = io.StringIO()
    stats = pstats.Stats(*map(str, paths), stream=out)
    stats.sort_stats("cumulative").print_stats("ansible|plugins|jinja2", FUNCTIONS)
    table = out.getvalue().partition("   ncalls")
    return table[1] + table[2].rstrip()


def seconds(path: Path) -> float:
    """Return the seconds that a profile covers."""
    return float(pstats.Stats(str(path)).total_tt)  # type: ignore[attr-defined]


def main(arguments: list[str]) -> int:
    """Run the playbook, print the tables; return the playbook's status."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        profile_workers(directory)
        profiler = cProfile.Profile()
        status = 0
        try:
            profiler.runcall(PlaybookCLI.cli_executor, ["ansible-playbook", *arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        tasks: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(directory.glob("[!.]*")):
            tasks[path.stem].append(path)
        profiler.dump_stats(directory / "main")
        print(f"\nMain process, {seconds(directory / 'main'):.2f} s, waiting included")
        print(functions([directory / "main"]))
        spent = {name: sum(map(seconds, paths)) for name, paths in tasks.items()}
        print("\nSeconds of the controller's processes for each task, waiting for hosts included")
        for name in sorted(spent, key=lambda one: -spent[one]):
            print(f"{spent[name]:7.2f}  {len(tasks[name]):4d} x  {name}")
        for name in sorted(spent, key=lambda one: -spent[one])[:3]:
            print(f"\n{name}")
            print(functions(tasks[name]))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
