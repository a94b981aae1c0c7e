#!/usr/bin/python
# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Compare a host with what its last deployment recorded, or record it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: drift
short_description: Compare a host with what its last deployment recorded, or record it
version_added: "0.2.0"
author:
  - The django-background-fleet authors
description:
  - Says which roles differ from their records on this host, and how, in words for people.
  - Usually called by the action of the same name, which works out O(roles).
  - A record is C(/var/lib/STACK-deployed/ROLE.json), for root alone. It holds hashes of what the
    role was told, and the state of what the role manages.
options:
  stack:
    description: Name of the stack.
    type: str
    required: true
  state:
    description:
      - V(look) compares and V(record) writes. V(spare) takes back what V(look) has noted because of
        O(begin), where the roles do not run after all.
    type: str
    choices: [look, record, spare]
    default: look
  roles:
    description:
      - Role to C(inputs), a hash for each thing that it is told, by name, and C(release), the name
        of the release that it shall bring, which may be empty.
      - For O(state=record) also C(spec), what it manages; see C(module_utils/drift.py).
      - For O(state=spare) the names count alone.
    type: dict
    required: true
  full:
    description: Every one of O(roles) differs.
    type: bool
    default: false
  begin:
    description:
      - Note that the roles that differ are about to run. Until they are recorded again they differ,
        as after a run that breaks off.
      - Not done in check mode.
    type: bool
    default: false
  census:
    description:
      - The options of M(scheduler_census) but for its O(scheduler_census#module:stack), to take its
        census in the same run.
    type: dict
requirements:
  - Python 3.9 or newer on the managed host.
attributes:
  check_mode:
    description: Reports the same and writes nothing.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
  platform:
    description: Linux with systemd and dpkg.
    platforms: linux
    support: full
"""

EXAMPLES = r"""
- name: Ask what has changed since the last deployment
  drift:
    stack: shop
    roles:
      redis: {inputs: {redis_port: 5feceb66ffc86f38}, release: ""}
  become: true
"""

RETURN = r"""
drift:
  description: Role to sentences that say how it differs; without the roles that do not.
  returned: O(state=look)
  type: dict
  sample: {"redis": ["file /etc/redis/redis.conf: mode 0644, was 0640"]}
begun:
  description: Roles that count as begun now, and did not before.
  returned: O(begin)
  type: list
  elements: str
memory:
  description: What the services that run may use, as it was recorded; empty if it was not.
  returned: O(state=look)
  type: dict
  sample: {"once": 1073741824, "beside": 536870912, "choice": "celery_worker_handover"}
unrecorded:
  description: Role to the reasons for which it could not be recorded; its next run is a full one.
  returned: O(state=record)
  type: dict
  sample: {"process_manager": ["celery-worker.service is failed"]}
schedulers:
  description: This and further keys are those of M(scheduler_census).
  returned: O(census) is given
  type: list
  elements: dict
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.drift import (
    PROPERTIES,
    RecordError,
    Records,
    differences,
    members,
    observe,
    unfit,
)
from ansible.module_utils.scheduler_look import OPTIONS, census_and_units, identity
from ansible.module_utils.supervisord_files import SOCKET
from ansible.module_utils.systemd_show import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ansible.module_utils.systemd_show import Shown


def running_programs() -> dict[str, str]:
    """Return the state of each program of supervisord; none where it does not answer."""
    if not SOCKET.exists():
        return {}
    from ansible.module_utils.supervisord_rpc import process_info  # Its imports take a while.

    with contextlib.suppress(RuntimeError):
        return {str(one["name"]): str(one["statename"]) for one in process_info(SOCKET)}
    return {}


def states_of(
    specs: Iterable[Mapping[str, Any]], ask: Callable[[list[str]], Shown]
) -> list[dict[str, Any]]:
    """Return the state of what each spec means.

    Args:
        specs: what to look at; see module_utils/drift.py.
        ask: names of units -> what systemd says of them; is called once.
    """
    wanted = [members(spec) for spec in specs]
    shown = ask([name for one in wanted for name in one["units"]])
    running = running_programs() if any(one["programs"] for one in wanted) else {}
    found: list[dict[str, Any]] = observe(wanted, shown, running)
    return found


def look(
    records: Records, ask: Callable[[list[str]], Shown], roles: dict[str, Any], *, full: bool
) -> dict[str, Any]:
    """Return role -> in which way it differs from its record, without those that do not."""
    found: dict[str, Any] = {}
    there: dict[str, Any] = {}
    for role in roles:
        try:
            there[role] = records.read(role)
        except RecordError as error:
            found[role] = [str(error)]
    states = states_of([record["spec"] for record in there.values()], ask)
    for (role, record), state in zip(there.items(), states):  # noqa: B905 - Python 3.9
        found[role] = differences(record, identity=identity(), state=state, **roles[role])
        if full and not found[role]:
            found[role] = ["a full run was asked for"]
    return {role: found[role] for role in roles if found[role]}


def memory_of_services(records: Records) -> dict[str, Any]:
    """Return what the role that runs the services has recorded of their memory."""
    try:
        memory: dict[str, Any] = records.read("process_manager")["spec"].get("memory", {})
    except RecordError:
        return {}
    return memory


def record(
    records: Records, ask: Callable[[list[str]], Shown], roles: dict[str, Any], *, write: bool
) -> dict[str, Any]:
    """Record roles as they are; return role -> why it could not be, without those that were."""
    states = states_of([one["spec"] for one in roles.values()], ask)
    unrecorded: dict[str, Any] = {}
    for (role, one), state in zip(roles.items(), states):  # noqa: B905 - Python 3.9
        reasons = unfit(state, one["spec"])
        if reasons:
            unrecorded[role] = reasons
        elif write:
            records.write(role, {**one, "identity": identity(), "state": state})
    return unrecorded


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["look", "record", "spare"], "default": "look"},
            "roles": {"type": "dict", "required": True},
            "full": {"type": "bool", "default": False},
            "begin": {"type": "bool", "default": False},
            "census": {"type": "dict", "options": OPTIONS},
        },
        supports_check_mode=True,
    )
    given = module.params
    # Not in the stack's own directory, which its user may write to.
    records = Records(Path(f"/var/lib/{given['stack']}-deployed"))
    answer: dict[str, Any] = {}

    def ask(units: list[str]) -> Shown:
        """Ask systemd for units, together with the census where one is wanted."""
        if not given["census"]:
            return show(module, units, PROPERTIES)[0]
        taken, shown = census_and_units(module, given["stack"], given["census"], units, PROPERTIES)
        answer.update(taken)
        return shown

    try:
        if given["state"] == "record":
            answer["unrecorded"] = record(records, ask, given["roles"], write=not module.check_mode)
        elif given["state"] == "spare":
            if not module.check_mode:
                records.spare(given["roles"])
        else:
            answer["drift"] = look(records, ask, given["roles"], full=given["full"])
            answer["memory"] = memory_of_services(records)
            if given["begin"] and answer["drift"] and not module.check_mode:
                answer["begun"] = records.begin(answer["drift"])
    except OSError as error:
        module.fail_json(msg=f"Cannot compare this host with its records: {error}")
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
