"""The hosts of the benchmarks: containers on this machine, reached over SSH as servers are.

One host, `infra`, holds Redis and PostgreSQL and is never measured. `app1`, `app2`, … use them:
all are workers, the first two serve the web, the first schedules.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache/bench"
PROJECT = CACHE / "project"
BUILDS = CACHE / "builds"
STACK = "bench"
SUBNET = "172.30.94"
# As many as the database lets in, whichever number of them is there.
APPS_MAX = 100
KEY = CACHE / "ssh/key"
SSH_OPTIONS = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
SSH_OPTIONS += ["-o", "LogLevel=ERROR"]
# Where all contenders keep their connections, so that they can be closed before a run. A socket's
# path must be short.
SOCKETS = Path(f"/tmp/bench-ssh-{os.getuid()}")  # noqa: S108
CGROUPS = Path("/sys/fs/cgroup")
Inventory = dict[str, Any]


def apps(count: int) -> list[str]:
    """Return the names of the first `count` hosts of the project."""
    return [f"app{number}" for number in range(1, count + 1)]


def address(host: str) -> str:
    """Return a host's address."""
    return f"{SUBNET}.{10 if host == 'infra' else 100 + int(host.removeprefix('app'))}"


def container(host: str) -> str:
    """Return the name of a host's container."""
    return f"bench-{host}"


def run(
    argv: list[str | Path],
    *,
    stdin: str | bytes | None = None,
    env: dict[str, str] | None = None,
    check: bool = True,
) -> str:
    """Run a command in the project's root and return what it said, errors included.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **(env or {}), "NO_COLOR": "1"},
        input=given if given is not None else b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    if check and done.returncode:
        raise RuntimeError(
            f"{said[-4000:]}\n{' '.join(map(str, argv))} ended with {done.returncode}."
        )
    return said


def on(host: str, *argv: str, stdin: str | bytes | None = None) -> str:
    """Run a command on a host, past SSH, and return what it said."""
    return run(["docker", "exec", "-i", container(host), *argv], stdin=stdin)


def on_all(hosts: Iterable[str], function: Callable[[str], Any]) -> list[Any]:
    """Call a function for every host at once and return the results in order."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(function, hosts))


def stored_secrets() -> dict[str, str]:
    """Return the benchmark's passwords, made at the first call."""
    path = CACHE / "secrets.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        path.write_text(
            json.dumps({name: secrets.token_hex(16) for name in ("redis", "postgresql", "django")})
        )
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _hosts(names: list[str], **more: Any) -> dict[str, Any]:
    return {name: {"stack_address": address(name), **more} for name in names}


def _inventory(groups: dict[str, list[str]], hosts: dict[str, Any], **variables: Any) -> Inventory:
    passwords = stored_secrets()
    return {
        "all": {
            "hosts": hosts,
            "children": {
                name: {"hosts": dict.fromkeys(members)} for name, members in groups.items()
            },
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(KEY),
                "ansible_ssh_common_args": " ".join(SSH_OPTIONS),
                "stack_name": STACK,
                "app_source": {"path": str(PROJECT)},
                "app_cache_dir": str(BUILDS),
                "app_settings_module": "example.settings",
                "app_wsgi": "example.wsgi:application",
                "app_celery": "example",
                "app_env": {"ALLOWED_HOSTS": ",".join(address(name) for name in apps(2))},
                "app_secret_env": {"SECRET_KEY": passwords["django"]},
                "web_listen_address": "{{ stack_address }}",
                "web_health_path": "/healthz",
                "web_health_status": [200],
                **variables,
            },
        }
    }


def _project_groups(names: list[str]) -> dict[str, list[str]]:
    return {"web": names[:2], "workers": names, "scheduler": names[:1]}


