"""The preflight's sentences: each bad input gets its own, and a good fleet gets none."""

import copy
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template

PLUGIN = Path(__file__).parents[2] / "plugins" / "filter" / "fleet_problems.py"
MODULE = runpy.run_path(str(PLUGIN))
FILTERS: dict[str, Callable[..., Any]] = MODULE["FilterModule"]().filters()

Inventory = dict[str, dict[str, Any]]
"""`groups`: group -> hosts; any other key: host -> its variables, `all` for every host's."""

SPECS = {
    role: {"main": {"options": yaml.safe_load(options)}}
    for role, options in {
        "stack": """
            stack_name: {type: str, required: true}
            stack_process_manager: {type: str, default: systemd, choices: [systemd, supervisord]}
            stack_task_queue: {type: str, default: celery, choices: [celery, huey, none]}
            stack_scheduler_mode: {type: str, default: static, choices: [static, failover]}
            stack_scheduler_engine:
              type: str
              default: "{{ 'pacemaker' if stack_task_queue == 'huey' else 'redbeat' }}"
              choices: [redbeat, pacemaker]
            stack_dead_hosts: {type: list, elements: str, default: []}
            stack_broker: {type: str, default: redis, choices: [redis, rabbitmq, sqlite, external]}
            stack_broker_external_url: {type: str, default: ""}
            stack_database:
              {type: str, default: postgresql, choices: [postgresql, external, sqlite]}
            stack_database_external_url: {type: str, default: ""}
            stack_unit_prefix: {type: str, default: ""}
            stack_address: {type: str, default: "{{ ansible_host | default('127.0.0.1') }}"}
        """,
        "redis": """
            redis_password: {type: str, default: ""}
            redis_port: {type: int, default: 6379}
            redis_database: {type: int, default: 0}
            redis_cache_database: {type: int, default: 1}
            redis_lock_database: {type: int, default: 2}
        """,
        "rabbitmq": """
            rabbitmq_password: {type: str, default: ""}
            rabbitmq_consumer_timeout: {type: int, default: 7200}
        """,
        "postgresql": "postgresql_password: {type: str, default: ''}",
        "pacemaker": """
            pacemaker_authkey: {type: str, required: true}
            pacemaker_margin: {type: int, default: 6}
        """,
        "app": """
            app_source:
              type: dict
              required: true
              options: {path: {type: str}, git: {type: str}, version: {type: str}, package: {}}
            app_settings_module: {type: str, required: true}
            app_celery: {type: str, default: ""}
            app_wsgi: {type: str, default: ""}
            app_asgi: {type: str, default: ""}
            app_shared_paths: {type: list, default: []}
            app_release_writable_paths: {type: list, default: [static_root]}
            app_keep_releases: {type: int, default: 5}
            app_before_switch: {type: list, default: []}
            app_after_switch: {type: list, default: []}
            app_env: {type: dict, default: {}}
            app_secret_env: {type: dict, default: {}}
        """,
        "services": """
            celery_visibility_timeout: {type: int, default: 7200}
            celery_worker_extra_args: {type: raw, default: []}
            celery_worker_pools:
              type: list
              elements: dict
              default: [{name: default, queues: [celery]}]
              options:
                name: {type: str, required: true}
                queues: {type: list, elements: str, required: true}
                extra_args: {type: raw}
                concurrency: {type: int}
                pool: {type: str, choices: [prefork, threads, solo]}
                time_limit: {type: int, default: 3600}
            celery_events_camera: {type: str, default: ""}
            celery_settings: {type: dict, default: {}}
            celery_beat_scheduler:
              {type: str, default: project, choices: [project, file, database, memory, redbeat]}
            celery_beat_max_interval: {type: int, default: 5}
            celery_beat_lock_timeout: {type: int, default: 30}
            celery_beat_extra_args: {type: list, default: []}
            huey_periodic_workers: {type: int, default: 0}
            huey_worker_extra_args: {type: list, default: []}
            huey_periodic_extra_args: {type: list, default: []}
            services_custom_commands: {type: dict, default: {}}
            web_listen_address: {type: str, default: 127.0.0.1}
            web_port: {type: int, default: 8000}
            web_workers: {type: int, default: "{{ ansible_facts['processor_vcpus'] }}"}
            flower_listen_address: {type: str, default: 127.0.0.1}
            flower_port: {type: int, default: 5555}
            flower_url_prefix: {type: str, default: ""}
            flower_extra_args: {type: list, default: []}
            flower_user: {type: str, default: ""}
            flower_password: {type: str, default: ""}
        """,
    }.items()
}

# Role variables, as in roles/stack/vars/main.yml.
COMPUTED = {
    "__stack_host": "{{ groups['brokers'] | default([]) | first | default('') }}",
    "stack_broker_url": (
        "redis://:{{ redis_password }}@{{ hostvars[__stack_host]['stack_address'] }}"
        ":{{ redis_port }}/{{ redis_database }}"
    ),
}

GOOD: Inventory = {
    "groups": {
        "brokers": ["broker1"],
        "database": ["broker1"],
        "web": ["web1"],
        "flower": ["web1"],
        "workers": ["worker1", "worker2"],
        "scheduler": ["worker1"],
        "ungrouped": ["monitor1"],
        "all": ["monitor1", "broker1", "web1", "worker1", "worker2"],
    },
    "all": {
        "stack_name": "demo",
        "redis_password": "r",
        "postgresql_password": "p",
        "flower_user": "ops",
        "flower_password": "f",
        "app_source": {"path": "plugins"},
        "app_settings_module": "mysite.settings",
        "app_celery": "mysite",
        "app_wsgi": "mysite.wsgi",
        "app_secret_env": {"SECRET_KEY": "s"},
        "vault_anything": "v",
        "monitoring_url": "not ours",
    },
    "broker1": {"stack_address": "10.0.0.1"},
}


def problems(*changes: Inventory) -> list[str]:
    """Return what the preflight says about the good fleet after some changes.

    A change is merged one level deep; None removes a group or variable.
    """
    inventory = copy.deepcopy(GOOD)
    for change in changes:
        for key, values in change.items():
            inventory.setdefault(key, {}).update(copy.deepcopy(values))
    groups = {name: hosts for name, hosts in inventory["groups"].items() if hosts is not None}
    hostvars = {
        host: {
            name: value
            for name, value in {**inventory["all"], **inventory.get(host, {})}.items()
            if value is not None
        }
        for host in groups["all"]
    }
    found: list[str] = FILTERS["fleet_problems"](hostvars, groups, SPECS, COMPUTED)
    return found


def groups(**members: Any) -> Inventory:
    """Return a change of some groups."""
    return {"groups": members}


def everywhere(**variables: Any) -> Inventory:
    """Return a change of some variables of all hosts."""
    return {"all": variables}


def pools(*pools: Any) -> Inventory:
    """Return a change of the worker pools."""
    return everywhere(celery_worker_pools=list(pools))


HUEY = groups(flower=None) | everywhere(stack_task_queue="huey")
RABBITMQ = everywhere(stack_broker="rabbitmq", rabbitmq_password="p", redis_password=None)

ONE_HOST = {
    "groups": {name: ["solo"] for name in GOOD["groups"] if name != "ungrouped"},
}

MAIL = {"name": "mail", "queues": ["mail"]}

