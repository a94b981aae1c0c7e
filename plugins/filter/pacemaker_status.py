# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What a cluster's monitor says, in a few words."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

DOCUMENTATION = r"""
name: pacemaker_status
short_description: Say who holds the scheduler of a Pacemaker cluster
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Reads what C(crm_mon --one-shot --inactive --output-as=xml) printed on one host.
options:
  _input:
    description: The XML; empty or anything else when the cluster does not run there.
    type: str
    required: true
"""

EXAMPLES = r"""
holder: "{{ monitor.stdout | pacemaker_status | extract('holder') }}"
"""

RETURN = r"""
_value:
  description:
    - C(running) tells whether the cluster runs on the host that was asked, C(quorum) whether that
      host sees the majority, C(holder) names the host of the scheduler or is empty.
    - C(online) and C(offline) are the other hosts as it sees them, itself among them.
    - C(resources) maps each resource to the hosts that have it.
    - C(failed) holds a sentence for each operation that failed lately.
  type: dict
"""


def pacemaker_status(monitor: str) -> dict[str, Any]:
    """Read the monitor's XML.

    Args:
        monitor: what crm_mon printed; what is no XML counts as a cluster that does not run.

    Returns:
        `running`, `quorum`: bool; `holder`: str, empty if none or several; `online`, `offline`:
        sorted list of str; `resources`: dict of str to list of str; `failed`: list of str.
    """
    try:
        # The host's own tool wrote it; a host that wants to harm the run has simpler ways.
        root = ElementTree.fromstring(monitor)  # noqa: S314
    except ElementTree.ParseError:
        root = ElementTree.Element("nothing")
    dc = root.find("summary/current_dc")
    nodes = {
        str(node.get("name")): node.get("online") == "true" and node.get("pending") != "true"
        for node in root.iterfind("nodes/node")
    }
    resources = {
        str(one.get("id")): sorted(str(node.get("name")) for node in one.iterfind("node"))
        for one in root.iterfind("resources/resource")
    }
    holders = sorted({host for hosts in resources.values() for host in hosts})
    return {
        "running": bool(nodes),
        "quorum": dc is not None and dc.get("with_quorum") == "true",
        "holder": holders[0] if len(holders) == 1 else "",
        "online": sorted(name for name, online in nodes.items() if online),
        "offline": sorted(name for name, online in nodes.items() if not online),
        "resources": resources,
        "failed": [
            f"{one.get('op_key', one.get('id'))} on {one.get('node')}: "
            f"{one.get('exitreason') or one.get('exitstatus')}"
            for one in root.iterfind("failures/failure")
        ],
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"pacemaker_status": pacemaker_status}
