# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""The only builder of URLs: a password with a slash in it must not reach a service unescaped."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import quote

from ansible.errors import AnsibleFilterError

HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")


def broker_url(
    broker: str,
    host: str,
    port: int,
    password: str,
    *,
    user: str = "",
    database: int = 0,
    vhost: str = "/",
    tls: bool = False,
) -> str:
    """Return the URL under which a client reaches a message broker.

    Args:
        broker: "redis" or "rabbitmq".
        host: name or IP address, the latter without brackets.
        port: TCP port.
        password: any text.
        user: any text; RabbitMQ needs one, Redis takes its default user without.
        database: Redis only, number of the database.
        vhost: RabbitMQ only, any text.
        tls: encrypt the connection; with Redis the server's certificate must be valid.

    Raises:
        AnsibleFilterError: the broker has no URL, or a part is missing or malformed.
    """
    if broker == "redis":
        scheme = "rediss" if tls else "redis"
        path = str(_integer("broker_url", "database", database, 0, 2**31 - 1))
        # Celery's result backend refuses rediss:// without it.
        query = "?ssl_cert_reqs=required" if tls else ""
    elif broker == "rabbitmq":
        scheme = "amqps" if tls else "amqp"
        _need("broker_url", user=user, vhost=vhost)
        path, query = _encode(vhost), ""
    else:
        raise AnsibleFilterError(f"broker_url: broker is {broker!r}, not 'redis' or 'rabbitmq'")
    return f"{scheme}://{_authority('broker_url', host, port, user, password)}/{path}{query}"


def database_url(
    database: str,
    name: str,
    *,
    host: str = "",
    port: int = 5432,
    user: str = "",
    password: str = "",
) -> str:
    """Return the URL under which the project reaches its database.

    Args:
        database: "postgresql" or "sqlite".
        name: the database's name, any text; with SQLite its file, an absolute path.
        host: PostgreSQL only, name or IP address, the latter without brackets.
        port: PostgreSQL only, TCP port.
        user: PostgreSQL only, any text.
        password: PostgreSQL only, any text.

    Raises:
        AnsibleFilterError: the database has no URL, or a part is missing or malformed.
    """
    _need("database_url", name=name)
    if database == "sqlite":
        if not str(name).startswith("/"):
            raise AnsibleFilterError(f"database_url: name is {name!r}, not an absolute path")
        return "sqlite:///" + quote(str(name), safe="/")
    if database == "postgresql":
        _need("database_url", user=user)
        authority = _authority("database_url", host, port, user, password)
        return f"postgresql://{authority}/{_encode(name)}"
    raise AnsibleFilterError(
        f"database_url: database is {database!r}, not 'postgresql' or 'sqlite'"
    )


def _authority(caller: str, host: str, port: int, user: str, password: str) -> str:
    """Return USER:PASSWORD@HOST:PORT, encoded."""
    _need(caller, host=host, password=password)
    number = _integer(caller, "port", port, 1, 65535)
    return f"{_encode(user)}:{_encode(password)}@{_host(caller, str(host))}:{number}"


def _host(caller: str, host: str) -> str:
    """Return the host as a URL has it: an IPv6 address in brackets."""
    if ":" not in host and HOST_NAME.match(host):
        return host
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise AnsibleFilterError(
            f"{caller}: host is {host!r}, not a name or an IP address"
        ) from None
    return f"[{quote(host, safe=':')}]"


def _need(caller: str, **parts: str) -> None:
    """Refuse empty parts by name; without this an unset secret makes an open URL."""
    for name, value in parts.items():
        if value is None or str(value) == "":
            raise AnsibleFilterError(f"{caller}: {name} is empty")


def _integer(caller: str, name: str, value: int, low: int, high: int) -> int:
    """Return the value as a number, which a template may have made a text."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = low - 1
    if not low <= number <= high:
        raise AnsibleFilterError(f"{caller}: {name} is {value!r}, not a number of {low} to {high}")
    return number


def _encode(text: str) -> str:
    """Percent-encode everything that is not a letter, a digit or one of `-._~`."""
    return quote(str(text), safe="")


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by name."""
        return {"broker_url": broker_url, "database_url": database_url}
