"""Huey's instance; which storage it has is for its URL to say."""

import os
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from huey import Huey, MemoryHuey, RedisHuey, SqliteHuey
from redis import ConnectionPool

from example.environment import required


def make(url: str, name: str) -> Huey:
    """Return the Huey of `url` (redis://, rediss://, sqlite:////FILE, memory://).

    `name` keeps the projects apart that share a Redis.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("redis", "rediss"):
        # A Redis that falls silent is an error after so many seconds, not a wait for the kernel's.
        pool = ConnectionPool.from_url(url, socket_timeout=5, socket_connect_timeout=5)
        return RedisHuey(name, connection_pool=pool)
    if scheme == "sqlite":
        path = unquote(urlsplit(url).path)[1:]
        return SqliteHuey(name, filename=path, timeout=20)
    if scheme == "memory":
        return MemoryHuey(name)
    raise ImproperlyConfigured(f"HUEY_URL begins with {scheme!r}: Huey has no such storage here.")


HUEY = make(required("HUEY_URL"), os.environ.get("STACK_NAME") or "example")
