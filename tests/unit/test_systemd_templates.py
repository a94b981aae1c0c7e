"""The units that systemd gets to read."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from loading import load
from test_service_specs import choices, specs

action = load("action/process_set")

STACK: dict[str, Any] = {
    "name": "shop",
    "prefix": "",
    "user": "shop",
    "current": "/opt/shop/current",
    "state_dir": "/var/lib/shop",
    "env_file": "/etc/shop/shop.env",
    "writable": [],
    "options": {},
}
SCHEDULERS = {"celery": "celery-beat", "huey": "huey-periodic"}
HOST = {"hostname": "worker1", "machine_id": "0123456789abcdef0123456789abcdef"}


def render(*groups: str, stack: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return the file set of a host in `groups`, files by name."""
    found = specs.service_specs(choices(*groups, **more))
    result = action.render_systemd(
        {**STACK, **(stack or {})}, found["services"], found["absent"], HOST
    )
    files = {one["path"].rsplit("/", 1)[1]: one["content"] for one in result["files"]}
    return {**result, "files": files}


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_every_file_names_its_stack_near_the_top() -> None:
    for text in render("web", "workers", "scheduler", "flower")["files"].values():
        assert "# stack: shop" in lines(text)[:3]


def test_a_host_without_services_gets_no_target() -> None:
    result = render("brokers")
    assert result["files"] == {}
    assert result["masked"] == ["celery-beat.service", "huey-periodic.service"]


def test_the_prefix_is_in_every_name_but_the_target() -> None:
    result = render("web", "workers", stack={"prefix": "shop-"})
    assert set(result["files"]) == {
        "shop.target",
        "shop-web.socket",
        "shop-web.service",
        "shop-celery-worker.service",
    }
    assert "Requires=shop-web.socket" in lines(result["files"]["shop-web.service"])
    assert result["masked"][0] == "shop-celery-beat.service"


@pytest.mark.parametrize(
    "directive",
    [
        "KillMode=mixed",
        "KillSignal=SIGTERM",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "NoNewPrivileges=true",
        "ProtectSystem=strict",
        "User=shop",
        "EnvironmentFile=/etc/shop/shop.env",
        "WorkingDirectory=/opt/shop/current",
        "PartOf=shop.target",
        "WantedBy=shop.target",
    ],
)
def test_every_service_has(directive: str) -> None:
    files = render("web", "workers", "scheduler", "flower")["files"]
    services = {name: text for name, text in files.items() if name.endswith(".service")}
    assert len(services) == 4
    assert [name for name, text in services.items() if directive not in lines(text)] == []


def test_only_the_scheduler_is_locked_and_bound_to_its_host() -> None:
    files = render("web", "workers", "scheduler", "flower")["files"]
    bound = [name for name, text in files.items() if "AssertHost=worker1" in text]
    locked = [name for name, text in files.items() if "flock --nonblock --no-fork" in text]
    assert bound == locked == ["celery-beat.service"]
    assert f"AssertHost={HOST['machine_id']}" in lines(files["celery-beat.service"])


def test_the_scheduler_starts_after_all_others() -> None:
    units = render("workers", "scheduler")["units"]
    assert [unit["name"] for unit in units if unit.get("scheduler")] == ["celery-beat.service"]


def test_a_service_restarts_for_its_environment_and_release() -> None:
    units = {unit["name"]: unit for unit in render("workers")["units"]}
    assert units["celery-worker.service"]["newer_than"] == [
        "/etc/shop/shop.env",
        "/opt/shop/current",
    ]


def test_what_comes_before_runs_in_order_and_word_by_word() -> None:
    before = [["/bin/sh", "-c", "sleep $((65 - $(date +%s) % 60))"], ["/bin/true"]]
    found = specs.service_specs(choices("workers"))["services"]
    result = action.render_systemd(STACK, [{**found[0], "before": before}], [], HOST)
    assert [one for one in lines(result["files"][1]["content"]) if "ExecStartPre" in one] == [
        'ExecStartPre=/bin/sh -c "sleep $$((65 - $$(date +%%s) %% 60))"',
        "ExecStartPre=/bin/true",
    ]


def test_options_come_after_ours_so_that_they_win() -> None:
    stack = {"options": {"MemoryDenyWriteExecute": "false"}}
    unit = lines(render("workers", stack=stack)["files"]["celery-worker.service"])
    assert unit.index("MemoryDenyWriteExecute=false") > unit.index("MemoryDenyWriteExecute=true")
    assert unit.index("MemoryDenyWriteExecute=false") < unit.index("[Install]")


