"""Send a task through Huey and wait until a worker has done it.

Arguments: dotted path of a task that takes no arguments and returns something; seconds to wait.
Ends with status 0 when the task came back, else with a reason as the last line of stderr.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main(path: str, seconds: float) -> None:
    """Send the task at PATH and wait for its result."""
    import django

    django.setup()
    module, _, name = path.rpartition(".")
    task = getattr(import_module(module), name)
    if task.huey.immediate:
        sys.exit("Huey is in immediate mode (is DEBUG on?): whoever sends a task runs it himself")
    result = task()
    if result is None:
        sys.exit("Huey keeps no results (its setting results is off): nobody can see one")
    result.get(blocking=True, timeout=seconds)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
