# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What runs on a host: groups and choices in, service specs out.

A spec is data and knows no process manager:

    name: str, as in `systemctl status NAME`.
    description: str, for people.
    before: list of argv, run one after the other as the service's user with its environment;
        each must succeed before the program is started.
    argv: list of str; the program is an absolute path.
    listen: list of ADDRESS:PORT for which the manager holds the socket; empty for most.
    notifies: bool, the program speaks sd_notify.
    ready: list of str, a command that succeeds once the service works; empty when there is none.
    health: dict with `address` (ADDRESS:PORT), `path` and `status` (list of int): what the new
        process must answer over HTTP to count as started; empty when it answers nothing.
    settle: float, seconds for which it must stay up to count as started where it has neither.
    start_timeout, stop_timeout: int, seconds.
    stop_signal: str without SIG; sent to the main process alone.
    handover: bool, at a restart the new process starts at once, while the old one finishes its
        work, for stop_timeout seconds at the most.
    memory_max: str such as "512M"; empty for no limit. tasks_max: int.
    scheduler: bool, the one in the fleet.
    memory: str, start of the paths of files that hold what the scheduler has sent; they count
        only on the host that scheduled last. Empty for none.
    engine: str, what keeps it the one on several hosts: "redbeat" or "pacemaker"; else empty.
    after: list of what should be up before it on the same host: "redis", "postgresql".
    environment: dict of str, not secret; the environment file wins over it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

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
    - C(forget) holds patterns of the files that these left.
    - C(memory) says how much the services may use, in bytes.
  type: dict
"""

SCHEDULERS = ("celery-beat", "huey-periodic")
# When beat last sent what, in the state directory; Python adds suffixes of its own.
BEAT_SCHEDULE = "celerybeat-schedule"
DEFAULT_POOL = "default"
# The environment variable that tells templates/stack_celery.py where to say that a process works.
READY_FILE = "STACK_READY_FILE"
# Seconds that a beat with a lock waits for the broker before it starts, and is started anew.
REDBEAT_WAIT = 60
# What this bundle itself installs on a host, and a service therefore starts after.
OURS = ("redis", "rabbitmq", "postgresql")
# Where a broker listens whose URL names no port.
BROKER_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "amqp": 5672, "amqps": 5671}


def spec(name: str, description: str, argv: list[str], **more: Any) -> Spec:
    """Return a spec with the defaults of everything that is not given."""
    return {
        "name": name,
        "description": description,
        "before": [],
        "argv": argv,
        "listen": [],
        "notifies": False,
        "ready": [],
        "health": {},
        "settle": 3.0,
        "start_timeout": 90,
        "stop_signal": "TERM",
        "stop_timeout": 30,
        "handover": False,
        "memory_max": "",
        "tasks_max": 512,
        "scheduler": False,
        "engine": "",
        "memory": "",
        "after": [],
        "environment": {},
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


def command(value: str | list[str], choices: dict[str, Any]) -> list[str]:
    """Return the argv of an operator's command.

    A bare name is a program of the project's environment, never one from the system's PATH.
    """
    program, *rest = words(value)
    return [program if "/" in program else f"{choices['bin']}/{program}", *rest]


def broker_address(url: str) -> tuple[str, int] | None:
    """Return host and port of a broker's URL, the first of several; None for one without a host."""
    first = urlsplit(url.partition(";")[0])
    try:
        port = first.port or BROKER_PORTS.get(first.scheme)
    except ValueError:
        # Its own words would print what may be a piece of the password.
        raise AnsibleFilterError("The broker's URL has no valid port.") from None
    return (first.hostname, port) if first.hostname and port else None


def with_broker(one: Spec, choices: dict[str, Any], at_least: int = 0) -> Spec:
    """Let a service wait for the broker's port before it starts, for some seconds at least."""
    seconds = max(int(choices["wait_for_broker"]), at_least)
    address = broker_address(choices["broker_url"]) if seconds else None
    if not address:
        return one
    # The URL's password stays out of the command: it is not needed to see the port open.
    connect = 'until { : >"/dev/tcp/$0/$1"; } 2>/dev/null; do sleep 1; done'
    wait = ["/usr/bin/timeout", str(seconds), "/bin/bash", "-c", connect, *map(str, address)]
    return {
        **one,
        "before": [wait, *one["before"]],
        "start_timeout": one["start_timeout"] + seconds,
    }


