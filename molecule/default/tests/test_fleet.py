"""What is the same under every manager and for every queue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fleet import ROGUE, SCHEDULER, STACK, WORKER, Fleet, flat, names, wait_for


def test_a_bad_inventory_stops_nothing(fleet: Fleet) -> None:
    pids = {name: fleet.service(WORKER, name).pid for name in names("workers")}
    result = fleet.playbook("services", "-e", "stack_task_queue=selery")
    assert result.returncode != 0
    assert "stack_task_queue" in result.stdout
    assert "did you mean 'celery'" in result.stdout
    assert {name: fleet.service(WORKER, name).pid for name in pids} == pids


def test_two_stacks_that_would_share_a_services_name_are_refused(fleet: Fleet) -> None:
    """Another inventory's stack on a host of ours: only the host itself knows of it."""
    pools = (
        '{"celery_worker_pools": [{"name": "default", "queues": ["celery"], "concurrency": 2},'
        ' {"name": "mail", "queues": ["mail"], "concurrency": 1}]}'
    )
    foreign = "/etc/systemd/system/celery-worker-mail.service"
    text = "# stack: library\n[Service]\nExecStart=/bin/sleep 1000\n"
    try:
        fleet[ROGUE].check_output("printf %%s %s > %s", text, foreign)
        result = fleet.playbook("services", "-e", pools)
        assert result.returncode != 0
        said = flat(result.stdout)
        for word in ("Nothing was changed", ROGUE, "belongs to the stack library"):
            assert word in said, (word, said)
        assert "set stack_unit_prefix" in said
        assert "Reconcile the services" not in result.stdout
        assert fleet[ROGUE].file(foreign).content_string == text
    finally:
        fleet[ROGUE].run("rm -f %s; systemctl daemon-reload", foreign)


@pytest.fixture
def silent(fleet: Fleet) -> Iterator[str]:
    """A worker that is switched off."""
    container = fleet.container(ROGUE)
    container.stop(timeout=20)
    yield ROGUE
    container.start()

    def back() -> bool:
        code, said = container.exec_run("systemctl is-active celery-worker")
        return code == 0 and said == b"active\n"

    wait_for(back, 90, lambda: f"{ROGUE} did not come back")


def test_a_host_that_does_not_answer_stops_the_run(fleet: Fleet, silent: str) -> None:
    """It may hold a scheduler, also when --limit leaves it out."""
    words = f'add -e \'{{"stack_dead_hosts": ["{silent}"]}}\''
    for limit in ("all", SCHEDULER):
        result = fleet.playbook("services", "--limit", limit)
        assert result.returncode != 0
        assert f"{silent} did not answer" in result.stdout
        assert words in result.stdout
        assert "Reconcile the services" not in result.stdout
    result = fleet.playbook("services", "-e", f'{{"stack_dead_hosts": ["{silent}"]}}')
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope="module")
def titles(fleet: Fleet) -> Iterator[str]:
    """A directory with setproctitle on the host of the second beat, to be put on PYTHONPATH."""
    host, where = fleet[ROGUE], "/opt/setproctitle"
    host.check_output(
        f"python3 -m venv {where} && {where}/bin/pip install --quiet setproctitle==1.3.7"
    )
    yield host.check_output(f"echo {where}/lib/python3*/site-packages")
    host.check_output(f"rm -rf {where}")


@pytest.mark.parametrize("form", ["worker -B", "setproctitle"])
def test_a_second_scheduler_in_disguise_is_found(fleet: Fleet, titles: str, form: str) -> None:
    command, shown = {
        "worker -B": (
            "celery -A example worker -B -s /tmp/second -n second@%h -Q none",
            "celery -A example worker -B",
        ),
        "setproctitle": (
            # In place of the path that the environment file sets.
            f"env PYTHONPATH={titles}:/opt/{STACK}/lib "
            "celery -A example beat --pidfile= -s /tmp/second",
            "[celery beat]",
        ),
    }[form]
    with fleet.started_by_hand(command, shown) as pid:
        result = fleet.playbook("verify")
        assert result.returncode != 0, result.stdout
        said = flat(result.stdout)
        for word in ("second scheduler", ROGUE, f"pid {pid}", shown):
            assert word in said, (word, said)


def test_the_examples_own_tests_pass_in_its_release(fleet: Fleet) -> None:
    said = fleet.one("workers").check_output(
        f"{STACK}-shell env DATABASE_URL=sqlite://:memory: CELERY_BROKER_URL=memory:// "
        "python manage.py test 2>&1"
    )
    assert "\nOK" in said