REDBEAT = groups(scheduler=["worker1", "worker2"]) | everywhere(stack_scheduler_mode="failover")
# RedBeat as the one scheduler's way to remember.
STATIC_REDBEAT = everywhere(celery_beat_scheduler="redbeat")
MEMBERS = ["worker1", "worker2", "worker3"]
ADDRESSES = {name: {"stack_address": f"10.0.1.{name[-1]}"} for name in (*MEMBERS, "worker4")}
PACEMAKER = {
    "groups": {
        "workers": MEMBERS,
        "scheduler": MEMBERS,
        "all": [*GOOD["groups"]["all"], "worker3"],
    },
    "all": {
        "stack_scheduler_mode": "failover",
        "stack_scheduler_engine": "pacemaker",
        "pacemaker_authkey": "k" * 32,
    },
    **ADDRESSES,
}
LOCK = {
    "groups": {"lock": ["lock1"], "all": [*GOOD["groups"]["all"], "lock1"]},
    "lock1": {"stack_address": "10.0.0.8"},
}
FOREIGN_RABBITMQ = groups(brokers=None) | everywhere(
    stack_broker="external", stack_broker_external_url="amqp://u:hunter2@mq.example/v"
)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({}, id="as it is"),
        pytest.param(ONE_HOST, id="all on one host, on the loopback address"),
        pytest.param(
            groups(workers=None, scheduler=None, flower=None, brokers=None)
            | everywhere(stack_task_queue="none", redis_password=None),
            id="web server alone",
        ),
        pytest.param(
            groups(brokers=None, database=None)
            | everywhere(
                stack_broker="external",
                stack_broker_external_url="redis://:x@cache.example:6379/0",
                stack_database="external",
                stack_database_external_url="postgresql://u:x@db.example/demo",
                redis_password=None,
                postgresql_password=None,
            ),
            id="foreign broker and database",
        ),
        pytest.param(
            groups(flower=None) | everywhere(flower_user=None, flower_password=None), id="no Flower"
        ),
        pytest.param(groups(workers_east=["worker1"]), id="a sub-group with a name like ours"),
        pytest.param(pools({**MAIL, "extra_args": ["-E", "--queues", "beat"]}), id="harmless -E"),
        pytest.param(
            everywhere(services_custom_commands={"celery-beat": ["celery", "-A", "a", "beat"]}),
            id="the scheduler's own custom command",
        ),
        pytest.param(
            {"monitor1": {"web_port": 1, "redis_password": "CHANGE_ME"}}, id="a stranger's host"
        ),
        pytest.param(everywhere(app_source={"package": "demo==1.0"}), id="a package"),
        pytest.param(everywhere(app_shared_paths=["media", "mediation/a"]), id="shared paths"),
        pytest.param(
            everywhere(app_source={"git": "https://git.example/d.git", "version": "v1"}), id="git"
        ),
        pytest.param(pools({**MAIL, "time_limit": "60", "concurrency": "2"}), id="digits as text"),
        pytest.param(RABBITMQ, id="RabbitMQ"),
        pytest.param(HUEY | {"web1": {"flower_password": None}}, id="Huey on Redis"),
        pytest.param(
            {
                "groups": {
                    **{name: ["solo"] for name in ("web", "workers", "scheduler", "all")},
                    **dict.fromkeys(("brokers", "database", "flower", "ungrouped")),
                }
            }
            | everywhere(
                stack_task_queue="huey",
                stack_broker="sqlite",
                stack_database="sqlite",
                redis_password=None,
                postgresql_password=None,
                app_celery=None,
            ),
            id="Huey and SQLite on one host, without a server",
        ),
        pytest.param({"web1": {"stack_process_manager": "supervisord"}}, id="two managers"),
        pytest.param(
            everywhere(
                services_custom_commands={
                    "celery-beat": "sh run-beat",
                    "flower": "celery -A a flower --address=127.0.0.1",
                }
            ),
            id="custom commands of which nothing is wrong for sure",
        ),
        pytest.param(
            everywhere(
                app_env={
                    "CELERY_TASK_ALWAYS_EAGER": "False",
                    "HUEY_IMMEDIATE": True,
                    "BASIC_AUTH": "of the project",
                }
            ),
            id="tasks that reach their worker",
        ),
        pytest.param(
            groups(workers=None, scheduler=None, flower=None)
            | everywhere(stack_task_queue="none", app_env={"CELERY_TASK_ALWAYS_EAGER": True}),
            id="tasks that need no worker",
        ),
        pytest.param(
            {"worker1": {"app_env": {"RATIO": 1}}, "web1": {"app_env": {"RATIO": "1"}}}
            | {"worker2": {"app_env": {"RATIO": 1}}, "broker1": {"app_env": {"RATIO": 2}}},
            id="one environment for all who read it",
        ),
        pytest.param({"web1": {"flower_port": 8000, "web_port": 8001}}, id="two ports"),
        pytest.param(
            {"web1": {"web_port": 5555, "web_listen_address": "10.0.0.2"}}, id="two addresses"
        ),
        pytest.param(
            everywhere(services_custom_commands={"huey-periodic": "python manage.py run_huey -n"}),
            id="a command of the other queue",
        ),
        pytest.param(everywhere(redis_database=1, redis_cache_database=0), id="two databases"),
        pytest.param(everywhere(flower_url_prefix="/tasks/flower"), id="a prefix of Flower's"),
        pytest.param(HUEY | everywhere(flower_url_prefix="flower"), id="a prefix of no Flower"),
    ],
)
def test_a_good_fleet_gets_no_sentence(change: Inventory) -> None:
    assert problems(change) == []


