"""Print what beat remembers, so that another host's beat can go on from there.

Argument: path of the schedule file, as beat is given it. Run from the project's release, without a
beat that has the file open. Prints JSON: {"entries": {key: value}}, both in base64, since hosts may
write the file in different ways (gdbm, SQLite); {} without a file.

A file that beat could not read is renamed, and the JSON is {"aside": [paths], "why": text}.
"""

from __future__ import annotations

import base64
import dbm
import io
import json
import pickle
import sys
import time
from pathlib import Path


class Anything:
    """Stands for whatever a pickle holds."""

    def __new__(cls, *_args: object, **_more: object) -> Anything:
        """Take what its class would."""
        return super().__new__(cls)

    def __init__(self, *_args: object, **_more: object) -> None:
        """Forget it."""

    def __call__(self, *_args: object, **_more: object) -> Anything:
        """Return what it would, something."""
        return self

    def __setstate__(self, _state: object) -> None:
        """Forget it."""

    def __setitem__(self, _key: object, _value: object) -> None:
        """Forget it."""

    def append(self, _value: object) -> None:
        """Forget it."""


class Reader(pickle.Unpickler):
    """Reads a pickle to its end without importing Celery, for which nothing is scheduled."""

    def find_class(self, _module: str, _name: str) -> type[Anything]:
        """Stand in for every class."""
        return Anything


def read(path: Path) -> dict[str, str]:
    """Return the file's keys and values, none of which is cut off or garbled."""
    with dbm.open(str(path), "r") as file:
        items = {key: file[key] for key in file.keys()}  # noqa: SIM118 - a dbm is no mapping
    for value in items.values():
        Reader(io.BytesIO(value)).load()
    return {
        base64.b64encode(key).decode(): base64.b64encode(value).decode()
        for key, value in items.items()
    }


def main(path: Path) -> None:
    """Print what beat remembers."""
    # Python's ways to write such a file add suffixes of their own; SQLite's log is beside it.
    files = sorted(path.parent.glob(f"{path.name}*"))
    if not files:
        print("{}")
        return
    try:
        print(json.dumps({"entries": read(path)}))
    except Exception as error:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        aside = [str(one.rename(one.with_name(f"unreadable-{stamp}-{one.name}"))) for one in files]
        print(json.dumps({"aside": aside, "why": f"{type(error).__name__}: {error}"}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
