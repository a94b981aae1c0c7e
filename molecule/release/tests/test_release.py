"""A release refuses no request and holds up no task; one that is broken or killed loses nothing.

The tests follow each other on one fleet: each leaves it whole, on a release of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults import measured
from fleet import (
    INVENTORY,
    PERIODIC,
    ROOT,
    SERVICES,
    STACK,
    WORKER,
    Fleet,
    Page,
    flat,
    host_of,
    names,
    wait_for,
)
from load import Load

WEB = names("web")
APP_HOSTS = [*WEB, *names("workers")]
CURRENT = f"/opt/{STACK}/current"
OLD_MIGRATION = "0002_task_state"
# A long task: seconds that outlast two releases on a slow machine, and the file that ends it.
LONG = "900"
ENOUGH = f"/var/lib/{STACK}/shared/media/enough"
# Sends quick tasks as long as a file is there, and prints their ids; before them, some for later.
STREAM = """
import os, time
import django
django.setup()
from ticks.tasks import add
for _ in range(6):
    add.apply_async((1, 2), countdown=3600)
while os.path.exists("/tmp/stream"):
    print(add.delay(1, 2).id, flush=True)
    time.sleep(0.1)
"""
STREAMED = """
from django_celery_results.models import TaskResult
ids = open("/tmp/stream.ids").read().split()
print(len(ids), TaskResult.objects.filter(task_id__in=ids, status="SUCCESS").count())
"""
# Asks Redis for a message, consumes no longer, and is given one all the same; prints how many the
# queue has then.
LAST_ANSWER = """
import os, socket
from contextlib import suppress
import kombu
from example.celery import app
from stack_celery import read_last_answer
name = f"last-answer-{os.getpid()}"
queue = kombu.Queue(name, routing_key=name)
with app.connection_for_read() as here, app.connection_for_write() as there:
    consumer = kombu.Consumer(here.default_channel, queue)
    consumer.consume()
    with suppress(socket.timeout):
        here.drain_events(timeout=0.1)
    consumer.cancel()
    there.SimpleQueue(queue).put({})
    read_last_answer(here.default_channel)
    found = queue(there.default_channel)
    print(found.queue_declare(passive=True).message_count)
    found.purge()
"""
DRAINING = "systemctl list-units --plain --no-legend '*-draining-*'"


class Project:
    """A copy of the example that a test changes and deploys."""

    def __init__(self, path: Path) -> None:
        shutil.copytree(ROOT / "example", path)
        self.path = path

    def edit(self, name: str, old: str, new: str) -> None:
        """Change a file's text, which must be there."""
        file = self.path / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def name_it(self, version: str) -> None:
        """Let /healthz say which version answers."""
        file = self.path / "ticks/health.py"
        changed = re.sub(
            r"JsonResponse\(.*?, status",
            f'JsonResponse({{**parts, "version": "{version}"}}, status',
            file.read_text(),
        )
        file.write_text(changed)

    @property
    def arguments(self) -> tuple[str, str]:
        """What ansible-playbook is given to deploy it."""
        return "-e", json.dumps({"app_source": {"path": str(self.path)}})


# The play has hosts.
AT_ONCE = re.compile(r"PLAY \[Go back on every host at once\] \*+\n\nTASK")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The example, whose `slow` ends when a test says so: releases take as long as the machine."""
    made = Project(tmp_path_factory.mktemp("release") / "project")
    made.edit("ticks/tasks.py", "while (", f"while not os.path.exists({ENOUGH!r}) and (")
    made.edit("example/settings.py", "PAGE_SLOW_SECONDS = 300", f"PAGE_SLOW_SECONDS = {LONG}")
    return made


def releases(fleet: Fleet) -> dict[str, str]:
    """Return host -> the release that is current there."""
    return {host: Path(fleet[host].check_output(f"readlink {CURRENT}")).name for host in APP_HOSTS}


def journal(fleet: Fleet, host: str) -> list[dict[str, Any]]:
    """Return the entries of a host's journal of deploys."""
    said = fleet[host].check_output(f"cat /opt/{STACK}/deploys.jsonl")
    return [json.loads(line) for line in said.splitlines()]


