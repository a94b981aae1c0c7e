# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Fleet preflight: all that stands against deploying an inventory, as sentences.

Reads variables and groups only: no facts, no connection, no change. Everything is counted over the
whole inventory, so that ``--limit`` cannot hide a second scheduler.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import ansible.module_utils
import ansible.plugins
from ansible.errors import AnsibleError
from ansible.module_utils.common.parameters import DEFAULT_TYPE_VALIDATORS
from ansible.template import Templar, trust_as_template

DOCUMENTATION = r"""
name: fleet_problems
short_description: Say what stands against deploying an inventory
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Judges the groups and variables of the whole inventory. Needs no facts and connects to no host.
  - The filter C(role_specs) beside it reads the argument specs of all roles in a directory.
positional: groups, specs, computed
options:
  _input:
    description: The variables of every host, as in C(hostvars).
    type: dict
    required: true
  groups:
    description: The hosts of every group, as in C(groups).
    type: dict
    required: true
  specs:
    description: Role, entry point, argument spec; what C(role_specs) returns.
    type: dict
    required: true
  computed:
    description: Variables that the roles compute, as templates; an inventory may use them.
    type: dict
    required: true
"""

EXAMPLES = r"""
problems: "{{ hostvars | fleet_problems(groups, 'roles' | role_specs, computed) }}"
# => ["stack_broker 'redsi' is none of redis, rabbitmq, sqlite, external; did you mean 'redis'?"]
"""

RETURN = r"""
_value:
  description: A sentence for each thing to correct, worst first; empty if there is none.
  type: list
  elements: str
"""

ROOT = Path(__file__).resolve().parents[2]

# Ansible puts a project's module_utils before modules only, not before filters.
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))
ansible.plugins.__path__.append(str(ROOT / "plugins"))
from ansible.module_utils.scheduler_processes import scheduler_kind  # noqa: E402
from ansible.plugins.plugin_utils.role_specs import role_specs  # noqa: E402

Option = Mapping[str, Any]
GROUPS = ("brokers", "database", "lock", "web", "workers", "scheduler", "flower")
APP_GROUPS = ("web", "workers", "scheduler", "flower")

# Which task queue works with which broker. A foreign one is known by its URL's scheme.
BROKERS = {"celery": ("redis", "rabbitmq", "external"), "huey": ("redis", "sqlite", "external")}
SCHEMES = {
    **dict.fromkeys(("redis", "rediss", "sentinel"), "redis"),
    **dict.fromkeys(("amqp", "amqps", "pyamqp"), "rabbitmq"),
    "sqlite": "sqlite",
}

# Choices that make sense only when all hosts agree; the process manager may differ.
FLEET_WIDE = (
    "stack_name",
    "stack_task_queue",
    "stack_broker",
    "stack_database",
    "stack_scheduler_mode",
    "stack_scheduler_engine",
    "celery_beat_scheduler",
)

# The services whose command is meant to schedule -> what does.
SCHEDULERS = {
    "celery-beat": "let it run celery beat",
    "huey-periodic": "let it run Huey's consumer without --no-periodic",
}
# Programs that schedule only when they are told so.
TASK_PROGRAMS = {"celery", "huey_consumer", "huey_consumer.py", "run_huey"}

# Each host has a vote: an even number outlives no more failures than the odd one below it.
QUORUM_SIZES = (3, 5, 7)

# RedBeat extends its lock once a loop and sends what is due afterwards (RedBeatScheduler.tick). A
# lock that does not outlast both is lost each time (celery-redbeat #129): it is to last a loop of
# sleep, another of sending, and the seconds that Redis may take to answer (celery_settings.py).
REDIS_TIMEOUT = 2

# A scheduler under Pacemaker has so much less than the margin to stop (roles/pacemaker).
PACEMAKER_STOP = 2
AUTHKEY_LENGTH = 32

# Options of `celery beat` that set aside what this bundle tells it -> what to do.
BEAT_OPTIONS = {
    "--scheduler": "use celery_beat_scheduler",
    "--schedule": "remove it",
    "--pidfile": "remove it",
    "--hostname": "remove it",
    "--no-enable-remote-control": "remove it",
    "--detach": "remove it",
}
# The same of RedBeat, in any command.
REDBEAT_OPTIONS = {
    "--scheduler": "use celery_beat_scheduler",
    "--max-interval": "use celery_beat_max_interval",
}
BEAT_LETTERS = {"-S": "--scheduler", "-s": "--schedule", "-n": "--hostname"}
# Celery reads an option from the environment as well (click's auto_envvar_prefix).
BEAT_ENVIRONMENT = {
    "CELERY_BEAT_SCHEDULER": "use celery_beat_scheduler",
    "CELERY_BEAT_HOSTNAME": "remove it",
    "CELERY_BEAT_REMOTE_CONTROL": "remove it",
    "CELERY_BEAT_DETACH": "remove it",
    "STACK_CELERY_SETTINGS": "use celery_settings",
}
REDBEAT_ENVIRONMENT = {
    "CELERY_BEAT_MAX_INTERVAL": "use celery_beat_max_interval",
    "CELERY_LOADER": "remove it, or choose stack_scheduler_mode 'static'",
}

# Celery's settings that an operator cannot take from this bundle -> what to do.
CELERY_SETTINGS = {
    **dict.fromkeys(
        ("broker_url", "broker_read_url", "broker_write_url"),
        "use stack_broker or stack_broker_external_url",
    ),
    "beat_enable_remote_control": "remove it",
    "beat_sync_every": "remove it",
}
# Those by which RedBeat's beats take turns.
REDBEAT_SETTINGS = {
    "beat_scheduler": "use celery_beat_scheduler",
    "beat_max_loop_interval": "use celery_beat_max_interval",
    "redbeat_lock_timeout": "use celery_beat_lock_timeout",
    "redbeat_lock_key": "remove it",
    "redbeat_key_prefix": "remove it",
}
URL_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]+@")

# What sets aside the address or the credentials that Flower is given -> what to use.
FLOWER_OPTIONS = {
    "address": "flower_listen_address",
    "unix_socket": "flower_listen_address",
    "basic_auth": "flower_user and flower_password",
    "cookie_secret": "flower_cookie_secret",
}