CASES = {
    # the scheduler
    "no host in scheduler": (
        groups(scheduler=[]),
        "Group 'scheduler' has no host, so no periodic task would ever run; put exactly one host "
        "there",
    ),
    "no group scheduler": (
        groups(scheduler=None),
        "Group 'scheduler' has no host, so no periodic task would ever run; put exactly one host "
        "there",
    ),
    "two hosts in scheduler": (
        groups(scheduler=["worker1", "worker2"]),
        "Group 'scheduler' has 2 hosts (worker1, worker2), so every periodic task would run more "
        "than once; leave exactly one, or set stack_scheduler_mode to 'failover'",
    ),
    "a scheduler without a task queue": (
        groups(workers=None, flower=None) | everywhere(stack_task_queue="none"),
        "Group 'scheduler' has worker1 although stack_task_queue is 'none'; empty the group or "
        "choose a task queue",
    ),
    "workers without a task queue": (
        groups(scheduler=None, flower=None) | everywhere(stack_task_queue="none"),
        "Group 'workers' has worker1, worker2 although stack_task_queue is 'none'; empty the group "
        "or choose a task queue",
    ),
    # groups
    "a misspelt group": (
        groups(worker=["worker3"], all=[*GOOD["groups"]["all"], "worker3"]),
        "Group 'worker' means nothing here, so worker3 would be left out; did you mean 'workers'?",
    ),
    "no workers": (
        groups(workers=None),
        "Group 'workers' has no host, so no task of stack_task_queue 'celery' would run; put at "
        "least one host there",
    ),
    "no broker": (
        groups(brokers=None),
        "Group 'brokers' has no host, but stack_broker 'redis' needs exactly one there; correct "
        "the group or choose 'external'",
    ),
    "two brokers": (
        groups(brokers=["broker1", "worker1"]) | {"worker1": {"stack_address": "10.0.0.9"}},
        "Group 'brokers' has 2 hosts (broker1, worker1), but stack_broker 'redis' needs exactly "
        "one there; correct the group or choose 'external'",
    ),
    "no database": (
        groups(database=[]),
        "Group 'database' has no host, but stack_database 'postgresql' needs exactly one there; "
        "correct the group or choose 'external'",
    ),
    "Flower without Celery": (
        everywhere(stack_task_queue="huey", flower_password=None),
        "Group 'flower' has web1, but Flower shows Celery alone and stack_task_queue is 'huey'; "
        "empty the group",
    ),
    # choices
    "RabbitMQ with Huey": (
        HUEY | everywhere(stack_task_queue="huey", **RABBITMQ["all"]),
        "stack_broker is rabbitmq, which stack_task_queue 'huey' cannot use; choose redis, sqlite, "
        "external",
    ),
    "a foreign RabbitMQ with Huey": (
        HUEY
        | everywhere(
            stack_task_queue="huey",
            stack_broker="external",
            stack_broker_external_url="amqp://u:hunter2@mq.example/v",
        ),
        "stack_broker_external_url leads to rabbitmq, which stack_task_queue 'huey' cannot use; "
        "choose redis, sqlite, external",
    ),
    "SQLite with Celery": (
        ONE_HOST | everywhere(stack_broker="sqlite"),
        "stack_broker is sqlite, which stack_task_queue 'celery' cannot use; choose redis, "
        "rabbitmq, external",
    ),
    "SQLite as the broker of several hosts": (
        HUEY | everywhere(stack_task_queue="huey", stack_broker="sqlite"),
        "stack_broker 'sqlite' is a file that only one host can use, but 3 run the project (web1, "
        "worker1, worker2); leave one host or choose another value",
    ),
    "a camera without Celery": (
        HUEY | everywhere(stack_task_queue="huey", celery_events_camera="a.Camera"),
        "celery_events_camera is set, but stack_task_queue is 'huey', which sends it no events; "
        "empty it",
    ),
    "an environment that differs": (
        {
            host: {"app_env": {"DEBUG": "no", "ENVIRONMENT": value}}
            for host, value in (("web1", "prod"), ("worker1", "prod"), ("worker2", "production"))
        },
        "app_env.ENVIRONMENT differs between web1 and worker2, so that tasks may wait where no "
        "worker looks; set it once, in group_vars/all",
    ),
    "a secret that differs": (
        {"worker1": {"app_secret_env": {}}},
        "app_secret_env.SECRET_KEY differs between web1 and worker1, so that tasks may wait where "
        "no worker looks; set it once, in group_vars/all",
    ),
    "settings that differ": (
        {"worker1": {"app_settings_module": "mysite.settings.dev"}},
        "app_settings_module differs between web1 and worker1, so that tasks may wait where no "
        "worker looks; set it once, in group_vars/all",
    ),
    "two names of a host": (
        {"worker1": {"stack_address": "10.0.0.9"}, "worker2": {"stack_address": "10.0.0.9"}},
        "worker1 and worker2 have the same stack_address 10.0.0.9: if they are one host, give it "
        "one name, else correct the address",
    ),
    "hosts disagree": (
        {"worker2": {"stack_name": "other"}},
        "stack_name must be the same on every host, but is 'demo' on broker1 and 'other' on "
        "worker2; set it once, in group_vars/all",
    ),
    "an unknown choice": (
        everywhere(stack_process_manager="systemdd"),
        "stack_process_manager 'systemdd' is none of systemd, supervisord; did you mean 'systemd'?",
    ),
    "an unknown choice like no other": (
        {"web1": {"stack_process_manager": "runit"}},
        "web1: stack_process_manager 'runit' is none of systemd, supervisord; correct it",
    ),
    "sqlite for several hosts": (
        groups(database=None) | everywhere(stack_database="sqlite"),
        "stack_database 'sqlite' is a file that only one host can use, but 3 run the project "
        "(web1, worker1, worker2); leave one host or choose another value",
    ),
    "a foreign broker without its URL": (
        everywhere(stack_broker="external"),
        "stack_broker is 'external', but stack_broker_external_url is empty; set it",
    ),
    "a foreign database without its URL": (
        everywhere(stack_database="external"),
        "stack_database is 'external', but stack_database_external_url is empty; set it",
    ),
    # variables
    "a computed variable": (
        everywhere(stack_broker_url="redis://other.example"),
        "stack_broker_url is computed and cannot be set; set stack_broker, or "
        "stack_broker_external_url instead",
    ),
    "a misspelt variable": (
        everywhere(celery_worker_pool=[MAIL]),
        "celery_worker_pool is no variable of this bundle; did you mean 'celery_worker_pools'?",
    ),
    "an unknown variable": (
        {"web1": {"web_favourite_colour": "blue"}},
        "web1: web_favourite_colour is no variable of this bundle; remove it",
    ),
    "a wrong type": (
        everywhere(celery_visibility_timeout="an hour"),
        "celery_visibility_timeout has the wrong type; make it int",
    ),
    "a wrong type inside a pool": (
        pools({**MAIL, "concurrency": "many"}),
        "celery_worker_pools[mail].concurrency has the wrong type; make it int",
    ),
    "an unknown choice inside a pool": (
        pools({**MAIL, "pool": "perfork"}),
        "celery_worker_pools[mail].pool 'perfork' is none of prefork, threads, solo; did you mean "
        "'prefork'?",
    ),
    "an unknown key inside a pool": (
        pools({**MAIL, "concurency": 2}),
        "celery_worker_pools[mail] has no key 'concurency'; did you mean 'concurrency'?",
    ),
    "an entry that is no pool": (
        pools(MAIL, ["celery"]),
        "celery_worker_pools[1] has the wrong type; make it dict",
    ),
    "a required variable": (
        everywhere(app_settings_module=None),
        "web1, worker1, worker2: app_settings_module is empty; set it",
    ),
    "a bad stack name": (
        everywhere(stack_name="My_Shop"),
        "stack_name 'My_Shop' is no valid name; use 1 to 31 lower-case letters, digits and dashes, "
        "beginning with a letter",
    ),
    "a stack name too long": (
        everywhere(stack_name="a" * 32),
        f"stack_name '{'a' * 32}' is no valid name; use 1 to 31 lower-case letters, digits and "
        "dashes, beginning with a letter",
    ),
    "a bad unit prefix": (
        everywhere(stack_unit_prefix="shop/"),
        "stack_unit_prefix 'shop/' is no valid name; use lower-case letters, digits and dashes",
    ),
    # secrets
    "a secret in the vault": (
        everywhere(vault_anything="CHANGE_ME"),
        "vault_anything is still at its placeholder; give it a value of your own",
    ),
    "a secret of ours": (
        everywhere(redis_password="changeme"),
        "redis_password is still at its placeholder; give it a value of your own",
    ),
    "a secret inside a dict": (
        everywhere(app_secret_env={"SECRET_KEY": "CHANGE_ME_to_something_long"}),
        "app_secret_env.SECRET_KEY is still at its placeholder; give it a value of your own",
    ),
    "an empty secret": (
        everywhere(postgresql_password=""),
        "postgresql_password is empty; set it",
    ),
    "an absent secret": (
        everywhere(redis_password=None),
        "redis_password is empty; set it",
    ),
    "RabbitMQ without a password": (
        RABBITMQ | everywhere(**RABBITMQ["all"] | {"rabbitmq_password": None}),
        "rabbitmq_password is empty; set it",
    ),
    "Flower without a password": (
        everywhere(flower_password=None),
        "web1: flower_password is empty; set it",
    ),
    # the project
    "no Celery application": (
        everywhere(app_celery=None),
        "web1, worker1, worker2: app_celery is empty; name the Celery application, as in celery -A",
    ),
    "no web application": (
        everywhere(app_wsgi=None),
        "web1: app_wsgi and app_asgi are empty; name the web application in one of them",
    ),
    "eager tasks": (
        everywhere(app_env={"CELERY_ALWAYS_EAGER": "True"}),
        "app_env.CELERY_ALWAYS_EAGER is true, so that no task would reach a worker; make it false "
        "or remove it",
    ),
    "immediate tasks": (
        HUEY | everywhere(stack_task_queue="huey", app_secret_env={"HUEY_IMMEDIATE": 1}),
        "app_secret_env.HUEY_IMMEDIATE is true, so that no task would reach a worker; make it "
        "false or remove it",
    ),
    "no source": (
        everywhere(app_source=None),
        "web1, worker1, worker2: app_source has nothing to deploy; set exactly one of path (a "
        "directory on this machine), git (with version) and package",
    ),
    "two sources": (
        everywhere(app_source={"path": "plugins", "package": "demo"}),
        "web1, worker1, worker2: app_source has path and package; set exactly one of path (a "
        "directory on this machine), git (with version) and package",
    ),
    "git without a version": (
        everywhere(app_source={"git": "https://git.example/demo.git"}),
        "web1, worker1, worker2: app_source.version is empty; name the branch, tag or commit of "
        "app_source.git",
    ),
    "a source directory that is not there": (
        everywhere(app_source={"path": "no/such/directory"}),
        "web1, worker1, worker2: app_source.path 'no/such/directory' is no directory on this "
        "machine; correct it",
    ),
    "an absolute shared path": (
        everywhere(app_shared_paths=["media", "/srv/media"]),
        "web1, worker1, worker2: app_shared_paths holds '/srv/media', which is not within a "
        "release; name a path relative to it",
    ),
    "a shared path that leaves the release": (
        everywhere(app_shared_paths=["media/../../x"]),
        "web1, worker1, worker2: app_shared_paths holds 'media/../../x', which is not within a "
        "release; name a path relative to it",
    ),
    "the whole release shared": (
        everywhere(app_shared_paths=["."]),
        "web1, worker1, worker2: app_shared_paths holds '.', which is not within a release; name "
        "a path relative to it",
    ),
    "a writable path within a shared one": (
        everywhere(app_shared_paths=["var"], app_release_writable_paths=["var/static"]),
        "web1, worker1, worker2: app_release_writable_paths holds 'var/static' and "
        "app_shared_paths holds 'var', of which one is within the other; name one of them",
    ),
    "a path both shared and writable": (
        everywhere(app_shared_paths=["static_root"]),
        "web1, worker1, worker2: app_release_writable_paths holds 'static_root' and "
        "app_shared_paths holds 'static_root', of which one is within the other; name one of them",
    ),
    "one release kept": (
        everywhere(app_keep_releases=1),
        "web1, worker1, worker2: app_keep_releases is below 2, so that there would be none to go "
        "back to; raise it",
    ),
    # worker pools
    "a pool named twice": (
        pools(MAIL, {"name": "other", "queues": ["o"]}, MAIL),
        "web1, worker1, worker2: celery_worker_pools names the pool 'mail' twice; rename or remove "
        "one",
    ),
    "a pool without queues": (
        pools({"name": "mail"}),
        "celery_worker_pools[mail].queues is empty; set it",
    ),
    "a pool with an empty list of queues": (
        pools({"name": "mail", "queues": []}),
        "web1, worker1, worker2: celery_worker_pools[mail].queues is empty; set it",
    ),
    "a pool without a name": (
        pools(MAIL, {"queues": ["mail"]}),
        "celery_worker_pools[1].name is empty; set it",
    ),
    "a pool with a bad name": (
        pools({**MAIL, "name": "Mail Out"}),
        "web1, worker1, worker2: celery_worker_pools[Mail Out].name 'Mail Out' is no valid name; "
        "use lower-case letters, digits and dashes, not beginning with a dash",
    ),
    "a pool with an empty name": (
        pools({**MAIL, "name": ""}),
        "web1, worker1, worker2: celery_worker_pools[0].name '' is no valid name; use lower-case "
        "letters, digits and dashes, not beginning with a dash",
    ),
    "a task that outlives its message": (
        pools({**MAIL, "time_limit": 7200}),
        "web1, worker1, worker2: celery_visibility_timeout is 7200 s, but "
        "celery_worker_pools[mail].time_limit is 7200 s, so Redis would hand a long task out "
        "twice; make the first larger",
    ),
    "a task's default limit that outlives its message": (
        everywhere(celery_visibility_timeout=600),
        "web1, worker1, worker2: celery_visibility_timeout is 600 s, but "
        "celery_worker_pools[default].time_limit is 3600 s, so Redis would hand a long task out "
        "twice; make the first larger",
    ),
    "a task that RabbitMQ cuts off": (
        RABBITMQ
        | everywhere(
            **RABBITMQ["all"],
            rabbitmq_consumer_timeout=1800,
            celery_worker_pools=[{**MAIL, "time_limit": 1800}],
        ),
        "rabbitmq_consumer_timeout is 1800 s, but celery_worker_pools[mail].time_limit is 1800 s, "
        "so RabbitMQ would cut off a worker with a long task; make the first larger",
    ),
    "a task that outlives its message in a foreign Redis": (
        everywhere(
            stack_broker="external",
            stack_broker_external_url="rediss://:hunter2@cache.example/0",
            celery_worker_pools=[{**MAIL, "time_limit": 7200}],
        ),
        "web1, worker1, worker2: celery_visibility_timeout is 7200 s, but "
        "celery_worker_pools[mail].time_limit is 7200 s, so Redis would hand a long task out "
        "twice; make the first larger",
    ),
    "a cache among the messages": (
        everywhere(redis_cache_database=0),
        "redis_database and redis_cache_database are both 0, so that clearing the cache would "
        "empty the queue; choose two numbers",
    ),
    "a database that Redis does not have": (
        everywhere(redis_cache_database=16),
        "redis_cache_database is 16, but Redis numbers its databases from 0 to 15",
    ),
    # addresses
    "an address for all": (
        {"worker1": {"stack_address": "0.0.0.0"}},  # noqa: S104
        "worker1: stack_address is 0.0.0.0, where web1, worker2 cannot reach this host; set it to "
        "the host's private address",
    ),
    "a port that is none": (
        {"web1": {"web_port": 80000}},
        "web1: web_port is 80000, which is no TCP port; use 1 to 65535",
    ),
    "a port that none can ask for": (
        {"web1": {"flower_port": 0}},
        "web1: flower_port is 0, which is no TCP port; use 1 to 65535",
    ),
    "a port for two": (
        {"web1": {"web_port": 5555}},
        "web1: web_port and flower_port are both 5555 on 127.0.0.1; choose two ports",
    ),
    "a broker on its loopback address": (
        {"broker1": {"stack_address": "127.0.0.1"}},
        "broker1: stack_address is 127.0.0.1, where web1, worker1, worker2 cannot reach this host; "
        "set it to the host's private address",
    ),
    "a broker whose address by default is its loopback": (
        {"broker1": {"stack_address": None, "ansible_host": "::1"}},
        "broker1: stack_address is ::1, where web1, worker1, worker2 cannot reach this host; set "
        "it to the host's private address",
    ),
    "a password that Flower would cut": (
        everywhere(flower_password="a,b"),
        "web1: flower_password holds a ',', which Flower takes for the end of it; choose one "
        "without",
    ),
    "a user that Flower would cut": (
        everywhere(flower_user="a:b"),
        "web1: flower_user holds a ':', which Flower takes for the end of it; choose one without",
    ),
    "a password of Flower's among its arguments": (
        everywhere(flower_extra_args=["--basic-auth=a:b"]),
        "web1: --basic-auth in flower_extra_args would replace what protects Flower; use "
        "flower_user and flower_password",
    ),
    "a socket of Flower's among its arguments": (
        everywhere(flower_extra_args=["--unix_socket=/run/flower"]),
        "web1: --unix_socket in flower_extra_args would replace what protects Flower; use "
        "flower_listen_address",
    ),
    "an address of Flower's among its arguments": (
        everywhere(flower_extra_args=["--address", "10.0.0.9"]),
        "web1: --address in flower_extra_args would replace what protects Flower; use "
        "flower_listen_address",
    ),
    "a password of Flower's in its own command": (
        everywhere(services_custom_commands={"flower": "celery flower --basic_auth="}),
        "web1: --basic_auth in services_custom_commands.flower would replace what protects Flower; "
        "use flower_user and flower_password",
    ),
    "a password of Flower's in the environment": (
        everywhere(app_env={"FLOWER_BASIC_AUTH": ""}),
        "web1: app_env.FLOWER_BASIC_AUTH would replace what protects Flower; use flower_user and "
        "flower_password",
    ),
    "a prefix of Flower's without a slash": (
        everywhere(flower_url_prefix="flower"),
        "web1: flower_url_prefix is 'flower', so that verify would look for Flower elsewhere; "
        "begin it with a slash and end it without one, as in '/flower'",
    ),
    "a prefix of Flower's that ends with a slash": (
        everywhere(flower_url_prefix="/flower/"),
        "web1: flower_url_prefix is '/flower/', so that verify would look for Flower elsewhere; "
        "begin it with a slash and end it without one, as in '/flower'",
    ),
    "a prefix of Flower's that is but a slash": (
        everywhere(flower_url_prefix="/"),
        "web1: flower_url_prefix is '/', so that verify would look for Flower elsewhere; begin it "
        "with a slash and end it without one, as in '/flower'",
    ),
    "an open Flower without a user": (
        {"web1": {"flower_listen_address": "0.0.0.0", "flower_user": None}},  # noqa: S104
        "web1: flower_listen_address is 0.0.0.0, open to the network, but flower_user is empty; "
        "set them or listen on 127.0.0.1",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), CASES.values(), ids=CASES)
