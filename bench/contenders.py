"""Four ways to bring the hosts into the same state; one function each.

Each takes the goal (a `Goal`) and the kind of run, and returns how many things it changed; it
raises when it fails. Beside `ours` they are told nothing but the states and the archives.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.hosts import (
    CACHE,
    KEY,
    ROOT,
    STACK,
    address,
    ansible,
    run,
    write_ssh_config,
)
from bench.state import CURRENT, Goals, State, write_project

# What an operator types for each kind of run; the first that is there.
OURS = {
    "cold": ["site.yml"],
    "no_change": ["site.yml"],
    "code": ["playbooks/release.yml", "site.yml"],
    "requirement": ["playbooks/release.yml", "site.yml"],
    "rollback": ["playbooks/rollback.yml", "site.yml"],
}
MIGRATE = ["python", "manage.py", "migrate", "--noinput"]
STATIC = ["python", "manage.py", "collectstatic", "--noinput"]
SHELL = f"/usr/local/bin/{STACK}-shell"
RUN = CACHE / "run"
# A change of these concerns every service of a host.
COMMON = (f"/etc/{STACK}/", f"/opt/{STACK}/")


@dataclass
class Goal:
    """Where the hosts shall get: the first release, or one of the others."""

    goals: Goals
    release: str

    @property
    def hosts(self) -> list[str]:
        """Return the hosts' names."""
        return self.goals.hosts

    def states(self) -> dict[str, State]:
        """Return what each host shall have."""
        return self.goals.load(self.release)


def services(state: State) -> list[str]:
    """Return a host's services, the scheduler last."""
    names = [name for name in state["units"] if name.endswith(".service")]
    return sorted(names, key=lambda name: (name.startswith("celery-beat"), name))


def due(path: str, state: State) -> list[str]:
    """Return the units to restart when a file has changed."""
    if path.startswith(COMMON):
        return services(state)
    name = Path(path).name
    return [name] if name in state["units"] else []


def trees(state: State) -> tuple[str, str]:
    """Return the directories of a host's release and of its environment."""
    release = next(tree for tree in state["trees"] if "/releases/" in tree)
    return release, next(tree for tree in state["trees"] if tree != release)


def links(state: State) -> dict[str, str]:
    """Return a host's links without `current`, which is switched last."""
    return {path: target for path, target in state["links"].items() if path != CURRENT}


def serves_web(state: State) -> bool:
    """Return whether a host collects static files."""
    return "web.service" in state["units"]


def recap(said: str) -> int:
    """Return how many things Ansible changed."""
    return sum(map(int, re.findall(r"changed=(\d+)", said.rpartition("PLAY RECAP")[2])))


def run_ours(kind: str) -> int:
    """Run what an operator types."""
    return recap(ansible(next(path for path in OURS[kind] if (ROOT / path).exists()), "fleet"))


def ours(goal: Goal, kind: str) -> int:
    """Run the bundle."""
    return run_ours(kind)


def prepare_ours(goal: Goal) -> None:
    """Give it the sources of the release."""
    write_project(goal.release)