def pids(fleet: Fleet) -> dict[tuple[str, str], int]:
    """Return the main process of every service."""
    return {(name, host): fleet.service(name, host).pid for name, host in SERVICES}


def load(fleet: Fleet) -> Load:
    return Load(*(fleet.address(host) for host in WEB))


def status(fleet: Fleet) -> dict[str, Any]:
    """Return the status screen for machines."""
    found: dict[str, Any] = json.loads(fleet.playbook("status", "-e", "format=json").stdout)
    return found


def start_on(host: str, fleet: Fleet, page: Page) -> str:
    """Start a long task on the worker of a host; return the task's id."""
    others = ",".join(f"celery@{one}" for one in names("workers") if one != host)
    celery, to = f"{STACK}-shell celery -A example", f"--timeout 20 --destination {others}"
    fleet[host].check_output(f"{celery} control {to} cancel_consumer celery")
    # A pool without an event loop (gevent) says yes at once, and does it when it has next read
    # from the broker: Celery's Consumer.call_soon and synloop.
    queues = f"{celery} inspect {to} --json active_queues"
    wait_for(
        lambda: not any(json.loads(fleet[host].check_output(queues)).values()),
        60,
        lambda: f"{others} still consume",
    )
    task_id = page.run_task(task="slow", seconds=LONG)
    task = page.reached(task_id, ("STARTED",), 60)
    fleet[host].check_output(f"{celery} control {to} add_consumer celery")
    assert host_of(task) == host
    return task_id


@contextmanager
def streamed(fleet: Fleet) -> Iterator[None]:
    """Send quick tasks all the time; behind them, wait until all are done."""
    host = fleet.one("workers")
    host.check_output(
        "touch /tmp/stream; "
        f"setsid nohup {STACK}-shell python -c %s </dev/null >/tmp/stream.ids 2>/tmp/stream.log &",
        STREAM,
    )
    done = ["0"]

    def all_done() -> bool:
        done[:] = fleet.python("workers", STREAMED).split()
        return int(done[0]) > 20 and done[0] == done[1]

    try:
        yield
    finally:
        host.check_output("rm /tmp/stream")
    wait_for(all_done, 30, lambda: f"sent and done: {done}")


def scheduled(fleet: Fleet) -> int:
    """Return how many tasks the workers that consume keep until it is time for them."""
    celery = f"{STACK}-shell celery -A example inspect --timeout 10 --json scheduled"
    return sum(map(len, json.loads(fleet.one("workers").check_output(celery)).values()))