def test_memory_is_limited_only_when_asked_for() -> None:
    pool = {"name": "default", "queues": ["celery"]}
    free = render("workers", celery_worker_pools=[pool])["files"]["celery-worker.service"]
    assert "MemoryMax" not in free
    limited = render("workers", celery_worker_pools=[{**pool, "memory_max": "1G"}])["files"]
    assert "MemoryMax=1G" in lines(limited["celery-worker.service"])


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("plain", "plain"),
        ("celery@%h", "celery@%%h"),
        ("$HOME", "$$HOME"),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("back\\slash", "back\\\\slash"),
        ("", '""'),
        ("semi;colon", '"semi;colon"'),
    ],
)
def test_a_word_reaches_the_program_unchanged(word: str, quoted: str) -> None:
    assert action.systemd_word(word) == quoted


def in_cluster(*groups: str, **more: Any) -> tuple[list[str], dict[str, Any]]:
    """Return the scheduler's unit, line by line, and its entry in the set, under Pacemaker."""
    result = render(*groups, stack={"margin": 6}, engine="pacemaker", **more)
    (entry,) = [unit for unit in result["units"] if unit.get("scheduler")]
    return lines(result["files"][entry["name"]]), entry


@pytest.mark.parametrize("queue", ["celery", "huey"])
def test_the_cluster_alone_starts_its_scheduler(queue: str) -> None:
    unit, entry = in_cluster("workers", "scheduler", task_queue=queue)
    assert entry["held"] is True
    assert {"BindsTo=corosync.service", "After=corosync.service", "Restart=no"} <= set(unit)
    assert [one for one in unit if one.startswith(("WantedBy", "PartOf", "[Install]"))] == []
    assert any(one.startswith("AssertHost=") for one in unit)


@pytest.mark.parametrize("queue", ["celery", "huey"])
def test_a_scheduler_in_a_cluster_stops_sooner_than_another_starts(queue: str) -> None:
    unit, _ = in_cluster("scheduler", task_queue=queue)
    assert next(one for one in unit if "ExecStartPre" in one) == "ExecStartPre=/bin/sleep 6"
    # Whoever stood still for longer may have been replaced.
    assert "Environment=STACK_STILL_MAX=6" in unit
    assert "TimeoutStopSec=4" in unit
    static = lines(render("scheduler", task_queue=queue)["files"][f"{SCHEDULERS[queue]}.service"])
    seconds = [
        int(one.split("=")[1]) for text in (unit, static) for one in text if "StartSec" in one
    ]
    assert seconds[0] == seconds[1] + 6
    assert not any("STACK_STILL_MAX" in one for one in static)


# Stands for the cluster's own, which the test hosts have: a file holds the attribute.
CRM_ATTRIBUTE = """#!/bin/sh
case "$*" in
*--query*) cat "$ATTRIBUTE" ;;
*) for last; do :; done; printf %s "$last" >"$ATTRIBUTE" ;;
esac
"""


@pytest.mark.parametrize(("last", "left"), [("me", True), ("other", False), ("", False)])
def test_in_a_cluster_only_the_host_that_scheduled_last_remembers(
    last: str, left: bool, tmp_path: Path
) -> None:
    """Another one would send again what was sent since its own turn."""
    files = [tmp_path / "celerybeat-schedule", tmp_path / "celerybeat-schedule.db"]
    other, attribute = tmp_path / "db.sqlite3", tmp_path / "attribute"
    for one in (*files, other):
        one.touch()
    if last:
        attribute.write_text(os.uname().nodename if last == "me" else last)
    fake = tmp_path / "crm_attribute"
    fake.write_text(CRM_ATTRIBUTE)
    fake.chmod(0o755)
    unit, _ = in_cluster("scheduler", state_dir=str(tmp_path))
    (line,) = [one for one in unit if one.startswith("ExecStartPre=+")]
    argv = shlex.split(line.removeprefix("ExecStartPre=+").replace("$$", "$"))
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ATTRIBUTE": str(attribute)}
    subprocess.run(argv, check=True, env=env)
    assert [one.exists() for one in files] == [left, left]
    assert other.exists()
    assert attribute.read_text() == os.uname().nodename


def test_no_other_unit_is_held() -> None:
    units = render("web", "workers", "scheduler", stack={"margin": 6}, engine="pacemaker")["units"]
    assert [unit["name"] for unit in units if unit.get("held")] == ["celery-beat.service"]


def test_a_scheduler_comes_back_within_a_second() -> None:
    files = render("workers", "scheduler")["files"]
    assert "RestartSec=500ms" in lines(files["celery-beat.service"])
    assert "RestartSec=3" in lines(files["celery-worker.service"])


def test_the_environment_of_a_service_reaches_it_unchanged() -> None:
    found = specs.service_specs(choices("workers"))["services"]
    odd = {"B": 'a "b" $c %h \\ d', "A": "1"}
    result = action.render_systemd(STACK, [{**found[0], "environment": odd}], [], HOST)
    unit = lines(result["files"][1]["content"])
    assert [one for one in unit if one.startswith('Environment="')] == [
        'Environment="A=1"',
        'Environment="B=a \\"b\\" $c %%h \\\\ d"',
    ]
