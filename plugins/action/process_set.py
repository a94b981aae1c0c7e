# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Render a host's whole set of services on the controller and reconcile it in one module run.

The module of the same name documents the result. What this action takes:

    stack: dict, what all services of the stack share:
        name, prefix, user, current, state_dir, env_file: str.
        For systemd: writable, list of paths; options, dict of further directives for every service;
        margin, int, seconds that a scheduler waits in a cluster before it starts.
        For supervisord: log_dir, str; log_size, str such as "50MB"; log_backups, int.
    services: dict, as the filter `service_specs` returns it: what shall and must not run here.
    keep: bool, what services that must not run here left stays.
    only: list of names of what the run may touch; empty for all.
    identity: dict, `hostname` and `machine_id` of the host, as the module scheduler_census returns
        them; where they are needed and not known, the host is asked.
    inputs, leave_schedulers, journal, census, ask: as the module takes them.
    manages: `paths`, `units` and `packages` that make up the manager itself, where services run.
    manager: "systemd" or "supervisord".

Returns beside that:

    manages: what the module drift shall record of all this; see module_utils/drift.py.
    intended: `services`, names of units and programs; `masked` and `held`, those of systemd that
        must not be able to run here, and that a cluster starts and stops; `memory`, that of
        `services`; `prefix`, that of their names; `schedulers`, names of those that the census
        looks for; `log`, where the log of a service is, with "{}" for its name.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import ansible.plugins
from ansible.errors import AnsibleActionFail
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parents[2]

# Ansible finds no such helpers of a project's by itself.
ansible.plugins.__path__.append(str(ROOT / "plugins"))
from ansible.plugins.plugin_utils.light_action import LightAction, packed  # noqa: E402

TEMPLATES = ROOT / "templates"
# Before there is a process for each host.
packed("process_set")

# What a handover needs to know of a spec.
HANDOVER = ("handover", "stop_timeout", "stop_signal", "memory_max")

Spec = dict[str, Any]
FileSet = dict[str, Any]


def systemd_escape(value: object) -> str:
    """Return a value with systemd's specifier character taken literally (`%` becomes `%%`)."""
    return str(value).replace("%", "%%")


def systemd_word(value: object) -> str:
    r"""Return one argument quoted for ExecStart=, so that systemd passes it on unchanged.

    systemd.service(5): `%` starts a specifier, `$` a variable, `\` an escape; quotes group words.
    """
    text = systemd_escape(value).replace("\\", "\\\\").replace("$", "$$")
    if text and not any(c in text for c in " \t\n\"';"):
        return text
    return '"' + text.replace('"', '\\"').replace("\n", "\\n") + '"'


def systemd_assignment(name: str, value: object) -> str:
    """Return one quoted NAME=VALUE for Environment=, where `$` means itself: systemd.exec(5)."""
    text = systemd_escape(f"{name}={value}").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.replace("\n", "\\n") + '"'


def ini_value(value: object) -> str:
    """Return a value of supervisord's files, which take `%` for an expansion.

    Raises:
        AnsibleActionFail: the value cannot stand there: it would be cut off at a comment.
    """
    text = str(value)
    if re.search(r"[\r\n]|(^|\s)[;#]", text):
        raise AnsibleActionFail(f"supervisord would read a part of {text!r} as a comment.")
    return text.replace("%", "%%")


