"""Each wrong service gets its own sentence, with host, unit and what to do."""

from typing import Any

import pytest
from loading import load

filters = load("filter/service_verdict")
verdict, foreign_services = filters.service_verdict, filters.foreign_services
broker_answers = filters.broker_answers

GOOD_SET: dict[str, Any] = {
    **dict.fromkeys(("started", "written", "enabled", "pruned", "masked"), ()),
    "restarted": {},
}
PING = {"stdout": '{"nodes": ["celery@worker1"], "unknown": ""}', "stderr": ""}
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
    return {
        name: {"log": "`journalctl -u '{}'`", "prefix": "", "schedulers": ["celery-beat"], **one}
        for name, one in good.items()
    }


def test_a_good_fleet_gets_no_sentence() -> None:
    assert verdict(fleet(), NODES) == []


def test_a_host_that_was_not_asked_gets_no_sentence() -> None:
    assert verdict({"worker1": {}}, []) == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("started", ["web.service"], "web.service does not run"),
        ("restarted", {"web.service": "its file changed"}, "old: its file changed"),
        ("outdated", {"celery-beat.service": "its file changed"}, "old: its file changed"),
        ("stopped", ["celery-beat.service"], "started at boot by systemd, beside its cluster"),
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


def test_whether_a_scheduler_runs_is_told_by_the_census() -> None:
    for name in ("celery-beat.service", "celery-beat"):
        assert verdict(fleet(set={**GOOD_SET, "started": [name]}), NODES) == []


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
    assert f"`journalctl -u '{what}'`" in problem


def test_a_silent_worker_is_named_by_its_host() -> None:
    (problem,) = verdict(fleet(), [*NODES, "mail@worker2"])
    assert problem.startswith("worker2: the worker mail@worker2 does not answer")


@pytest.mark.parametrize("stdout", ["", "not json", None])
def test_no_answer_at_all_gives_the_reason(stdout: str | None) -> None:
    ping = {"stdout": stdout, "stderr": "Traceback\nOperationalError: refused."}
    problems = verdict(fleet(ping=ping), NODES)
    assert len(problems) == 2
    assert problems[0] == "worker1: asking on the broker ended with: OperationalError: refused."


@pytest.mark.parametrize(
    ("result", "answers"),
    [
        (PING, {"nodes": ["celery@worker1"], "live": []}),
        (
            {"stdout": 'x\n{"nodes": ["celerybeat@a", "celerybeat@a"], "unknown": ""}\n'},
            {"nodes": ["celerybeat@a", "celerybeat@a"], "live": ["a", "a"]},
        ),
        (
            {"stdout": '{"nodes": [], "unknown": "Celery is old"}'},
            {"nodes": [], "live": "Celery is old"},
        ),
        (
            {"stdout": "", "stderr": "Traceback\nrefused"},
            {
                "nodes": [],
                "live": "asking on the broker ended with: refused",
                "error": "refused",
            },
        ),
        (
            {"stdout": "[]", "stderr": ""},
            {
                "nodes": [],
                "live": "asking on the broker ended with: no answer",
                "error": "no answer",
            },
        ),
        ({"skipped": True}, {"nodes": [], "live": None}),
        ({}, {"nodes": [], "live": None}),
    ],
)
def test_who_answered_on_the_broker_is_read(result: dict[str, Any], answers: Any) -> None:
    assert broker_answers(result) == {"error": "", **answers}


def test_under_supervisord_the_log_is_a_file() -> None:
    log = {"log": "/var/log/shop/{}.log", "prefix": "shop-"}
    stopped = {**GOOD_SET, "started": ["shop-web"]}
    refused = {"wanted": [200], "status": 503, "url": "http://a/"}
    problems = verdict(fleet("web1", set=stopped, web=refused, **log), NODES)
    assert problems == [
        "web1: shop-web does not run; look at /var/log/shop/shop-web.log on web1, then run "
        "site.yml, or the playbook services, to put it right.",
        "web1: web answers 503 at http://a/; look at /var/log/shop/shop-web.log.",
    ]
    nobody = {"stdout": '{"nodes": [], "unknown": ""}'}
    (problem,) = verdict(fleet(ping=nobody, **log), NODES)
    assert "look at /var/log/shop/shop-celery-worker*.log on worker1" in problem


def test_a_program_is_named_once() -> None:
    changed = {
        **GOOD_SET,
        "restarted": {"web": "its file changed"},
        "written": ["/etc/supervisor/conf.d/web.conf", "/usr/local/lib/shop/web"],
    }
    assert len(verdict(fleet(set=changed), NODES)) == 1


def test_a_silent_worker_is_looked_for_where_its_own_manager_logs() -> None:
    hosts = fleet()
    hosts["worker2"] = {"log": "/var/log/shop/{}.log", "prefix": ""}
    (problem,) = verdict(hosts, [*NODES, "mail@worker2"])
    assert "/var/log/shop/celery-worker*.log on worker2" in problem


