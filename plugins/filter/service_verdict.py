# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What the services of the fleet answered, as sentences for the person on call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

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
        M(process_set)), C(web) and C(flower) (of its C(answers)), C(ping) (of
        C(roles/verify/files/ask_broker.py)) and C(huey) (of a round trip through Huey). A probe
        that was not made is missing, empty or was skipped. The filter C(service_probes) makes the
        first three of such results.
      - Beside them, C(log) says where a service's log is, with C({}) for its name, C(prefix) is
        what the names of the stack's services begin with, and C(schedulers) lists the names of
        those of which P(scheduler_verdict#filter) tells whether they run.
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


class Answers(NamedTuple):
    """Who answered on Celery's broker.

    `nodes`: their names. `live`: the hosts whose beat answered, one twice if two did; or in words
    why that is not known; or None if nobody asked. `error`: what asking ended with, if it failed.
    """

    nodes: list[str]
    live: list[str] | str | None
    error: str = ""


def service_probes(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return host -> its probes, as `service_verdict` reads them.

    Args:
        results: host -> a check-mode result of process_set; without a census the host has said
            nothing.
    """
    probes = {}
    for host, result in results.items():
        if not result.get("census"):
            continue
        intended = result["intended"]
        answers = {
            name: result["answers"].get(f"{intended['prefix']}{name}") for name in ("web", "flower")
        }
        told = {key: intended[key] for key in ("memory", "prefix", "schedulers", "log")}
        probes[host] = {"set": result, **answers, **told}
    return probes


def made(probe: Any) -> bool:
    """Tell whether a probe was made: neither missing nor skipped."""
    return bool(probe) and not probe.get("skipped")


def last_line(result: Mapping[str, Any]) -> str:
    """Return the last line that a failed command wrote to stderr: in Python, the error itself."""
    lines = str(result.get("stderr") or result.get("msg") or "").strip().splitlines()
    return lines[-1] if lines else "no answer"


def broker_answers(result: Any) -> dict[str, Any]:
    """Read what ask_broker.py printed, as its registered result; return `Answers` as a dict."""
    return read_answers(result)._asdict()


def read_answers(result: Any) -> Answers:
    """See `broker_answers`."""
    if not made(result):
        return Answers([], None)
    # A project may print something while it is imported.
    text = (str(result.get("stdout") or "").strip().splitlines() or [""])[-1]
    try:
        said = json.loads(text)
        nodes, unknown = list(said["nodes"]), str(said["unknown"])
    except (ValueError, KeyError, TypeError):
        error = last_line(result).rstrip(".")
        return Answers([], f"asking on the broker ended with: {error}", error)
    beats = [node.partition("@")[2] for node in nodes if node.startswith("celerybeat@")]
    return Answers(nodes, unknown if unknown and not beats else beats)


def log_of(probes: Mapping[str, Any], service: str) -> str:
    """Return where the log of a service is; `service` may be a pattern and has no prefix."""
    log: str = probes["log"]
    return log.format(f"{probes['prefix']}{service}")


def set_problems(host: str, probes: Mapping[str, Any]) -> list[str]:
    """Return what a reconcile of this host would have to change."""
    result = probes["set"]
    if result.get("failed"):
        return [f"{host}: the services cannot be compared: {result.get('msg')}"]
    log = f"look at {probes['log']} on {host}, then {AGAIN}"
    problems = [
        f"{host}: {name} does not run; {log.format(name)}."
        for name in result.get("started", [])
        if name.removesuffix(".service") not in probes["schedulers"]
    ]
    problems += [
        f"{host}: {name} runs with something old: {why}; {AGAIN}."
        for key in ("restarted", "outdated")
        for name, why in result.get(key, {}).items()
    ]
    told = {name for key in ("started", "restarted", "outdated") for name in result.get(key, [])}
    for key, words in (
        ("written", "differs from what was deployed"),
        ("enabled", "would not start at the next boot"),
        ("stopped", "would be started at boot by systemd, beside its cluster"),
        ("pruned", "is there although it should not be"),
        ("masked", "is not masked although it must not run here"),
    ):
        problems += [
            f"{host}: {name} {words}; {AGAIN}."
            for name in result.get(key, [])
            if name.rsplit("/", 1)[-1].removesuffix(".conf") not in told
        ]
    return problems


def uri_problems(host: str, what: str, probes: Mapping[str, Any]) -> list[str]:
    """Return a sentence when an HTTP probe did not get the answer it asked for."""
    result = probes[what]
    if result.get("status") in result["wanted"]:
        return []
    status = result.get("status", -1)
    said = f"answers {status}" if status > 0 else f"does not answer ({result.get('msg')})"
    return [f"{host}: {what} {said} at {result.get('url')}; look at {log_of(probes, what)}."]


def ping_problems(host: str, hosts: Mapping[str, Mapping[str, Any]], nodes: list[str]) -> list[str]:
    """Return a sentence for every Celery node that did not answer over the broker."""
    answers = read_answers(hosts[host]["ping"])
    problems = []
    for node in sorted(set(nodes) - set(answers.nodes)):
        where = node.rsplit("@", 1)[-1]
        problems.append(
            f"{where}: the worker {node} does not answer over the broker (asked from {host}); "
            f"look at {log_of(hosts.get(where) or hosts[host], 'celery-worker*')} on {where}."
        )
    if answers.error:
        problems.insert(0, f"{host}: asking on the broker ended with: {answers.error}.")
    return problems


def huey_problems(host: str, probes: Mapping[str, Any]) -> list[str]:
    """Return a sentence when the task sent through Huey was not done in time."""
    result = probes["huey"]
    if result.get("rc") == 0:
        return []
    return [
        f"{host}: the Huey task {result['task']} did not come back within {result['seconds']} s: "
        f"{last_line(result)}; look at {log_of(probes, 'huey-worker')} on the workers."
    ]


def foreign_services(censuses: Mapping[str, Mapping[str, Any] | None], stack: str) -> list[str]:
    """Say which services of this stack have the name of another stack's on the same host.

    Args:
        censuses: host -> result of the module scheduler_census, as far as there is one.
        stack: the name of this stack.

    Returns:
        One sentence for each such service.
    """
    return [
        f"{host}: the service {name} belongs to the stack {owner}: set stack_unit_prefix, so that "
        f"the stacks {owner} and {stack} can share this host, or if {owner} is the former name of "
        f"{stack}, set stack_name to {owner}: a stack keeps its name."
        for host, census in censuses.items()
        for name, owner in ((census or {}).get("foreign_units") or {}).items()
    ]


def release_problems(censuses: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Say where something else runs than the release that the hosts have.

    Args:
        censuses: host -> result of the module scheduler_census, as far as there is one.

    Returns:
        One sentence for each service of another release than its host's, one for hosts that differ.
    """
    answers = {host: (census or {}).get("releases") or {} for host, census in censuses.items()}
    hosts: dict[str, list[str]] = {}
    for host, one in answers.items():
        if one.get("current"):
            hosts.setdefault(one["current"], []).append(host)
    problems = [
        f"{host}: {name} runs the release {release}, but current is {one['current']}; {AGAIN}."
        for host, one in answers.items()
        for name, release in one.get("running", {}).items()
        if one.get("current") and release != one["current"]
    ]
    if len(hosts) > 1:
        said = "; ".join(f"{release} on {', '.join(names)}" for release, names in hosts.items())
        problems.append(f"The hosts have different releases ({said}): run site.yml.")
    return problems


def memory_warnings(
    censuses: Mapping[str, Mapping[str, Any] | None], probes: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Say where a former worker beside its successor may use more memory than there is.

    Args:
        censuses: host -> result of the module scheduler_census, with `memory_total` in bytes.
        probes: host -> probes, with `memory` as the filter memory_needs returns it.

    Returns:
        One sentence for each such host.
    """
    warnings = []
    for host, census in censuses.items():
        total = (census or {}).get("memory_total") or 0
        needs = (probes.get(host) or {}).get("memory") or {}
        both = needs.get("once", 0) + needs.get("beside", 0)
        if total and needs.get("beside") and both > total:
            once, all_of_it, there = (
                f"{one / 2**20:.0f} MiB" for one in (needs["once"], both, total)
            )
            warnings.append(
                f"{host}: its services may use {once}, and {all_of_it} while former ones finish "
                f"their work beside them, but it has {there}: lower their memory limits, or set "
                f"{needs['choice']} to wait."
            )
    return warnings


def service_verdict(hosts: Mapping[str, Mapping[str, Any]], nodes: list[str]) -> list[str]:
    """Say what is wrong with the services.

    Args:
        hosts: host -> probes (`set`, `web`, `flower`, `ping`, `huey`), as registered by the role
            verify, with `log`, `prefix` and `schedulers`; `web` and `flower` carry the list
            `wanted` of good status codes beside the result, `huey` the sent `task` and the
            `seconds` waited for it.
        nodes: the Celery nodes that should answer.

    Returns:
        One sentence for each thing that is wrong.
    """
    problems: list[str] = []
    for host, probes in hosts.items():
        if made(probes.get("set")):
            problems += set_problems(host, probes)
        for what in ("web", "flower"):
            if made(probes.get(what)):
                problems += uri_problems(host, what, probes)
        if made(probes.get("ping")):
            problems += ping_problems(host, hosts, nodes)
        if made(probes.get("huey")):
            problems += huey_problems(host, probes)
    return problems


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {
            "service_verdict": service_verdict,
            "service_probes": service_probes,
            "foreign_services": foreign_services,
            "release_problems": release_problems,
            "memory_warnings": memory_warnings,
            "broker_answers": broker_answers,
        }