def environment() -> Environment:
    """Return the Jinja environment of all manager templates; an unknown name is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - unit files, not HTML
    )
    made.filters["systemd_escape"] = systemd_escape
    made.filters["systemd_word"] = systemd_word
    made.globals["systemd_assignment"] = systemd_assignment
    made.filters["ini_value"] = ini_value
    made.filters["shell_word"] = shlex.quote
    made.filters["shell_words"] = shlex.join
    return made


class Renderer:
    """Collects the files and units of a set, as the module takes them."""

    def __init__(self, stack: dict[str, Any], host: dict[str, str]) -> None:
        """Take what all services share, and who the host is."""
        self.stack = stack
        self.host = host
        self.jinja = environment()
        self.files: list[FileSet] = []
        self.units: list[FileSet] = []

    def add_file(self, template: str, path: str, mode: str = "0644", **values: Any) -> str:
        """Render a template into the set; return the path."""
        text = self.jinja.get_template(template).render(stack=self.stack, host=self.host, **values)
        self.files.append({"path": path, "content": text, "mode": mode})
        return path

    def add_unit(self, name: str, *files: str, **unit: Any) -> str:
        """Add a unit made of files; return its name."""
        self.units.append({"name": name, "files": list(files), **unit})
        return name

    def add_service(self, name: str, *files: str, spec: Spec, **unit: Any) -> None:
        """Add the unit of a service, which runs what the environment and the release say."""
        self.add_unit(
            name,
            *files,
            newer_than=[self.stack["env_file"], self.stack["current"]],
            # What proves that it works need not prove that it stays up.
            settle=0 if spec["ready"] or spec["health"] else spec["settle"],
            health=spec["health"] or None,
            start_timeout=spec["start_timeout"],
            scheduler=spec["scheduler"],
            held=spec["engine"] == "pacemaker",
            **{key: spec[key] for key in HANDOVER},
            **unit,
        )


def render_systemd(
    stack: dict[str, Any], services: list[Spec], absent: list[str], host: dict[str, str]
) -> FileSet:
    """Render specs as systemd units.

    Args:
        stack: what all services share; see the head of this file.
        services: the specs of this host.
        absent: service names to mask.
        host: `hostname` and `machine_id` of the target, for services bound to one host.

    Returns:
        `files`, `units` and `masked`, as the module takes them.
    """
    out = Renderer(stack, host)

    def add(kind: str, name: str, **values: Any) -> str:
        return out.add_file(f"systemd/{kind}.j2", f"/etc/systemd/system/{name}", **values)

    if services:
        target = f"{stack['name']}.target"
        out.add_unit(target, add("target", target, services=services))
    for spec in services:
        name = f"{stack['prefix']}{spec['name']}"
        sockets = []
        if spec["listen"]:
            socket = f"{name}.socket"
            sockets = [out.add_unit(socket, add("socket", socket, service=spec))]
        unit = f"{name}.service"
        out.add_service(unit, add("service", unit, service=spec), spec=spec, follows=sockets)
    return {
        "files": out.files,
        "units": out.units,
        "masked": [f"{stack['prefix']}{name}.service" for name in absent],
    }


def render_supervisord(
    stack: dict[str, Any], services: list[Spec], absent: list[str], host: dict[str, str]
) -> FileSet:
    """Render specs as programs of supervisord, each with a launcher.

    Takes and returns what `render_systemd` does, and `directories` beside that.
    """
    out = Renderer(stack, host)
    lib = f"/usr/local/lib/{stack['name']}"

    def add(name: str, spec: Spec, program: str, script: str, **values: Any) -> list[str]:
        launcher = f"{lib}/{name}"
        conf = f"/etc/supervisor/conf.d/{name}.conf"
        values.update(service=spec, program=name, launcher=launcher)
        return [
            out.add_file(f"supervisord/{program}.j2", conf, **values),
            out.add_file(f"supervisord/{script}.j2", launcher, "0755", **values),
        ]

    for spec in services:
        name = f"{stack['prefix']}{spec['name']}"
        sockets = []
        if spec["listen"]:
            files = add(f"{name}-socket", spec, "socket-program", "socket.py")
            sockets = [out.add_unit(f"{name}-socket", *files, settle=1)]
        files = add(name, spec, "program", "launcher", socket=f"{lib}/{name}-socket")
        as_user = ["setpriv", f"--reuid={stack['user']}", f"--regid={stack['user']}"]
        out.add_service(
            name,
            *files,
            spec=spec,
            follows=sockets,
            ready=[*as_user, "--init-groups", "--", files[1], "ready"] if spec["ready"] else [],
        )
    # systemd must not be able to start a scheduler beside the one here either.
    schedulers = [*absent, *(spec["name"] for spec in services if spec["scheduler"])]
    return {
        "files": out.files,
        "directories": [stack["log_dir"]] if services else [],
        "units": out.units,
        "masked": [f"{stack['prefix']}{name}.service" for name in schedulers],
    }


def managed(
    stack: dict[str, Any], intended: dict[str, Any], manager: dict[str, list[str]]
) -> dict[str, Any]:
    """Return what of a set the module drift records; see module_utils/drift.py.

    Args:
        stack: what all services share; see the head of this file.
        intended: as this action returns it.
        manager: the argument `manages`.
    """
    # Services run what the release and the environment file say.
    reads = [stack["current"], stack["env_file"]]
    own = manager if intended["services"] else {}
    return {
        "marked": stack["name"],
        "paths": [*(reads if intended["services"] else []), *own.get("paths", [])],
        "units": own.get("units", []),
        "packages": own.get("packages", []),
        **{key: intended[key] for key in ("held", "masked", "memory")},
    }


RENDERERS = {"systemd": render_systemd, "supervisord": render_supervisord}
# Where a service's log is; the directory is put in.
LOGS = {"systemd": "`journalctl -u '{{}}'`", "supervisord": "{}/{{}}.log"}


class ActionModule(LightAction):  # type: ignore[misc]  # loaded by path
    """The action behind `process_set`."""

    _requires_connection = True
    _VALID_ARGS = frozenset(
        {
            "manager",
            "stack",
            "services",
            "keep",
            "only",
            "identity",
            "inputs",
            "leave_schedulers",
            "manages",
            "journal",
            "census",
            "ask",
        }
    )

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Render the set and hand it to the module; return the module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        manager = args.get("manager", "systemd")
        if manager not in RENDERERS:
            raise AnsibleActionFail(f"process_set cannot render for {manager!r}.")
        services, absent = args["services"]["services"], args["services"]["absent"]
        host: dict[str, str] = {}
        if any(spec["scheduler"] for spec in services):
            known = args.get("identity", {})
            host = known if known.get("machine_id") else self._identity()
        rendered = RENDERERS[manager](args["stack"], services, absent, host)
        result.update(
            self._execute_module(
                module_name="process_set",
                module_args={
                    "manager": manager,
                    "stack": args["stack"]["name"],
                    "forget": [] if args.get("keep") else args["services"]["forget"],
                    "only": args.get("only", []),
                    "inputs": args.get("inputs", []),
                    "leave_schedulers": args.get("leave_schedulers", False),
                    "journal": args.get("journal"),
                    "census": args["census"],
                    "ask": args.get("ask"),
                    **rendered,
                },
                task_vars=task_vars,
            )
        )
        result["intended"] = intended = {
            "services": [unit["name"] for unit in rendered["units"]],
            "masked": rendered["masked"],
            "held": [unit["name"] for unit in rendered["units"] if unit.get("held")],
            "memory": args["services"]["memory"],
            "prefix": args["stack"]["prefix"],
            "schedulers": args["census"]["programs"],
            "log": LOGS[manager].format(args["stack"]["log_dir"]),
        }
        result["manages"] = managed(args["stack"], intended, args.get("manages", {}))
        return result

    def _identity(self) -> dict[str, str]:
        """Return the target's host name and machine id, as systemd's AssertHost= compares them."""
        said = self._low_level_execute_command("uname -n && cat /etc/machine-id")
        if said["rc"] != 0:
            raise AnsibleActionFail(f"The host does not tell who it is: {said['stderr']}")
        hostname, machine_id = said["stdout"].split()
        return {"hostname": hostname, "machine_id": machine_id}
