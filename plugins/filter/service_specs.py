# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What runs on a host: groups and choices in, service specs out.

A spec is data and knows no process manager:

    name: str, as in `systemctl status NAME`.
    description: str, for people.
    argv: list of str; the program is an absolute path.
    listen: list of ADDRESS:PORT for which the manager holds the socket; empty for most.
    notifies: bool, the program speaks sd_notify.
    ready: list of str, a command that succeeds once the service works; empty when there is none.
    settle: float, seconds for which it must stay up to count as started.
    start_timeout, stop_timeout: int, seconds.
    stop_signal: str without SIG; sent to the main process alone.
    memory_max: str such as "512M"; empty for no limit. tasks_max: int.
    scheduler: bool, the one in the fleet.
    after: list of what should be up before it on the same host: "redis", "postgresql".
"""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleFilterError

Spec = dict[str, Any]

DOCUMENTATION = r"""
name: service_specs
short_description: Say which services run on a host
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Turns a host's groups and the stack's choices into service specs, which know no process manager.
options:
  _input:
    description: The choices, as C(roles/services/vars/main.yml) puts them together.
    type: dict
    required: true
"""

EXAMPLES = r"""
specs: "{{ __services_choices | service_specs }}"
"""

RETURN = r"""
_value:
  description:
    - C(services) is the list of specs of this host, the scheduler last.
    - C(absent) names the schedulers that must not be able to run here.
  type: dict
