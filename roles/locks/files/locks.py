"""Print the task locks that are held, and free the ones that were named.

Runs in the project's environment. Its argument is JSON:

    patterns: of the names of Redis locks.  seconds: to search for.  huey: path of the instance,
    empty for the one in Django's settings, null without Huey.  free: name or pattern, or empty.
    confirm: true lets a pattern free more than one.  hosts: network address -> host.

Standard input is JSON too, since it may hold a password: the URL of a Redis database, or "".

Prints JSON: locks, a list of {name, kind ("redis" or "huey"), since (seconds since the epoch, or
null), left (seconds, or null for no limit), owner (the host that took it, else its network
    address, else null), chosen, freed};
complete, false when the search was cut short; refused, why nothing was freed, or "".
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

BATCH = 1000
# What the Redis client of Python puts into a lock: uuid.uuid1().hex.
TOKEN = 32
EPOCH = 0x01B21DD213814000  # Of the time in a UUID, in steps of 100 ns.
# Only the lock that was shown: who took it since then holds another token.
FREE_KEY = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"
FREE_FIELD = """return redis.call('hget', KEYS[1], ARGV[2]) == ARGV[1]
                and redis.call('hdel', KEYS[1], ARGV[2]) or 0"""

Lock = dict[str, Any]


def text(value: Any) -> str:
    """Return bytes as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def lock(name: str, kind: str, free: Callable[[], bool], **more: Any) -> Lock:
    """Return a lock; `free` frees it if it is still the same, and tells."""
    known = {"since": None, "left": None, "owner": None, **more}
    return {"name": name, "kind": kind, "chosen": False, "freed": False, **known, "free": free}


def token(value: Any) -> uuid.UUID | None:
    """Return what a lock of Python's Redis client holds, None for another value."""
    try:
        return uuid.UUID(hex=text(value)) if len(value) == TOKEN else None
    except ValueError:
        return None


def redis_locks(url: str, patterns: list[str], deadline: float) -> Iterator[Lock | None]:
    """Yield the locks in a Redis database; None when time was up."""
    from redis import Redis

    client = Redis.from_url(url, socket_connect_timeout=3, socket_timeout=5)
    seen: set[bytes] = set()
    for pattern in patterns:
        cursor: Any = None
        while cursor != 0:
            if time.monotonic() > deadline:
                yield None
                return
            # Never KEYS, which would stop everybody else for as long as it takes.
            cursor, keys = client.scan(cursor or 0, match=pattern, count=BATCH)
            keys = [key for key in keys if key not in seen]
            seen.update(keys)
            # Neither large values nor other types come over the wire.
            sizes = client.pipeline(transaction=False)
            for key in keys:
                sizes.strlen(key)
            said = sizes.execute(raise_on_error=False)
            for key in (key for index, key in enumerate(keys) if said[index] == TOKEN):
                value, left = client.get(key), client.pttl(key)
                found = token(value) if value else None
                if found is None or left == -2:
                    continue
                timed = found.version == 1
                # A random number in place of a network address has the group bit.
                known = timed and not found.node >> 40 & 1
                node = f"{found.node:012x}"
                yield lock(
                    text(key),
                    "redis",
                    lambda key=key, value=value: bool(client.eval(FREE_KEY, 1, key, value)),
                    since=(found.time - EPOCH) / 1e7 if timed else None,
                    left=left / 1000 if left >= 0 else None,
                    owner=":".join(node[at : at + 2] for at in range(0, 12, 2)) if known else None,
                )


def huey_locks(path: str) -> Iterator[Lock]:
    """Yield the locks in Huey's storage."""
    if os.environ.get("DJANGO_SETTINGS_MODULE"):
        import django

        django.setup()
    module, _, name = (path or "huey.contrib.djhuey.HUEY").rpartition(".")
    huey = getattr(import_module(module), name)
    storage, prefix = huey.storage, f"{huey.name}.lock."
    if hasattr(storage, "sql"):
        rows = storage.sql(
            "select key, value from kv where queue = ? and substr(key, 1, ?) = ?",
            (storage.name, len(prefix), prefix),
            results=True,
        )
        for key, value in rows:

            def delete(key: str = key, value: bytes = value) -> bool:
                with storage.db(commit=True) as cursor:
                    cursor.execute(
                        "delete from kv where queue = ? and key = ? and value = ?",
                        (storage.name, key, value),
                    )
                    return bool(cursor.rowcount)

            yield lock(key[len(prefix) :], "huey", delete)
    elif hasattr(storage, "conn") and callable(storage.result_key):
        pattern = storage.result_key(f"{prefix}*")
        for key in storage.conn.scan_iter(match=pattern, count=BATCH):
            value = storage.conn.get(key)
            yield lock(
                text(key).partition(prefix)[2],
                "huey",
                lambda key=key, value=value: bool(storage.conn.eval(FREE_KEY, 1, key, value)),
            )
    elif hasattr(storage, "conn"):
        hash_ = storage.result_key
        for key, value in storage.conn.hscan_iter(hash_, match=f"{prefix}*", count=BATCH):
            yield lock(
                text(key)[len(prefix) :],
                "huey",
                lambda key=key, value=value: bool(
                    storage.conn.eval(FREE_FIELD, 1, hash_, value, key)
                ),
            )


def choose(locks: list[Lock], wanted: str, confirm: bool) -> str:
    """Mark the locks to free; return why there are none, or nothing."""
    names = sorted({one["name"] for one in locks})
    chosen = [one for one in locks if one["name"] == wanted]
    if not chosen and any(sign in wanted for sign in "*?["):
        chosen = [one for one in locks if fnmatchcase(one["name"], wanted)]
        if not chosen:
            return f"No lock matches {wanted}: nothing was freed."
        if not confirm:
            return (
                f"{wanted} is a pattern that would free {len(chosen)}: "
                f"{', '.join(one['name'] for one in chosen)}. If all of them shall go, add "
                "-e confirm=yes. Nothing was freed."
            )
    if not chosen:
        near = get_close_matches(wanted, names)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        return f"No lock is called {wanted}: nothing was freed.{hint}"
    if len(chosen) > 1 and not confirm:
        return (
            f"{len(chosen)} locks are called {wanted}. If all of them shall go, add "
            "-e confirm=yes. Nothing was freed."
        )
    for one in chosen:
        one["chosen"] = True
    return ""


def main(choices: dict[str, Any], url: str) -> None:
    """Print the locks; free the chosen ones."""
    out, sys.stdout = sys.stdout, sys.stderr
    locks: list[Lock] = []
    complete = True
    if url:
        for one in redis_locks(url, choices["patterns"], time.monotonic() + choices["seconds"]):
            complete = complete and one is not None
            if one is not None:
                locks.append(one)
    if choices["huey"] is not None:
        locks += huey_locks(choices["huey"])
    locks.sort(key=lambda one: (one["kind"], one["name"]))
    refused = choose(locks, choices["free"], choices["confirm"]) if choices["free"] else ""
    for one in locks:
        free = one.pop("free")
        one["owner"] = choices["hosts"].get(one["owner"], one["owner"])
        one["freed"] = one["chosen"] and free()
    missed = [one["name"] for one in locks if one["chosen"] and not one["freed"]]
    if missed:
        refused = f"{', '.join(missed)}: given back or taken anew meanwhile, and so not freed."
    print(json.dumps({"locks": locks, "complete": complete, "refused": refused}), file=out)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.load(sys.stdin))