def test_it_refuses_no_request_and_holds_up_no_task(
    fleet: Fleet, page: Page, project: Project
) -> None:
    project.name_it("one")
    result = fleet.playbook("release", *project.arguments)
    assert result.returncode == 0, result.stdout
    before, processes = releases(fleet), pids(fleet)
    project.name_it("two")
    # On each worker, so that both managers and pools have one to wait for.
    slow = [start_on(host, fleet, page) for host in names("workers")]
    # The scheduler is restarted, and nothing else keeps it from ticking.
    with (
        measured(page, "a release", gap=5),
        load(fleet) as requests,
        # The former workers drain still when all that was sent has to be done.
        streamed(fleet),
    ):
        result = fleet.playbook("release", *project.arguments)
    assert result.returncode == 0, result.stdout
    assert requests.failed == []
    assert requests.answered > 100
    wait_for(lambda: scheduled(fleet) == 6, 30, lambda: f"{scheduled(fleet)} of 6 wait for later")
    after = releases(fleet)
    assert len(set(after.values())) == 1
    assert set(after.values()).isdisjoint(before.values())
    assert all(Page(fleet.address(host)).json("/healthz")["version"] == "two" for host in WEB)
    now = pids(fleet)
    assert [one for one in processes if now[one] in (0, processes[one])] == []

    # It did not wait for the tasks, and they go on.
    assert {page.task(one)["state"] for one in slow} == {"STARTED"}
    draining = [one for one in status(fleet)["draining"] if one["service"] == WORKER]
    assert draining
    assert {one["release"] for one in draining} == set(before.values())
    # Another release comes while they drain, and some of the new ones' tasks are under way.
    late = [page.run_task(task="slow", seconds=LONG) for _ in range(4)]
    for one in late:
        page.reached(one, ("STARTED",), 60)
    project.name_it("two and a half")
    result = fleet.playbook("release", *project.arguments)
    assert result.returncode == 0, result.stdout
    draining = [one for one in status(fleet)["draining"] if one["service"] == WORKER]
    assert {one["release"] for one in draining} == {*before.values(), *after.values()}
    slow += late
    # The newest workers work while the old ones drain.
    quick = [page.run_task(task="add", x="1", y="2") for _ in range(4)]
    assert {page.finished(one, 30)["state"] for one in quick} == {"SUCCESS"}
    for host in names("workers"):
        fleet[host].check_output(f"touch {ENOUGH}")
    assert {page.finished(one, 60)["state"] for one in slow} == {"SUCCESS"}
    wait_for(
        lambda: not any(fleet[host].check_output(DRAINING) for host in names("workers")),
        60,
        lambda: "a worker still drains that has nothing to do",
    )
    for host in names("workers"):
        fleet[host].check_output(f"rm {ENOUGH}")

    for host in APP_HOSTS:
        *_, first, second = journal(fleet, host)
        assert (first["result"], first["release"], first["from"]) == (
            "ok",
            after[host],
            before[host],
        )
        assert (second["result"], second["from"]) == ("ok", after[host])
        assert "@" in first["who"]


def test_the_answer_to_a_draining_workers_last_question_is_given_back(fleet: Fleet) -> None:
    """Whether a release meets a worker in that moment is chance."""
    assert fleet.python("workers", LAST_ANSWER, django=False).strip() == "1"


def test_a_second_run_has_nothing_to_do(fleet: Fleet, project: Project) -> None:
    before, entries = pids(fleet), {host: journal(fleet, host) for host in APP_HOSTS}
    result = fleet.playbook("release", *project.arguments)
    assert result.returncode == 0, result.stdout
    assert "changed=0" in result.stdout
    assert not re.search(r"changed=[1-9]", result.stdout)
    assert pids(fleet) == before
    assert {host: journal(fleet, host) for host in APP_HOSTS} == entries


def test_a_broken_one_is_given_back_on_its_first_host(fleet: Fleet, project: Project) -> None:
    before, processes = releases(fleet), pids(fleet)
    project.edit("example/wsgi.py", "application =", "import no_such_module\n\napplication =")
    try:
        with load(fleet) as requests:
            result = fleet.playbook("release", *project.arguments)
    finally:
        project.edit("example/wsgi.py", "import no_such_module\n\n", "")
    assert result.returncode != 0
    assert "No module named 'no_such_module'" in result.stdout
    assert f"runs from the release {before[WEB[0]]} again" in flat(result.stdout)
    assert requests.failed == []
    assert releases(fleet) == before
    # All but that web server were left alone.
    now = pids(fleet)
    assert [one for one in processes if now[one] != processes[one]] == [("web", WEB[0])]
    last = {host: journal(fleet, host)[-1] for host in APP_HOSTS}
    assert {host: one["result"] for host, one in last.items() if one["result"] != "ok"} == {
        WEB[0]: "rolled back"
    }
    assert "no_such_module" in last[WEB[0]]["why"]
    said = fleet.playbook("status").stdout
    assert "rolled back" in said


