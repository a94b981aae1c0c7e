# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What the services of the fleet answered, as sentences for the person on call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DOCUMENTATION = r"""
name: service_verdict
short_description: Say what is wrong with the services of a fleet
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Turns what the probes of the role C(verify) registered into one sentence for each thing that
    is wrong.
options:
  _input:
    description:
      - Host to its probes. Each is a mapping with C(set) (a check-mode result of
        M(process_set)), C(web) and C(flower) (results of M(ansible.builtin.uri)) and C(ping) (of
        C(celery inspect ping --json)). A probe that was not made is missing or was skipped.
    type: dict
    required: true
  nodes:
    description: The Celery nodes that should answer.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
problems: "{{ probes | service_verdict(['celery@worker1']) }}"
"""

RETURN = r"""
_value:
  description: The sentences; empty when all is well.
  type: list
"""

AGAIN = "run site.yml, or the playbook services, to put it right"


def made(probe: Any) -> bool:
    """Tell whether a probe was made: neither missing nor skipped."""
    return bool(probe) and not probe.get("skipped")


def set_problems(host: str, result: Mapping[str, Any]) -> list[str]:
    """Return what a reconcile of this host would have to change."""
    if result.get("failed"):
        return [f"{host}: the services cannot be compared: {result.get('msg')}"]
    journal = f"look at `journalctl -u UNIT` on {host}, then {AGAIN}"
    problems = [
        f"{host}: {name} does not run; {journal.replace('UNIT', name)}."
        for name in result.get("started", [])
    ]
    problems += [
        f"{host}: {name} runs with something old: {why}; {AGAIN}."
        for name, why in result.get("restarted", {}).items()
    ]
    told = {*result.get("started", []), *result.get("restarted", {})}
    for key, words in (
        ("written", "differs from what was deployed"),
        ("enabled", "would not start at the next boot"),
        ("pruned", "is there although it should not be"),
        ("masked", "is not masked although it must not run here"),
    ):
        problems += [
            f"{host}: {name} {words}; {AGAIN}."
            for name in result.get(key, [])
            if name.rsplit("/", 1)[-1] not in told
        ]
    return problems


def uri_problems(host: str, what: str, result: Mapping[str, Any]) -> list[str]:
    """Return a sentence when an HTTP probe did not get the answer it asked for."""
    if result.get("status") in result["wanted"]:
        return []
    status = result.get("status", -1)
    said = f"answers {status}" if status > 0 else f"does not answer ({result.get('msg')})"
    return [f"{host}: {what} {said} at {result.get('url')}; look at `journalctl -u {what}`."]


def ping_problems(host: str, result: Mapping[str, Any], nodes: list[str]) -> list[str]:
    """Return a sentence for every Celery node that did not answer over the broker."""
    try:
        answers = json.loads(str(result.get("stdout") or "{}"))
    except json.JSONDecodeError:
        answers = {}
    problems = []
    for node in sorted(set(nodes) - set(answers)):
        where = node.rsplit("@", 1)[-1]
        problems.append(
            f"{where}: the worker {node} does not answer over the broker (asked from {host}); "
            f"look at `journalctl -u 'celery-worker*'` on {where}."
        )
    if problems and len(problems) == len(set(nodes)) and result.get("stderr"):
        last = str(result["stderr"]).strip().splitlines()[-1]
        problems.append(f"{host}: asking the workers ended with: {last}")
    return problems


def service_verdict(hosts: Mapping[str, Mapping[str, Any]], nodes: list[str]) -> list[str]:
    """Say what is wrong with the services.

    Args:
        hosts: host -> probes (`set`, `web`, `flower`, `ping`), as registered by the role verify;
            `web` and `flower` carry the list `wanted` of good status codes beside the result.
        nodes: the Celery nodes that should answer.

    Returns:
        One sentence for each thing that is wrong.
    """
    problems: list[str] = []
    for host, probes in hosts.items():
        if made(probes.get("set")):
            problems += set_problems(host, probes["set"])
        for what in ("web", "flower"):
            if made(probes.get(what)):
                problems += uri_problems(host, what, probes[what])
        if made(probes.get("ping")):
            problems += ping_problems(host, probes["ping"], nodes)
    return problems


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"service_verdict": service_verdict}