# Like `celery inspect ping`, which takes the first answer: a former worker that goes on beside this
# one has the same node name.
NODE_ANSWERS = "; ".join(
    [
        "import sys",
        "from celery.app.utils import find_app",
        "app, node = sys.argv[1:]",
        "drains = lambda pid: '-draining-' in open(f'/proc/{pid}/cgroup').read()",
        "told = lambda said: [sys.exit() for one in said.values() if not drains(one['pid'])]",
        "more = dict(reply=True, timeout=2, limit=9, callback=told)",
        "find_app(app).control.broadcast('stats', destination=[node], **more)",
        "sys.exit(1)",
    ]
)
# Celery's processes tell by themselves that they work: templates/stack_celery.py writes into a file
# that is empty until then. Of one that has not after ten seconds, another command decides.
HAS_TOLD = """
[ ! -s "$0" ] || exit 0
[ -z "$(find "$0" -newermt '10 seconds ago')" ] || exit 1
exec "$@"
"""


def telling(name: str, choices: dict[str, Any], *otherwise: str) -> dict[str, Any]:
    """Return what a spec has so that its process tells when it works.

    Args:
        name: the service.
        choices: as `service_specs` takes them.
        otherwise: the command that decides about one that does not tell.
    """
    file = f"{choices['state_dir']}/{name}.ready"
    return {
        "before": [["/bin/sh", "-c", ': >"$0"', file]],
        "ready": ["/bin/sh", "-c", HAS_TOLD.strip(), file, *otherwise],
        "environment": {READY_FILE: file},
    }


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
    name = worker_service_name(pool["name"])
    # To ask costs a second of CPU each time.
    asks = [f"{choices['bin']}/python", "-c", NODE_ANSWERS, choices["celery_app"], node]
    return spec(
        name,
        f"Celery worker (queues: {', '.join(pool['queues'])})",
        argv,
        **telling(name, choices, *asks),
        stop_timeout=limit + 60 if limit else int(choices["celery_worker_stop_timeout"]),
        handover=choices["celery_worker_handover"] == "overlap",
        memory_max=pool.get("memory_max") or "",
        tasks_max=4096,
    )


def keeps_schedule_file(choices: dict[str, Any]) -> bool:
    """Return whether beat runs here and remembers in a file when it sent what."""
    return (
        choices["task_queue"] == "celery"
        and choices["host"] in choices["scheduler_hosts"]
        and choices["engine"] != "redbeat"
        # What the project itself has chosen may be a file.
        and choices["celery_beat_scheduler"] in ("project", "file")
    )


# Asks the beats on the broker, each of which answers under its host's name. Whoever has started
# here once since the boot does not ask: a crash must not cost these seconds.
ASK_FIRST = """
flag=$0 me=$1
shift
[ ! -e "$flag" ] || exit 0
code=0
said=$("$@" inspect ping --json --timeout 5 2>&1) || code=$?
others=$(printf %s "$said" | grep -o 'celerybeat@[^"]*' | grep -vxF "$me" | sort -u | xargs)
if [ -n "$others" ]; then
    echo "This host does not schedule: $others does. After a boot it asks before it starts." >&2
    exit 76
fi
case $code:$said in
0:* | 69:*'No nodes replied'*) : >"$flag" ;;
*) printf '%s\n' "$said" >&2; exit "$code" ;;
esac
"""


def ask_first(choices: dict[str, Any]) -> list[list[str]]:
    """Return the commands that keep a host from scheduling which comes back after it was replaced.

    What /run/lock holds is gone after a boot. 69 is Celery's status when nobody answers, but also
    when the broker does not (handle_remote_command_error): then who schedules is not known.
    """
    if choices["engine"] or not choices["celery_app"]:
        return []
    flag = f"/run/lock/{choices['state_dir'].rpartition('/')[2]}-has-scheduled"
    celery = [f"{choices['bin']}/celery", "-A", choices["celery_app"]]
    return [["/bin/sh", "-c", ASK_FIRST.strip(), flag, f"celerybeat@{choices['host']}", *celery]]


def beat(choices: dict[str, Any]) -> Spec:
    """Return the spec of the one Celery scheduler; which one that is, its settings say."""
    redbeat = choices["engine"] == "redbeat"
    memory = ""
    if keeps_schedule_file(choices):
        memory = f"{choices['state_dir']}/{BEAT_SCHEDULE}"
    # One that stands by tells nothing. One that has not told for ten seconds, but runs, works too.
    told: dict[str, Any] = {} if choices["engine"] else telling("celery-beat", choices, "true")
    return spec(
        "celery-beat",
        "Celery beat, " + ("the one or a standby" if redbeat else "the one scheduler of the fleet"),
        [f"{choices['bin']}/celery", "-A", choices["celery_app"], "beat"]
        # Without a name, beat keeps a pid file that outlives a crash and stops the next start.
        + ["--pidfile=", *(["--schedule", memory] if memory else [])]
        + ["--loglevel", choices["celery_loglevel"], *words(choices["celery_beat_extra_args"])],
        **{**told, "before": [*ask_first(choices), *told.get("before", [])]},
        memory=memory,
        memory_max=choices["celery_beat_memory_max"],
        scheduler=True,
        engine=choices["engine"],
    )


