"""The fleet under test: its hosts and services, its playbooks, its web page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import docker
import testinfra
import yaml
from docker.models.containers import Container
from testinfra.host import Host
from testinfra.utils.ansible_runner import AnsibleRunner

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"])
INVENTORY = SCENARIO / "inventory"
RUNNER = AnsibleRunner(str(INVENTORY))


def names(group: str) -> list[str]:
    """Return the hosts of a group, in order; empty if there is none."""
    return list(RUNNER.get_hosts(group))


def choice(variable: str, default: str, host: str = "") -> str:
    """Return what the scenario's inventory chooses for a variable, as written."""
    return str(RUNNER.get_variables(host or names("all")[0]).get(variable, default))


STACK = choice("stack_name", "")
QUEUE = choice("stack_task_queue", "celery")
BROKER = choice("stack_broker", "redis")
DATABASE = choice("stack_database", "postgresql")
WORKER = {"celery": "celery-worker", "huey": "huey-worker"}[QUEUE]
PERIODIC = {"celery": "celery-beat", "huey": "huey-periodic"}[QUEUE]
# How each of them looks in the process table.
PERIODIC_ARGV = {
    "celery": r"bin/celery .*\bbeat\b",
    "huey": r"python.*\b(run_huey|huey_consumer)\b(?!.*--no-periodic)",
}[QUEUE]
SCHEDULER = names("scheduler")[0]
OTHERS = [name for name in names("all") if name != SCHEDULER]
# Where a second scheduler is started by hand: a host that could run it.
ROGUE = next((name for name in names("workers") if name != SCHEDULER), SCHEDULER)
CAMERA = choice("celery_events_camera", "")
IN_CLUSTER = choice("stack_scheduler_engine", "") == "pacemaker"
# What each host of a group runs.
SERVICES = [
    *(("web", name) for name in names("web")),
    *((WORKER, name) for name in names("workers")),
    # A cluster says which one of its hosts runs it.
    *((PERIODIC, name) for name in names("scheduler") if not IN_CLUSTER),
    *(("celery-events", name) for name in names("scheduler") if CAMERA),
    *(("flower", name) for name in names("flower") if QUEUE == "celery"),
]


