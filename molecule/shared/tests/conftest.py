"""The fleet under test: its hosts, its playbooks, its web page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import docker
import pytest
import testinfra
from docker.models.containers import Container
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

ROOT = Path(__file__).resolve().parents[3]
INVENTORY = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]) / "inventory"
RUNNER = AnsibleRunner(str(INVENTORY / "hosts.yml"))
STACK = "shop"


def names(group: str) -> list[str]:
    """Return the hosts of a group; a group without hosts is a mistake in the test."""
    found: list[str] = sorted(RUNNER.get_hosts(group))
    assert found, f"no host in {group}"
    return found


class Fleet:
    """The hosts by name, and what can be done with all of them."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {
            name: testinfra.get_host(f"ansible://{name}", ansible_inventory=str(INVENTORY))
            for name in names("all")
        }

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def one(self, group: str) -> Host:
        """Return the first host of a group."""
        return self.hosts[names(group)[0]]

    def address(self, name: str) -> str:
        """Return a host's private address."""
        return str(RUNNER.get_variables(name)["stack_address"])

    def container(self, name: str) -> Container:
        """Return the container that stands for a host."""
        found = docker.from_env().containers.get(RUNNER.get_variables(name)["ansible_host"])
        assert isinstance(found, Container)
        return found

    def playbook(
        self, name: str, *args: str, inventory: Path = INVENTORY
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the project as an operator would; `args` go to ansible-playbook."""
        return subprocess.run(
            ["ansible-playbook", f"playbooks/{name}.yml", "-i", str(inventory), *args],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables of the environment file, as a service sees them."""
        script = "import json, os; print(json.dumps(dict(os.environ)))"
        said = self.one("workers").check_output(f"{STACK}-shell python -c '{script}'")
        found: dict[str, str] = json.loads(said)
        return found

    def sql(self, query: str) -> str:
        """Return what a query of the stack's database prints."""
        return str(
            self.one("database").check_output(
                "cd / && runuser -u postgres -- psql -d %s -Atc %s", STACK, query
            )
        )


class Page:
    """The example's page, asked from outside the hosts."""

    def __init__(self, address: str) -> None:
        self.base = f"http://{address}:8000"
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(CookieJar()),
        )

    def get(self, path: str) -> str:
        """Return a page's text."""
        with self.opener.open(self.base + path, timeout=20) as answer:
            return str(answer.read().decode())

    def json(self, path: str) -> Any:
        """Return a page's JSON."""
        return json.loads(self.get(path))

    def run_task(self, **form: str) -> str:
        """Press the page's button for a task; return the task's id."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get("/"))
        assert token
        data = urllib.parse.urlencode({**form, "csrfmiddlewaretoken": token.group(1)}).encode()
        with self.opener.open(f"{self.base}/tasks/", data, timeout=20) as answer:
            return str(answer.url).rstrip("/").rsplit("/", 1)[1]

    def finished(self, task_id: str, seconds: float) -> dict[str, Any]:
        """Wait until a task is done and return how it ended."""
        task: dict[str, Any] = {}

        def done() -> bool:
            task.update(self.json(f"/tasks/{task_id}/?format=json"))
            return task["state"] in ("SUCCESS", "FAILURE", "REVOKED")

        wait_for(done, seconds, lambda: f"task {task_id} is {task}")
        return task


def wait_for(condition: Callable[[], bool], seconds: float, words: Callable[[], str]) -> None:
    """Wait until a condition holds; fail with `words` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, words()
        time.sleep(0.5)


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """The fleet, once it is up by itself: the suite also runs right after a reboot of all hosts."""
    made = Fleet()
    for group, unit in (("workers", "celery-worker"), ("scheduler", "celery-beat"), ("web", "web")):
        for name in names(group):
            wait_for(
                lambda host=made[name], unit=unit: host.service(unit).is_running,
                120,
                lambda name=name, unit=unit: f"{unit} does not run on {name}",
            )
    return made


@pytest.fixture(scope="session")
def page(fleet: Fleet) -> Page:
    return Page(fleet.address(names("web")[0]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Print the last words of the services with every failure."""
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or report.passed or "fleet" not in getattr(item, "fixturenames", []):
        return
    for name, host in item.funcargs["fleet"].hosts.items():  # type: ignore[attr-defined]
        said = host.run("journalctl --no-pager -n 15 -u 'celery*' -u web -u flower -u 'redis*'")
        report.sections.append((f"journal of {name}", said.stdout))
