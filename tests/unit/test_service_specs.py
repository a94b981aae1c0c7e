"""Groups and choices in, service specs out."""

from typing import Any

import pytest
import yaml
from loading import ROOT, load

specs = load("filter/service_specs")

DEFAULTS = yaml.safe_load((ROOT / "roles/services/defaults/main.yml").read_text())


def choices(*groups: str, **more: Any) -> dict[str, Any]:
    """Return what roles/services hands to the filter, for a host in `groups`."""
    own = {
        "groups": list(groups),
        "host": "worker1",
        "task_queue": "celery",
        "broker": "redis",
        "database": "postgresql",
        "bin": "/opt/shop/current/.venv/bin",
        "state_dir": "/var/lib/shop",
        "custom_commands": {},
        "app_wsgi": "shop.wsgi:application",
        "app_asgi": "",
        "celery_app": "shop",
        "web_listen": "127.0.0.1:8000",
    }
    return {**DEFAULTS, **own, **more}


def services(*groups: str, **more: Any) -> dict[str, dict[str, Any]]:
    found = specs.service_specs(choices(*groups, **more))["services"]
    return {one["name"]: one for one in found}


def absent(*groups: str, **more: Any) -> list[str]:
    return specs.service_specs(choices(*groups, **more))["absent"]


def pool(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "default", "queues": ["celery"], **more}]


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (["workers"], ["celery-worker"]),
        (["scheduler"], ["celery-beat"]),
        (["workers", "scheduler"], ["celery-worker", "celery-beat"]),
        (["web", "flower"], ["web", "flower"]),
        (["brokers", "database"], []),
    ],
)
def test_a_group_brings_its_services(groups: list[str], names: list[str]) -> None:
    assert list(services(*groups)) == names


def test_only_the_scheduler_host_may_run_beat() -> None:
    assert absent("workers") == ["celery-beat", "huey-periodic"]
    assert absent("workers", "scheduler") == ["huey-periodic"]


def test_no_task_queue_leaves_the_web_server_alone() -> None:
    names = services("web", "workers", "scheduler", "flower", task_queue="none")
    assert list(names) == ["web"]
    assert "celery-beat" in absent("scheduler", task_queue="none")


def test_every_pool_is_a_service_and_default_has_no_suffix() -> None:
    pools = [*pool(), {"name": "mail", "queues": ["mail", "slow"]}]
    assert list(services("workers", celery_worker_pools=pools)) == [
        "celery-worker",
        "celery-worker-mail",
    ]


def test_node_names_are_unique_in_the_fleet() -> None:
    pools = [*pool(), {"name": "mail", "queues": ["mail"]}]
    assert specs.worker_nodes(pools, ["worker1", "worker2"]) == [
        "celery@worker1",
        "mail@worker1",
        "celery@worker2",
        "mail@worker2",
    ]


@pytest.mark.parametrize(
    ("key", "value", "argument"),
    [
        ("queues", ["a", "b"], ["--queues", "a,b"]),
        ("concurrency", 4, ["--concurrency", "4"]),
        ("pool", "threads", ["--pool", "threads"]),
        ("max_tasks_per_child", 20, ["--max-tasks-per-child", "20"]),
        ("time_limit", 60, ["--time-limit", "60"]),
        ("soft_time_limit", 50, ["--soft-time-limit", "50"]),
        ("prefetch_multiplier", 1, ["--prefetch-multiplier", "1"]),
        ("autoscale", "10,3", ["--autoscale", "10,3"]),
        ("extra_args", ["-O", "fair"], ["-O", "fair"]),
        ("extra_args", "-O fair", ["-O", "fair"]),
    ],
)
def test_a_pools_key_reaches_the_command(key: str, value: Any, argument: list[str]) -> None:
    argv = services("workers", celery_worker_pools=pool(**{key: value}))["celery-worker"]["argv"]
    at = argv.index(argument[0])
    assert argv[at : at + len(argument)] == argument


def test_a_worker_may_finish_its_longest_task() -> None:
    limited = services("workers", celery_worker_pools=pool(time_limit=600))["celery-worker"]
    assert limited["stop_timeout"] > 600
    free = services("workers", celery_worker_pools=pool())["celery-worker"]
    assert free["stop_timeout"] == DEFAULTS["celery_worker_stop_timeout"]


def test_numbers_from_the_command_line_are_numbers() -> None:
    """`-e web_timeout=61` makes a text of it."""
    assert services("web", web_timeout="61")["web"]["stop_timeout"] == 71
    free = services("workers", celery_worker_stop_timeout="90")["celery-worker"]
    assert free["stop_timeout"] == 90


def test_a_worker_counts_as_started_when_it_answers() -> None:
    ready = services("workers")["celery-worker"]["ready"]
    assert "ping" in ready
    assert "celery@worker1" in ready


def test_beat_is_the_scheduler_and_comes_last() -> None:
    names = services("web", "workers", "scheduler", "flower")
    assert [one["name"] for one in names.values() if one["scheduler"]] == ["celery-beat"]
    assert list(names)[-1] == "celery-beat"


def test_beat_keeps_no_pid_file_and_keeps_its_schedule() -> None:
    argv = services("scheduler")["celery-beat"]["argv"]
    assert "--pidfile=" in argv
    assert argv[argv.index("--schedule") + 1] == "/var/lib/shop/celerybeat-schedule"


def test_no_secret_is_in_any_command() -> None:
    given = choices("web", "workers", "scheduler", "flower", flower_password="hunter2")
    assert "hunter2" not in str(specs.service_specs(given))


def test_flower_is_private_and_persistent() -> None:
    argv = services("flower")["flower"]["argv"]
    assert "--address=127.0.0.1" in argv
    assert "--persistent=True" in argv
    assert "--db=/var/lib/shop/flower.db" in argv


def test_the_process_manager_holds_the_socket_of_the_web_server() -> None:
    web = services("web")["web"]
    assert web["listen"] == ["127.0.0.1:8000"]
    assert not any("--bind" in word for word in web["argv"])


def test_asgi_is_served_when_there_is_no_wsgi() -> None:
    argv = services("web", app_wsgi="", app_asgi="shop.asgi:application")["web"]["argv"]
    assert argv[1] == "shop.asgi:application"
    assert "--worker-class" in argv


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("python manage.py celery start", "/opt/shop/current/.venv/bin/python"),
        (["/usr/bin/env", "x"], "/usr/bin/env"),
    ],
)
def test_a_custom_command_keeps_the_supervision(command: Any, program: str) -> None:
    own = services("workers", custom_commands={"celery-worker": command})["celery-worker"]
    usual = services("workers")["celery-worker"]
    assert own["argv"][0] == program
    assert own["stop_timeout"] == usual["stop_timeout"]
    assert own["ready"] == []


def test_a_service_starts_after_the_broker_only_where_that_is_local() -> None:
    assert services("workers")["celery-worker"]["after"] == []
    local = services("workers", "brokers", "database")["celery-worker"]["after"]
    assert local == ["redis", "postgresql"]
    foreign = services("workers", "brokers", broker="external")["celery-worker"]["after"]
    assert foreign == []


def test_an_unknown_task_queue_is_refused_instead_of_stopping_everything() -> None:
    with pytest.raises(specs.AnsibleFilterError, match="no task queue 'selery'"):
        services("web", task_queue="selery")


def test_a_missing_choice_is_named() -> None:
    with pytest.raises(specs.AnsibleFilterError, match="celery_app"):
        specs.service_specs({k: v for k, v in choices("workers").items() if k != "celery_app"})