# Variables by which projects let tasks run at once, where they are called.
EAGER = {
    "celery": ("CELERY_TASK_ALWAYS_EAGER", "CELERY_ALWAYS_EAGER"),
    "huey": ("HUEY_IMMEDIATE",),
}
TRUE = {"1", "on", "t", "true", "y", "yes"}

# What all hosts with the project must have in common, beside what the choices say.
ENVIRONMENT = (
    "app_settings_module",
    "stack_broker_external_url",
    "stack_database_external_url",
    "app_env",
    "app_secret_env",
)

# What an inventory may use, but not set -> what it may set.
COMPUTED = {
    "stack_broker_url": "stack_broker, or stack_broker_external_url",
    "stack_cache_url": "redis_cache_database",
    "stack_database_url": "stack_database, or stack_database_external_url",
}

# Variables that begin so are ours: one that no role knows is a mistake. With each, the groups
# whose hosts read it.
PREFIXES: Mapping[str, Sequence[str]] = {
    "stack_": GROUPS,
    "app_": APP_GROUPS,
    "celery_": APP_GROUPS,
    "huey_": APP_GROUPS,
    "web_": ("web",),
    "flower_": ("flower",),
    "redis_": ("brokers", "lock", *APP_GROUPS),
    "rabbitmq_": ("brokers", *APP_GROUPS),
    "postgresql_": ("database", *APP_GROUPS),
    "pacemaker_": ("scheduler",),
    "services_": APP_GROUPS,
    "process_manager_": APP_GROUPS,
    "verify_": GROUPS,
    "locks_": GROUPS,
    "preflight_": GROUPS,
}

NAMES = {
    "stack_name": (
        r"[a-z][a-z0-9-]{0,30}",
        "1 to 31 lower-case letters, digits and dashes, beginning with a letter",
    ),
    "stack_unit_prefix": (r"[a-z0-9-]*", "lower-case letters, digits and dashes"),
}
POOL_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
SECRET = re.compile(r".*_(password|secret|secret_key)")
PLACEHOLDER = re.compile(r"\s*change[ _-]?me", re.IGNORECASE)


@dataclass(frozen=True)
class Host:
    """What the inventory says about one host.

    Attributes:
        name: its inventory name.
        raw: the variables of ours that it sets, as written.
        values: what the roles will read, their defaults included, without the unreadable ones.
        unreadable: variable -> why it cannot be templated; "" if it only waits for facts.
        later: defaults that are templates, and that nobody has asked for yet: each costs a
            millisecond, on every host.
        template: template -> its value on this host; may raise AnsibleError.
    """

    name: str
    raw: Mapping[str, Any]
    values: dict[str, Any]
    unreadable: dict[str, str]
    later: dict[str, str]
    template: Callable[[Any], Any]

    def get(self, variable: str) -> Any:
        """Return the variable's value, None without one."""
        if variable in self.later:
            try:
                self.values[variable] = self.template(self.later.pop(variable))
            except AnsibleError:
                self.unreadable[variable] = ""  # A default need not be wrong.
        return self.values.get(variable)

    def can_read(self, variable: str) -> bool:
        """Say whether the variable's value is known, if only that it has none."""
        self.get(variable)
        return variable not in self.unreadable

    def lacks(self, variable: str) -> bool:
        """Say whether the variable is known to be empty."""
        return self.can_read(variable) and self.get(variable) in (None, "", [], {})

    def mapping(self, variable: str) -> Mapping[str, Any]:
        """Return the variable's value if it is a mapping, else an empty one."""
        value = self.get(variable)
        return value if isinstance(value, Mapping) else {}

    def pools(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield each worker pool after what to call it; other types are not this one's concern."""
        for index, pool in enumerate(_items(self.get("celery_worker_pools"))):
            if isinstance(pool, Mapping):
                yield f"celery_worker_pools[{_label(pool, index)}]", pool


@dataclass(frozen=True)
class Fleet:
    """The inventory as the rules see it.

    Attributes:
        groups: every group of the inventory -> its hosts.
        hosts: the hosts in at least one of our groups (all hosts if no group of ours has any).
        options: every known variable -> its argument spec.
    """

    groups: Mapping[str, Sequence[str]]
    hosts: Mapping[str, Host]
    options: Mapping[str, Option]

    def group(self, *names: str) -> list[str]:
        """Return the hosts in any of the groups, each once, in inventory order."""
        return list(dict.fromkeys(host for name in names for host in self.groups.get(name, ())))

    def choice(self, variable: str) -> Any:
        """Return a fleet-wide choice: the first host's."""
        return next((host.get(variable) for host in self.hosts.values()), None)

    def broker(self, host: Host) -> str:
        """Return "redis", "rabbitmq" or "sqlite", also of a foreign broker; "" if unknown."""
        choice = str(host.get("stack_broker"))
        scheme = str(host.get("stack_broker_external_url") or "").partition(":")[0]
        return SCHEMES.get(scheme, "") if choice == "external" else choice

    def engine(self) -> str:
        """Return what chooses the active scheduler in failover mode; "" in static mode."""
        is_static = self.choice("stack_scheduler_mode") != "failover"
        if is_static or self.choice("stack_task_queue") == "none":
            return ""
        return str(self.choice("stack_scheduler_engine"))

    def has_redbeat(self) -> bool:
        """Say whether Celery's beat is RedBeat, in failover mode or by choice."""
        return self.choice("stack_task_queue") == "celery" and (
            self.engine() == "redbeat" or self.choice("celery_beat_scheduler") == "redbeat"
        )

    def lock_hosts(self) -> list[str]:
        """Return the hosts with a Redis of ours for RedBeat, which without one uses the broker."""
        if not self.has_redbeat():
            return []
        is_rabbitmq = self.choice("stack_broker") == "rabbitmq"
        return self.group("lock") or (self.group("brokers") if is_rabbitmq else [])

    def servers(self) -> dict[str, str]:
        """Return group -> the choice that asks for a server of ours there."""
        return {
            group: variable
            for group, variable, is_ours in (
                (
                    "brokers",
                    "stack_broker",
                    self.choice("stack_broker") in ("redis", "rabbitmq")
                    and self.choice("stack_task_queue") != "none",
                ),
                ("database", "stack_database", self.choice("stack_database") == "postgresql"),
            )
            if is_ours
        }

    def reads(self, host: Host, variable: str) -> bool:
        """Say whether anything on the host reads the variable under the present choices."""
        has_own_redis = "brokers" in self.servers() and self.choice("stack_broker") == "redis"
        chosen = {
            "redis_": has_own_redis or bool(self.lock_hosts()),
            "rabbitmq_": "brokers" in self.servers() and self.choice("stack_broker") == "rabbitmq",
            "postgresql_": "database" in self.servers(),
            "celery_": self.choice("stack_task_queue") == "celery",
            "huey_": self.choice("stack_task_queue") == "huey",
            "flower_": self.choice("stack_task_queue") == "celery",
            "pacemaker_": self.engine() == "pacemaker",
        }
        prefix = next((known for known in PREFIXES if variable.startswith(known)), "stack_")
        readers = self.group(*PREFIXES[prefix])
        if prefix == "redis_" and not has_own_redis:
            readers = [*self.lock_hosts(), *self.group(*APP_GROUPS)]
        return chosen.get(prefix, True) and host.name in readers


# --- small helpers ---------------------------------------------------------------------------


def _hint(word: str, known: Iterable[str]) -> str:
    """Return what to do about an unknown word."""
    near = difflib.get_close_matches(word, list(known), 1, 0.7)
    return f"did you mean '{near[0]}'?" if near else "remove it"


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _label(item: Any, index: int) -> Any:
    """Return what to call an entry of a list: its name, else its place."""
    return (isinstance(item, Mapping) and item.get("name")) or index


def _seconds(value: Any) -> int:
    """Return the value as whole seconds, 0 for none and for what is no number."""
    return int(value) if str(value).isdigit() else 0


def _number(value: Any) -> float | None:
    """Return the value as a number, None for what is none."""
    try:
        return float(str(value))
    except ValueError:
        return None


def _argv(value: Any) -> list[str]:
    """Return the words of a command or of extra arguments, given as a list or as one string.

    What stands in quotes is taken apart too: it may be a command for a shell.
    """
    if not isinstance(value, str):
        return [word for item in _items(value) for word in _argv(str(item))]
    try:
        words = shlex.split(value)
    except ValueError:
        return value.split()
    return words if len(words) < 2 else [part for word in words for part in _argv(word)]


def _scheduler_in(argv: Sequence[str]) -> str | None:
    """Return the kind of scheduler that a command starts; a shell, env or nice may stand before."""
    kinds = (scheduler_kind(argv[start:]) for start in range(len(argv)))
    return next((kind for kind in kinds if kind), None)


def _is_loopback(address: object) -> bool:
    try:
        return ipaddress.ip_address(str(address)).is_loopback
    except ValueError:
        return address == "localhost"


def _is_wildcard(address: object) -> bool:
    try:
        return ipaddress.ip_address(str(address)).is_unspecified
    except ValueError:
        return False


def _is_true(value: object) -> bool:
    return str(value).strip().lower() in TRUE


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of everything that is no container."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}[{index}]", item)
    else:
        yield path, value