def test_bad_input_gets_its_sentence_and_no_other(change: Inventory, sentence: str) -> None:
    assert problems(change) == [sentence]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([REDBEAT], id="RedBeat on two hosts"),
        pytest.param(
            [REDBEAT, everywhere(celery_beat_scheduler="redbeat")], id="RedBeat said twice"
        ),
        pytest.param([REDBEAT, {"worker1": {"stack_process_manager": "supervisord"}}], id="both"),
        pytest.param(
            [REDBEAT, RABBITMQ, everywhere(redis_password="r")], id="RedBeat beside RabbitMQ"
        ),
        pytest.param(
            [REDBEAT, RABBITMQ, LOCK, everywhere(redis_password="r", redis_lock_database=0)],
            id="RabbitMQ, and RedBeat on a Redis of its own",
        ),
        pytest.param(
            [
                REDBEAT,
                groups(brokers=None),
                everywhere(
                    stack_broker="external",
                    stack_broker_external_url="sentinel://:p@a.example:26379;sentinel://b.example",
                    redis_password=None,
                ),
            ],
            id="RedBeat on a foreign Redis",
        ),
        pytest.param([REDBEAT, FOREIGN_RABBITMQ, LOCK], id="RedBeat beside a foreign RabbitMQ"),
        pytest.param(
            [
                REDBEAT,
                everywhere(
                    celery_beat_lock_timeout=10,
                    celery_beat_max_interval=2,
                    celery_settings={
                        "task_acks_late": True,
                        "beat_cron_starting_deadline": 60,
                        "result_backend": "https://results.example",
                    },
                    celery_beat_extra_args=["--logfile=-", "-lINFO"],
                    app_env={"CELERY_TIMEZONE": "UTC"},
                ),
            ],
            id="RedBeat with what may be said beside it",
        ),
        pytest.param(
            [STATIC_REDBEAT, RABBITMQ, everywhere(redis_password="r")], id="RedBeat on one host"
        ),
        pytest.param(
            [STATIC_REDBEAT, LOCK, {"lock1": {"redis_cache_database": 2}}],
            id="RedBeat beside the broker's Redis",
        ),
        pytest.param([REDBEAT, everywhere(stack_dead_hosts=["worker1"])], id="one host is dead"),
        pytest.param([LOCK], id="a lock for the failover to come"),
        pytest.param([PACEMAKER], id="Celery under Pacemaker"),
        pytest.param([PACEMAKER, everywhere(celery_beat_scheduler="file")], id="with a file"),
        pytest.param([PACEMAKER, everywhere(celery_events_camera="a.Camera")], id="with a camera"),
        pytest.param(
            [
                PACEMAKER,
                groups(flower=None),
                everywhere(stack_task_queue="huey", stack_scheduler_engine=None),
            ],
            id="Huey under Pacemaker, its default",
        ),
        pytest.param([PACEMAKER, {"web1": {"stack_process_manager": "supervisord"}}], id="no unit"),
        pytest.param([PACEMAKER, everywhere(stack_dead_hosts=["worker1"])], id="a majority lives"),
        pytest.param([PACEMAKER, everywhere(celery_settings={"beat_scheduler": "a:B"})], id="own"),
        pytest.param(
            [everywhere(stack_scheduler_engine="pacemaker", celery_beat_lock_timeout=1)],
            id="an engine that nothing uses",
        ),
        pytest.param(
            [
                everywhere(
                    celery_beat_scheduler="memory",
                    celery_beat_extra_args=["--max-interval=60"],
                    app_env={"CELERY_LOADER": "mysite.loader:Loader"},
                )
            ],
            id="one host, with liberties that RedBeat does not give",
        ),
    ],
)
def test_a_good_choice_of_scheduler_gets_no_sentence(changes: list[Inventory]) -> None:
    assert problems(*changes) == []


