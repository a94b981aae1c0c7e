"""Groups and choices in, service specs out."""

import os
import socket
import subprocess
import time
from pathlib import Path
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
        "scheduler_hosts": ["worker1"] if "scheduler" in groups else [],
        "engine": "",
        "task_queue": "celery",
        "broker": "redis",
        "database": "postgresql",
        "bin": "/opt/shop/current/.venv/bin",
        "state_dir": "/var/lib/shop",
        "custom_commands": {},
        "app_wsgi": "shop.wsgi:application",
        "app_asgi": "",
        "wait_for_broker": 0,
        "broker_url": "",
        "app_manage": "python manage.py",
        "app_huey": "",
        "celery_app": "shop",
        "web_listen": "127.0.0.1:8000",
    }
    return {**DEFAULTS, **own, **more}


def services(*groups: str, **more: Any) -> dict[str, dict[str, Any]]:
    found = specs.service_specs(choices(*groups, **more))["services"]
    return {one["name"]: one for one in found}


def huey(*groups: str, **more: Any) -> dict[str, dict[str, Any]]:
    return services(*groups, task_queue="huey", **more)


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


def test_beats_memory_of_what_it_sent_stays_on_its_host_alone() -> None:
    """A stale one makes a beat that comes back send at once what others sent long ago."""
    forgotten = [f"{choices('workers')['state_dir']}/celerybeat-schedule*"]
    assert specs.service_specs(choices("workers"))["forget"] == forgotten
    assert specs.service_specs(choices("workers", "scheduler"))["forget"] == []
    beat = services("workers", "scheduler")["celery-beat"]
    assert f"{choices('workers')['state_dir']}/celerybeat-schedule" in beat["argv"]


def test_the_hosts_that_shall_schedule_decide_and_not_the_group() -> None:
    """A playbook that moves the scheduler knows better than the inventory."""
    moved = services("workers", "scheduler", scheduler_hosts=["worker2"])
    assert list(moved) == ["celery-worker"]
    there = services("workers", scheduler_hosts=["worker1"])
    assert list(there) == ["celery-worker", "celery-beat"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, True),
        ({"celery_beat_scheduler": "file"}, True),
        ({"celery_beat_scheduler": "database"}, False),
        ({"celery_beat_scheduler": "memory"}, False),
        ({"celery_beat_scheduler": "redbeat"}, False),
        ({"engine": "pacemaker"}, True),
        ({"engine": "redbeat"}, False),
        ({"engine": "redbeat", "celery_beat_scheduler": "file"}, False),
    ],
)
def test_beat_has_a_schedule_file_where_its_scheduler_keeps_one(
    given: dict[str, str], kept: bool
) -> None:
    found = specs.service_specs(choices("scheduler", **given))
    (beat,) = found["services"]
    assert ("--schedule" in beat["argv"]) == kept
    assert found["forget"] == ([] if kept else ["/var/lib/shop/celerybeat-schedule*"])


@pytest.mark.parametrize("engine", ["", "redbeat", "pacemaker"])
def test_a_scheduler_says_what_keeps_it_the_one(engine: str) -> None:
    assert services("scheduler", engine=engine)["celery-beat"]["engine"] == engine
    assert huey("scheduler", engine=engine)["huey-periodic"]["engine"] == engine
    assert services("workers", "scheduler", engine=engine)["celery-worker"]["engine"] == ""


def test_there_is_one_camera_beside_several_beats() -> None:
    given: dict[str, Any] = {"engine": "redbeat", "celery_events_camera": "shop.Camera"}
    first = services("scheduler", scheduler_hosts=["worker1", "worker2"], **given)
    second = services("scheduler", scheduler_hosts=["worker2", "worker1"], **given)
    assert list(first) == ["celery-events", "celery-beat"]
    assert list(second) == ["celery-beat"]


def test_no_task_queue_leaves_the_web_server_alone() -> None:
    names = services("web", "workers", "scheduler", "flower", task_queue="none")
    assert list(names) == ["web"]
    assert "celery-beat" in absent("scheduler", task_queue="none")


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (["workers"], ["huey-worker"]),
        (["scheduler"], ["huey-periodic"]),
        (["web", "workers", "scheduler", "flower"], ["web", "huey-worker", "huey-periodic"]),
    ],
)
def test_a_group_brings_hueys_services(groups: list[str], names: list[str]) -> None:
    assert list(huey(*groups)) == names