HUEY = {"task": "shop.tasks.ping", "seconds": 30, "rc": 0, "stderr": ""}


def test_a_task_that_came_back_through_huey_gets_no_sentence() -> None:
    assert verdict(fleet(huey=HUEY), NODES) == []
    assert verdict(fleet(huey={**HUEY, "skipped": True, "rc": None}), NODES) == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"rc": 1, "stderr": "Traceback\nhuey.exceptions.ResultTimeout: timed out\n"}, "timed out"),
        ({"rc": 1, "stderr": ""}, "no answer"),
        ({"rc": None, "msg": "No such file: shop-shell"}, "No such file: shop-shell"),
    ],
)
def test_a_task_that_did_not_come_back_is_told_with_the_error(
    answer: dict[str, Any], reason: str
) -> None:
    (problem,) = verdict(fleet(huey={**HUEY, **answer}), NODES)
    assert problem.startswith(
        "worker1: the Huey task shop.tasks.ping did not come back within 30 s: "
    )
    assert problem.endswith(f"{reason}; look at `journalctl -u 'huey-worker'` on the workers.")


def test_a_service_of_another_stack_is_told_with_the_prefix() -> None:
    censuses = {"web1": {"foreign_units": {"web": "library"}}, "web2": {"foreign_units": {}}}
    assert foreign_services({**censuses, "web3": None, "web4": {}}, "shop") == [
        "web1: the service web belongs to the stack library: set stack_unit_prefix, so that the "
        "stacks library and shop can share this host, or if library is the former name of shop, "
        "set stack_name to library: a stack keeps its name."
    ]


def releases(current: str, **running: str) -> dict[str, Any]:
    return {"releases": {"current": current, "running": running}}


def test_one_release_on_all_hosts_is_no_problem() -> None:
    censuses = {
        "web1": releases("a", web="a"),
        "worker1": releases("a"),
        "broker1": {},
        "off": None,
    }
    assert filters.release_problems(censuses) == []


def test_a_service_of_another_release_is_told() -> None:
    (problem,) = filters.release_problems({"web1": releases("b", web="a", flower="b")})
    assert problem.startswith("web1: web runs the release a, but current is b; run site.yml")


def test_hosts_with_different_releases_are_told() -> None:
    censuses = {"web1": releases("a"), "web2": releases("b"), "worker1": releases("a")}
    assert filters.release_problems(censuses) == [
        "The hosts have different releases (a on web1, worker1; b on web2): run site.yml."
    ]


@pytest.mark.parametrize(("total", "fits"), [(3 * 2**30, True), (3 * 2**30 - 1, False), (0, True)])
def test_a_handover_that_does_not_fit_is_told(total: int, fits: bool) -> None:
    needs = {"once": 2**31, "beside": 2**30, "choice": "celery_worker_handover"}
    warnings = filters.memory_warnings({"w": {"memory_total": total}}, {"w": {"memory": needs}})
    if fits:
        assert warnings == []
    else:
        assert warnings[0].startswith("w: its services may use 2048 MiB, and 3072 MiB while")
        assert warnings[0].endswith("or set celery_worker_handover to wait.")


def compared(**result: Any) -> dict[str, Any]:
    """Return what process_set says of a host with a web server and Flower."""
    intended = {
        "memory": {"once": 1},
        "prefix": "shop-",
        "schedulers": ["shop-celery-beat"],
        "log": "`journalctl -u '{}'`",
        "services": ["shop-web.service"],
    }
    answers = {"shop-web": {"status": 200, "wanted": [200]}, "shop-flower": {"status": -1}}
    return {"census": {"schedulers": []}, "answers": answers, "intended": intended, **result}


def test_a_host_that_was_compared_has_its_probes() -> None:
    result = compared()
    assert filters.service_probes({"web1": result}) == {
        "web1": {
            "set": result,
            "web": {"status": 200, "wanted": [200]},
            "flower": {"status": -1},
            "memory": {"once": 1},
            "prefix": "shop-",
            "schedulers": ["shop-celery-beat"],
            "log": "`journalctl -u '{}'`",
        }
    }


def test_a_service_that_a_host_lacks_is_not_probed() -> None:
    probes = filters.service_probes({"worker1": compared(answers={})})
    assert probes["worker1"]["web"] is None
    assert verdict({"worker1": {**probes["worker1"], "set": GOOD_SET}}, []) == []


@pytest.mark.parametrize("result", [{}, {"unreachable": True}, {"failed": True, "census": None}])
def test_a_host_that_has_said_nothing_has_no_probes(result: dict[str, Any]) -> None:
    assert filters.service_probes({"web1": result}) == {}