MAJORITY = ", but Pacemaker schedules only where a majority of them see each other; have 3, 5 or 7 "
MAJORITY += "hosts there"
RUNS_BEAT = "would set aside how this bundle runs beat;"
RESTS_ON = "would set aside what this bundle rests on;"
NAMES_LOCK = " before it extends its lock, and takes time to send; make the first"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            [REDBEAT, groups(scheduler=["worker1"])],
            "Group 'scheduler' has 1 of the two or more hosts that stack_scheduler_mode 'failover' "
            "needs; add hosts or choose 'static'",
        ),
        (
            [PACEMAKER, groups(scheduler=["worker1", "worker2"])],
            f"Group 'scheduler' has 2 hosts (worker1, worker2){MAJORITY}",
        ),
        (
            [
                PACEMAKER,
                groups(scheduler=[*MEMBERS, "worker4"], all=[*GOOD["groups"]["all"], *ADDRESSES]),
            ],
            f"Group 'scheduler' has 4 hosts (worker1, worker2, worker3, worker4){MAJORITY}",
        ),
        ([PACEMAKER, groups(scheduler=[])], f"Group 'scheduler' has 0 hosts{MAJORITY}"),
        (
            [
                groups(workers=None, scheduler=None, flower=None),
                everywhere(stack_task_queue="none", stack_scheduler_mode="failover"),
            ],
            "stack_scheduler_mode is 'failover', but stack_task_queue 'none' has nothing to "
            "schedule; choose 'static'",
        ),
        (
            [
                REDBEAT,
                groups(flower=None),
                everywhere(stack_task_queue="huey", stack_scheduler_engine="redbeat"),
            ],
            "stack_scheduler_engine 'redbeat' knows Celery alone, but stack_task_queue is 'huey'; "
            "choose 'pacemaker'",
        ),
        (
            [REDBEAT, {"worker2": {"stack_scheduler_engine": "pacemaker"}}],
            "stack_scheduler_engine must be the same on every host, but is 'redbeat' on broker1 "
            "and 'pacemaker' on worker2; set it once, in group_vars/all",
        ),
        (
            [{"worker1": {"celery_beat_scheduler": "redbeat"}}],
            "celery_beat_scheduler must be the same on every host, but is 'project' on broker1 and "
            "'redbeat' on worker1; set it once, in group_vars/all",
        ),
        (
            [REDBEAT, everywhere(celery_beat_scheduler="database")],
            "celery_beat_scheduler is 'database', but stack_scheduler_engine 'redbeat' needs "
            "RedBeat; remove it",
        ),
        (
            [REDBEAT, everywhere(stack_dead_hosts=["worker1", "worker2"])],
            "stack_dead_hosts leaves 0 of the 2 hosts in group 'scheduler', but "
            "stack_scheduler_engine 'redbeat' needs 1, or no periodic task would run; put living "
            "hosts there",
        ),
        (
            [PACEMAKER, everywhere(stack_dead_hosts=["worker1", "worker2"])],
            "stack_dead_hosts leaves 1 of the 3 hosts in group 'scheduler', but "
            "stack_scheduler_engine 'pacemaker' needs 2, or no periodic task would run; put living "
            "hosts there",
        ),
        (
            [REDBEAT, LOCK, groups(lock=["lock1", "broker1"])],
            "Group 'lock' has 2 hosts (lock1, broker1), but RedBeat has one lock; leave at most "
            "one",
        ),
        (
            [PACEMAKER, LOCK, groups(all=[*PACEMAKER["groups"]["all"], "lock1"])],
            "Group 'lock' has lock1, but its Redis is for RedBeat, which is not used here; empty "
            "the group",
        ),
        (
            [REDBEAT, groups(locks=["lock1"], all=LOCK["groups"]["all"])],
            "Group 'locks' means nothing here, so lock1 would be left out; did you mean 'lock'?",
        ),
        (
            [REDBEAT, FOREIGN_RABBITMQ],
            "RedBeat keeps its lock in Redis, but stack_broker_external_url leads to none; put a "
            "host into group 'lock'",
        ),
        (
            [STATIC_REDBEAT, FOREIGN_RABBITMQ],
            "RedBeat keeps its lock in Redis, but stack_broker_external_url leads to none; put a "
            "host into group 'lock'",
        ),
        ([REDBEAT, RABBITMQ], "redis_password is empty; set it"),
        (
            [REDBEAT, FOREIGN_RABBITMQ, LOCK, everywhere(redis_password=None)],
            "lock1, web1, worker1 and 1 more: redis_password is empty; set it",
        ),
        (
            [REDBEAT, LOCK, {"lock1": {"redis_password": None}}],
            "lock1: redis_password is empty; set it",
        ),
        (
            [REDBEAT, RABBITMQ, LOCK, everywhere(redis_password="r", redis_lock_database=16)],
            "lock1, web1, worker1 and 1 more: redis_lock_database is 16, but Redis numbers its "
            "databases from 0 to 15",
        ),
        (
            [REDBEAT, groups(lock=["broker1"]), everywhere(redis_lock_database=1)],
            "redis_lock_database and redis_cache_database are both 1, so that clearing the cache "
            "would take RedBeat's lock; choose two numbers",
        ),
        (
            [REDBEAT, LOCK, {"lock1": {"stack_address": "127.0.0.1"}}],
            "lock1: stack_address is 127.0.0.1, where web1, worker1, worker2 cannot reach this "
            "host; set it to the host's private address",
        ),
        (
            [PACEMAKER, {"worker2": {"stack_address": "::1"}}],
            "worker2: stack_address is ::1, where web1, worker1, worker3 cannot reach this host; "
            "set it to the host's private address",
        ),
        (
            [PACEMAKER, {"worker2": {"stack_process_manager": "supervisord"}}],
            "worker2: stack_process_manager is 'supervisord', but Pacemaker runs a scheduler as a "
            "unit of systemd; choose 'systemd' on the hosts of group 'scheduler'",
        ),
        (
            [PACEMAKER, everywhere(pacemaker_authkey=None)],
            "worker1, worker2, worker3: pacemaker_authkey is empty; set it",
        ),
        *(
            (
                [PACEMAKER, everywhere(pacemaker_authkey=key)],
                "worker1, worker2, worker3: pacemaker_authkey is not one line of 32 or more "
                "characters; generate a new one",
            )
            for key in ("k" * 31, "k" * 20 + "\n" + "k" * 20)
        ),
        (
            [PACEMAKER, everywhere(pacemaker_authkey="CHANGE_ME")],
            "pacemaker_authkey is still at its placeholder; give it a value of your own",
        ),
        (
            [PACEMAKER, everywhere(pacemaker_margin=2)],
            "worker1, worker2, worker3: pacemaker_margin is 2 s, which leaves a scheduler no time "
            "to stop; make it more than 2",
        ),
        (
            [
                PACEMAKER,
                groups(flower=None),
                everywhere(stack_task_queue="huey", huey_periodic_workers=1),
            ],
            "worker1, worker2, worker3: huey_periodic_workers lets the scheduler run tasks, which "
            "Pacemaker would cut off when it moves the scheduler; leave that to the workers",
        ),
        (
            [
                PACEMAKER,
                groups(flower=None),
                everywhere(stack_task_queue="huey", huey_periodic_extra_args=["-w", "2"]),
            ],
            "worker1, worker2, worker3: --workers in huey_periodic_extra_args lets the scheduler "
            "run tasks, which Pacemaker would cut off when it moves the scheduler; leave that to "
            "the workers",
        ),
        (
            [REDBEAT, everywhere(stack_scheduler_engine="pacemakr")],
            "stack_scheduler_engine 'pacemakr' is none of redbeat, pacemaker; did you mean "
            "'pacemaker'?",
        ),
        # beat
        (
            [REDBEAT, everywhere(celery_beat_lock_timeout=5)],
            "worker1, worker2: celery_beat_lock_timeout is 5 s, but beat sleeps for up to 5 s "
            f"(celery_beat_max_interval){NAMES_LOCK} 12 or more",
        ),
        (
            [STATIC_REDBEAT, everywhere(celery_beat_max_interval=15)],
            "worker1: celery_beat_lock_timeout is 30 s, but beat sleeps for up to 15 s "
            f"(celery_beat_max_interval){NAMES_LOCK} 32 or more",
        ),
        (
            [REDBEAT, everywhere(celery_beat_max_interval=0)],
            "worker1, worker2: celery_beat_max_interval is 0 s; use a positive number of seconds",
        ),
        (
            [REDBEAT, everywhere(celery_beat_lock_timeout=-30)],
            "worker1, worker2: celery_beat_lock_timeout is -30 s; use a positive number of seconds",
        ),
        *(
            (
                [everywhere(celery_beat_extra_args=words)],
                f"worker1: {option} in celery_beat_extra_args {RUNS_BEAT} {cure}",
            )
            for words, option, cure in (
                (["-S", "a.B"], "--scheduler", "use celery_beat_scheduler"),
                (["--scheduler=a.B"], "--scheduler", "use celery_beat_scheduler"),
                (["-s/var/schedule"], "--schedule", "remove it"),
                (["--schedule", "/var/schedule"], "--schedule", "remove it"),
                (["--pidfile=/var/pid"], "--pidfile", "remove it"),
                (["-n", "beat@here"], "--hostname", "remove it"),
                (["--detach"], "--detach", "remove it"),
                (["--no-enable-remote-control"], "--no-enable-remote-control", "remove it"),
            )
        ),
        (
            [REDBEAT, everywhere(celery_beat_extra_args="--max-interval 60")],
            f"worker1, worker2: --max-interval in celery_beat_extra_args {RUNS_BEAT} use "
            "celery_beat_max_interval",
        ),
        (
            [
                REDBEAT,
                everywhere(services_custom_commands={"celery-beat": "celery -A a beat -Sa.B"}),
            ],
            f"worker1, worker2: --scheduler in services_custom_commands.celery-beat {RUNS_BEAT} "
            "use celery_beat_scheduler",
        ),
        (
            [everywhere(app_env={"CELERY_BEAT_SCHEDULER": "a.B"})],
            f"worker1: app_env.CELERY_BEAT_SCHEDULER {RUNS_BEAT} use celery_beat_scheduler",
        ),
        (
            [everywhere(app_secret_env={"STACK_CELERY_SETTINGS": "{}"})],
            f"worker1: app_secret_env.STACK_CELERY_SETTINGS {RUNS_BEAT} use celery_settings",
        ),
        (
            [REDBEAT, everywhere(app_env={"CELERY_LOADER": "mysite.loader:Loader"})],
            f"worker1, worker2: app_env.CELERY_LOADER {RUNS_BEAT} remove it, or choose "
            "stack_scheduler_mode 'static'",
        ),
        # settings
        *(
            (
                [REDBEAT, everywhere(celery_settings={name: 1})],
                f"web1, worker1, worker2: celery_settings.{name} {RESTS_ON} {cure}",
            )
            for name, cure in (
                ("beat_scheduler", "use celery_beat_scheduler"),
                ("CELERY_BEAT_SCHEDULER", "use celery_beat_scheduler"),
                ("beat_max_loop_interval", "use celery_beat_max_interval"),
                ("redbeat_lock_timeout", "use celery_beat_lock_timeout"),
                ("redbeat_lock_key", "remove it"),
                ("redbeat_key_prefix", "remove it"),
                ("beat_sync_every", "remove it"),
                ("beat_enable_remote_control", "remove it"),
            )
        ),
        (
            [everywhere(celery_beat_scheduler="file", celery_settings={"beat_scheduler": "a:B"})],
            f"web1, worker1, worker2: celery_settings.beat_scheduler {RESTS_ON} use "
            "celery_beat_scheduler",
        ),
        (
            [everywhere(celery_settings={"broker_write_url": "redis://:hunter2@cache.example"})],
            f"web1, worker1, worker2: celery_settings.broker_write_url {RESTS_ON} use stack_broker "
            "or stack_broker_external_url",
        ),
        (
            [everywhere(celery_settings={"TASK_ACKS_LATE": True})],
            "web1, worker1, worker2: celery_settings.TASK_ACKS_LATE is no name of a setting since "
            "Celery 4; write 'task_acks_late'",
        ),
        (
            [everywhere(celery_settings={"task_always_eager": True})],
            "web1, worker1, worker2: celery_settings.task_always_eager is true, so that no task "
            "would reach a worker; remove it",
        ),
        (
            [everywhere(celery_settings={"stores": ["redis://:hunter2@cache.example/3"]})],
            "web1, worker1, worker2: celery_settings.stores[0] holds a password, which Celery "
            "shows to everybody who may ask a worker; let the project's settings read it from "
            "app_secret_env",
        ),
    ],
)
def test_a_bad_choice_of_scheduler_gets_its_sentence(
    changes: list[Inventory], sentence: str
) -> None:
    assert problems(*changes) == [sentence]