def test_the_schedulers_of_the_other_queue_may_run_nowhere() -> None:
    both = ["celery-beat", "huey-periodic"]
    assert absent("workers", task_queue="huey") == both
    assert absent("workers", "scheduler", task_queue="huey") == ["celery-beat"]
    assert absent("workers", "scheduler", task_queue="celery") == ["huey-periodic"]


def test_a_queue_needs_none_of_the_other_queues_choices() -> None:
    for queue, foreign in (("huey", ("celery_", "flower_")), ("celery", ("huey_", "app_huey"))):
        given = choices("web", "workers", "scheduler", task_queue=queue)
        own = {name: value for name, value in given.items() if not name.startswith(foreign)}
        if queue == "celery":
            own["groups"] = [*own["groups"], "flower"]
        assert len(specs.service_specs(own)["services"]) == (3 if queue == "huey" else 4)


def test_only_one_huey_consumer_schedules() -> None:
    found = huey("workers", "scheduler")
    assert "--no-periodic" in found["huey-worker"]["argv"]
    assert "--no-periodic" not in found["huey-periodic"]["argv"]
    assert [one["name"] for one in found.values() if one["scheduler"]] == ["huey-periodic"]


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ({}, ["/opt/shop/current/.venv/bin/python", "manage.py", "run_huey"]),
        ({"app_manage": "/srv/manage"}, ["/srv/manage", "run_huey"]),
        ({"app_huey": "shop.q"}, ["/opt/shop/current/.venv/bin/huey_consumer", "shop.q"]),
    ],
)
@pytest.mark.parametrize("name", ["huey-worker", "huey-periodic"])
def test_huey_is_run_by_django_or_by_its_own_command(
    name: str, given: dict[str, str], command: list[str]
) -> None:
    argv = huey("workers", "scheduler", **given)[name]["argv"]
    assert argv[: len(command)] == command


@pytest.mark.parametrize(
    ("workers", "argument"),
    [
        (0, ["--workers", "0", "--worker-type", "thread"]),
        (3, ["--workers", "3", "--worker-type", "process"]),
    ],
)
def test_hueys_scheduler_is_one_process_unless_it_works_too(
    workers: int, argument: list[str]
) -> None:
    given: dict[str, Any] = {"huey_worker_type": "process", "huey_periodic_workers": workers}
    argv = huey("scheduler", **given)["huey-periodic"]["argv"]
    assert argv[-4:] == argument


def test_huey_is_asked_to_stop_in_the_way_that_lets_tasks_end() -> None:
    for one in huey("workers", "scheduler", huey_stop_timeout="600").values():
        assert (one["stop_signal"], one["stop_timeout"]) == ("INT", 600)


