"""The cluster of the scheduler's hosts, as the tests ask it."""

from __future__ import annotations

from xml.etree import ElementTree

from fleet import Fleet, names, wait_for

SCHEDULERS = sorted(names("scheduler"))
PORT = 5405


def monitor(fleet: Fleet, host: str) -> ElementTree.Element:
    """Return what a host's cluster says; an empty element if it does not run."""
    said = fleet[host].run("crm_mon --one-shot --inactive --output-as=xml").stdout
    is_xml = said.startswith("<")
    return ElementTree.fromstring(said) if is_xml else ElementTree.Element("nothing")  # noqa: S314


def in_cluster(fleet: Fleet, host: str) -> list[str]:
    """Return the hosts of the cluster as one of them sees them."""
    nodes = monitor(fleet, host).findall("nodes/node[@online='true'][@pending='false']")
    return sorted(str(node.get("name")) for node in nodes)


def other_than(host: str) -> str:
    """Return a host of the cluster that is another one."""
    return next(name for name in SCHEDULERS if name != host)


def holder(fleet: Fleet, asked: str = SCHEDULERS[0]) -> str:
    """Return the host that the cluster has given the scheduler to, as one of them sees it."""
    found = monitor(fleet, asked).findall("resources/resource[@active='true']/node")
    return ", ".join(str(node.get("name")) for node in found)


def settle(fleet: Fleet) -> None:
    """Wait until all hosts are in the cluster, one of them schedules, and nothing is to be done."""
    wait_for(
        lambda: all(in_cluster(fleet, host) == SCHEDULERS for host in SCHEDULERS),
        60,
        lambda: str({host: in_cluster(fleet, host) for host in SCHEDULERS}),
    )
    fleet[SCHEDULERS[0]].check_output("crm_resource --wait --timeout=120s")
    wait_for(lambda: holder(fleet) in SCHEDULERS, 60, lambda: holder(fleet))
    # What it forgives after a minute is not to move the scheduler in the next test.
    fleet[SCHEDULERS[0]].run("crm_resource --cleanup")