BEAT, EMBEDDED, HUEY = (
    "celery beat",
    "celery worker with embedded beat",
    "huey consumer with periodic tasks",
)


@pytest.mark.parametrize(
    ("change", "where", "kind"),
    [
        (everywhere(celery_worker_extra_args=["-B"]), "celery_worker_extra_args", EMBEDDED),
        (
            everywhere(celery_worker_extra_args="-O fair --beat"),
            "celery_worker_extra_args",
            EMBEDDED,
        ),
        (pools({**MAIL, "extra_args": ["-EB"]}), "celery_worker_pools[mail].extra_args", EMBEDDED),
        (
            everywhere(app_after_switch=[{"command": "celery -A a beat --detach"}]),
            "app_after_switch[0].command",
            BEAT,
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_an_embedded_scheduler_is_refused_by_place(
    change: Inventory, where: str, kind: str
) -> None:
    assert problems(change) == [
        f"{where} starts a scheduler ({kind}) beside the one of group 'scheduler'; take it out"
    ]


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("python manage.py celery start -b", EMBEDDED),
        (["celery", "-A", "a", "worker", "--beat"], EMBEDDED),
        ("sh -c 'cd /srv && exec celery -A a worker -EB'", EMBEDDED),
        ("env TZ=UTC nice celery -A a beat", BEAT),
        ("python manage.py run_huey", HUEY),
        ("huey_consumer a.huey --workers 2", HUEY),
    ],
    ids=str,
)
def test_a_scheduler_in_a_custom_command_is_refused(command: Any, kind: str) -> None:
    assert problems(everywhere(services_custom_commands={"celery-worker": command})) == [
        f"services_custom_commands.celery-worker starts a scheduler ({kind}) beside the one of "
        "group 'scheduler'; take it out"
    ]


@pytest.mark.parametrize(
    "command",
    [
        "python manage.py celery start",
        "celery -A beat worker -n beat@host",
        "huey_consumer a.huey --no-periodic",
        "python manage.py run_huey -n",
        "sh -c 'it is unbalanced",
    ],
)
def test_a_custom_command_without_a_scheduler_passes(command: str) -> None:
    assert problems(everywhere(services_custom_commands={"celery-worker": command})) == []


@pytest.mark.parametrize(
    ("queue", "service", "command"),
    [
        ("celery", "celery-beat", "celery -A a worker"),
        ("celery", "celery-beat", ["python", "manage.py", "celery", "start"]),
        ("huey", "huey-periodic", "python manage.py run_huey --no-periodic"),
        ("huey", "huey-periodic", "/srv/bin/huey_consumer.py a.huey -w 4 -n"),
    ],
)
def test_a_scheduler_that_schedules_nothing_is_refused(
    queue: str, service: str, command: Any
) -> None:
    change = groups(flower=None) | everywhere(
        stack_task_queue=queue, services_custom_commands={service: command}
    )
    (sentence,) = problems(change)
    assert sentence.startswith(
        f"services_custom_commands.{service} starts no scheduler, so no periodic task would ever "
        "run; let it run "
    )


def test_a_scheduler_that_its_arguments_silence_is_refused() -> None:
    change = groups(flower=None) | everywhere(
        stack_task_queue="huey", huey_periodic_extra_args=["-k", "thread", "--no-periodic"]
    )
    assert problems(change) == [
        "huey_periodic_extra_args starts no scheduler, so no periodic task would ever run; let it "
        "run Huey's consumer without --no-periodic"
    ]


def test_failover_needs_what_several_hosts_can_use() -> None:
    change = ONE_HOST | everywhere(stack_database="sqlite", stack_scheduler_mode="failover")
    assert (
        "stack_database 'sqlite' is a file on one host, so stack_scheduler_mode 'failover' would "
        "have nowhere to go; choose 'static' or another value"
    ) in problems(change)


def test_all_is_reported_at_once_worst_first() -> None:
    change = groups(scheduler=[]) | everywhere(
        stack_brokr="redis",
        redis_password="CHANGE_ME",
        celery_worker_pools=[{**MAIL, "extra_args": "-B"}],
        stack_process_manager="runit",
    )
    assert [sentence.split()[0] for sentence in problems(change)] == [
        "Group",
        "celery_worker_pools[mail].extra_args",
        "stack_brokr",
        "stack_process_manager",
        "redis_password",
    ]


def test_many_hosts_are_summed_up() -> None:
    change = {host: {"web_favourite": 1} for host in ("broker1", "worker1", "worker2")}
    change["web1"] = {}
    change["groups"] = {"all": [*GOOD["groups"]["all"], "web2"], "web": ["web1", "web2"]}
    change["web2"] = {"web_favourite": 1}
    assert problems(change) == [
        "broker1, web2, worker1 and 1 more: web_favourite is no variable of this bundle; remove it"
    ]


def test_no_sentence_prints_a_secret_of_the_wrong_type() -> None:
    assert problems(everywhere(app_secret_env="hunter2")) == [
        "app_secret_env has the wrong type; make it dict"
    ]


def template(text: str) -> str:
    """Return text as Ansible reads it from an inventory."""
    return trust_as_template(text)


def test_a_variable_that_cannot_be_templated_hides_no_other() -> None:
    change = everywhere(
        app_env={"A": template("{{ nowhere }}")}, redis_password=template("{{ vault_anything }}")
    )
    assert problems(change, {"web1": {"vault_anything": ""}}) == [
        "app_env cannot be read: 'nowhere' is undefined",
        "web1: redis_password is empty; set it",
    ]


def test_no_sentence_prints_the_password_of_a_url() -> None:
    url = "amqp://u:hunter2@mq.example/v"
    change = groups(flower=None) | everywhere(
        stack_task_queue="huey", stack_broker="external", stack_broker_external_url=url
    )
    differing = {"worker2": {"stack_broker_external_url": f"{url}2"}}
    assert len(problems(change, differing)) == 2
    assert "hunter2" not in "".join(problems(change, differing))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{{ stack_broker_url }}", id="a computed variable"),
        pytest.param("{{ ansible_facts['processor_vcpus'] }}", id="a fact"),
        pytest.param("{{ stack_process_manager }}", id="a role's default"),
        pytest.param("{{ hostvars['broker1']['stack_address'] }}", id="another host's variable"),
    ],
)
def test_a_template_may_use(text: str) -> None:
    assert problems(everywhere(app_env={"A": template(text)})) == []