# --- rules about the fleet, worst first ------------------------------------------------------


def _misspelt_groups(fleet: Fleet) -> Iterator[str]:
    for name in sorted(set(fleet.groups) - {*GROUPS, "all", "ungrouped"}):
        for near in difflib.get_close_matches(name, GROUPS, 1, 0.8):
            # A sub-group such as workers_east of workers is fine.
            strays = [host for host in fleet.group(name) if host not in fleet.group(near)]
            if strays:
                yield (
                    f"Group '{name}' means nothing here, so {', '.join(strays)} would be left out; "
                    f"did you mean '{near}'?"
                )


def _scheduler_count(fleet: Fleet) -> Iterator[str]:
    mode, hosts = fleet.choice("stack_scheduler_mode"), fleet.group("scheduler")
    count = f"Group 'scheduler' has {len(hosts)} hosts ({', '.join(hosts)})"
    if fleet.choice("stack_task_queue") == "none":
        if mode == "failover":
            yield (
                "stack_scheduler_mode is 'failover', but stack_task_queue 'none' has nothing to "
                "schedule; choose 'static'"
            )
        for group in ("scheduler", "workers"):
            if members := fleet.group(group):
                yield (
                    f"Group '{group}' has {', '.join(members)} although stack_task_queue is "
                    "'none'; empty the group or choose a task queue"
                )
    elif mode == "static" and not hosts:
        yield (
            "Group 'scheduler' has no host, so no periodic task would ever run; put exactly one "
            "host there"
        )
    elif mode == "static" and len(hosts) > 1:
        yield (
            f"{count}, so every periodic task would run more than once; leave exactly one, or "
            "set stack_scheduler_mode to 'failover'"
        )
    elif fleet.engine() == "pacemaker" and len(hosts) not in QUORUM_SIZES:
        yield (
            f"{count if hosts else count.partition(' (')[0]}, but Pacemaker schedules only where a "
            "majority of them see each other; have 3, 5 or 7 hosts there"
        )
    elif fleet.engine() == "redbeat" and len(hosts) < 2:
        yield (
            f"Group 'scheduler' has {len(hosts)} of the two or more hosts that "
            "stack_scheduler_mode 'failover' needs; add hosts or choose 'static'"
        )


def _unfit_engine(fleet: Fleet) -> Iterator[str]:
    queue = fleet.choice("stack_task_queue")
    if fleet.engine() == "redbeat" and queue == "huey":
        yield (
            "stack_scheduler_engine 'redbeat' knows Celery alone, but stack_task_queue is 'huey'; "
            "choose 'pacemaker'"
        )


def _unfit_beat(fleet: Fleet) -> Iterator[str]:
    chosen = fleet.choice("celery_beat_scheduler")
    is_celery = fleet.choice("stack_task_queue") == "celery"
    if is_celery and fleet.engine() == "redbeat" and chosen not in (None, "project", "redbeat"):
        yield (
            f"celery_beat_scheduler is '{chosen}', but stack_scheduler_engine 'redbeat' needs "
            "RedBeat; remove it"
        )


