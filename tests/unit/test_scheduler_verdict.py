"""The verdict on a fleet: silence for exactly one scheduler, else what an operator needs."""

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from loading import load

scheduler_verdict = load("filter/scheduler_verdict").FilterModule().filters()["scheduler_verdict"]
processes = load("module_utils/scheduler_processes")

UNIT = "celery-beat.service"
BEAT = "celery -A shop beat"


def beat(pid: int = 100, unit: str | None = UNIT, **other: Any) -> dict[str, Any]:
    """Return a scheduler as the module reports it."""
    return {
        "pid": pid,
        "user": "shop",
        "command": BEAT,
        "kind": processes.BEAT,
        "unit": unit,
        "program": None,
        **other,
    }


def embedded(pid: int, unit: str | None = None) -> dict[str, Any]:
    command = "celery -A shop worker -B"
    return beat(pid, unit, kind=processes.EMBEDDED, command=command)


def huey(pid: int, unit: str | None = None) -> dict[str, Any]:
    return beat(pid, unit, kind=processes.HUEY, command="huey_consumer shop.huey")


def census(
    *schedulers: dict[str, Any],
    load: str = "masked",
    active: str = "inactive",
    enabled: str = "masked",
    main_pid: int = 0,
) -> dict[str, Any]:
    """Return a host's answer; its unit is masked unless something else is said."""
    unit = {
        "name": UNIT,
        "load": load,
        "active": active,
        "enabled": enabled,
        "main_pid": main_pid,
    }
    return {"changed": False, "schedulers": list(schedulers), "other_stacks": [], "units": [unit]}


