"""The preflight as people run it: by ansible-playbook, on hosts that note every contact."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

GROUPS = {
    "brokers": ["broker1"],
    "database": ["broker1"],
    "web": ["web1"],
    "flower": ["web1"],
    "workers": ["worker1", "worker2"],
    "scheduler": ["worker1"],
}
VARIABLES = {
    "stack_name": "demo",
    "stack_address": "10.0.0.{{ groups['all'].index(inventory_hostname) + 1 }}",
    "redis_password": "{{ vault_redis_password }}",
    "vault_redis_password": "r",
    "postgresql_password": "p",
    "flower_user": "ops",
    "flower_password": "f",
    "flower_cookie_secret": "c",
    "app_source": {"path": "plugins"},
    "app_settings_module": "mysite.settings",
    "app_celery": "mysite",
    "app_wsgi": "mysite.wsgi",
}
TWO_SCHEDULERS = {"scheduler": ["worker1", "worker2"]}
SENTENCE = (
    "- Group 'scheduler' has 2 hosts (worker1, worker2), so every periodic task would run more "
    "than once; leave exactly one, or set stack_scheduler_mode to 'failover'"
)


class Fleet:
    """An inventory whose hosts are reached through a program that only notes that it was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.contacts = directory / "contacts"
        ssh = directory / "ssh"
        ssh.write_text(f"#!/bin/sh\necho \"$@\" >> '{self.contacts}'\nexit 255\n")
        ssh.chmod(0o755)
        self.connection = {"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh)}

    def play(
        self,
        *arguments: str,
        groups: dict[str, list[str]] | None = None,
        variables: dict[str, Any] | None = None,
        playbook: Path = ROOT / "playbooks" / "preflight.yml",
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook on the good fleet with some groups and variables replaced."""
        inventory = self.directory / "hosts.yml"
        content = {
            "all": {
                "vars": {**self.connection, **VARIABLES, **(variables or {})},
                "children": {
                    group: {"hosts": dict.fromkeys(hosts)}
                    for group, hosts in {**GROUPS, **(groups or {})}.items()
                },
            }
        }
        inventory.write_text(yaml.safe_dump(content))
        return subprocess.run(
            [
                Path(sys.executable).parent / "ansible-playbook",
                playbook,
                "-i",
                inventory,
                *arguments,
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    def site(self) -> Path:
        """Write a playbook that is the preflight followed by a play that contacts every host."""
        path = self.directory / "site.yml"
        plays = [
            {"import_playbook": str(ROOT / "playbooks" / "preflight.yml")},
            {
                "hosts": "all",
                "gather_facts": False,
                "tags": ["deploy"],
                "tasks": [{"name": "Contact the host", "ansible.builtin.ping": None}],
            },
        ]
        path.write_text(yaml.safe_dump(plays))
        return path


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["--limit", "worker2", "--check"]], ids=" ".join)
def test_a_bad_fleet_is_refused_without_contact(fleet: Fleet, arguments: list[str]) -> None:
    run = fleet.play(*arguments, groups=TWO_SCHEDULERS)
    assert run.returncode == 2, run.stdout
    assert SENTENCE in [line.strip() for line in run.stdout.splitlines()]
    assert not fleet.contacts.exists()


def test_a_good_fleet_passes_without_contact(fleet: Fleet) -> None:
    run = fleet.play("--limit", "web1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert not fleet.contacts.exists()


def test_a_bad_fleet_ends_the_whole_run_whatever_its_tags(fleet: Fleet) -> None:
    run = fleet.play("--tags", "deploy", groups=TWO_SCHEDULERS, playbook=fleet.site())
    assert run.returncode == 2, run.stdout
    assert "Contact the host" not in run.stdout
    assert not fleet.contacts.exists()


def test_a_good_fleet_is_contacted_by_what_follows(fleet: Fleet) -> None:
    run = fleet.play(playbook=fleet.site())
    assert run.returncode == 4, run.stdout  # unreachable
    assert all(host in fleet.contacts.read_text() for host in ("broker1", "web1", "worker2"))


def test_every_host_can_be_listed(fleet: Fleet) -> None:
    run = fleet.play("--list-hosts", groups=TWO_SCHEDULERS)
    assert run.returncode == 0, run.stderr
    assert "hosts (4)" in run.stdout


def said(run: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the sentences of a run that failed."""
    text = run.stdout.split("\nfatal: ")[1].split("\nPLAY RECAP")[0]
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("- ")]


ONE_HOST: dict[str, list[str]] = {
    **{group: ["solo"] for group in ("web", "workers", "scheduler")},
    **{group: [] for group in ("brokers", "database", "flower")},
}


@pytest.mark.parametrize(
    ("groups", "variables"),
    [
        pytest.param(
            {},
            {
                "stack_broker": "rabbitmq",
                "rabbitmq_password": "m",
                "app_env": {"BROKER_URL": "{{ stack_broker_url }}"},
            },
            id="Celery, RabbitMQ",
        ),
        pytest.param(
            {"flower": []},
            {"stack_task_queue": "huey", "app_env": {"CACHE_URL": "{{ stack_cache_url }}"}},
            id="Huey, Redis",
        ),
        pytest.param(
            ONE_HOST,
            {
                "stack_task_queue": "huey",
                "stack_broker": "sqlite",
                "stack_database": "sqlite",
                "app_env": {"DATABASE": "{{ stack_database_url }}"},
            },
            id="Huey, SQLite",
        ),
    ],
)
@pytest.mark.parametrize("manager", ["systemd", "supervisord"])
def test_every_stack_may_use_its_urls(
    fleet: Fleet, groups: dict[str, list[str]], variables: dict[str, Any], manager: str
) -> None:
    run = fleet.play(groups=groups, variables={**variables, "stack_process_manager": manager})
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("groups", "variables"),
    [
        pytest.param(TWO_SCHEDULERS, {}, id="RedBeat, Redis"),
        pytest.param(
            {**TWO_SCHEDULERS, "lock": ["worker3"]},
            {"stack_broker": "rabbitmq", "rabbitmq_password": "m"},
            id="RedBeat, RabbitMQ",
        ),
        pytest.param(
            {"scheduler": ["worker1", "worker2", "worker3"], "flower": []},
            {"stack_task_queue": "huey", "pacemaker_authkey": "k" * 32},
            id="Pacemaker, Huey",
        ),
    ],
)
def test_a_fleet_with_failover_passes(
    fleet: Fleet, groups: dict[str, list[str]], variables: dict[str, Any]
) -> None:
    run = fleet.play(groups=groups, variables={**variables, "stack_scheduler_mode": "failover"})
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_fleet_whose_failover_would_fail_is_refused(fleet: Fleet) -> None:
    run = fleet.play(
        groups={**TWO_SCHEDULERS, "flower": []},
        variables={"stack_task_queue": "huey", "stack_scheduler_mode": "failover"},
    )
    assert said(run) == [
        "- Group 'scheduler' has 2 hosts (worker1, worker2), but Pacemaker schedules only where a "
        "majority of them see each other; have 3, 5 or 7 hosts there",
        "- worker1, worker2: pacemaker_authkey is empty; set it",
    ]