def write_inventories(count: int, supervisord: Iterable[str] = ()) -> Path:
    """Write the inventories for `count` hosts and return that of the measured runs.

    Args:
        count: the project's hosts.
        supervisord: those of them that supervisord manages.
    """
    names, every = apps(count), apps(APPS_MAX)
    passwords = stored_secrets()
    outside = {name: {"ansible_host": address(name)} for name in names}
    hosts = _hosts(names)
    for name in names:
        hosts[name].update(outside[name])
        if name in supervisord:
            hosts[name]["stack_process_manager"] = "supervisord"
    written = {
        # For molecule/shared/create.yml, which names the containers by ansible_host.
        "containers": {
            "all": {
                "vars": {
                    "ansible_connection": "community.docker.docker",
                    "test_network": STACK,
                    "test_subnet": f"{SUBNET}.0/24",
                },
                "hosts": {
                    name: {"ansible_host": container(name), "stack_address": address(name)}
                    for name in ["infra", *every]
                },
            }
        },
        # The database lets in whoever is in the inventory.
        "infra": _inventory(
            {"brokers": ["infra"], "database": ["infra"], "scheduler": ["infra"], "workers": every},
            _hosts(["infra", *every])
            | {"infra": {"ansible_host": address("infra"), "stack_address": address("infra")}},
            redis_password=passwords["redis"],
            postgresql_password=passwords["postgresql"],
            postgresql_max_connections=600,
            # Only `infra` is asked.
            stack_dead_hosts=every,
        ),
        "fleet": _inventory(
            _project_groups(names),
            hosts,
            stack_broker="external",
            stack_broker_external_url=f"redis://:{passwords['redis']}@{address('infra')}:6379/0",
            stack_database="external",
            stack_database_external_url=(
                f"postgresql://{STACK}:{passwords['postgresql']}@{address('infra')}:5432/{STACK}"
            ),
        ),
    }
    for name, inventory in written.items():
        path = CACHE / name / "hosts.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        path.write_text(json.dumps(inventory, indent=1))
    return CACHE / "fleet/hosts.json"


def ansible(playbook: str, inventory: str | Path, *args: str, defaults: bool = False) -> str:
    """Run a playbook and return what it said.

    Args:
        playbook: path from the root.
        inventory: path, or the name of one that write_inventories() wrote.
        args: further arguments.
        defaults: with Ansible's default settings instead of the project's.
    """
    return run(
        [
            "ansible-playbook",
            playbook,
            "-i",
            inventory if isinstance(inventory, Path) else CACHE / inventory / "hosts.json",
            *args,
        ],
        env={
            "ANSIBLE_CONFIG": str(ROOT / ("bench/defaults.cfg" if defaults else "ansible.cfg")),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(SOCKETS),
        },
    )


def _make_key() -> None:
    if not KEY.exists():
        KEY.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", KEY])