def test_what_waits_for_facts_is_compared_with_nothing() -> None:
    address = template("{{ ansible_facts['default_ipv4']['address'] }}")
    assert problems({host: {"stack_address": address} for host in ("worker1", "worker2")}) == []
    change = {"worker1": {"app_env": {"A": template("{{ ansible_facts['hostname'] }}")}}}
    assert problems(everywhere(app_env={"A": "b"}), change) == []


def test_a_computed_variable_is_read_as_the_roles_will_compute_it() -> None:
    change = everywhere(app_env={"REDIS_URL": template("{{ stack_broker_url | mandatory }}")})
    assert problems(change) == []
    # Both brokers are in the same environment, so what is computed from them differs nowhere.
    assert problems(change, {"worker1": {"redis_port": 6380}}) == [
        "app_env.REDIS_URL differs between web1 and worker1, so that tasks may wait where no "
        "worker looks; set it once, in group_vars/all"
    ]


def test_a_placeholder_is_named_where_it_is_to_be_changed() -> None:
    change = everywhere(
        vault_key="CHANGE_ME",
        other_key="CHANGE_ME",
        app_secret_env={"A": template("{{ vault_key }}"), "B": template("{{ other_key }}")},
    )
    assert problems(change) == [
        "app_secret_env.B is still at its placeholder; give it a value of your own",
        "vault_key is still at its placeholder; give it a value of your own",
    ]