def prepare_floor(goal: Goal) -> None:
    """Write each host's script."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    write_ssh_config(goal.hosts)
    for host, state in goal.states().items():
        (RUN / f"{host}.sh").write_text(floor_script(state, goal.goals))


def floor_script(state: State, goals: Goals) -> str:
    """Return the script that brings a host into its state; bench/floor-host.sh says how."""
    release, environment = trees(state)
    user, home, shell = state["user"]
    directories, units = sorted(state["directories"]), list(state["units"])
    sums = {
        path: hashlib.sha256(entry[3].encode()).hexdigest()
        for path, entry in state["files"].items()
    }
    packages = state["packages"]
    wanted = [f"{name} installed" for name in sorted(packages)]
    wanted += [f"{user}:{home}:{shell}"]
    wanted += [f"{path} {' '.join(state['directories'][path])}" for path in directories]
    wanted += [f"{path} {' '.join(entry[:3])}" for path, entry in state["files"].items()]
    wanted += [f"{digest}  {path}" for path, digest in sums.items()]
    wanted += [*links(state).values(), release, "directory", "directory"]
    wanted += [enabled for enabled, _ in state["units"].values()]
    wanted += [active for _, active in state["units"].values()]
    values = {
        "user": user,
        "packages": " ".join(sorted(packages)),
        "directories": " ".join(directories),
        "files": " ".join(state["files"]),
        "links": " ".join(links(state)),
        "units": " ".join(units),
        "release": release,
        "environment": environment,
        "current": CURRENT,
        "wanted": "\n".join(wanted),
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    lines += ["case $1 in", 'switch) shift; switch "$@"; exit ;;']
    lines += [
        f"migrate) STACK_RELEASE=$release {SHELL} {shlex.join(MIGRATE)} </dev/null; exit ;;",
        "esac",
    ]
    lines += ['[ "$(look)" != "$wanted" ] || exit 0']
    lines += [f"package {name}" for name in packages]
    lines += [f"account {home} {shell}"]
    lines += [f"directory {path} {' '.join(state['directories'][path])}" for path in directories]
    for path, entry in state["files"].items():
        words = [f"restart {unit}" for unit in due(path, state)]
        words += ["reload"] if path.startswith("/etc/systemd/") else []
        content = base64.encodebytes(entry[3].encode()).decode()
        lines += [
            f"file {shlex.join([path, *entry[:3], sums[path], *words])} <<'END'\n{content}END"
        ]
    lines += [f"link {path} {target} reload" for path, target in links(state).items()]
    lines += [f"tree {tree} {goals.archive(tree)}" for tree in (environment, release)]
    if serves_web(state):
        lines += [f"static {SHELL} {shlex.join(STATIC)}"]
    lines += [f"release {shlex.join([f'restart {unit}' for unit in services(state)])}"]
    lines += [f"unit {name} {' '.join(words)}" for name, words in state["units"].items()]
    return (ROOT / "bench/floor-host.sh").read_text() + "\n".join(lines) + "\n"


def floor(goal: Goal, kind: str) -> int:
    """Run the shell script."""
    said = run([ROOT / "bench/floor", RUN, CACHE / "ssh/config", *goal.hosts])
    return len(re.findall(r"^\S+ (?:changed|ship|switch|start) ?", said, re.MULTILINE))


def prepare_tasks(goal: Goal) -> None:
    """Write the playbook and the hosts' variables."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    states = goal.states()
    for host, state in states.items():
        release, environment = trees(state)
        variables = {
            "state": state,
            "release": release,
            "environment_dir": environment,
            "archives": {tree: str(goal.goals.archive(tree)) for tree in state["trees"]},
        }
        (RUN / f"{host}.json").write_text(json.dumps(variables))
    (RUN / "tasks.yml").write_text(yaml.safe_dump(tasks_play(states), sort_keys=False))


