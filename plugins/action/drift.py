# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Work out what the roles of a host are told, and let the module of this name compare or record.

The module documents the result. What this action takes:

    stack: name of the stack.
    state: "look", "record" or "spare".
    fleet: what is alike for all hosts, as JSON; not with "spare":
        roles: role -> the hosts on which it runs; the roles in their order.
        follows: role -> roles with which it has to run.
        reads: role -> beginnings of the variables that it reads; of a role that is missing, all.
        hosts: anything that tells the addresses of all hosts.
        release: name of the release that `app` shall bring; may be empty.
        full, begin: as the module takes them.
    census: as the module takes it; with "look".
    managed: role -> what it manages; with "record".
    release: name of the release that `app` has brought; may be empty; with "record".
    roles: list of roles; with "spare".

With "look", the result has `began`, seconds of the controller's CLOCK_MONOTONIC, beside what the
module returns. The host is then in the group `__looked`, and if anything differs in `__due` and,
for each role that differs, in `__due_ROLE`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ansible.plugins
from ansible.errors import AnsibleError

ROOT = Path(__file__).resolve().parents[2]

# Ansible finds no such helpers of a project's by itself.
ansible.plugins.__path__.append(str(ROOT / "plugins"))
from ansible.plugins.plugin_utils.light_action import LightAction, packed  # noqa: E402
from ansible.plugins.plugin_utils.role_specs import ROLES, role_specs  # noqa: E402

# All that a role's work is made of.
BUNDLE = ("roles", "plugins", "templates", "playbooks", "requirements", "site.yml", "ansible.cfg")
# Public variables that tell a run what to do, and not what a host shall be.
COMMANDS = {"app_release", "stack_full"}


def digest(value: object) -> str:
    """Return 16 hexadecimal digits for a value of JSON."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def bundle_digest(root: Path) -> str:
    """Return a hash of the bundle's files, by their names and contents."""
    found = hashlib.sha256()
    paths = [path for name in BUNDLE for path in [root / name, *(root / name).rglob("*")]]
    for path in sorted(paths):
        if path.is_file() and "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(root)}\0{content}\n".encode())
    return found.hexdigest()[:16]


def public_variables(specs: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of all variables that an inventory may set; `specs` are all roles'."""
    entry_points = [spec for role in specs.values() for spec in role.values()]
    return frozenset(name for spec in entry_points for name in spec.get("options", {})) - COMMANDS


# Once for a run: Ansible loads this file before it starts a process for each host.
packed("drift")
BUNDLE_DIGEST = bundle_digest(ROOT)
PUBLIC = public_variables(role_specs(ROLES))


def plain(value: Any) -> Any:
    """Return a value as JSON has it: what Ansible templates on access has been accessed then."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if isinstance(value, bool | int | float) or value is None:
        return value
    return str(value)


def has_template(value: Any) -> bool:
    """Tell whether a value, at any depth, may be a template."""
    if isinstance(value, Mapping):
        return any(map(has_template, value.values())) or any(map(has_template, value))
    if isinstance(value, list | tuple | set):
        return any(map(has_template, value))
    return isinstance(value, str) and "{" in value


def host_inputs(
    variables: Mapping[str, Any], names: Iterable[str], template: Any
) -> dict[str, str]:
    """Return name -> hash of each variable's value.

    Args:
        variables: what the inventory and the command line define for the host, as written.
        names: the variables that count.
        template: value -> what it means on this host; may raise AnsibleError.
    """
    inputs = {}
    for name in sorted(variables.keys() & names):
        value = variables[name]
        if has_template(value):
            try:
                value = plain(template(value))
            except AnsibleError:
                value = ["as written", plain(value)]
        inputs[name] = digest(plain(value))
    return inputs


def inputs_of(
    role: str, inputs: Mapping[str, str], reads: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return name -> hash of what counts for a role.

    Args:
        role: its name.
        inputs: name -> hash of all public variables, and of what is no variable.
        reads: role -> beginnings of the variables that it reads; of a role that is missing, all.
    """
    if role not in reads:
        return dict(inputs)
    counts = tuple(reads[role])
    return {
        name: value
        for name, value in inputs.items()
        if name not in PUBLIC or name.startswith(counts)
    }


def with_followers(
    drift: dict[str, list[str]], roles: Sequence[str], follows: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Return role -> sentences, with the roles that have to run because others do."""
    found = dict(drift)
    for role in roles:
        leaders = [one for one in follows.get(role, ()) if one in found]
        if leaders and role not in found:
            found[role] = [f"it follows {', '.join(leaders)}"]
    return {role: found[role] for role in roles if role in found}


class ActionModule(LightAction):  # type: ignore[misc]  # loaded by path
    """The action behind `drift`."""

    _requires_connection = True
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"stack", "state", "fleet", "census", "managed", "release", "roles"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Compare or record; return the module's result, with the groups of the host."""
        began = time.monotonic()
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._task.args
        variables = task_vars or {}
        host = variables.get("inventory_hostname")
        state = args.get("state", "look")
        fleet = json.loads(args.get("fleet", "{}"))
        module_args = {"stack": args["stack"], "state": state}
        if state == "spare":
            roles: dict[str, dict[str, Any]] = {role: {} for role in args["roles"]}
        elif state == "record":
            roles = self._told(args["managed"], args["release"], fleet, variables)
            for role, spec in args["managed"].items():
                roles[role]["spec"] = plain(spec)
        else:
            names = [role for role, hosts in fleet["roles"].items() if host in hosts]
            roles = self._told(names, fleet["release"], fleet, variables)
            module_args.update(full=fleet["full"], begin=fleet["begin"])
            if "census" in args:
                module_args["census"] = plain(args["census"])
        result.update(
            self._execute_module(
                module_name="drift",
                module_args={**module_args, "roles": roles},
                task_vars=task_vars,
            )
        )
        for role, reasons in result.get("unrecorded", {}).items():
            self._display.warning(
                f"{host}: the next run of {role} will be a full one, since {'; '.join(reasons)}."
            )
        if "drift" in result:
            result["began"] = began
            result["drift"] = with_followers(result["drift"], list(roles), fleet["follows"])
            due = [f"__due_{role}" for role in result["drift"]]
            result["add_group"] = "_".join(["__looked", *result["drift"]])
            result["parent_groups"] = ["__looked", "__due", *due] if due else []
        return result

    def _told(
        self,
        names: Iterable[str],
        release: object,
        fleet: Mapping[str, Any],
        task_vars: dict[str, Any],
    ) -> dict[str, dict[str, Any]]:
        """Return role -> what it is told on this host, as the module takes it."""
        inputs = self._inputs(task_vars, fleet["hosts"])
        return {
            role: {
                "inputs": inputs_of(role, inputs, fleet["reads"]),
                "release": str(release) if role == "app" else "",
            }
            for role in names
        }

    def _inputs(self, task_vars: dict[str, Any], hosts: object) -> dict[str, str]:
        """Return name -> hash of all that a role on this host is told."""
        # Not the variables of this task, among which are the defaults of roles.
        variables = task_vars["hostvars"].raw_get(task_vars["inventory_hostname"])
        # Not the groups that the run has made.
        groups = {
            name: list(members)
            for name, members in task_vars["groups"].items()
            # Nor that of the hosts in no other, which changes as the run makes groups.
            if not name.startswith("__") and name != "ungrouped"
        }
        return {
            **host_inputs(variables, PUBLIC, self._templar.template),
            "bundle": BUNDLE_DIGEST,
            "groups": digest(groups),
            "hosts": digest(plain(hosts)),
        }