def events(choices: dict[str, Any]) -> Spec:
    """Return the spec of the camera that stores snapshots of Celery's events."""
    return spec(
        "celery-events",
        "Celery events camera",
        [f"{choices['bin']}/celery", "-A", choices["celery_app"], "events", "--pidfile="]
        + ["--camera", choices["celery_events_camera"]]
        + ["--frequency", str(choices["celery_events_frequency"])]
        + ["--loglevel", choices["celery_loglevel"]],
        memory_max=choices["celery_events_memory_max"],
    )


def huey(name: str, description: str, choices: dict[str, Any], *own: str, **more: Any) -> Spec:
    """Return the spec of a Huey consumer; OWN are its arguments beside those of every consumer.

    Huey has two commands that take the same options: its own, which is given the instance, and
    Django's, which finds it in the settings.
    """
    argv = [f"{choices['bin']}/huey_consumer", choices["app_huey"]]
    if not choices["app_huey"]:
        argv = [*command(choices["app_manage"], choices), "run_huey"]
    return spec(
        name,
        description,
        [*argv, *own],
        # Any other signal cuts the running tasks off.
        stop_signal="INT",
        stop_timeout=int(choices["huey_stop_timeout"]),
        settle=5.0,
        tasks_max=4096,
        **more,
    )


def huey_worker(choices: dict[str, Any]) -> Spec:
    """Return the spec of a Huey consumer that never schedules."""
    workers, kind = str(choices["huey_workers"]), choices["huey_worker_type"]
    return huey(
        "huey-worker",
        f"Huey worker ({workers} of type {kind})",
        choices,
        *("--no-periodic", "--workers", workers, "--worker-type", kind),
        *words(choices["huey_worker_extra_args"]),
        handover=choices["huey_worker_handover"] == "overlap",
        memory_max=choices["huey_worker_memory_max"],
    )


def huey_periodic(choices: dict[str, Any]) -> Spec:
    """Return the spec of the one Huey consumer that schedules."""
    workers = int(choices["huey_periodic_workers"])
    # Without workers of its own it only schedules, in a thread and so in its one process.
    kind = choices["huey_worker_type"] if workers else "thread"
    return huey(
        "huey-periodic",
        "Huey's periodic tasks, the one scheduler of the fleet",
        choices,
        *("--workers", str(workers), "--worker-type", kind),
        *words(choices["huey_periodic_extra_args"]),
        # It looks at the crontab when it starts and every 60 seconds from then on, and does not
        # know what a predecessor has done in this minute. Started five seconds into a minute, as
        # every predecessor, it repeats none; one is left out only when the predecessor was stopped
        # between that second and its first look. Five seconds are margin for clocks that differ.
        before=[["/bin/sh", "-c", "exec sleep $(((65 - $(date +%s) % 60) % 60))"]],
        start_timeout=60 + 90,
        memory_max=choices["huey_periodic_memory_max"],
        scheduler=True,
        engine=choices["engine"],
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
        health={
            "address": choices["web_listen"],
            "path": choices["web_health_path"],
            "status": [int(one) for one in choices["web_health_status"]],
        },
        stop_timeout=int(choices["web_timeout"]) + 10,
        handover=True,
        memory_max=choices["web_memory_max"],
    )


def with_custom_command(one: Spec, choices: dict[str, Any]) -> Spec:
    """Replace a service's argv by the operator's own; its supervision stays."""
    custom = choices["custom_commands"].get(one["name"])
    if not custom:
        return one
    return {**one, "argv": command(custom, choices), "ready": [], "notifies": False}