def tasks_play(states: dict[str, State]) -> list[dict[str, Any]]:
    """Return a play as most are written: a task for each package, directory, file and unit."""

    def every(key: str) -> list[str]:
        return sorted({name for state in states.values() for name in state[key]})

    def handlers(names: list[str]) -> list[str]:
        return [f"Restart {name}" for name in names]

    names = list(dict.fromkeys(name for state in states.values() for name in services(state)))
    names.sort(key=lambda name: name.startswith("celery-beat"))
    user, home, shell = next(iter(states.values()))["user"]
    tasks: list[dict[str, Any]] = [
        {"apt": {"name": name, "install_recommends": False}} for name in every("packages")
    ]
    tasks += [{"group": {"name": user, "system": True}}]
    tasks += [
        {
            "user": {
                "name": user,
                "group": user,
                "system": True,
                "home": home,
                "shell": shell,
                "create_home": False,
            }
        }
    ]
    for path in every("directories"):
        of = f"state.directories['{path}']"
        tasks += [
            {
                "file": {
                    "path": path,
                    "state": "directory",
                    "owner": f"{{{{ {of}[0] }}}}",
                    "group": f"{{{{ {of}[1] }}}}",
                    "mode": f"{{{{ '0' ~ {of}[2] }}}}",
                },
                "when": f"'{path}' in state.directories",
            }
        ]
    for path in every("files"):
        of = f"state.files['{path}']"
        unit = path.startswith("/etc/systemd/")
        concerned = names if path.startswith(COMMON) else [Path(path).name]
        tasks += [
            {
                "copy": {
                    "content": f"{{{{ {of}[3] }}}}",
                    "dest": path,
                    "owner": f"{{{{ {of}[0] }}}}",
                    "group": f"{{{{ {of}[1] }}}}",
                    "mode": f"{{{{ '0' ~ {of}[2] }}}}",
                },
                "no_log": True,
                "when": f"'{path}' in state.files",
                "notify": (["Reload systemd"] if unit else [])
                + handlers([name for name in concerned if name in names]),
            }
        ]
    tasks += [
        {
            "file": {"path": path, "src": f"{{{{ state.links['{path}'] }}}}", "state": "link"},
            "when": f"'{path}' in state.links",
            "notify": "Reload systemd",
        }
        for path in every("links")
        if path != CURRENT
    ]
    for tree in ("environment_dir", "release"):
        tasks += [
            {"file": {"path": f"{{{{ {tree} }}}}", "state": "directory", "mode": "0755"}},
            {
                "unarchive": {
                    "src": f"{{{{ archives[{tree}] }}}}",
                    "dest": f"{{{{ {tree} }}}}",
                    "creates": f"{{{{ {tree} }}}}/{'bin' if tree != 'release' else 'manage.py'}",
                },
                "register": f"unpacked_{tree}",
            },
        ]
    at_release = {"STACK_RELEASE": "{{ release }}"}
    tasks += [
        {
            "command": {"argv": [SHELL, *MIGRATE]},
            "environment": at_release,
            "run_once": True,
            "when": "unpacked_release is changed",
        },
        {
            "command": {
                "argv": [SHELL, *STATIC],
                "creates": "{{ release }}/static_root/staticfiles.json",
            },
            "environment": at_release,
            "when": "'web.service' in state.units",
        },
        {
            "file": {"path": CURRENT, "src": "{{ release }}", "state": "link"},
            "notify": handlers(names),
        },
    ]
    tasks += [{"meta": "flush_handlers"}]
    tasks += [
        {
            "systemd_service": {"name": name, "enabled": True, "state": "started"},
            "when": f"'{name}' in state.units",
        }
        for name in [*(one for one in every("units") if one not in names), *names]
    ]
    return [
        {
            "hosts": "all",
            "become": True,
            "vars_files": ["{{ playbook_dir }}/{{ inventory_hostname }}.json"],
            "tasks": tasks,
            "handlers": [
                {"name": "Reload systemd", "systemd_service": {"daemon_reload": True}},
                *(
                    {
                        "name": f"Restart {name}",
                        "systemd_service": {"name": name, "state": "restarted"},
                        "when": f"'{name}' in state.units",
                    }
                    for name in names
                ),
            ],
        }
    ]


def tasks(goal: Goal, kind: str) -> int:
    """Run the playbook with Ansible's defaults."""
    return recap(ansible(str(RUN / "tasks.yml"), "fleet", defaults=True))


def prepare_pyinfra(goal: Goal) -> None:
    """Write the hosts' data."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    first = goal.hosts[0]
    inventory = []
    for host, state in goal.states().items():
        release, environment = trees(state)
        data = {
            "ssh_user": "root",
            "ssh_key": str(KEY),
            "ssh_known_hosts_file": "/dev/null",
            "ssh_strict_host_key_checking": "no",
            "state": state,
            "links": links(state),
            "current": CURRENT,
            "trees": [
                [environment, str(goal.goals.archive(environment))],
                [release, str(goal.goals.archive(release))],
            ],
            "release": release,
            "services": services(state),
            "due": {path: due(path, state) for path in state["files"]},
            "static": [SHELL, *STATIC] if serves_web(state) else [],
            "migrate": [SHELL, *MIGRATE] if host == first else [],
        }
        inventory.append([address(host), data])
    (RUN / "pyinfra.json").write_text(json.dumps(inventory))


def pyinfra(goal: Goal, kind: str) -> int:
    """Run the deploy."""
    said = run(
        [CACHE / "venv/bin/pyinfra", "-y", "bench/pyinfra_inventory.py", "bench/pyinfra_deploy.py"],
        env={"BENCH_DATA": str(RUN / "pyinfra.json")},
    )
    changed = re.search(r"Grand total\W+\d+\W+?(\d+|-)", said)
    if not changed:
        raise RuntimeError(f"pyinfra ended without a count:\n{said[-2000:]}")
    return int(changed[1].replace("-", "0"))


Way = tuple[Callable[[Goal], None], Callable[[Goal, str], int]]
# What happens before the clock starts, and what is measured.
CONTENDERS: dict[str, Way] = {
    "ours": (prepare_ours, ours),
    "floor": (prepare_floor, floor),
    "pyinfra": (prepare_pyinfra, pyinfra),
    "tasks": (prepare_tasks, tasks),
}