@pytest.mark.parametrize(("second", "start"), [(0, 5), (4, 5), (5, 5), (6, 65), (30, 65), (59, 65)])
def test_hueys_scheduler_starts_five_seconds_after_the_full_minute(
    second: int, start: int, tmp_path: Path
) -> None:
    one = huey("scheduler")["huey-periodic"]
    (wait,) = one["before"]
    # The real line, among programs that tell this time and do not sleep.
    for name, line in (("date", f"echo {1_800_000_000 + second}"), ("sleep", 'echo "$1"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    slept = subprocess.check_output(wait, env={"PATH": str(tmp_path)}, text=True)
    assert second + int(slept) == start
    assert one["start_timeout"] > 60


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


@pytest.mark.parametrize(
    ("has_told", "age", "status"),
    [(True, 0, 0), (True, 60, 0), (False, 0, 1), (False, 60, 33)],
    ids=["it has said so", "some time ago", "it has not yet", "it never does, and is asked"],
)
def test_a_worker_counts_as_started_when_it_says_so_or_answers(
    tmp_path: Path, has_told: bool, age: int, status: int
) -> None:
    worker = services("workers", state_dir=str(tmp_path))["celery-worker"]
    told = Path(worker["environment"]["STACK_READY_FILE"])
    told.write_text("of a former process")
    subprocess.run(worker["before"][-1], check=True)
    assert told.read_text() == ""
    if has_told:
        told.write_text("ready")
    os.utime(told, (time.time() - age,) * 2)
    ready = worker["ready"]
    asks = ready.index("/opt/shop/current/.venv/bin/python")
    assert ready[-2:] == ["shop", "celery@worker1"]
    compile(ready[asks + 2], "ready", "exec")
    done = subprocess.run([*ready[:asks], "/bin/sh", "-c", "exit 33"], check=False)
    assert done.returncode == status


def test_beat_counts_as_started_when_it_says_so_unless_it_may_have_to_stand_by() -> None:
    beat = services("scheduler")["celery-beat"]
    assert beat["environment"]["STACK_READY_FILE"] in beat["ready"]
    assert beat["ready"][-1] == "true"
    # The host is asked first whether another one schedules.
    assert len(beat["before"]) == 2
    for engine in ("redbeat", "pacemaker"):
        assert services("scheduler", engine=engine)["celery-beat"]["ready"] == []


def test_each_pool_says_so_in_a_file_of_its_own() -> None:
    pools = [{"name": name, "queues": ["celery"]} for name in ("default", "mail")]
    found = services("workers", celery_worker_pools=pools)
    assert len({one["environment"]["STACK_READY_FILE"] for one in found.values()}) == len(pools)


def test_a_web_server_counts_as_started_when_it_answers_well() -> None:
    web = services("web", web_health_path="/up", web_health_status=["204"])["web"]
    assert web["health"] == {"address": "127.0.0.1:8000", "path": "/up", "status": [204]}
    own = services("web", custom_commands={"web": "daphne shop.asgi:application"})["web"]
    assert own["health"]["path"] == "/"


def test_the_handover_is_the_choice_of_workers_and_never_of_schedulers() -> None:
    def handed(found: dict[str, dict[str, Any]]) -> list[str]:
        return [name for name, one in found.items() if one["handover"]]

    groups = ("web", "workers", "scheduler", "flower")
    camera = {"celery_events_camera": "shop.Camera"}
    assert handed(services(*groups, **camera)) == ["web", "celery-worker"]
    assert handed(services(*groups, **camera, celery_worker_handover="wait")) == ["web"]
    assert handed(huey(*groups)) == ["web", "huey-worker"]
    assert handed(huey(*groups, huey_worker_handover="wait")) == ["web"]


@pytest.mark.parametrize(
    ("limits", "needs"),
    [
        ([("web", "1G", True)], {"once": 2**30, "beside": 2**30}),
        ([("web", "1G", True), ("flower", "512M", False)], {"once": 3 * 2**29, "beside": 2**30}),
        ([("web", "", True), ("flower", "50%", False)], {"once": 0, "beside": 0}),
    ],
)
def test_a_handover_needs_memory_for_both(
    limits: list[tuple[str, str, bool]], needs: dict[str, int]
) -> None:
    services = [
        specs.spec(name, name, ["x"], memory_max=limit, handover=handover)
        for name, limit, handover in limits
    ]
    assert specs.memory_needs(services) == {**needs, "choice": "celery_worker_handover"}


def test_the_choice_that_saves_memory_is_that_of_the_queue() -> None:
    assert specs.memory_needs(list(huey("workers").values()))["choice"] == "huey_worker_handover"


class Untemplated(dict[str, Any]):
    """Choices of which those alone may be read that decide which services there are."""

    def __getitem__(self, name: str) -> Any:
        if name not in {
            "groups", "host", "scheduler_hosts", "engine", "task_queue", "celery_worker_pools",
            "celery_events_camera",
        }:  # fmt: skip
            raise AssertionError(f"{name} costs time to template")
        return super().__getitem__(name)


CAMERA = {"celery_events_camera": "shop.Camera"}


@pytest.mark.parametrize(
    ("groups", "more"),
    [
        (["web", "workers", "scheduler", "flower"], {}),
        (["web", "workers", "scheduler", "flower"], CAMERA),
        (["workers", "scheduler"], {"task_queue": "huey"}),
        (["web", "workers", "scheduler"], {"task_queue": "none"}),
        (["workers"], {"celery_worker_pools": [{"name": "slow", "queues": ["slow"]}]}),
        ([], {}),
    ],
)
def test_a_census_asks_for_every_service_that_is_or_must_not_be(
    groups: list[str], more: dict[str, Any]
) -> None:
    given = choices(*groups, **more)
    found = specs.census_options(Untemplated(given), "shop-")
    whole = specs.service_specs(given)
    names = [one["name"] for one in whole["services"]] + whole["absent"]
    assert sorted(found["names"]) == sorted(f"shop-{name}" for name in names)
    schedulers = [one["name"] for one in whole["services"] if one["scheduler"]] + whole["absent"]
    assert sorted(found["programs"]) == sorted(f"shop-{name}" for name in schedulers)
    assert found["units"] == [f"{name}.service" for name in found["programs"]]


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


@pytest.mark.parametrize("queue", ["celery", "huey"])
def test_nothing_waits_for_the_broker_unless_it_is_asked_to(queue: str) -> None:
    given = {"task_queue": queue, "broker_url": "redis://:hunter2@10.0.0.1/0"}
    free = services("web", "workers", "scheduler", **given)
    waiting = services("web", "workers", "scheduler", **given, wait_for_broker="30")
    for name, one in waiting.items():
        own = len(one["before"]) - len(free[name]["before"])
        assert own == (0 if name == "web" else 1)
        assert one["start_timeout"] == free[name]["start_timeout"] + (30 if own else 0)
        assert "hunter2" not in str(one)


def test_a_beat_with_a_lock_waits_for_the_broker_before_it_takes_it() -> None:
    """One that took it and could not connect would send, late, what its successor has sent."""
    given = {"broker_url": "amqp://shop:pw@10.0.0.1/shop"}
    free = services("workers", "scheduler", **given)
    held = services("workers", "scheduler", **given, engine="redbeat")
    assert held["celery-worker"]["before"] == free["celery-worker"]["before"]
    (wait,) = held["celery-beat"]["before"]
    assert wait[:2] == ["/usr/bin/timeout", "60"]
    assert wait[-2:] == ["10.0.0.1", "5672"]
    assert held["celery-beat"]["start_timeout"] == free["celery-beat"]["start_timeout"] + 60


def test_waiting_for_the_broker_ends_when_its_port_opens_and_fails_when_it_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://:pw@127.0.0.1:{server.getsockname()[1]}/0"
        given: dict[str, Any] = {"wait_for_broker": 1, "broker_url": url}
        wait, _ = services("workers", **given)["celery-worker"]["before"]
        assert subprocess.run(wait, check=False).returncode == 0
    assert subprocess.run(wait, check=False).returncode != 0


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://:pw@10.0.0.1:6380/0", ("10.0.0.1", 6380)),
        ("rediss://:pw@broker/0?ssl_cert_reqs=required", ("broker", 6379)),
        ("amqp://shop:p%2Fw@[fd00::1]/shop", ("fd00::1", 5672)),
        ("amqps://shop:pw@broker//", ("broker", 5671)),
        ("sentinel://:pw@h1:26380/0;sentinel://:pw@h2:26380/0", ("h1", 26380)),
        ("sqlite:////var/lib/shop/huey.sqlite3", None),
        ("memory://", None),
    ],
)
def test_the_brokers_address_is_read_from_its_url(url: str, address: Any) -> None:
    assert specs.broker_address(url) == address


def test_a_password_that_breaks_the_url_is_not_repeated() -> None:
    with pytest.raises(specs.AnsibleFilterError, match="no valid port") as caught:
        specs.broker_address("redis://:hunter2/x@broker:6379/0")
    assert "hunter2" not in str(caught.value)


def test_the_events_camera_runs_where_it_is_wanted() -> None:
    assert "celery-events" not in services("scheduler")
    found = services("scheduler", celery_events_camera="shop.Camera", celery_events_frequency=1.5)
    assert list(found) == ["celery-events", "celery-beat"]
    argv = found["celery-events"]["argv"]
    assert argv[argv.index("--camera") + 1] == "shop.Camera"
    assert argv[argv.index("--frequency") + 1] == "1.5"
    assert "--pidfile=" in argv


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


def test_a_custom_scheduler_still_waits_for_its_second() -> None:
    custom = {"huey-periodic": "python manage.py run_huey --workers 1"}
    own = huey("scheduler", custom_commands=custom)["huey-periodic"]
    assert own["argv"][-2:] == ["--workers", "1"]
    assert (own["stop_signal"], own["scheduler"], len(own["before"])) == ("INT", True, 1)


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