def _dead_members(fleet: Fleet) -> Iterator[str]:
    """In static mode the census has its own words for a scheduler's host that is dead."""
    members, dead = fleet.group("scheduler"), _items(fleet.choice("stack_dead_hosts"))
    left = [host for host in members if host not in dead]
    needed = len(members) // 2 + 1 if fleet.engine() == "pacemaker" else 1
    if fleet.engine() and members and len(left) < needed:
        yield (
            f"stack_dead_hosts leaves {len(left)} of the {len(members)} hosts in group "
            f"'scheduler', but stack_scheduler_engine '{fleet.engine()}' needs {needed}, or no "
            "periodic task would run; put living hosts there"
        )


def _lock_redis(fleet: Fleet) -> Iterator[str]:
    members = fleet.group("lock")
    # In static mode it may wait there for failover.
    may_wait = fleet.choice("stack_task_queue") == "celery" and not fleet.engine()
    is_redis = any(fleet.broker(host) == "redis" for host in fleet.hosts.values())
    if len(members) > 1:
        yield (
            f"Group 'lock' has {len(members)} hosts ({', '.join(members)}), but RedBeat has one "
            "lock; leave at most one"
        )
    elif members and not fleet.has_redbeat() and not may_wait:
        yield (
            f"Group 'lock' has {members[0]}, but its Redis is for RedBeat, which is not used here; "
            "empty the group"
        )
    elif not members and fleet.has_redbeat() and not fleet.lock_hosts() and not is_redis:
        yield (
            "RedBeat keeps its lock in Redis, but stack_broker_external_url leads to none; put a "
            "host into group 'lock'"
        )


def _missing_groups(fleet: Fleet) -> Iterator[str]:
    queue = fleet.choice("stack_task_queue")
    if queue in ("celery", "huey") and not fleet.group("workers"):
        yield (
            f"Group 'workers' has no host, so no task of stack_task_queue '{queue}' would run; put "
            "at least one host there"
        )
    for group, variable in fleet.servers().items():
        hosts = fleet.group(group)
        if len(hosts) != 1:
            count = f"{len(hosts)} hosts ({', '.join(hosts)})" if hosts else "no host"
            yield (
                f"Group '{group}' has {count}, but {variable} '{fleet.choice(variable)}' needs "
                "exactly one there; correct the group or choose 'external'"
            )


def _differing_choices(fleet: Fleet) -> Iterator[str]:
    for variable in FLEET_WIDE:
        holders: dict[str, str] = {}
        for host in fleet.hosts.values():
            holders.setdefault(repr(host.get(variable)), host.name)
        if len(holders) > 1:
            (value, first), (other_value, other) = list(holders.items())[:2]
            yield (
                f"{variable} must be the same on every host, but is {value} on {first} and "
                f"{other_value} on {other}; set it once, in group_vars/all"
            )


def _unfit_broker(fleet: Fleet) -> Iterator[str]:
    queue = fleet.choice("stack_task_queue")
    fit = BROKERS.get(queue, ())
    broker = next((fleet.broker(host) for host in fleet.hosts.values()), "")
    if fit and broker in SCHEMES.values() and broker not in fit:
        is_ours = fleet.choice("stack_broker") != "external"
        yield (
            f"{'stack_broker is' if is_ours else 'stack_broker_external_url leads to'} {broker}, "
            f"which stack_task_queue '{queue}' cannot use; choose {', '.join(fit)}"
        )


def _sqlite(fleet: Fleet) -> Iterator[str]:
    hosts = fleet.group(*APP_GROUPS)
    for variable in ("stack_broker", "stack_database"):
        if fleet.choice(variable) != "sqlite":
            continue
        if fleet.choice("stack_scheduler_mode") == "failover":
            yield (
                f"{variable} 'sqlite' is a file on one host, so stack_scheduler_mode 'failover' "
                "would have nowhere to go; choose 'static' or another value"
            )
        elif len(hosts) > 1:
            yield (
                f"{variable} 'sqlite' is a file that only one host can use, but {len(hosts)} run "
                f"the project ({', '.join(hosts)}); leave one host or choose another value"
            )


def _flower_without_celery(fleet: Fleet) -> Iterator[str]:
    queue, hosts = fleet.choice("stack_task_queue"), fleet.group("flower")
    if queue in ("huey", "none") and hosts:
        yield (
            f"Group 'flower' has {', '.join(hosts)}, but Flower shows Celery alone and "
            f"stack_task_queue is '{queue}'; empty the group"
        )


def _differing_environments(fleet: Fleet) -> Iterator[str]:
    """Only names are said: the values may be secrets."""
    hosts = [fleet.hosts[name] for name in fleet.group(*APP_GROUPS)]
    for variable in ENVIRONMENT:
        found = [
            (host.name, {path: str(leaf) for path, leaf in _leaves(variable, host.get(variable))})
            for host in hosts
            if host.can_read(variable)
        ]
        for name, ours in found[1:]:
            first, theirs = found[0]
            if differing := [path for path in theirs | ours if theirs.get(path) != ours.get(path)]:
                yield (
                    f"{differing[0]} differs between {first} and {name}, so that tasks may wait "
                    "where no worker looks; set it once, in group_vars/all"
                )
                break


def _shared_addresses(fleet: Fleet) -> Iterator[str]:
    holders: dict[str, str] = {}
    for host in fleet.hosts.values():
        address = str(host.get("stack_address") or "")
        first = holders.setdefault(address, host.name)
        is_own = address and not (_is_loopback(address) or _is_wildcard(address))
        if is_own and first != host.name:
            yield (
                f"{first} and {host.name} have the same stack_address {address}: if they are one "
                "host, give it one name, else correct the address"
            )


# --- rules about one host, worst first -------------------------------------------------------


def _embedded_schedulers(_fleet: Fleet, host: Host) -> Iterator[str]:
    for where, argv in _commands(host):
        if kind := _scheduler_in(argv):
            yield (
                f"{where} starts a scheduler ({kind}) beside the one of group 'scheduler'; take it "
                "out"
            )


