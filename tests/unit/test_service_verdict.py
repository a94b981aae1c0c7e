"""Each wrong service gets its own sentence, with host, unit and what to do."""

from typing import Any

import pytest
from loading import load

verdict = load("filter/service_verdict").service_verdict

GOOD_SET: dict[str, Any] = {
    **dict.fromkeys(("started", "written", "enabled", "pruned", "masked"), ()),
    "restarted": {},
}
PING = {"stdout": '{"celery@worker1": {"ok": "pong"}}', "stderr": ""}
NODES = ["celery@worker1"]


def fleet(host: str = "worker1", **probes: Any) -> dict[str, dict[str, Any]]:
    """Return the probes of a fleet in which all is well but for `probes` of `host`."""
    good: dict[str, dict[str, Any]] = {
        "broker1": {"set": GOOD_SET, "web": {"skipped": True}},
        "web1": {
            "set": GOOD_SET,
            "web": {"status": 200, "wanted": [200]},
            "flower": {"status": 200, "wanted": [200]},
        },
        "worker1": {"set": GOOD_SET, "ping": PING},
    }
    good[host] = {**good[host], **probes}
    return good


def test_a_good_fleet_gets_no_sentence() -> None:
    assert verdict(fleet(), NODES) == []


def test_a_host_that_was_not_asked_gets_no_sentence() -> None:
    assert verdict({"worker1": {}}, []) == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("started", ["web.service"], "web.service does not run"),
        ("restarted", {"web.service": "its file changed"}, "old: its file changed"),
        ("written", ["/etc/systemd/system/web.service"], "differs from what was deployed"),
        ("enabled", ["web.service"], "would not start at the next boot"),
        ("pruned", ["old.service"], "old.service is there although it should not be"),
        ("masked", ["celery-beat.service"], "celery-beat.service is not masked"),
    ],
)
def test_what_a_reconcile_would_change_is_said(key: str, value: Any, words: str) -> None:
    (problem,) = verdict(fleet(set={**GOOD_SET, key: value}), NODES)
    assert problem.startswith("worker1: ")
    assert words in problem
    assert "run site.yml" in problem


def test_a_unit_is_named_once() -> None:
    both = {**GOOD_SET, "started": ["web.service"], "written": ["/etc/systemd/system/web.service"]}
    assert len(verdict(fleet(set=both), NODES)) == 1


def test_a_host_that_cannot_be_compared_says_why() -> None:
    (problem,) = verdict(fleet(set={"failed": True, "msg": "no systemd here"}), NODES)
    assert "no systemd here" in problem


@pytest.mark.parametrize("what", ["web", "flower"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 503, "url": "http://a/"}, "answers 503 at http://a/"),
        ({"status": -1, "msg": "refused", "url": "http://a/"}, "does not answer (refused)"),
    ],
)
def test_a_wrong_answer_is_said(what: str, answer: dict[str, Any], words: str) -> None:
    (problem,) = verdict(fleet("web1", **{what: {"wanted": [200], **answer}}), NODES)
    assert problem.startswith(f"web1: {what} ")
    assert words in problem
    assert f"journalctl -u {what}" in problem


def test_a_silent_worker_is_named_by_its_host() -> None:
    (problem,) = verdict(fleet(), [*NODES, "mail@worker2"])
    assert problem.startswith("worker2: the worker mail@worker2 does not answer")


@pytest.mark.parametrize("stdout", ["", "not json", None])
def test_no_answer_at_all_gives_the_reason(stdout: str | None) -> None:
    ping = {"stdout": stdout, "stderr": "Traceback\nOperationalError: refused"}
    problems = verdict(fleet(ping=ping), NODES)
    assert len(problems) == 2
    assert "OperationalError: refused" in problems[1]
