# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What has changed on the hosts since their last deployment, as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DOCUMENTATION = r"""
name: drift_lines
short_description: Say what has changed on the hosts since their last deployment
version_added: "0.2.0"
author:
  - The django-background-fleet authors
description:
  - What concerns several roles of a host is said once, with their names behind it.
options:
  _input:
    description: Host to what the module M(drift) said there.
    type: dict
    required: true
"""

EXAMPLES = r"""
lines: "{{ {'web1': {'drift': {'app': ['input app_env changed']}}} | drift_lines }}"
# => ["web1", "  input app_env changed (app)"]
"""

RETURN = r"""
_value:
  description: Lines; none for a host that is as it was deployed.
  type: list
  elements: str
"""


def drift_lines(looks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the lines for all hosts, in their order; see the documentation above."""
    lines = []
    for host, look in looks.items():
        if "drift" not in look:
            why = str(look.get("msg", "")).strip() or "it was not asked"
            lines.append(f"{host} does not answer: {why}")
            continue
        about: dict[str, list[str]] = {}
        for role, sentences in look["drift"].items():
            for sentence in sentences:
                about.setdefault(sentence, []).append(role)
        lines += [host] if about else []
        lines += [f"  {sentence} ({', '.join(roles)})" for sentence, roles in about.items()]
    return lines


class FilterModule:
    """Tells Ansible the filter's name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return filter name -> function."""
        return {"drift_lines": drift_lines}