def _commands(host: Host) -> Iterator[tuple[str, list[str]]]:
    """Yield (where it is set, argv) of every command that must not schedule."""
    worker = ["celery", "worker"]
    extra = host.get("celery_worker_extra_args")
    yield "celery_worker_extra_args", [*worker, *_argv(extra)]
    for where, pool in host.pools():
        yield f"{where}.extra_args", [*worker, *_argv(pool.get("extra_args"))]
    for service, command in host.mapping("services_custom_commands").items():
        if service not in SCHEDULERS:
            yield f"services_custom_commands.{service}", _argv(command)
    for variable in ("app_before_switch", "app_after_switch"):
        for index, item in enumerate(_items(host.get(variable))):
            if isinstance(item, Mapping):
                yield f"{variable}[{index}].command", _argv(item.get("command"))


def _idle_schedulers(fleet: Fleet, host: Host) -> Iterator[str]:
    custom = host.mapping("services_custom_commands")
    commands = {name: (f"services_custom_commands.{name}", custom.get(name)) for name in SCHEDULERS}
    if commands["huey-periodic"][1] is None:
        extra = ["huey_consumer", *_argv(host.get("huey_periodic_extra_args"))]
        commands["huey-periodic"] = ("huey_periodic_extra_args", extra)
    queue = fleet.choice("stack_task_queue")
    for service, (where, command) in commands.items():
        argv = _argv(command)
        # Of an unknown program, nobody can say what it does.
        is_known = any(Path(word).name in TASK_PROGRAMS for word in argv)
        if service.startswith(f"{queue}-") and is_known and not _scheduler_in(argv):
            yield (
                f"{where} starts no scheduler, so no periodic task would ever run; "
                f"{SCHEDULERS[service]}"
            )


def _eager_tasks(fleet: Fleet, host: Host) -> Iterator[str]:
    for variable in ("app_env", "app_secret_env"):
        environment = host.mapping(variable)
        for name in EAGER.get(fleet.choice("stack_task_queue"), ()):
            if _is_true(environment.get(name)):
                yield (
                    f"{variable}.{name} is true, so that no task would reach a worker; make it "
                    "false or remove it"
                )


def _pacemaker_members(fleet: Fleet, host: Host) -> Iterator[str]:
    if fleet.engine() != "pacemaker" or host.name not in fleet.group("scheduler"):
        return
    if host.get("stack_process_manager") == "supervisord":
        yield (
            "stack_process_manager is 'supervisord', but Pacemaker runs a scheduler as a unit of "
            "systemd; choose 'systemd' on the hosts of group 'scheduler'"
        )
    key = str(host.get("pacemaker_authkey") or "")
    is_fit = len(key) >= AUTHKEY_LENGTH and len(key.splitlines()) == 1
    if key and not is_fit and not PLACEHOLDER.match(key):
        yield (
            f"pacemaker_authkey is not one line of {AUTHKEY_LENGTH} or more characters; generate a "
            "new one"
        )
    margin = _number(host.get("pacemaker_margin"))
    if margin is not None and margin <= PACEMAKER_STOP:
        yield (
            f"pacemaker_margin is {margin:g} s, which leaves a scheduler no time to stop; make it "
            f"more than {PACEMAKER_STOP}"
        )
    if fleet.choice("stack_task_queue") == "huey":
        extra = _options(_argv(host.get("huey_periodic_extra_args")), {"-w": "--workers"})
        told = ["huey_periodic_workers"] if _seconds(host.get("huey_periodic_workers")) else []
        told += ["--workers in huey_periodic_extra_args"] if "--workers" in extra else []
        for where in told:
            yield (
                f"{where} lets the scheduler run tasks, which Pacemaker would cut off when it "
                "moves the scheduler; leave that to the workers"
            )


def _options(argv: Iterable[str], letters: Mapping[str, str]) -> Iterator[str]:
    """Yield the long form of every option; letters: its short form -> its long form."""
    for word in argv:
        if word.startswith("--"):
            yield word.partition("=")[0]
        elif word[:2] in letters:
            yield letters[word[:2]]


def _bypassed_beat(fleet: Fleet, host: Host) -> Iterator[str]:
    """What beat is told beside its variables must not take back what these say."""
    if host.name not in fleet.group("scheduler") or not fleet.reads(host, "celery_beat_extra_args"):
        return
    redbeat = REDBEAT_OPTIONS if fleet.has_redbeat() else {}
    told = [
        (f"{option} in {variable}", cures[option])
        for variable, command, cures in (
            (
                "celery_beat_extra_args",
                host.get("celery_beat_extra_args"),
                {**BEAT_OPTIONS, **redbeat},
            ),
            (
                "services_custom_commands.celery-beat",
                host.mapping("services_custom_commands").get("celery-beat"),
                redbeat,
            ),
        )
        for option in _options(_argv(command), BEAT_LETTERS)
        if option in cures
    ]
    environment = {**BEAT_ENVIRONMENT, **(REDBEAT_ENVIRONMENT if fleet.has_redbeat() else {})}
    told += [
        (f"{variable}.{name}", environment[name])
        for variable in ("app_env", "app_secret_env")
        for name in host.mapping(variable)
        if name in environment
    ]
    for where, cure in told:
        yield f"{where} would set aside how this bundle runs beat; {cure}"


def _beat_times(fleet: Fleet, host: Host) -> Iterator[str]:
    if not fleet.has_redbeat() or host.name not in fleet.group("scheduler"):
        return
    times = {
        variable: _number(host.get(variable))
        for variable in ("celery_beat_lock_timeout", "celery_beat_max_interval")
    }
    for variable, seconds in times.items():
        if seconds is not None and seconds <= 0:
            yield f"{variable} is {host.get(variable)} s; use a positive number of seconds"
    lock, loop = times.values()
    if lock and loop and 0 < lock < (needed := 2 * loop + REDIS_TIMEOUT):
        yield (
            f"celery_beat_lock_timeout is {lock:g} s, but beat sleeps for up to {loop:g} s "
            "(celery_beat_max_interval) before it extends its lock, and takes time to send; make "
            f"the first {needed:g} or more"
        )


