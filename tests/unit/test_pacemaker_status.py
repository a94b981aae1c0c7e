"""What the cluster's monitor printed on a test host, read."""

from typing import Any

import pytest
from loading import load

status = load("filter/pacemaker_status").pacemaker_status


def monitor(
    holders: tuple[str, ...] = ("worker2",),
    away: tuple[str, ...] = (),
    quorum: str = "true",
    failure: str = "",
) -> str:
    """Return the parts of crm_mon's XML that count, as Pacemaker 2.1.5 writes them."""
    nodes = "".join(
        f'<node name="worker{n}" id="{n}" online="{str(f"worker{n}" not in away).lower()}"'
        ' standby="false" pending="false" unclean="false" type="member"/>'
        for n in (1, 2, 3)
    )
    held = "".join(f'<node name="{name}" id="2" cached="true"/>' for name in holders)
    return f"""<pacemaker-result api-version="2.25" request="crm_mon -1 -r --output-as=xml">
  <summary>
    <current_dc present="true" version="2.1.5" name="worker3" id="3" with_quorum="{quorum}"/>
  </summary>
  <nodes>{nodes}</nodes>
  <resources>
    <resource id="celery-beat" resource_agent="systemd:celery-beat" role="Started" active="true"
              failed="false" nodes_running_on="1">{held}</resource>
  </resources>
  <failures>{failure}</failures>
  <status code="0" message="OK"/>
</pacemaker-result>
"""


def test_one_host_of_a_healthy_cluster_holds_the_scheduler() -> None:
    assert status(monitor()) == {
        "running": True,
        "quorum": True,
        "holder": "worker2",
        "online": ["worker1", "worker2", "worker3"],
        "offline": [],
        "resources": {"celery-beat": ["worker2"]},
        "failed": [],
    }


@pytest.mark.parametrize("said", ["", "crm_mon: not connected", "<broken"])
def test_a_cluster_that_does_not_run_is_no_error(said: str) -> None:
    found: dict[str, Any] = status(said)
    assert (found["running"], found["quorum"], found["holder"]) == (False, False, "")
    assert found["online"] == found["offline"] == found["failed"] == []


def test_a_host_that_is_gone_is_offline() -> None:
    found = status(monitor(away=("worker1",)))
    assert (found["online"], found["offline"]) == (["worker2", "worker3"], ["worker1"])


def test_a_minority_has_no_quorum() -> None:
    assert status(monitor(quorum="false"))["quorum"] is False


@pytest.mark.parametrize("holders", [(), ("worker1", "worker2")])
def test_none_and_two_are_no_holder(holders: tuple[str, ...]) -> None:
    found = status(monitor(holders))
    assert found["holder"] == ""
    assert found["resources"] == {"celery-beat": list(holders)}


def test_a_failure_is_told_in_a_sentence() -> None:
    failure = (
        '<failure op_key="celery-beat_start_0" node="worker2" exitstatus="not installed"'
        ' exitreason="systemd unit celery-beat not found" exitcode="5"/>'
    )
    assert status(monitor(failure=failure))["failed"] == [
        "celery-beat_start_0 on worker2: systemd unit celery-beat not found"
    ]
