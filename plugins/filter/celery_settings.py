# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""The deployment's choices as Celery settings, which the overlay puts over the project's own."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: celery_settings
short_description: Turn the choices about Celery into its settings
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Returns the settings that C(templates/stack_celery.py) puts over those of the project.
options:
  _input:
    description: The choices, as C(roles/services/vars/main.yml) puts them together.
    type: dict
    required: true
"""

EXAMPLES = r"""
settings: "{{ __services_celery_choices | celery_settings }}"
"""

RETURN = r"""
_value:
  description: Celery's settings by their lower-case names; holds the lock Redis's password.
  type: dict
"""

SCHEDULERS = {
    "file": "celery.beat:PersistentScheduler",
    "database": "django_celery_beat.schedulers:DatabaseScheduler",
    "memory": "celery.beat:Scheduler",
    "redbeat": "redbeat.RedBeatScheduler",
}
# Seconds that a silent Redis may take; below every lock time-out that preflight lets through.
REDIS_TIMEOUT = 2


def redis_client(url: str) -> tuple[str, dict[str, Any]]:
    """Return a Redis URL without its credentials, and the options that hold them.

    Celery's `inspect conf` and Flower print a setting as it is unless its key says PASS or the
    like (`filter_hidden_settings`); within a URL a password would be shown.

    Raises:
        AnsibleFilterError: it is no Redis URL.
    """
    first, *more = [urlsplit(one) for one in url.split(";")]
    if first.scheme not in ("redis", "rediss", "sentinel"):
        raise AnsibleFilterError(
            f"RedBeat keeps its lock in Redis, and a URL with {first.scheme!r} is none."
        )
    options = {
        name: unquote(value)
        for name, value in (("username", first.username), ("password", first.password))
        if value
    }
    if first.scheme == "sentinel":
        # As RedBeat wants it; the overlay adds the name of the master.
        hosts = [[one.hostname, one.port or 26379] for one in (first, *more)]
        database = int(first.path.strip("/") or 0)
        return "redis-sentinel://", {**options, "sentinels": hosts, "db": database}
    address = first.netloc.rpartition("@")[2]
    return urlunsplit((first.scheme, address, first.path, first.query, "")), options


def celery_settings(choices: dict[str, Any]) -> dict[str, Any]:
    """Return the settings to put over the project's own.

    Args:
        choices: `scheduler` (str, see SCHEDULERS, or "project"), `engine` (str), `stack` (the
            stack's name), `lock_url` (str), `lock_timeout`, `max_interval` and
            `starting_deadline` (seconds), `own` (dict, the operator's, which wins).

    Raises:
        AnsibleFilterError: a choice is missing, or RedBeat has no Redis.
    """
    try:
        scheduler = "redbeat" if choices["engine"] == "redbeat" else choices["scheduler"]
        settings: dict[str, Any] = {
            # So that it can be seen from anywhere who schedules. Known to Celery since 5.7.
            "beat_enable_remote_control": True,
            # Written after every send, so that a killed beat does not repeat what it has sent.
            "beat_sync_every": 1,
        }
        if int(choices["starting_deadline"]):
            settings["beat_cron_starting_deadline"] = int(choices["starting_deadline"])
        if scheduler != "project":
            settings["beat_scheduler"] = SCHEDULERS[scheduler]
        if scheduler == "redbeat":
            url, options = redis_client(choices["lock_url"])
            timeouts = {"socket_timeout": REDIS_TIMEOUT, "socket_connect_timeout": REDIS_TIMEOUT}
            if "sentinels" in options:
                options["sentinel_kwargs"] = timeouts
            # Two stacks may share a Redis.
            prefix = f"redbeat:{choices['stack']}:"
            settings |= {
                "beat_max_loop_interval": int(choices["max_interval"]),
                "redbeat_lock_timeout": int(choices["lock_timeout"]),
                "redbeat_key_prefix": prefix,
                # RedBeat's own name for it; a project that says None would have no lock.
                "redbeat_lock_key": f"{prefix}:lock",
                "redbeat_redis_url": url,
                "redbeat_redis_options": {**options, **timeouts},
            }
        return {**settings, **choices["own"]}
    except KeyError as missing:
        raise AnsibleFilterError(f"celery_settings needs or does not know {missing}.") from missing


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"celery_settings": celery_settings}