def _prepare(host: str) -> None:
    """Let the controller in; bring the packages, so that no network is measured."""
    key = KEY.with_suffix(".pub").read_text()
    on(
        host,
        "sh",
        "-c",
        "install -d -m 0700 /root/.ssh; cat >/root/.ssh/authorized_keys; touch /var/lib/apt/lists;"
        "until [ -S /run/dbus/system_bus_socket ]; do sleep 0.1; done",
        stdin=key,
    )
    archives = CACHE / "packages.tar"
    if archives.exists() and host != "infra":
        run(
            ["docker", "cp", "-", f"{container(host)}:/var/cache/apt/archives"],
            stdin=archives.read_bytes(),
        )
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((address(host), 22), timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def create(names: list[str]) -> None:
    """Create the hosts that are not there, and wait for them."""
    _make_key()
    SOCKETS.mkdir(mode=0o700, exist_ok=True)
    limit = ",".join(["localhost", *names])
    ansible("molecule/shared/create.yml", "containers", "--limit", limit)
    ansible("molecule/shared/prepare.yml", "containers", "--limit", limit)
    on_all(names, _prepare)


def remove(names: list[str]) -> None:
    """Remove hosts."""
    close_connections()
    if names:
        run(["docker", "rm", "--force", "--volumes", *map(container, names)])


def existing() -> list[str]:
    """Return the names of the hosts that are there."""
    said = run(
        ["docker", "ps", "-a", "--filter", f"label=django-fleet={STACK}", "--format={{.Names}}"]
    )
    return [name.removeprefix("bench-") for name in said.split()]


def destroy() -> None:
    """Remove all hosts, their network and what was kept of them."""
    remove(existing())
    ansible("molecule/shared/destroy.yml", "containers")
    shutil.rmtree(SOCKETS, ignore_errors=True)


def create_infra() -> None:
    """Set up Redis and PostgreSQL, and fetch the packages of the measured hosts once."""
    if "infra" in existing() and (CACHE / "packages.tar").exists():
        return
    create(["infra"])
    ansible("playbooks/broker.yml", "infra", "--limit", "infra")
    on("infra", "sh", "-c", "apt-get -q update && rm -f /var/cache/apt/archives/*.deb")
    on("infra", "apt-get", "install", "-yq", "--download-only", *PACKAGES)
    debs = subprocess.run(
        ["docker", "exec", container("infra"), "sh", "-c"]
        + ["cd /var/cache/apt/archives && tar -c *.deb"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    (CACHE / "packages.tar").write_bytes(debs)


# What the project's hosts install, in either way of supervision.
PACKAGES = ["python3-gdbm", "python3-venv", "python3-packaging", "supervisor"]


def empty_infra() -> None:
    """Give the project an empty database and an empty broker."""
    for statement in (
        f"DROP DATABASE {STACK} WITH (FORCE)",
        f"CREATE DATABASE {STACK} OWNER {STACK}",
    ):
        on("infra", "su", "postgres", "-c", f"psql -q -c '{statement}'")
    redis("FLUSHALL")


def redis(*words: str) -> Any:
    """Ask the broker and return its answer: text or a number."""
    with socket.create_connection((address("infra"), 6379), timeout=10) as connection:
        stream = connection.makefile("rwb")
        for command in (("AUTH", stored_secrets()["redis"]), words):
            stream.write(b"*%d\r\n" % len(command))
            for word in command:
                stream.write(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()))
            stream.flush()
            answer = stream.readline().decode().rstrip()
            if answer.startswith("-"):
                raise RuntimeError(f"Redis says {answer}")
    return int(answer[1:]) if answer.startswith(":") else answer[1:]


def sql(query: str) -> list[list[str]]:
    """Ask the project's database and return its rows."""
    said = on("infra", "su", "postgres", "-c", f"psql -qAt -F'|' {STACK}", stdin=query)
    return [line.split("|") for line in said.splitlines()]


def close_connections() -> None:
    """End all kept SSH connections: nobody begins with one that another run opened."""
    for path in SOCKETS.glob("*"):
        run(["ssh", "-O", "exit", "-o", f"ControlPath={path}", "nobody"], check=False)
        path.unlink(missing_ok=True)


def write_ssh_config(names: list[str]) -> Path:
    """Write a configuration with which `ssh NAME` reaches a host, and return its path."""
    path = CACHE / "ssh/config"
    lines = [f"Host {name}\n  HostName {address(name)}\n" for name in names] + [
        "Host *\n  User root\n"
        f"  IdentityFile {KEY}\n"
        "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        f"  ControlMaster auto\n  ControlPersist 300\n  ControlPath {SOCKETS}/%C\n"
    ]
    path.write_text("".join(lines))
    return path


def _cpu_files(names: list[str]) -> list[tuple[Path, float]]:
    """Return each container's counter and the seconds of its unit, under cgroup v1 or v2."""
    ids = run(["docker", "inspect", "--format={{.Id}}", *map(container, names)]).split()
    found = []
    for one in ids:
        old = CGROUPS / f"cpuacct/docker/{one}/cpuacct.usage"
        group = CGROUPS / f"system.slice/docker-{one}.scope"
        new = (group if group.is_dir() else CGROUPS / f"docker/{one}") / "cpu.stat"
        found.append((old, 1e-9) if old.exists() else (new, 1e-6))
    return found


class Cpu:
    """Counts CPU seconds: of the controller's finished children and of the hosts."""

    def __init__(self, names: list[str]) -> None:
        """Begin to count."""
        self.files = _cpu_files(names)
        self.begin = self.now()

    def now(self) -> tuple[float, float]:
        """Return the seconds so far, of the controller and of the hosts."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        hosts = sum(
            int(path.read_text().replace("usage_usec", "").split()[0]) * unit
            for path, unit in self.files
        )
        return children.ru_utime + children.ru_stime, hosts

    def used(self) -> tuple[float, float]:
        """Return the seconds since the beginning, of the controller and of the hosts."""
        now = self.now()
        return now[0] - self.begin[0], now[1] - self.begin[1]