def test_the_specs_of_all_roles_are_found(tmp_path: Path) -> None:
    for role in ("redis", "app"):
        (tmp_path / role / "meta").mkdir(parents=True)
        (tmp_path / role / "meta" / "argument_specs.yml").write_text(
            yaml.safe_dump({"argument_specs": SPECS[role]})
        )
    (tmp_path / "bare" / "tasks").mkdir(parents=True)
    assert FILTERS["role_specs"](str(tmp_path)) == {"redis": SPECS["redis"], "app": SPECS["app"]}


def test_a_misspelt_variable_of_any_role_is_found() -> None:
    specs = FILTERS["role_specs"](str(PLUGIN.parents[2] / "roles"))
    variables = {
        variable
        for entry_points in specs.values()
        for spec in entry_points.values()
        for variable in spec.get("options", {})
    }
    assert [
        name for name in sorted(variables) if not name.startswith(tuple(MODULE["PREFIXES"]))
    ] == []


def test_a_default_that_cannot_be_worked_out_is_not_known_to_be_empty() -> None:
    def fails(_template: str) -> None:
        raise MODULE["AnsibleError"]("no such variable")

    host = MODULE["Host"]("web1", {}, {"a": ""}, {}, {"b": "{{ c }}"}, fails)
    assert [host.lacks("a"), host.can_read("a")] == [True, True]
    assert [host.can_read("b"), host.lacks("b"), host.get("b")] == [False, False, None]