"""

SCHEDULERS = ("celery-beat", "huey-periodic")
DEFAULT_POOL = "default"
# What this bundle itself installs on a host, and a service therefore starts after.
OURS = ("redis", "rabbitmq", "postgresql")


def spec(name: str, description: str, argv: list[str], **more: Any) -> Spec:
    """Return a spec with the defaults of everything that is not given."""
    return {
        "name": name,
        "description": description,
        "argv": argv,
        "listen": [],
        "notifies": False,
        "ready": [],
        "settle": 3.0,
        "start_timeout": 90,
        "stop_signal": "TERM",
        "stop_timeout": 30,
        "memory_max": "",
        "tasks_max": 512,
        "scheduler": False,
        "after": [],
        **more,
    }


def worker_service_name(pool: str) -> str:
    """Return the service name of a Celery pool; the default pool has no suffix."""
    return "celery-worker" if pool == DEFAULT_POOL else f"celery-worker-{pool}"


def worker_node_name(pool: str, host: str) -> str:
    """Return the Celery node name of a pool, unique in the fleet."""
    return f"{'celery' if pool == DEFAULT_POOL else pool}@{host}"


def worker_nodes(pools: list[dict[str, Any]], hosts: list[str]) -> list[str]:
    """Return the Celery node names of all pools on all hosts."""
    return [worker_node_name(pool["name"], host) for host in hosts for pool in pools]


def words(value: str | list[str]) -> list[str]:
    """Return extra arguments as a list, whichever way they were written."""
    return shlex.split(value) if isinstance(value, str) else [str(one) for one in value]


def worker(choices: dict[str, Any], pool: dict[str, Any]) -> Spec:
    """Return the spec of one Celery worker pool."""
    celery = [f"{choices['bin']}/celery", "-A", choices["celery_app"]]
    node = worker_node_name(pool["name"], choices["host"])
    queues = ",".join(pool["queues"])
    argv = [*celery, "worker", "--hostname", node, "--queues", queues]
    argv += ["--loglevel", choices["celery_loglevel"]]
    for key, option in (
        ("concurrency", "--concurrency"),
        ("pool", "--pool"),
        ("max_tasks_per_child", "--max-tasks-per-child"),
        ("time_limit", "--time-limit"),
        ("soft_time_limit", "--soft-time-limit"),
        ("prefetch_multiplier", "--prefetch-multiplier"),
        ("autoscale", "--autoscale"),
    ):
        if pool.get(key):
            argv += [option, str(pool[key])]
    argv += words(choices["celery_worker_extra_args"]) + words(pool.get("extra_args") or [])
    # A task may run until its hard limit; the rest of a minute is for Celery to put things away.
    limit = int(pool.get("time_limit") or 0)
    return spec(
        worker_service_name(pool["name"]),
        f"Celery worker (queues: {', '.join(pool['queues'])})",
        argv,
        ready=[*celery, "inspect", "ping", "--destination", node, "--timeout", "2"],
        stop_timeout=limit + 60 if limit else int(choices["celery_worker_stop_timeout"]),
        memory_max=pool.get("memory_max") or "",
        tasks_max=4096,
    )


def beat(choices: dict[str, Any]) -> Spec:
    """Return the spec of the one Celery scheduler."""
    return spec(
        "celery-beat",
        "Celery beat, the one scheduler of the fleet",
        [f"{choices['bin']}/celery", "-A", choices["celery_app"], "beat"]
        # Without a name, beat keeps a pid file that outlives a crash and stops the next start.
        + ["--pidfile=", "--schedule", f"{choices['state_dir']}/celerybeat-schedule"]
        + ["--loglevel", choices["celery_loglevel"], *words(choices["celery_beat_extra_args"])],
        memory_max=choices["celery_beat_memory_max"],
        scheduler=True,
    )


def flower(choices: dict[str, Any]) -> Spec:
    """Return the spec of Flower; its credentials are in the environment file."""
    return spec(
        "flower",
        "Flower, the view on the workers",
        [f"{choices['bin']}/celery", "-A", choices["celery_app"], "flower"]
        + [f"--address={choices['flower_listen_address']}", f"--port={choices['flower_port']}"]
        + ["--persistent=True", f"--db={choices['state_dir']}/flower.db"]
        + ["--state_save_interval=60000", f"--max_tasks={choices['flower_max_tasks']}"]
        + [f"--purge_offline_workers={choices['flower_purge_offline_workers']}"]
        + ([f"--url_prefix={choices['flower_url_prefix']}"] if choices["flower_url_prefix"] else [])
        + words(choices["flower_extra_args"]),
        memory_max=choices["flower_memory_max"],
    )


def web(choices: dict[str, Any]) -> Spec:
    """Return the spec of the web server; the process manager holds its socket."""
    application = choices["app_wsgi"] or choices["app_asgi"]
    asgi = [] if choices["app_wsgi"] else ["--worker-class", "uvicorn.workers.UvicornWorker"]
    return spec(
        "web",
        f"web server on {choices['web_listen']}",
        [f"{choices['bin']}/gunicorn", application, *asgi]
        + ["--workers", str(choices["web_workers"]), "--threads", str(choices["web_threads"])]
        + ["--timeout", str(choices["web_timeout"])]
        + ["--graceful-timeout", str(choices["web_timeout"]), "--worker-tmp-dir", "/dev/shm"]  # noqa: S108
        + words(choices["web_extra_args"]),
        listen=[choices["web_listen"]],
        notifies=True,
        stop_timeout=int(choices["web_timeout"]) + 10,
        memory_max=choices["web_memory_max"],
    )


def with_custom_command(one: Spec, choices: dict[str, Any]) -> Spec:
    """Replace a service's argv by the operator's own; its supervision stays."""
    custom = choices["custom_commands"].get(one["name"])
    if not custom:
        return one
    program, *rest = words(custom)
    # A bare name is a program of the project's environment, never one from the system's PATH.
    path = program if "/" in program else f"{choices['bin']}/{program}"
    return {**one, "argv": [path, *rest], "ready": [], "notifies": False}


def service_specs(choices: dict[str, Any]) -> dict[str, Any]:
    """Say which services run on a host.

    Args:
        choices: `groups` (list of the host's groups) and the variables that the specs need.

    Returns:
        `services`: the host's specs, the scheduler last; `absent`: names of schedulers that must
        not be able to run here.

    Raises:
        AnsibleFilterError: a choice is missing or unknown.
    """
    groups = set(choices["groups"])
    if choices["task_queue"] not in ("celery", "none"):
        # An empty set would stop everything that runs.
        raise AnsibleFilterError(f"service_specs knows no task queue {choices['task_queue']!r}.")
    try:
        services: list[Spec] = [web(choices)] if "web" in groups else []
        if choices["task_queue"] == "celery":
            if "workers" in groups:
                services += [worker(choices, pool) for pool in choices["celery_worker_pools"]]
            if "flower" in groups:
                services.append(flower(choices))
            if "scheduler" in groups:
                services.append(beat(choices))
    except KeyError as missing:
        raise AnsibleFilterError(f"service_specs needs {missing}.") from missing

    local = {"brokers": choices["broker"], "database": choices["database"]}
    after = [local[group] for group in sorted(groups & local.keys()) if local[group] in OURS]
    services = [with_custom_command({**one, "after": after}, choices) for one in services]
    here = {one["name"] for one in services}
    return {
        "services": services,
        "absent": [name for name in SCHEDULERS if name not in here],
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {
            "service_specs": service_specs,
            "worker_nodes": worker_nodes,
            "split_command": words,
        }
