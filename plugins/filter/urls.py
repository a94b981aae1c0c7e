# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""The only builder of URLs: a password with a slash in it must not reach a service unescaped."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import quote

from ansible.errors import AnsibleFilterError

BROKERS = ("redis", "sentinel", "rabbitmq")
HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")


def broker_url(
    broker: str,
    host: str | list[str],
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
        broker: "redis", "sentinel" or "rabbitmq".
        host: name or IP address, the latter without brackets; with Sentinel a list of them.
        port: TCP port.
        password: any text; with Sentinel that of the Redis behind it.
        user: any text; RabbitMQ needs one, Redis takes its default user without.
        database: Redis and Sentinel only, number of the database.
        vhost: RabbitMQ only, any text.
        tls: encrypt the connection; with Redis the server's certificate must be valid. Celery
            wants to be told otherwise with Sentinel.

    Returns:
        The URL; with Sentinel the URLs of all its hosts with ";" between them, as Celery reads it.

    Raises:
        AnsibleFilterError: the broker has no URL, or a part is missing or malformed.
    """
    query = ""
    if broker in ("redis", "sentinel"):
        scheme = "rediss" if broker == "redis" and tls else broker
        path = str(_integer("broker_url", "database", database, 0, 2**31 - 1))
        # Celery's result backend refuses rediss:// without it.
        query = "?ssl_cert_reqs=required" if tls else ""
    elif broker == "rabbitmq":
        scheme = "amqps" if tls else "amqp"
        _need("broker_url", user=user, vhost=vhost)
        path = _encode(vhost)
    else:
        raise AnsibleFilterError(
            f"broker_url: broker is {broker!r}, not one of {', '.join(BROKERS)}"
        )
    if broker == "sentinel" and tls:
        raise AnsibleFilterError("broker_url: tls is not part of a Sentinel's URL")
    if isinstance(host, list) and broker != "sentinel":
        raise AnsibleFilterError(f"broker_url: only a Sentinel has several hosts, not {broker!r}")
    hosts = (host or [""]) if isinstance(host, list) else [host]
    return ";".join(
        f"{scheme}://{_authority('broker_url', one, port, user, password)}/{path}{query}"
        for one in hosts
    )


def rabbitmq_api_url(host: str, port: int = 15672) -> str:
    """Return the URL of RabbitMQ's management API, without the credentials.

    Flower would send a password in it as it stands there, percent-encoded, and be refused; it
    takes those of the broker's URL when there are none.

    Args:
        host: name or IP address, the latter without brackets.
        port: TCP port.

    Raises:
        AnsibleFilterError: a part is missing or malformed.
    """
    caller = "rabbitmq_api_url"
    _need(caller, host=host)
    number = _integer(caller, "port", port, 1, 65535)
    return f"http://{_host(caller, str(host))}:{number}/api/"


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
        return {
            "broker_url": broker_url,
            "database_url": database_url,
            "rabbitmq_api_url": rabbitmq_api_url,
        }