def test_a_url_of_another_stack_is_refused(fleet: Fleet) -> None:
    run = fleet.play(
        groups={"flower": []},
        variables={
            "stack_task_queue": "huey",
            "stack_broker": "rabbitmq",
            "rabbitmq_password": "m",
            "stack_database_url": "postgresql://u:hunter2@db.example/d",
        },
    )
    assert said(run) == [
        "- stack_broker is rabbitmq, which stack_task_queue 'huey' cannot use; choose redis, "
        "sqlite, external",
        "- stack_database_url is computed and cannot be set; set stack_database, or "
        "stack_database_external_url instead",
    ]
    assert "hunter2" not in run.stdout


def test_templates_are_read_as_the_roles_will_read_them(fleet: Fleet) -> None:
    run = fleet.play(
        variables={
            "vault_redis_password": "CHANGE_ME",
            "app_secret_env": {"KEY": "{{ vault_nowhere }}"},
            "app_env": {
                "NAME": "{{ stack_process_manager }}",
                "CACHE": "{{ hostvars[groups['brokers'][0]]['stack_address'] }}",
            },
            "web_workers": "{{ ansible_facts['processor_vcpus'] }}",
        },
    )
    assert said(run) == [
        "- app_secret_env cannot be read: 'vault_nowhere' is undefined",
        "- vault_redis_password is still at its placeholder; give it a value of your own",
    ]