def running(*more: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a host whose unit schedules with pid 100."""
    return census(beat(), *more, load="loaded", active="active", enabled="enabled", main_pid=100)


def verdict(expected: tuple[str, ...] = ("worker1",), dead: Any = (), **hosts: Any) -> list[str]:
    found: list[str] = scheduler_verdict(hosts, list(expected), dead)
    return found


# --- Nothing to say -----------------------------------------------------------------------------


def test_one_scheduler_in_its_unit_on_its_host_is_right() -> None:
    absent = census(load="not-found", enabled="")
    assert verdict(worker1=running(), worker2=census(), web1=absent) == []


def test_a_stack_without_scheduler_wants_none() -> None:
    assert verdict((), worker1=census(), worker2=census()) == []


def test_other_stacks_do_not_count() -> None:
    other = {**census(), "other_stacks": [{**beat(9, "library.service"), "stack": "library"}]}
    assert verdict(worker1=running(), worker2=other) == []


def test_a_dead_host_need_not_answer() -> None:
    assert verdict(dead=["worker2"], worker1=running(), worker2=None) == []


def test_a_scheduler_under_supervisord_is_right() -> None:
    supervised = {**census(beat(7, "supervisor.service", program="celery-beat")), "units": []}
    assert verdict(worker1=supervised, worker2=census()) == []


# --- None runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (
            {"load": "masked"},
            "is masked; see `journalctl -u celery-beat` on worker1 and deploy it with "
            "`ansible-playbook site.yml`, which unmasks it.",
        ),
        (
            {"load": "not-found", "enabled": ""},
            "is not found; see `journalctl -u celery-beat` on worker1 and deploy it with "
            "`ansible-playbook site.yml`.",
        ),
        (
            {"load": "loaded", "active": "failed", "enabled": "enabled"},
            "has failed; see `journalctl -u celery-beat` on worker1 and "
            "`systemctl restart celery-beat` there.",
        ),
        (
            {"load": "loaded", "active": "inactive", "enabled": "enabled"},
            "is stopped; see `journalctl -u celery-beat` on worker1 and "
            "`systemctl start celery-beat` there.",
        ),
        (
            {"load": "loaded", "active": "activating", "enabled": "enabled"},
            "is starting again and again; see `journalctl -u celery-beat` on worker1.",
        ),
        (
            {"load": "loaded", "active": "active", "enabled": "enabled"},
            "is active but schedules nothing; see `journalctl -u celery-beat` on worker1 and "
            "`systemctl cat celery-beat` there.",
        ),
        (
            {"load": "loaded", "active": "deactivating", "enabled": "enabled"},
            "is deactivating; see `journalctl -u celery-beat` on worker1.",
        ),
        (
            {"load": "bad-setting", "active": "inactive", "enabled": "bad"},
            "is stopped; see `journalctl -u celery-beat` on worker1 and "
            "`systemctl start celery-beat` there.",
        ),
    ],
)
def test_no_scheduler_is_told_with_its_unit_and_journal(state: dict[str, str], why: str) -> None:
    assert verdict(worker1=census(**state), worker2=census()) == [  # type: ignore[arg-type]
        f"No scheduler runs anywhere, and worker1 must run it: celery-beat.service {why}"
    ]


def test_no_scheduler_where_systemd_does_not_answer() -> None:
    assert verdict(worker1={**census(), "units": []}) == [
        "No scheduler runs anywhere, and worker1 must run it: systemd does not answer there; "
        "see `systemctl status` on worker1."
    ]


def test_of_several_units_the_one_that_exists_is_told() -> None:
    answer = census(load="loaded", active="failed", enabled="enabled")
    missing = {**answer["units"][0], "name": "huey-periodic.service", "load": "not-found"}
    answer["units"].insert(0, missing)
    (problem,) = verdict(worker1=answer)
    assert "celery-beat.service has failed" in problem


def test_a_dead_host_cannot_hold_the_scheduler() -> None:
    assert verdict(dead=["worker1"], worker2=census()) == [
        "No scheduler runs on worker1, which must run it but is listed in stack_dead_hosts: "
        "put another host into the group 'scheduler' and run site.yml."
    ]


# --- One too many -------------------------------------------------------------------------------


def test_a_second_scheduler_started_by_hand_is_told_with_how_to_stop_it() -> None:
    assert verdict(worker1=running(), worker2=census(beat(200, None, user="root"))) == [
        "A second scheduler runs on worker2, started by hand: pid 200 of user root, "
        "`celery -A shop beat`; stop it with `kill 200` on worker2."
    ]


def test_a_second_huey_is_stopped_without_losing_tasks() -> None:
    assert verdict(worker1=running(), worker2=census(huey(200))) == [
        "A second scheduler runs on worker2, started by hand: pid 200 of user shop, "
        "`huey_consumer shop.huey`; stop it with `kill -INT 200` on worker2."
    ]


def test_two_on_one_host_are_told_together() -> None:
    assert verdict(worker1=running(beat(200, None, user="root"))) == [
        "worker1 runs more than one scheduler: beside pid 100 of celery-beat.service also pid 200 "
        "of user root, `celery -A shop beat`, started by hand; stop it with `kill 200` on worker1."
    ]


@pytest.mark.parametrize("surplus", [20, 200])
def test_of_two_in_one_unit_the_main_process_stays(surplus: int) -> None:
    answer = running(beat(surplus))
    answer["schedulers"].sort(key=lambda one: one["pid"])
    assert verdict(worker1=answer) == [
        "worker1 runs more than one scheduler: beside pid 100 of celery-beat.service also pid "
        f"{surplus} of user shop, `celery -A shop beat`, started by celery-beat.service; "
        f"stop it with `kill {surplus}` on worker1."
    ]


def test_a_scheduler_in_a_foreign_unit_is_told_with_that_unit() -> None:
    assert verdict(worker1=running(), web1=census(beat(200, "old-beat.service"))) == [
        "A second scheduler runs on web1, started by old-beat.service: pid 200 of user shop, "
        "`celery -A shop beat`; stop it with `kill 200` on web1, or stop old-beat.service if that "
        "is only there to run it."
    ]


@pytest.mark.parametrize("host", ["worker1", "worker2"])
def test_a_scheduler_inside_a_worker_is_told_with_its_unit(host: str) -> None:
    hosts = {"worker1": running(), "worker2": census()}
    hosts[host]["schedulers"].append(embedded(200, "celery-worker.service"))
    assert scheduler_verdict(hosts, ["worker1"]) == [
        f"A second scheduler runs inside a worker on {host}, started by celery-worker.service: "
        "pid 200 of user shop, `celery -A shop worker -B`; take its option for beat out of "
        f"celery-worker.service and restart that on {host}."
    ]


def test_a_worker_with_beat_started_by_hand_is_told_with_how_to_stop_it() -> None:
    assert verdict(worker1=running(), worker2=census(embedded(200))) == [
        "A second scheduler runs inside a worker on worker2, started by hand: pid 200 of user "
        "shop, `celery -A shop worker -B`; stop it with `kill 200` on worker2."
    ]


def test_a_huey_worker_that_schedules_is_told_with_the_option() -> None:
    assert verdict(worker1=running(), worker2=census(huey(200, "huey-worker.service"))) == [
        "A second scheduler runs on worker2, started by huey-worker.service: pid 200 of user "
        "shop, `huey_consumer shop.huey`; add --no-periodic to huey-worker.service and restart "
        "that on worker2."
    ]


def test_a_worker_with_beat_in_place_of_the_scheduler_is_not_right() -> None:
    answer = census(embedded(100, UNIT), load="loaded", active="active", main_pid=100)
    problems = verdict(worker1=answer)
    assert [problem.partition(":")[0] for problem in problems] == [
        "No scheduler runs in its unit on worker1, which must run it",
        "A scheduler runs inside a worker on worker1, started by celery-beat.service",
    ]


def test_a_scheduler_started_by_hand_does_not_replace_the_unit() -> None:
    answer = census(beat(200, None), load="loaded", active="failed", enabled="enabled")
    assert verdict(worker1=answer) == [
        "No scheduler runs in its unit on worker1, which must run it: celery-beat.service has "
        "failed; see `journalctl -u celery-beat` on worker1 and `systemctl restart celery-beat` "
        "there.",
        "A scheduler runs on worker1, started by hand: pid 200 of user shop, "
        "`celery -A shop beat`; stop it with `kill 200` on worker1.",
    ]


# --- On the wrong host --------------------------------------------------------------------------


def test_a_scheduler_on_the_wrong_host_is_told_once() -> None:
    assert verdict(worker1=census(), worker2=running()) == [
        "No scheduler runs in its unit on worker1, which must run it: celery-beat.service is "
        "masked; see `journalctl -u celery-beat` on worker1 and deploy it with "
        "`ansible-playbook site.yml`, which unmasks it.",
        "celery-beat.service schedules on worker2, which must not: pid 100 of user shop, "
        "`celery -A shop beat`; run site.yml, which removes it, or "
        "`systemctl disable --now celery-beat` on worker2.",
    ]


def test_a_scheduler_is_wrong_anywhere_if_the_stack_wants_none() -> None:
    (problem,) = verdict((), worker1=running())
    assert problem.startswith("celery-beat.service schedules on worker1, which must not: pid 100")


def test_a_supervised_scheduler_on_the_wrong_host_is_stopped_by_its_manager() -> None:
    supervised = {**census(beat(7, "supervisor.service", program="celery-beat")), "units": []}
    (problem,) = verdict(worker1=running(), worker2=supervised)
    assert problem.startswith("celery-beat schedules on worker2, which must not: pid 7 of user")
    assert problem.endswith("or `supervisorctl stop celery-beat` on worker2.")


@pytest.mark.parametrize(
    ("active", "enabled", "threat"),
    [
        ("inactive", "enabled", "it is inactive now but would start at the next boot"),
        ("failed", "enabled-runtime", "it is failed now but would start at the next boot"),
        ("inactive", "disabled", "it is inactive now but could be started, though it is disabled"),
        ("inactive", "", "it is inactive now but could be started, though it is not enabled"),
    ],
)
def test_a_stopped_unit_where_none_may_be_is_told(active: str, enabled: str, threat: str) -> None:
    lurking = census(load="loaded", active=active, enabled=enabled)
    assert verdict(worker1=running(), worker2=lurking) == [
        f"celery-beat.service is defined on worker2, which must not schedule: {threat}; "
        "run site.yml, which removes and masks it."
    ]


# --- No answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, ""),
        ({}, ""),
        ({"skipped": True}, ""),
        (
            {"unreachable": True, "msg": "Failed to connect\nvia ssh"},
            " (Failed to connect)",
        ),
    ],
)
def test_a_silent_host_may_hold_a_scheduler(answer: Any, reason: str) -> None:
    assert verdict(worker1=running(), worker2=answer) == [
        f"worker2 did not answer{reason} and may hold a scheduler: bring it back, or if you know "
        'that it is off, add -e \'{"stack_dead_hosts": ["worker2"]}\'.'
    ]


def test_the_words_for_a_dead_host_keep_those_already_dead() -> None:
    (problem,) = verdict(dead=["web1"], worker1=running(), worker2=None, web1=None)
    assert """add -e '{"stack_dead_hosts": ["web1", "worker2"]}'.""" in problem


def test_silence_of_the_scheduler_host_is_told_even_if_it_is_absent() -> None:
    assert verdict(worker2=census()) == [
        "worker1 did not answer and may hold the scheduler: bring it back, or if you know that it "
        "is off, put another host into the group scheduler and add "
        '-e \'{"stack_dead_hosts": ["worker1"]}\'.'
    ]


def test_no_claim_is_made_about_silent_hosts() -> None:
    problems = verdict(worker1=census(), worker2=None)
    assert problems[0].startswith("No host that answered runs a scheduler, and worker1 must run it")
    assert problems[1].startswith("worker2 did not answer")


# --- Shape --------------------------------------------------------------------------------------


def test_each_expected_host_must_run_one() -> None:
    expected = ("worker1", "worker2")
    assert verdict(expected, worker1=running(), worker2=running()) == []
    (problem,) = verdict(expected, worker1=running(), worker2=census())
    assert problem.startswith("No scheduler runs in its unit on worker2")


@pytest.mark.parametrize(
    ("censuses", "expected", "dead"),
    [([], ["worker1"], []), ({}, "worker1", []), ({}, ["worker1"], "worker2")],
)
def test_arguments_of_another_shape_are_refused(censuses: Any, expected: Any, dead: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="scheduler_verdict needs"):
        scheduler_verdict(censuses, expected, dead)