def _celery_settings(fleet: Fleet, host: Host) -> Iterator[str]:
    """Settings that another variable is for, or that Celery would show with their password."""
    if not fleet.reads(host, "celery_settings"):
        return
    ours = {**CELERY_SETTINGS, **(REDBEAT_SETTINGS if fleet.has_redbeat() else {})}
    if fleet.choice("celery_beat_scheduler") not in (None, "project"):
        ours["beat_scheduler"] = REDBEAT_SETTINGS["beat_scheduler"]
    for name, value in host.mapping("celery_settings").items():
        where, plain = f"celery_settings.{name}", str(name).lower().removeprefix("celery_")
        if plain in ours:
            yield f"{where} would set aside what this bundle rests on; {ours[plain]}"
            continue
        if name != plain:
            yield f"{where} is no name of a setting since Celery 4; write '{plain}'"
        if plain == "task_always_eager" and _is_true(value):
            yield f"{where} is true, so that no task would reach a worker; remove it"
        for path, leaf in _leaves(where, value):
            if URL_PASSWORD.search(str(leaf)):
                yield (
                    f"{path} holds a password, which Celery shows to everybody who may ask a "
                    "worker; let the project's settings read it from app_secret_env"
                )


def _unreadable_variables(_fleet: Fleet, host: Host) -> Iterator[str]:
    for variable, reason in host.unreadable.items():
        if reason:
            yield f"{variable} cannot be read: {reason}"


def _unknown_variables(fleet: Fleet, host: Host) -> Iterator[str]:
    for variable in host.raw:
        if variable in COMPUTED:
            yield f"{variable} is computed and cannot be set; set {COMPUTED[variable]} instead"
        elif variable not in fleet.options and not variable.startswith("vault_"):
            yield f"{variable} is no variable of this bundle; {_hint(variable, fleet.options)}"


def _malformed_values(fleet: Fleet, host: Host) -> Iterator[str]:
    for variable in host.raw:
        if variable in fleet.options:
            yield from _spec_problems(variable, host.get(variable), fleet.options[variable])


def _spec_problems(path: str, value: Any, option: Option) -> Iterator[str]:
    """Yield what an argument spec holds against a value, at any depth."""
    if value is None:
        return
    kind = option.get("type", "str")
    try:
        value = DEFAULT_TYPE_VALIDATORS[kind](value)
    except (TypeError, ValueError):
        # Ansible's own words would print the value, which may be a secret.
        yield f"{path} has the wrong type; make it {kind}"
        return
    if kind == "list":
        element = {**option, "type": option.get("elements", "raw")}
        for index, item in enumerate(value):
            yield from _spec_problems(f"{path}[{_label(item, index)}]", item, element)
        return
    choices = [str(choice) for choice in option.get("choices") or ()]
    if choices and str(value) not in choices:
        near = _hint(str(value), choices).replace("remove it", "correct it")
        yield f"{path} '{value}' is none of {', '.join(choices)}; {near}"
    if kind == "dict" and (options := option.get("options")):
        for key in value:
            if key not in options:
                yield f"{path} has no key '{key}'; {_hint(key, options)}"
        for key, sub_option in options.items():
            if value.get(key) is not None:
                yield from _spec_problems(f"{path}.{key}", value[key], sub_option)
            elif sub_option.get("required"):
                yield f"{path}.{key} is empty; set it"


def _invalid_names(_fleet: Fleet, host: Host) -> Iterator[str]:
    for variable, (pattern, rule) in NAMES.items():
        value = host.get(variable)
        if value and not re.fullmatch(pattern, str(value)):
            yield f"{variable} '{value}' is no valid name; use {rule}"


def _missing_values(fleet: Fleet, host: Host) -> Iterator[str]:
    for variable, option in fleet.options.items():
        is_needed = option.get("required") or SECRET.fullmatch(variable)
        # app_source has a sentence of its own.
        if (
            variable != "app_source"
            and is_needed
            and fleet.reads(host, variable)
            and host.lacks(variable)
        ):
            yield f"{variable} is empty; set it"


def _placeholders(_fleet: Fleet, host: Host) -> Iterator[str]:
    for variable, raw in host.raw.items():
        written = dict(_leaves(variable, raw))
        for path, leaf in _leaves(variable, host.get(variable)):
            # An alias of a vault_ variable is named there, where it is to be changed.
            is_alias = re.search(r"\{\{.*\bvault_", repr(written.get(path, raw)))
            if isinstance(leaf, str) and PLACEHOLDER.match(leaf) and not is_alias:
                yield f"{path} is still at its placeholder; give it a value of your own"


def _external_urls(_fleet: Fleet, host: Host) -> Iterator[str]:
    for variable in ("stack_broker", "stack_database"):
        url = f"{variable}_external_url"
        if host.get(variable) == "external" and host.lacks(url):
            yield f"{variable} is 'external', but {url} is empty; set it"


def _entry_points(fleet: Fleet, host: Host) -> Iterator[str]:
    runs_celery = host.name in fleet.group("workers", "scheduler", "flower")
    if runs_celery and fleet.reads(host, "celery_worker_pools") and host.lacks("app_celery"):
        yield "app_celery is empty; name the Celery application, as in celery -A"
    is_started = host.mapping("services_custom_commands").get("web")
    is_web = host.name in fleet.group("web")
    if is_web and not is_started and host.lacks("app_wsgi") and host.lacks("app_asgi"):
        yield "app_wsgi and app_asgi are empty; name the web application in one of them"


def _camera(fleet: Fleet, host: Host) -> Iterator[str]:
    queue = fleet.choice("stack_task_queue")
    if host.get("celery_events_camera") and queue in ("huey", "none"):
        yield (
            f"celery_events_camera is set, but stack_task_queue is '{queue}', which sends it no "
            "events; empty it"
        )


def _app_source(fleet: Fleet, host: Host) -> Iterator[str]:
    source = host.get("app_source") or {}
    if not fleet.reads(host, "app_source") or not host.can_read("app_source"):
        return
    if not isinstance(source, Mapping):
        return
    forms = [form for form in ("path", "git", "package") if source.get(form)]
    if len(forms) != 1:
        yield (
            f"app_source has {' and '.join(forms) or 'nothing to deploy'}; set exactly one of "
            "path (a directory on this machine), git (with version) and package"
        )
    elif forms == ["git"] and not source.get("version"):
        yield "app_source.version is empty; name the branch, tag or commit of app_source.git"
    elif forms == ["path"] and not (ROOT / str(source["path"])).is_dir():
        yield f"app_source.path '{source['path']}' is no directory on this machine; correct it"