def test_one_that_answers_badly_is_given_back_under_either_manager(
    fleet: Fleet, project: Project
) -> None:
    """It starts, and can do all but what it is for: only its answer tells."""
    before, processes = releases(fleet), pids(fleet)
    project.edit("ticks/health.py", "200 if healthy else 503", "500")
    both = json.dumps({"app_web_batch": len(WEB)})
    try:
        with load(fleet) as requests:
            result = fleet.playbook("release", *project.arguments, "-e", both)
    finally:
        project.edit("ticks/health.py", "status=500", "status=200 if healthy else 503")
    assert result.returncode != 0
    assert requests.failed == []
    assert releases(fleet) == before
    now = pids(fleet)
    assert {one for one in processes if now[one] != processes[one]} == {("web", one) for one in WEB}
    for host in WEB:
        last = journal(fleet, host)[-1]
        assert last["result"] == "rolled back"
        assert "/healthz is answered with 500, not 200." in last["why"]
        assert "/healthz is answered with 500, not 200." in flat(result.stdout)
        assert Page(fleet.address(host)).json("/healthz")["version"] == "two and a half"
    # What was given back is the only one that goes on.
    for host in WEB:
        wait_for(
            lambda host=host: not fleet[host].check_output(DRAINING),  # type: ignore[misc]
            90,
            lambda: "a web server still drains",
        )


def test_one_whose_beat_does_not_start_is_given_back_with_all_of_its_host(
    fleet: Fleet, page: Page, project: Project
) -> None:
    """The host's worker had changed over with the other hosts, before beat."""
    before, host = releases(fleet), names("scheduler")[0]
    name = "example/celery.py"
    broken = "import sys\n\nif 'beat' in sys.argv:\n    sys.exit('beat has no clock')\n"
    project.edit(name, "import os\n", f"import os\n{broken}")
    try:
        result = fleet.playbook("release", *project.arguments)
    finally:
        project.edit(name, broken, "")
    assert result.returncode != 0
    assert "beat has no clock" in result.stdout
    assert f"runs from the release {before[host]} again" in flat(result.stdout)
    now = releases(fleet)
    assert [one for one in now if now[one] == before[one]] == [host]
    ok, back = journal(fleet, host)[-2:]
    assert [ok["result"], back["result"]] == ["ok", "rolled back"]
    assert ok["release"] == back["release"] == now[WEB[0]]
    assert "beat has no clock" in back["why"]
    # It runs what `current` says, all of it, and schedules.
    for service in (WORKER, PERIODIC):
        wait_for(
            lambda service=service: fleet.service(service, host).is_running,  # type: ignore[misc]
            30,
            lambda service=service: fleet.service(service, host).status,  # type: ignore[misc]
        )
    # verify tells that the hosts do not run the same, and of nothing else.
    said = fleet.playbook("verify").stdout
    assert before[host] in said
    assert "scheduler runs" not in said
    assert fleet[host].check_output(f"ls -A /opt/{STACK} /etc/{STACK}").count(".former") == 0
    # A release that is whole finds its way from there.
    result = fleet.playbook("release", *project.arguments)
    assert result.returncode == 0, result.stdout
    assert len(set(releases(fleet).values())) == 1


def test_the_way_back_takes_one_command(fleet: Fleet, page: Page, project: Project) -> None:
    """To the previous release, whichever that was; and there again, by its name."""
    here = releases(fleet)[WEB[0]]
    project.name_it("three")
    result = fleet.playbook("release", *project.arguments)
    assert result.returncode == 0, result.stdout
    there = releases(fleet)[WEB[0]]
    with load(fleet) as requests:
        result = fleet.playbook("rollback")
    assert result.returncode == 0, result.stdout
    assert requests.failed == []
    assert set(releases(fleet).values()) == {here}
    assert AT_ONCE.search(result.stdout), "One host waits for another."
    assert journal(fleet, WEB[1])[-1]["action"] == "rollback"
    assert page.json("/healthz")["version"] == "two and a half"

    # A scheduler that is missing comes last.
    fleet[names("scheduler")[0]].check_output(f"systemctl stop {PERIODIC}")
    result = fleet.playbook("rollback", "-e", f"release={there}")
    assert result.returncode == 0, result.stdout
    assert set(releases(fleet).values()) == {there}
    assert not AT_ONCE.search(result.stdout)
    assert "Exactly one scheduler runs" in result.stdout
    result = fleet.playbook("rollback", "-e", "release=0123456789ab")
    assert result.returncode != 0
    assert "0123456789ab" in result.stdout
    assert there in result.stdout