def makers(choices: dict[str, Any]) -> dict[str, Callable[[], Spec]]:
    """Return the name of each service of a host with what makes its spec, the scheduler last.

    Of the choices it needs those alone that decide which services there are.

    Raises:
        AnsibleFilterError: the task queue is unknown.
    """
    queue, groups, hosts = choices["task_queue"], set(choices["groups"]), choices["scheduler_hosts"]
    schedules = choices["host"] in hosts
    if queue not in ("celery", "huey", "none"):
        # An empty set would stop everything that runs.
        raise AnsibleFilterError(f"service_specs knows no task queue {queue!r}.")

    def waiting(make: Callable[..., Spec], *args: Any, wait: int = 0) -> Callable[[], Spec]:
        return lambda: with_broker(make(choices, *args), choices, wait)

    found: dict[str, Callable[[], Spec]] = {}
    if "web" in groups:
        found["web"] = partial(web, choices)
    if queue == "celery":
        if "workers" in groups:
            for pool in choices["celery_worker_pools"]:
                found[worker_service_name(pool["name"])] = waiting(worker, pool)
        if "flower" in groups:
            found["flower"] = partial(flower, choices)
        if schedules:
            # One camera is enough: a second one would store every event twice.
            if choices["celery_events_camera"] and hosts[0] == choices["host"]:
                found["celery-events"] = waiting(events)
            # RedBeat takes its lock before it connects to the broker: while it tried that, the
            # lock could go to another one, and what it then sent would be sent twice.
            wait = REDBEAT_WAIT if choices["engine"] == "redbeat" else 0
            found["celery-beat"] = waiting(beat, wait=wait)
    elif queue == "huey":
        if "workers" in groups:
            found["huey-worker"] = waiting(huey_worker)
        if schedules:
            found["huey-periodic"] = waiting(huey_periodic)
    return found


def census_options(choices: dict[str, Any], prefix: str) -> dict[str, list[str]]:
    """Return what the census of a host asks for.

    Args:
        choices: as `service_specs` takes them. Only a few are read: what Ansible has not yet
            templated costs nothing.
        prefix: what the names of the stack's services begin with.

    Returns:
        `programs` and `units`, of every scheduler there could be; `names`, of every service that
        the stack makes or forbids on this host; as the module scheduler_census takes them.
    """
    programs = [f"{prefix}{name}" for name in SCHEDULERS]
    names = dict.fromkeys([*makers(choices), *SCHEDULERS])
    return {
        "programs": programs,
        "units": [f"{name}.service" for name in programs],
        "names": [f"{prefix}{name}" for name in names],
    }


def service_specs(choices: dict[str, Any]) -> dict[str, Any]:
    """Say which services run on a host.

    Args:
        choices: `groups` (list of the host's groups), `scheduler_hosts` (list of the hosts that
            shall schedule) and the variables that the specs need.

    Returns:
        `services`: the host's specs, the scheduler last; `absent`: names of schedulers that must
        not be able to run here; `forget`: patterns of the files that these left. A beat that comes
        back to a host would send at once all that has been due since it left. `memory`: see
        `memory_needs`.

    Raises:
        AnsibleFilterError: a choice is missing or unknown.
    """
    try:
        services = [make() for make in makers(choices).values()]
        groups = set(choices["groups"])
        local = {"brokers": choices["broker"], "database": choices["database"]}
    except KeyError as missing:
        raise AnsibleFilterError(f"service_specs needs {missing}.") from missing

    after = [local[group] for group in sorted(groups & local.keys()) if local[group] in OURS]
    services = [with_custom_command({**one, "after": after}, choices) for one in services]
    here = {one["name"] for one in services}
    forget = [] if keeps_schedule_file(choices) else [f"{choices['state_dir']}/{BEAT_SCHEDULE}*"]
    return {
        "services": services,
        "absent": [name for name in SCHEDULERS if name not in here],
        "forget": forget,
        "memory": memory_needs(services),
    }


def memory_bytes(size: str) -> int:
    """Return the bytes of a limit such as "512M"; 0 for none, and for a share of the memory."""
    found = re.fullmatch(r"([0-9]+)([KMGT]?)", size)
    return int(found[1]) * 1024 ** " KMGT".index(found[2] or " ") if found else 0


def memory_needs(services: list[Spec]) -> dict[str, Any]:
    """Return the memory that the services of a host may use, as far as they have a limit.

    Returns:
        `once`: bytes of all of them; `beside`: bytes more when those that are handed over run
        twice; `choice`: the variable that says whether they do.
    """
    needs = [(memory_bytes(one["memory_max"]), one["handover"]) for one in services]
    is_huey = any(one["name"].startswith("huey") for one in services)
    return {
        "once": sum(size for size, _ in needs),
        "beside": sum(size for size, handover in needs if handover),
        "choice": f"{'huey' if is_huey else 'celery'}_worker_handover",
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {
            "service_specs": service_specs,
            "census_options": census_options,
            "worker_nodes": worker_nodes,
            "split_command": words,
        }