def _release_paths(fleet: Fleet, host: Host) -> Iterator[str]:
    """What a host makes within a release must stay there, and each in a place of its own."""
    if not fleet.reads(host, "app_source"):
        return
    made: list[tuple[str, PurePosixPath]] = []
    for variable in ("app_shared_paths", "app_release_writable_paths"):
        for text in _items(host.get(variable)):
            path = PurePosixPath(str(text))
            if (
                path.is_absolute()
                or ".." in path.parts
                or not path.parts
                or path.parts[0] == ".venv"
            ):
                yield (
                    f"{variable} holds '{text}', which is not within a release; name a path "
                    "relative to it"
                )
                continue
            for other_variable, other in made:
                if path in (other, *other.parents) or other in path.parents:
                    yield (
                        f"{variable} holds '{text}' and {other_variable} holds '{other}', of which "
                        "one is within the other; name one of them"
                    )
            made.append((variable, path))
    keep = _number(host.get("app_keep_releases"))
    if keep is not None and keep < 2:
        yield "app_keep_releases is below 2, so that there would be none to go back to; raise it"


def _pools(fleet: Fleet, host: Host) -> Iterator[str]:
    if not fleet.reads(host, "celery_worker_pools"):
        return
    seen = set()
    for where, pool in host.pools():
        if not pool.get("queues"):
            yield f"{where}.queues is empty; set it"
        name = pool.get("name")
        if name is None:
            continue  # That is for the argument spec to say.
        if not POOL_NAME.fullmatch(str(name)):
            yield (
                f"{where}.name '{name}' is no valid name; use lower-case letters, digits and "
                "dashes, not beginning with a dash"
            )
        elif name in seen:
            yield f"celery_worker_pools names the pool '{name}' twice; rename or remove one"
        seen.add(name)


def _time_limits(fleet: Fleet, host: Host) -> Iterator[str]:
    variable, effect = {
        "redis": ("celery_visibility_timeout", "Redis would hand a long task out twice"),
        "rabbitmq": (
            "rabbitmq_consumer_timeout",
            "RabbitMQ would cut off a worker with a long task",
        ),
    }.get(fleet.broker(host), ("", ""))
    timeout = _seconds(host.get(variable))
    if not timeout or not fleet.reads(host, variable):
        return
    pool_options = fleet.options.get("celery_worker_pools", {}).get("options", {})
    default = pool_options.get("time_limit", {}).get("default")
    for where, pool in host.pools():
        limit = _seconds(pool.get("time_limit", default))
        if limit >= timeout:
            yield (
                f"{variable} is {timeout} s, but {where}.time_limit is {limit} s, so {effect}; "
                "make the first larger"
            )


def _addresses(fleet: Fleet, host: Host) -> Iterator[str]:
    address = host.get("stack_address")
    clients = [name for name in fleet.group(*APP_GROUPS) if name != host.name]
    servers = [*fleet.group(*fleet.servers()), *fleet.lock_hosts()]
    if fleet.engine() == "pacemaker":
        servers += fleet.group("scheduler")
    is_server = host.name in servers
    if _is_wildcard(address) or (is_server and clients and _is_loopback(address)):
        yield (
            f"stack_address is {address}, where {', '.join(clients) or 'others'} cannot reach this "
            "host; set it to the host's private address"
        )


def _ports(fleet: Fleet, host: Host) -> Iterator[str]:
    for variable in host.raw:
        port = str(host.get(variable))
        if variable.endswith("_port") and port.isdigit() and not 0 < int(port) < 2**16:
            yield f"{variable} is {port}, which is no TCP port; use 1 to 65535"
    pages = ("web", "flower")
    listening = [
        [str(host.get(f"{page}_{of}")) for of in ("listen_address", "port")] for page in pages
    ]
    if all(host.name in fleet.group(page) for page in pages) and listening[0] == listening[1]:
        yield (
            f"web_port and flower_port are both {listening[0][1]} on {listening[0][0]}; choose two "
            "ports"
        )


def _redis_databases(fleet: Fleet, host: Host) -> Iterator[str]:
    if not fleet.reads(host, "redis_database"):
        return
    is_broker, lock_hosts = fleet.choice("stack_broker") == "redis", fleet.lock_hosts()
    # What clearing the cache would do if it were in the same database.
    beside = {"redis_database": "empty the queue"} if is_broker else {}
    beside |= {"redis_lock_database": "take RedBeat's lock"} if lock_hosts else {}
    for variable in [*beside, *(["redis_cache_database"] if is_broker else [])]:
        number = str(host.get(variable))
        if number.lstrip("-").isdigit() and int(number) not in range(16):
            yield f"{variable} is {number}, but Redis numbers its databases from 0 to 15"
    if not set(lock_hosts) & set(fleet.group("brokers")):
        beside.pop("redis_lock_database", None)  # It is in a Redis of its own.
    cache = str(host.get("redis_cache_database"))
    for variable, harm in beside.items() if is_broker and cache.isdigit() else ():
        if str(host.get(variable)) == cache:
            yield (
                f"{variable} and redis_cache_database are both {cache}, so that clearing the cache "
                f"would {harm}; choose two numbers"
            )


def _flower_protection(fleet: Fleet, host: Host) -> Iterator[str]:
    """What Flower is told beside its variables must not take back what these say."""
    if not fleet.reads(host, "flower_user"):
        return
    secrets: tuple[str, ...] = ("basic_auth", "cookie_secret")
    told = [
        (f"{variable}.{name}", str(name)[len("FLOWER_") :].lower(), secrets)
        for variable in ("app_env", "app_secret_env")
        for name in host.mapping(variable)
        if str(name).startswith("FLOWER_")
    ]
    for variable, command, options in (
        ("flower_extra_args", host.get("flower_extra_args"), tuple(FLOWER_OPTIONS)),
        # A command of one's own has to say where it listens.
        (
            "services_custom_commands.flower",
            host.mapping("services_custom_commands").get("flower"),
            secrets,
        ),
    ):
        for word in _argv(command):
            option = word.partition("=")[0]
            told += [(f"{option} in {variable}", option.strip("-").replace("-", "_"), options)]
    for where, name, options in told:
        if name in options:
            yield f"{where} would replace what protects Flower; use {FLOWER_OPTIONS[name]}"


