"""docs/projects.md keeps its word: its inventories are accepted, and what it says is what runs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import ROOT

PAGE = (ROOT / "docs" / "projects.md").read_text()
HEADING = "| service | hosts | command | may stop for |\n|---|---|---|---|\n"
ELEMENT = re.compile(rf"```yaml\n(.*?)```|{re.escape(HEADING)}((?:\|[^\n]*\n)+)", re.DOTALL)
ROW = re.compile(r"\| `(.+)` \| (.+) \| `(.+)` \| (\d+) s \|")

PLAYBOOK = [
    {"import_playbook": str(ROOT / "playbooks" / "preflight.yml")},
    {
        "hosts": "all",
        "gather_facts": False,
        # The role app lends its variables and does nothing.
        "roles": [{"role": "services"}, {"role": "app", "when": False}],
        "post_tasks": [
            {
                "ansible.builtin.debug": {
                    "msg": {
                        "services": "{{ __services_set.services }}",
                        "environment": "{{ __app_environment }}",
                    }
                }
            }
        ],
    },
]


@dataclass(frozen=True)
class Promise:
    """An inventory of the page and the table that says what it makes.

    Attributes:
        project: the section, with a number if it has several tables.
        hosts, variables: what the inventory holds.
        rows: (service, its hosts, command, seconds to stop), as they are in the table.
    """

    project: str
    hosts: dict[str, Any]
    variables: dict[str, Any]
    rows: list[tuple[str, ...]]


def promises() -> Iterator[Promise]:
    """Read the page from top to bottom."""
    common, *sections = PAGE.split("\n## ")
    for section in sections:
        project = section.partition("\n")[0]
        (hosts,) = (yaml.safe_load(block) for block, _ in ELEMENT.findall(common))
        variables: dict[str, Any] = {}
        for number, (block, table) in enumerate(ELEMENT.findall(section)):
            if table:
                rows = [tuple(ROW.fullmatch(line).groups()) for line in table.splitlines()]  # type: ignore[union-attr]
                yield Promise(f"{project} {number}", hosts, variables, rows)
            elif block.startswith("# hosts.yml\n"):
                hosts = yaml.safe_load(block)
            elif block.startswith("# group_vars/all/stack.yml, beside the above\n"):
                variables = {**variables, **yaml.safe_load(block)}
            else:
                assert block.startswith("# group_vars/all/stack.yml\n"), block
                variables = yaml.safe_load(block)


PROMISES = list(promises())


@pytest.fixture(params=PROMISES, ids=lambda promise: promise.project, scope="module")
def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Promise, dict[str, Any]]:
    """Return a promise, and host -> what the roles make of its inventory."""
    promise: Promise = request.param
    directory = tmp_path_factory.mktemp("project")
    vault = dict.fromkeys(re.findall(r"\bvault_\w+", str(promise.variables)), "secret")
    if "vault_database_url" in vault:
        vault["vault_database_url"] = "mysql://kuma:secret@mysql.example.org/kuma"
    (directory / "group_vars").mkdir()
    for name, content in (
        ("hosts.yml", promise.hosts),
        ("group_vars/all.yml", {**promise.variables, **vault}),
        ("play.yml", PLAYBOOK),
    ):
        (directory / name).write_text(yaml.safe_dump(content))
    run = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            directory / "play.yml",
            "-i",
            directory / "hosts.yml",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    hosts = json.loads(run.stdout)["plays"][-1]["tasks"][-1]["hosts"]
    return promise, {name: result["msg"] for name, result in hosts.items()}


def test_every_inventory_of_the_page_is_read() -> None:
    assert [promise.project.split()[0] for promise in PROMISES] == [
        "Spirit",
        "ICEkit",
        "Arches",
        "Arches",
        "ModelW",
        "Kuma",
    ]
    assert len(ELEMENT.findall(PAGE)) == PAGE.count("```y") + len(PROMISES)


def test_what_the_page_says_is_what_runs(deployed: tuple[Promise, dict[str, Any]]) -> None:
    promise, made = deployed
    bin_directory = f"/opt/{promise.variables['stack_name']}/current/.venv/bin/"
    for service, hosts, command, seconds in promise.rows:
        running = {
            host: one
            for host, answer in made.items()
            for one in answer["services"]
            if one["name"] == service
        }
        assert list(running) == hosts.split(", "), service
        for host, one in running.items():
            argv = " ".join(one["argv"]).removeprefix(bin_directory)
            assert argv == command.replace("@HOST", f"@{host}")
            assert one["stop_timeout"] == int(seconds)


def test_the_project_finds_its_servers(deployed: tuple[Promise, dict[str, Any]]) -> None:
    promise, made = deployed
    queue = (
        "HUEY_URL" if promise.variables.get("stack_task_queue") == "huey" else "CELERY_BROKER_URL"
    )
    scheme = "amqp" if promise.variables.get("stack_broker") == "rabbitmq" else "redis"
    first: dict[str, str] = {}
    for host, answer in made.items():
        environment = dict(answer["environment"])
        assert environment[queue].startswith(f"{scheme}://")
        assert "DATABASE_URL" in environment
        # The name under which a beat on this host would answer is the one thing that is its own.
        if name := environment.pop("CELERY_BEAT_HOSTNAME", None):
            assert name == f"celerybeat@{host}"
        settings = json.loads(environment.get("STACK_CELERY_SETTINGS", "{}"))
        assert ("beat_scheduler" in settings) == ("celery_beat_scheduler" in promise.variables)
        first = first or environment
        assert environment == first