def test_a_way_back_over_migrations_asks_first(fleet: Fleet, project: Project) -> None:
    before = releases(fleet)
    migration = project.path / "ticks/migrations/0003_no_way_back.py"
    migration.write_text(
        "from django.db import migrations\n\n\n"
        "class Migration(migrations.Migration):\n"
        f"    dependencies = [('ticks', '{OLD_MIGRATION}')]\n"
        "    operations = [migrations.RunSQL('SELECT 1')]\n"
    )
    result = fleet.playbook("release", *project.arguments)
    assert result.returncode == 0, result.stdout
    here = releases(fleet)
    for wish in ([], ["-e", "migrations=reverse"]):
        result = fleet.playbook("rollback", *wish)
        assert result.returncode != 0
        assert "0003_no_way_back" in result.stdout
        assert releases(fleet) == here
    result = fleet.playbook("rollback", "-e", "migrations=keep")
    assert result.returncode == 0, result.stdout
    assert releases(fleet) == before
    migration.unlink()


@contextmanager
def begun(project: Project) -> Iterator[subprocess.Popen[str]]:
    """Yield a release that is on its way, and end it if it still is."""
    run = subprocess.Popen(
        ["ansible-playbook", "playbooks/release.yml", "-i", str(INVENTORY), *project.arguments],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield run
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()


@pytest.mark.parametrize(
    ("version", "point"),
    [
        ("four", "bring new code"),
        ("five", "Run the steps of the release"),
        ("six", "Reconcile the services"),
    ],
)
def test_a_run_that_is_killed_is_completed_by_the_next(
    fleet: Fleet, page: Page, project: Project, version: str, point: str
) -> None:
    project.name_it(version)
    with load(fleet) as requests:
        with begun(project) as run:
            assert run.stdout
            said = []
            for line in run.stdout:
                said.append(line)
                if line.startswith("TASK") and point in line:
                    break
            assert point in said[-1], "".join(said)
        # Whatever it left, everything runs.
        for service in fleet.services():
            wait_for(
                lambda service=service: service.is_running,  # type: ignore[misc]
                90,
                lambda service=service: service.status,  # type: ignore[misc]
            )
        assert page.finished(page.run_task(task="add", x="1", y="2"), 60)["state"] == "SUCCESS"
        # The lock of a run that was killed ends by itself.
        result = fleet.playbook("release", *project.arguments)
        assert result.returncode == 0, result.stdout
    assert requests.failed == []
    assert len(set(releases(fleet).values())) == 1
    assert page.json("/healthz")["version"] == version
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout


def test_old_releases_go_and_shared_files_stay(fleet: Fleet) -> None:
    for host in APP_HOSTS:
        there = fleet[host].check_output(f"ls /opt/{STACK}/releases").split()
        assert len(there) == 3, there
        # No environment that none of them uses, and nothing half-written.
        assert len(fleet[host].check_output(f"ls /opt/{STACK}/venvs").split()) == 1
        media = f"{CURRENT}/media"
        assert fleet[host].file(media).linked_to == f"/var/lib/{STACK}/shared/media"
        assert fleet[host].check_output(f"stat --format %U {media}/") == STACK


def test_exactly_one_schedules_after_all_that(fleet: Fleet) -> None:
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout
    assert f"Exactly one scheduler runs, on {names('scheduler')[0]}" in result.stdout
    running = [host for host in APP_HOSTS if fleet.service(PERIODIC, host).is_running]
    assert running == names("scheduler")