def _flower_credentials(fleet: Fleet, host: Host) -> Iterator[str]:
    """Flower reads a list of USER:PASSWORD, separated by commas (flower/command.py)."""
    for variable, forbidden in (("flower_user", ",:"), ("flower_password", ",")):
        found = [sign for sign in forbidden if sign in str(host.get(variable) or "")]
        if fleet.reads(host, variable) and found:
            yield (
                f"{variable} holds a '{found[0]}', which Flower takes for the end of it; choose "
                "one without"
            )


def _flower_prefix(fleet: Fleet, host: Host) -> Iterator[str]:
    """Flower itself is not so particular, but verify puts the prefix into a URL."""
    prefix = str(host.get("flower_url_prefix") or "")
    if fleet.reads(host, "flower_url_prefix") and not re.fullmatch(r"(/.*[^/])?", prefix):
        yield (
            f"flower_url_prefix is '{prefix}', so that verify would look for Flower elsewhere; "
            "begin it with a slash and end it without one, as in '/flower'"
        )


def _open_flower(fleet: Fleet, host: Host) -> Iterator[str]:
    address = host.get("flower_listen_address")
    empty = [name for name in ("flower_user", "flower_password") if host.lacks(name)]
    if fleet.reads(host, "flower_user") and address and not _is_loopback(address) and empty:
        yield (
            f"flower_listen_address is {address}, open to the network, but {' and '.join(empty)} "
            f"{'is' if len(empty) == 1 else 'are'} empty; set them or listen on 127.0.0.1"
        )


FLEET_RULES: Sequence[Callable[[Fleet], Iterator[str]]] = (
    _misspelt_groups,
    _scheduler_count,
    _unfit_engine,
    _unfit_beat,
    _dead_members,
    _lock_redis,
    _missing_groups,
    _differing_choices,
    _unfit_broker,
    _sqlite,
    _differing_environments,
    _shared_addresses,
    _flower_without_celery,
)
HOST_RULES: Sequence[Callable[[Fleet, Host], Iterator[str]]] = (
    _embedded_schedulers,
    _idle_schedulers,
    _pacemaker_members,
    _bypassed_beat,
    _beat_times,
    _celery_settings,
    _eager_tasks,
    _unreadable_variables,
    _unknown_variables,
    _malformed_values,
    _invalid_names,
    _missing_values,
    _placeholders,
    _external_urls,
    _entry_points,
    _camera,
    _app_source,
    _release_paths,
    _pools,
    _time_limits,
    _redis_databases,
    _addresses,
    _ports,
    _flower_protection,
    _flower_credentials,
    _flower_prefix,
    _open_flower,
)


# --- reading the inventory -------------------------------------------------------------------


def _read_host(
    name: str,
    hostvars: Mapping[str, Any],
    options: Mapping[str, Option],
    others: Mapping[str, Any],
) -> Host:
    """Template the host's variables of ours one by one, so that a bad one hides no other.

    Args:
        name: its inventory name.
        hostvars: the variables of every host.
        options: variable -> its argument spec.
        others: what templates may use beside these and the roles' defaults.
    """
    # HostVars alone would know neither the roles' defaults nor the other hosts' variables.
    every = getattr(hostvars, "raw_get", hostvars.__getitem__)(name)
    raw = {key: every[key] for key in every if key.startswith((*PREFIXES, "vault_"))}
    values = {
        variable: option["default"] for variable, option in options.items() if "default" in option
    }
    templates = {
        variable: trust_as_template(default)
        for variable, default in values.items()
        if isinstance(default, str) and "{{" in default
    }
    templar = Templar(
        loader=getattr(hostvars, "_loader", None),
        variables={**values, **templates, **every, **others, "hostvars": hostvars},
    )
    unreadable: dict[str, str] = {}
    for variable in templates.keys() | raw:
        values.pop(variable, None)
    for variable, value in raw.items():
        try:
            values[variable] = templar.template(value)
        except AnsibleError as error:
            # What waits for facts need not be wrong.
            is_fault = "ansible_facts" not in repr(value)
            unreadable[variable] = str(error).splitlines()[0] if is_fault else ""
    later = {variable: text for variable, text in templates.items() if variable not in raw}
    return Host(name, raw, values, unreadable, later, templar.template)


def _sentence(text: str, hosts: Sequence[str], fleet: Fleet) -> str:
    """Put the hosts before the text, unless it is about all of them."""
    if len(hosts) == len(fleet.hosts):
        return text
    more = f" and {len(hosts) - 3} more" if len(hosts) > 3 else ""
    return f"{', '.join(hosts[:3])}{more}: {text}"


def fleet_problems(
    hostvars: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
    specs: Mapping[str, Mapping[str, Any]],
    computed: Mapping[str, Any],
) -> list[str]:
    """Return a sentence for each thing that stands against deploying the inventory.

    Args:
        hostvars: host -> its variables; Ansible's ``hostvars`` or any mapping.
        groups: group -> names of its hosts, over the whole inventory.
        specs: role -> entry point -> argument spec, as ``role_specs`` returns it.
        computed: variable -> its template; what the roles will compute.

    Returns:
        The sentences, worst first; each names its variable, group or host and says what to change.
        Empty if the fleet can be deployed.
    """
    options = {
        variable: option
        for entry_points in specs.values()
        for spec in entry_points.values()
        for variable, option in spec.get("options", {}).items()
    }
    names = [host for group in GROUPS for host in groups.get(group, ())] or groups.get("all", ())
    others = {
        variable: trust_as_template(value) if isinstance(value, str) else value
        for variable, value in computed.items()
    }
    others["groups"] = groups
    hosts = {name: _read_host(name, hostvars, options, others) for name in dict.fromkeys(names)}
    fleet = Fleet(groups, hosts, options)
    about: dict[str, dict[str, None]] = {}  # sentence -> its hosts, in inventory order
    for rule in HOST_RULES:
        for host in hosts.values():
            for text in rule(fleet, host):
                about.setdefault(text, {})[host.name] = None
    return [
        *(text for fleet_rule in FLEET_RULES for text in fleet_rule(fleet)),
        *(_sentence(text, list(names), fleet) for text, names in about.items()),
    ]


class FilterModule:
    """Tells Ansible the filters' names."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return filter name -> function."""
        return {
            "fleet_problems": fleet_problems,
            "role_specs": lambda roles: role_specs(Path(roles).resolve()),
        }