def other_inventory(
    directory: Path, groups: dict[str, list[str]] | None = None, **choices: Any
) -> Path:
    """Return a copy of the scenario's inventory with other choices, made in a directory.

    `groups` are those that get other hosts; one that gets none is gone.
    """
    made = directory / "inventory"
    shutil.copytree(INVENTORY, made)
    # Read after stack.yml, by its name.
    (made / "group_vars/all/switched.yml").write_text(yaml.safe_dump(choices))
    hosts = yaml.safe_load((made / "hosts.yml").read_text())
    children = hosts["all"]["children"]
    for group, members in (groups or {}).items():
        children[group] = {"hosts": dict.fromkeys(members)}
        if not members:
            del children[group]
    (made / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return made


def manager(host: str) -> str:
    """Return what supervises the services of a host."""
    return choice("stack_process_manager", "systemd", host)


def wait_for(condition: Callable[[], bool], seconds: float, words: Callable[[], str]) -> None:
    """Wait until a condition holds; fail with `words` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, words()
        time.sleep(0.5)


class Service:
    """A service on a host, the same to a test under either manager."""

    def __init__(self, host: Host, name: str) -> None:
        self.host, self.name = host, name

    def restart(self) -> None:
        """Restart it as the operator would, and wait until the manager says that it is done."""
        self.host.check_output(f"{self.command} restart {self.name}")

    def stop(self) -> None:
        self.host.check_output(f"{self.command} stop {self.name}")

    def start(self) -> None:
        self.host.check_output(f"{self.command} start {self.name}")

    def wait_until_running(self) -> None:
        """Wait for the manager's word for what has come up already.

        supervisord calls a program RUNNING after three seconds; a playbook may end before that.
        """
        wait_for(lambda: self.is_running, 30, lambda: self.status)

    command: str

    @property
    def status(self) -> str:
        """What the operator sees of it."""
        return str(self.host.run(f"{self.command} status {self.name}").stdout)

    @property
    def pid(self) -> int:
        """Its main process, 0 if it does not run."""
        raise NotImplementedError

    @property
    def is_running(self) -> bool:
        raise NotImplementedError

    @property
    def is_defined(self) -> bool:
        """Whether the manager could start it."""
        raise NotImplementedError

    @property
    def definition(self) -> str:
        """The text of all files that define it."""
        raise NotImplementedError

    @property
    def log(self) -> str:
        raise NotImplementedError


class Unit(Service):
    """A service under systemd."""

    command = "systemctl"

    @property
    def pid(self) -> int:
        said = self.host.check_output(f"systemctl show --property=MainPID --value {self.name}")
        return int(said or 0)

    @property
    def is_running(self) -> bool:
        return bool(self.host.run(f"systemctl is-active {self.name}").stdout == "active\n")

    @property
    def is_defined(self) -> bool:
        state = self.host.run(f"systemctl show --property=LoadState --value {self.name}").stdout
        return state.strip() not in ("masked", "not-found")

    @property
    def definition(self) -> str:
        return str(self.host.check_output(f"systemctl cat {self.name}"))

    @property
    def log(self) -> str:
        return str(self.host.check_output(f"journalctl --no-pager --unit {self.name}"))


class Program(Service):
    """A service under supervisord."""

    command = "supervisorctl"

    @property
    def launcher(self) -> str:
        return f"/usr/local/lib/{STACK}/{self.name}"

    @property
    def pid(self) -> int:
        said = self.host.run(f"supervisorctl pid {self.name}").stdout.strip()
        return int(said) if said.isdigit() else 0

    @property
    def is_running(self) -> bool:
        return " RUNNING " in self.status

    @property
    def is_defined(self) -> bool:
        return bool(
            self.host.file(f"/etc/supervisor/conf.d/{self.name}.conf").exists
            or self.host.file(self.launcher).exists
        )

    @property
    def definition(self) -> str:
        return str(
            self.host.check_output(f"cat /etc/supervisor/conf.d/{self.name}.conf {self.launcher}")
        )

    @property
    def log(self) -> str:
        return str(self.host.check_output(f"cat /var/log/{STACK}/{self.name}.log"))


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

    def service(self, name: str, host: str, under: str = "") -> Unit | Program:
        """Return a service under a manager; without one, that of the inventory for the host."""
        kind = {"systemd": Unit, "supervisord": Program}[under or manager(host)]
        return kind(self.hosts[host], name)

    def services(self) -> list[Unit | Program]:
        """Return everything that the inventory wants to run."""
        return [self.service(name, host) for name, host in SERVICES]

    def address(self, name: str) -> str:
        """Return a host's private address."""
        return choice("stack_address", "", name)

    def container(self, name: str) -> Container:
        """Return the container that stands for a host."""
        found = docker.from_env().containers.get(choice("ansible_host", "", name))
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

    @cached_property
    def environment(self) -> dict[str, str]:
        """The variables that the operator's shell shows, which a service has too."""
        said = self.python(
            "workers", "import json, os; print(json.dumps(dict(os.environ)))", django=False
        )
        found: dict[str, str] = json.loads(said)
        return found

    def python(self, group: str, code: str, *, django: bool = True) -> str:
        """Run Python as the services do, on the first host of a group; return what it prints."""
        setup = "import django; django.setup()\n" if django else ""
        return str(self.one(group).check_output(f"{STACK}-shell python -c %s", setup + code))

    def forget_ticks(self, host: str, after: str) -> None:
        """Take away what a second scheduler ticked on a host since a moment (ISO 8601).

        What the fleet did by itself is still to be judged.
        """
        self.python(
            "web",
            "from ticks.models import Tick\n"
            f"Tick.objects.filter(sender_host={host!r}, sent__gte={after!r}).delete()",
        )

    @contextmanager
    def started_by_hand(self, command: str, shown: str) -> Iterator[str]:
        """Run a command in the operator's shell on the host ROGUE; yield its process number.

        Args:
            command: what to run.
            shown: what its line in the process table says once it is up.
        """
        host = self[ROGUE]
        # Every program in this chain replaces itself by the next: the process keeps its number.
        said = host.check_output(
            "date --iso-8601=seconds; "
            f"setsid nohup {STACK}-shell {command} </dev/null >/tmp/second.log 2>&1 & "
            "echo $!"
        )
        begin, pid = said.split()
        try:
            wait_for(
                lambda: shown in host.run(f"ps -o args= -p {pid}").stdout,
                30,
                lambda: str(host.check_output("cat /tmp/second.log; ps -ef")),
            )
            yield pid
        finally:
            host.run(f"pkill -9 -g {pid}; rm -f /tmp/second*")
            self.forget_ticks(ROGUE, begin)


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

    def task(self, task_id: str) -> dict[str, Any]:
        """Return what the page knows of a task."""
        found: dict[str, Any] = self.json(f"/tasks/{task_id}/?format=json")
        return found

    def reached(self, task_id: str, states: tuple[str, ...], seconds: float) -> dict[str, Any]:
        """Wait until a task is in one of the states and return it."""
        task: dict[str, Any] = {}

        def there() -> bool:
            task.update(self.task(task_id))
            return task["state"] in states

        wait_for(there, seconds, lambda: f"task {task_id} is {task}")
        return task

    def finished(self, task_id: str, seconds: float) -> dict[str, Any]:
        """Wait until a task is done and return how it ended."""
        return self.reached(task_id, ("SUCCESS", "FAILURE", "REVOKED"), seconds)

    def ticks(self) -> list[dict[str, Any]]:
        """Return all ticks, the latest first."""
        found: list[dict[str, Any]] = self.json("/api/ticks?limit=5000")["ticks"]
        return found


def host_of(task: dict[str, Any]) -> str:
    """Return the host whose worker took a task."""
    return str(task["worker"]).rsplit("@", 1)[-1]


def changed(output: str) -> list[str]:
    """Return the hosts that a run changed, by its recap."""
    recap = output.split("PLAY RECAP")[1].splitlines()
    return [line.split()[0] for line in recap if "changed=" in line and "changed=0 " not in line]


def flat(output: str) -> str:
    """Return what a playbook printed with its line breaks taken out."""
    return " ".join(output.split())
