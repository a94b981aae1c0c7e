# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Render a host's whole set of services on the controller and reconcile it in one module run.

The module of the same name documents the result. What this action takes:

    stack: dict, what all services of the stack share:
        name, prefix, user, home, current, state_dir, env_file: str; writable: list of paths;
        options: dict of further directives for every service, in the manager's own words.
    services: list of specs, as the filter `service_specs` returns them.
    absent: list of service names that must not be able to run on this host.
    manager: "systemd".
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"

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
    made.filters["shell_words"] = shlex.join
    return made


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
    jinja = environment()
    files: list[dict[str, str]] = []
    units: list[dict[str, Any]] = []

    def add(kind: str, name: str, values: dict[str, Any], **unit: Any) -> None:
        text = jinja.get_template(f"systemd/{kind}.j2").render(stack=stack, host=host, **values)
        files.append({"path": f"/etc/systemd/system/{name}", "content": text})
        units.append({"name": name, **unit})

    if services:
        add("target", f"{stack['name']}.target", {"services": services})
    for spec in services:
        unit = f"{stack['prefix']}{spec['name']}"
        if spec["listen"]:
            add("socket", f"{unit}.socket", {"service": spec})
        add(
            "service",
            f"{unit}.service",
            {"service": spec},
            newer_than=[stack["env_file"], stack["current"]],
            settle=spec["settle"],
            scheduler=spec["scheduler"],
        )
    masked = [f"{stack['prefix']}{name}.service" for name in absent]
    return {"files": files, "units": units, "masked": masked}


RENDERERS = {"systemd": render_systemd}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible has no types
    """The action behind `process_set`."""

    _requires_connection = True
    _VALID_ARGS = frozenset({"manager", "stack", "services", "absent"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Render the set and hand it to the module; return the module's result."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        manager = args.get("manager", "systemd")
        if manager not in RENDERERS:
            raise AnsibleActionFail(f"process_set cannot render for {manager!r}.")
        services = args["services"]
        host = self._identity() if any(spec["scheduler"] for spec in services) else {}
        rendered = RENDERERS[manager](args["stack"], services, args["absent"], host)
        result.update(
            self._execute_module(
                module_name="process_set",
                module_args={"manager": manager, "stack": args["stack"]["name"], **rendered},
                task_vars=task_vars,
            )
        )
        return result

    def _identity(self) -> dict[str, str]:
        """Return the target's host name and machine id, as systemd's AssertHost= compares them."""
        said = self._low_level_execute_command("uname -n && cat /etc/machine-id")
        if said["rc"] != 0:
            raise AnsibleActionFail(f"The host does not tell who it is: {said['stderr']}")
        hostname, machine_id = said["stdout"].split()
        return {"hostname": hostname, "machine_id": machine_id}
