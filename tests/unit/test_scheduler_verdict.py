"""The verdict on a fleet: silence for exactly one scheduler, else what an operator needs."""

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from loading import load

filters = load("filter/scheduler_verdict").FilterModule().filters()
scheduler_verdict = filters["scheduler_verdict"]
scheduler_warnings = filters["scheduler_warnings"]
scheduler_roles = filters["scheduler_roles"]
latest_censuses = filters["latest_censuses"]
processes = load("module_utils/scheduler_processes")

UNIT = "celery-beat.service"
SUPERVISORD = {"worker1": "supervisord"}
LOG = "/var/log/shop/celery-beat.log"
BEAT = "celery -A shop beat"


def beat(pid: int = 100, unit: str | None = UNIT, **other: Any) -> dict[str, Any]:
    """Return a scheduler as the module reports it."""
    return {
        "pid": pid,
        "user": "shop",
        "command": BEAT,
        "kind": processes.BEAT,
        "scheduler": "",
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
    starting: bool = False,
) -> dict[str, Any]:
    """Return a host's answer; its unit is masked unless something else is said."""
    unit = {
        "name": UNIT,
        "load": load,
        "active": active,
        "enabled": enabled,
        "main_pid": main_pid,
        "starting": starting,
    }
    return {
        "changed": False,
        "schedulers": list(schedulers),
        "other_stacks": [],
        "units": [unit],
        "programs": [program()],
        "foreign_units": {},
        "lurking": [],
        "host_identity": {"hostname": "host", "machine_id": ""},
    }


def program(state: str = "", pid: int = 0, **other: Any) -> dict[str, Any]:
    """Return supervisord's word on celery-beat; it is not defined unless it has a state."""
    return {
        "name": "celery-beat",
        "state": state,
        "pid": pid,
        "starting": False,
        "defined": bool(state),
        "autostart": bool(state),
        "log": LOG if state else "",
        **other,
    }


def supervised(*more: dict[str, Any], pid: int = 100) -> dict[str, Any]:
    """Return the answer of a host whose program schedules; systemd's unit is masked."""
    one = beat(pid, "supervisor.service", program="celery-beat")
    return {**census(one, *more), "programs": [program("RUNNING", pid)]}


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


@pytest.mark.parametrize("managers", [{}, SUPERVISORD])
def test_a_scheduler_under_supervisord_is_right(managers: dict[str, str]) -> None:
    hosts = {"worker1": supervised(), "worker2": census()}
    assert scheduler_verdict(hosts, ["worker1"], managers=managers) == []


def test_units_and_programs_of_another_stack_do_not_count() -> None:
    other = census(load="loaded", active="active", enabled="enabled", main_pid=9)
    other["programs"] = [program("RUNNING", 10)]
    other["foreign_units"] = {"celery-beat": "library"}
    assert verdict(worker1=running(), worker2=other) == []


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
            {"load": "loaded", "active": "activating", "enabled": "enabled", "starting": True},
            "has not finished starting (Huey's scheduler waits for the next minute); ask again, or "
            "see `journalctl -u celery-beat` on worker1.",
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


def test_the_unit_that_is_there_is_told_before_those_that_are_not() -> None:
    answer = census(load="not-found", enabled="")
    answer["units"].append({**answer["units"][0], "name": "huey-periodic.service"})
    answer["units"][1].update(load="masked", enabled="masked")
    assert "celery-beat.service is not found" in verdict(worker1=answer)[0]
    answer["units"][1].update(load="loaded", active="failed")
    assert "huey-periodic.service has failed" in verdict(worker1=answer)[0]


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (program(), "is not defined on worker1; deploy it with `ansible-playbook site.yml`."),
        (
            program(defined=True),
            "is not loaded; see `systemctl status supervisor` on worker1 and "
            "`supervisorctl update` there.",
        ),
        (
            program("FATAL"),
            f"has failed; see {LOG} on worker1 and `supervisorctl start celery-beat` there.",
        ),
        (
            program("STOPPED", log=""),
            "is stopped; see its log on worker1 and `supervisorctl start celery-beat` there.",
        ),
        (
            program("EXITED"),
            f"has ended; see {LOG} on worker1 and `supervisorctl start celery-beat` there.",
        ),
        (program("BACKOFF"), f"is starting again and again; see {LOG} on worker1."),
        (
            program("RUNNING", 9),
            f"runs but schedules nothing; see {LOG} on worker1 and `supervisorctl status` there.",
        ),
        (
            program("RUNNING", 9, starting=True),
            "has not finished starting (Huey's scheduler waits for the next minute); ask again, or "
            f"see {LOG} on worker1.",
        ),
        (program("STOPPING", 9), f"is STOPPING; see {LOG} on worker1."),
    ],
)
def test_no_scheduler_is_told_with_its_program_and_log(state: dict[str, Any], why: str) -> None:
    hosts = {"worker1": {**census(), "programs": [state]}, "worker2": census()}
    assert scheduler_verdict(hosts, ["worker1"], managers=SUPERVISORD) == [
        "No scheduler runs anywhere, and worker1 must run it: supervisord's program celery-beat "
        f"{why}"
    ]


def test_a_scheduler_that_runs_elsewhere_is_not_the_program() -> None:
    hosts = {"worker1": census(beat(200, None)), "worker2": census()}
    problem, _ = scheduler_verdict(hosts, ["worker1"], managers=SUPERVISORD)
    assert problem.startswith("No scheduler runs as its program on worker1, which must run it: ")


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


@pytest.mark.parametrize(
    ("managers", "stays", "goes", "cure"),
    [
        (
            SUPERVISORD,
            "pid 200 of supervisord's program celery-beat",
            "pid 100 of user shop, `celery -A shop beat`, started by celery-beat.service",
            "`systemctl disable --now celery-beat`",
        ),
        (
            {},
            "pid 100 of celery-beat.service",
            "pid 200 of user shop, `celery -A shop beat`, started by supervisord's program "
            "celery-beat",
            "`supervisorctl stop celery-beat`",
        ),
    ],
)
def test_of_two_under_two_managers_the_chosen_ones_stays(
    managers: dict[str, str], stays: str, goes: str, cure: str
) -> None:
    answer = running(*supervised(pid=200)["schedulers"])
    answer["programs"] = [program("RUNNING", 200)]
    assert scheduler_verdict({"worker1": answer}, ["worker1"], managers=managers) == [
        f"worker1 runs more than one scheduler: beside {stays} also {goes}; run site.yml, which "
        f"leaves one, or {cure} on worker1."
    ]


def test_a_scheduler_started_by_hand_beside_the_program_is_told() -> None:
    hosts = {"worker1": supervised(beat(200, None, user="root"))}
    assert scheduler_verdict(hosts, ["worker1"], managers=SUPERVISORD) == [
        "worker1 runs more than one scheduler: beside pid 100 of supervisord's program celery-beat "
        "also pid 200 of user root, `celery -A shop beat`, started by hand; stop it with "
        "`kill 200` on worker1."
    ]


@pytest.mark.parametrize("surplus", [20, 200])
def test_of_two_in_one_program_its_process_stays(surplus: int) -> None:
    answer = supervised(beat(surplus, "supervisor.service", program="celery-beat"))
    answer["schedulers"].sort(key=lambda one: one["pid"])
    (problem,) = scheduler_verdict({"worker1": answer}, ["worker1"], managers=SUPERVISORD)
    assert f"beside pid 100 of supervisord's program celery-beat also pid {surplus}" in problem
    assert problem.endswith(f"stop it with `kill {surplus}` on worker1.")


def test_a_scheduler_that_supervisord_lost_is_told() -> None:
    hosts = {"worker1": supervised(beat(200, "supervisor.service"))}
    assert scheduler_verdict(hosts, ["worker1"], managers=SUPERVISORD) == [
        "worker1 runs more than one scheduler: beside pid 100 of supervisord's program celery-beat "
        "also pid 200 of user shop, `celery -A shop beat`, left in supervisor.service by no "
        "program of it; stop it with `kill 200` on worker1."
    ]


def test_a_scheduler_in_a_program_of_nobodys_is_told_with_that_program() -> None:
    stray = beat(200, "supervisor.service", program="old:beat")
    assert verdict(worker1=running(), web1=census(stray)) == [
        "A second scheduler runs on web1, started by supervisord's program old:beat: pid 200 of "
        "user shop, `celery -A shop beat`; stop it with `supervisorctl stop old:beat` on web1 and "
        "take that program away."
    ]


def test_a_program_of_a_worker_that_schedules_is_told_with_the_option() -> None:
    place: dict[str, Any] = {"unit": "supervisor.service", "program": "huey-worker"}
    assert verdict(worker1=running(), worker2=census({**huey(200), **place})) == [
        "A second scheduler runs on worker2, started by supervisord's program huey-worker: pid 200 "
        "of user shop, `huey_consumer shop.huey`; add --no-periodic to supervisord's program "
        "huey-worker and restart that on worker2."
    ]
    place["program"] = "celery-worker"
    assert verdict(worker1=running(), worker2=census({**embedded(200), **place})) == [
        "A second scheduler runs inside a worker on worker2, started by supervisord's program "
        "celery-worker: pid 200 of user shop, `celery -A shop worker -B`; take its option for beat "
        "out of supervisord's program celery-worker and restart that on worker2."
    ]


def test_a_huey_scheduler_that_supervisord_lost_is_stopped_gracefully() -> None:
    (problem,) = verdict(worker1=running(), worker2=census(huey(200, "supervisor.service")))
    assert problem.endswith("`huey_consumer shop.huey`; stop it with `kill -INT 200` on worker2.")


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
    assert verdict(worker1=running(), worker2=supervised()) == [
        "supervisord's program celery-beat schedules on worker2, which must not: pid 100 of user "
        "shop, `celery -A shop beat`; run site.yml, which removes it, or "
        "`supervisorctl stop celery-beat` on worker2."
    ]


@pytest.mark.parametrize(
    ("lurking", "threat"),
    [
        (program("STOPPED"), "it is STOPPED now but would start with supervisord"),
        (program("FATAL"), "it is FATAL now but would start with supervisord"),
        (
            program("STOPPED", autostart=False),
            "it is STOPPED now but could be started, though not by itself",
        ),
        (
            program(defined=True, autostart=True),
            "it is not loaded now but would start with supervisord",
        ),
        (
            program("RUNNING", 9, defined=False, autostart=False),
            "it is RUNNING now but could be started, though not by itself",
        ),
    ],
)
def test_a_program_where_none_may_be_is_told(lurking: dict[str, Any], threat: str) -> None:
    assert verdict(worker1=running(), worker2={**census(), "programs": [lurking]}) == [
        f"supervisord's program celery-beat is defined on worker2, which must not schedule: "
        f"{threat}; run site.yml, which removes it."
    ]


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


# --- Clones, and what lurks ---------------------------------------------------------------------


def machine(answer: dict[str, Any], hostname: str) -> dict[str, Any]:
    return {**answer, "host_identity": {"hostname": hostname, "machine_id": "5b4e"}}


def both(expected: Any, hosts: dict[str, Any], **more: Any) -> tuple[list[str], list[str]]:
    """Return what is wrong, and the warnings."""
    return scheduler_verdict(hosts, expected, **more), scheduler_warnings(hosts, expected, **more)


def test_a_clone_of_the_schedulers_host_is_told_with_the_cure() -> None:
    hosts = {"worker1": machine(running(), "w"), "worker2": machine(census(), "w")}
    assert both(["worker1"], hosts) == (
        [
            "worker1 and worker2 have the same machine id, 5b4e, and the same host name: one is a "
            "clone of the other, so give it its own (`rm /etc/machine-id; "
            "systemd-machine-id-setup` there, and reboot); or one machine stands twice in the "
            "inventory."
        ],
        [],
    )


def test_a_clone_with_a_name_of_its_own_is_a_warning() -> None:
    hosts = {"worker1": machine(running(), "w1"), "worker2": machine(census(), "w2")}
    wrong, (warning,) = both(["worker1"], hosts)
    assert wrong == []
    assert warning.startswith("worker1 and worker2 have the same machine id, 5b4e: one is a clone")


def test_clones_that_are_not_to_schedule_are_a_warning() -> None:
    hosts = {"web1": machine(census(), "w"), "web2": machine(census(), "w")}
    wrong, (warning,) = both([], hosts)
    assert wrong == []
    assert warning.startswith("web1 and web2 have the same machine id")


def test_hosts_without_a_machine_id_are_no_clones() -> None:
    assert both(["worker1"], {"worker1": running(), "worker2": census()}) == ([], [])


@pytest.mark.parametrize("host", ["worker1", "worker2"])
def test_an_enabled_unit_of_nobodys_that_would_schedule_is_told(host: str) -> None:
    hosts = {"worker1": running(), "worker2": census()}
    lurker = {"name": "old-beat.service", "manager": "systemd", "kind": processes.BEAT}
    hosts[host]["lurking"] = [{**lurker, "state": "inactive", "enabled": True}]
    assert scheduler_verdict(hosts, ["worker1"]) == [
        f"old-beat.service on {host} would start a second scheduler (celery beat) at the next "
        f"boot, though it is inactive now: `systemctl disable --now old-beat` on {host}, and "
        "delete its file."
    ]
    hosts[host]["lurking"][0]["enabled"] = False
    assert scheduler_verdict(hosts, ["worker1"]) == []


def test_a_program_of_nobodys_that_would_schedule_is_told() -> None:
    lurker = {"name": "old", "manager": "supervisord", "kind": processes.HUEY}
    hosts = {"worker1": {**running(), "lurking": [{**lurker, "state": "", "enabled": True}]}}
    assert scheduler_verdict(hosts, ["worker1"]) == [
        "supervisord's program old on worker1 would start a second scheduler (huey consumer with "
        "periodic tasks) with supervisord, though it is not loaded now: `supervisorctl stop old` "
        "on worker1, and delete its file."
    ]


def test_a_unit_of_nobodys_that_runs_is_told_once() -> None:
    answer = census(beat(200, "old-beat.service"))
    answer["lurking"] = [
        {
            "name": "old-beat.service",
            "manager": "systemd",
            "kind": processes.BEAT,
            "state": "active",
            "enabled": True,
        }
    ]
    (problem,) = verdict(worker1=running(), web1=answer)
    assert problem.startswith("A second scheduler runs on web1, started by old-beat.service")


def test_what_the_other_manager_has_beside_the_scheduler_is_told() -> None:
    hosts = {"worker1": {**running(), "programs": [program("STOPPED")]}}
    assert scheduler_verdict(hosts, ["worker1"]) == [
        "supervisord's program celery-beat is defined on worker1 beside celery-beat.service, which "
        "must be the only one: it is STOPPED now but would start with supervisord; run site.yml, "
        "which removes it."
    ]
    answer = supervised()
    answer["units"] = census(load="loaded", enabled="enabled")["units"]
    assert scheduler_verdict({"worker1": answer}, ["worker1"], managers=SUPERVISORD) == [
        "celery-beat.service is defined on worker1 beside supervisord's program celery-beat, which "
        "must be the only one: it is inactive now but would start at the next boot; run site.yml, "
        "which removes and masks it."
    ]


# --- On the broker ------------------------------------------------------------------------------


def test_the_scheduler_that_answers_on_the_broker_is_right() -> None:
    hosts = {"worker1": running(), "worker2": census()}
    assert both(["worker1"], hosts, live=["worker1"]) == ([], [])


def test_a_scheduler_that_no_host_of_the_inventory_runs_is_told() -> None:
    hosts = {"worker1": running()}
    assert both(["worker1"], hosts, live=["old", "worker1"]) == (
        [
            "A second scheduler runs on no host of the inventory: it answers on the broker as "
            "celerybeat@old; the broker's list of connections has its address: stop it there."
        ],
        [],
    )


@pytest.mark.parametrize(
    ("live", "runs"), [(["worker1", "worker2"], "none"), (["worker1", "worker1"], "1")]
)
def test_a_scheduler_with_the_name_of_a_host_that_does_not_run_it_is_told(
    live: list[str], runs: str
) -> None:
    hosts = {"worker1": running(), "worker2": census()}
    name = live[1]
    assert scheduler_verdict(hosts, ["worker1"], live=live) == [
        f"A second scheduler answers on the broker as celerybeat@{name}, but {name} runs {runs}: "
        "it is a clone of that host, or a container; the broker's list of connections has its "
        "address: stop it there."
    ]


def test_a_dead_host_that_answers_on_the_broker_is_not_dead() -> None:
    hosts = {"worker1": running(), "worker2": None}
    assert scheduler_verdict(hosts, ["worker1"], ["worker2"], live=["worker1", "worker2"]) == [
        "worker2 is listed in stack_dead_hosts, but a scheduler answers on the broker as "
        "celerybeat@worker2: it is not dead; switch it off, or take it out of that list."
    ]


def test_a_silent_host_that_answers_on_the_broker_runs() -> None:
    hosts = {"worker1": {"msg": "timed out"}, "worker2": census()}
    (problem, *_) = scheduler_verdict(hosts, ["worker1"], live=["worker1"])
    assert problem == (
        "worker1 did not answer (timed out), but its scheduler answers on the broker as "
        "celerybeat@worker1: it runs, so bring back the way to that host."
    )


def test_a_scheduler_that_does_not_answer_is_told() -> None:
    hosts = {"worker1": running(), "worker2": census()}
    assert scheduler_verdict(hosts, ["worker1"], live=[]) == [
        "The scheduler on worker1 runs but does not answer on the broker as celerybeat@worker1: "
        "pid 100 of user shop, `celery -A shop beat` is frozen or cut off; see "
        "`journalctl -u celery-beat` on worker1."
    ]
    (problem,) = scheduler_verdict(
        {"worker1": supervised()}, ["worker1"], managers=SUPERVISORD, live=[]
    )
    assert problem.endswith(f"see {LOG} on worker1.")


@pytest.mark.parametrize("live", [None, "the beat of Celery 5.4.0 answers nothing"])
def test_nothing_is_concluded_where_no_beat_can_answer(live: Any) -> None:
    assert both(["worker1"], {"worker1": running()}, live=live) == ([], [])


def test_huey_does_not_answer_on_a_broker() -> None:
    answer = running()
    answer["schedulers"] = [huey(100, UNIT)]
    assert both(["worker1"], {"worker1": answer}, live=[]) == ([], [])


# --- RedBeat ------------------------------------------------------------------------------------

TWO = ["worker1", "worker2"]
HELD = {"scheduler": "redbeat.RedBeatScheduler"}


def redbeat(
    hosts: dict[str, Any], live: Any, expected: Any = TWO, **more: Any
) -> tuple[list[str], list[str]]:
    return both(expected, hosts, engine="redbeat", live=live, **more)


def roles(hosts: dict[str, Any], expected: Any = TWO, **more: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = scheduler_roles(hosts, expected, **more)
    return found


def test_one_that_schedules_and_one_that_stands_by_are_right() -> None:
    hosts = {"worker1": running(), "worker2": running(), "web1": census()}
    assert redbeat(hosts, ["worker2"]) == ([], [])
    assert roles(hosts, engine="redbeat", live=["worker2"]) == {
        "schedules": ["worker2"],
        "standby": ["worker1"],
        "unknown": [],
    }


def test_who_schedules_cannot_be_known_from_an_old_celery() -> None:
    hosts = {"worker1": running(), "worker2": running()}
    assert redbeat(hosts, "the beat of Celery 5.4.0 answers nothing") == (
        [],
        [
            "Which of worker1 and worker2 schedules now cannot be known (the beat of Celery 5.4.0 "
            "answers nothing): see `journalctl -u celery-beat` on worker1 for 'Acquired lock'."
        ],
    )
    assert roles(hosts, engine="redbeat", live="why")["unknown"] == TWO
    assert redbeat(hosts, None) == ([], [])


def test_no_live_scheduler_is_told_with_the_lock() -> None:
    hosts = {"worker1": running(), "worker2": running()}
    assert redbeat(hosts, []) == (
        [
            "Nobody schedules: worker1 and worker2 run a scheduler, but none of them answers on "
            "the broker. The lock of one that died ends by itself after celery_beat_lock_timeout; "
            "if it does not, the lock's Redis may be away: see `journalctl -u celery-beat` on "
            "worker1."
        ],
        [],
    )


def test_two_live_schedulers_are_told() -> None:
    hosts = {"worker1": running(), "worker2": running()}
    assert redbeat(hosts, TWO) == (
        [
            "2 schedulers are live at once, worker1 and worker2, though RedBeat's lock lets one: "
            "they do not ask the same Redis for it; stop all but one, see "
            "`journalctl -u celery-beat` on worker1."
        ],
        [],
    )


def test_a_missing_standby_is_a_warning() -> None:
    stopped = census(load="loaded", active="inactive", enabled="enabled")
    assert redbeat({"worker1": running(), "worker2": stopped}, ["worker1"]) == (
        [],
        [
            "worker2 is no standby: celery-beat.service is stopped; see `journalctl -u "
            "celery-beat` on worker2 and `systemctl start celery-beat` there; if worker1 fails, "
            "nobody takes over."
        ],
    )
    three = {"worker1": running(), "worker2": stopped, "worker3": running()}
    _, (warning,) = redbeat(three, ["worker1"], ["worker1", "worker2", "worker3"])
    assert warning.endswith("; worker1 and worker3 can still take over from each other.")


def test_no_scheduler_at_all_is_wrong_with_redbeat_too() -> None:
    stopped = census(load="loaded", active="failed", enabled="enabled")
    wrong, warnings = redbeat({"worker1": stopped, "worker2": stopped}, [])
    assert [one.partition(":")[0] for one in wrong] == [
        "No scheduler runs anywhere, and worker1 must run it",
        "No scheduler runs anywhere, and worker2 must run it",
    ]
    assert warnings == []


def test_a_dead_standby_is_a_warning() -> None:
    assert redbeat({"worker1": running(), "worker2": None}, ["worker1"], dead=["worker2"]) == (
        [],
        [
            "worker2 is no standby, as it is listed in stack_dead_hosts; if worker1 fails, nobody "
            "takes over."
        ],
    )


def test_a_silent_standby_is_wrong_without_a_move() -> None:
    wrong, _ = redbeat({"worker1": running(), "worker2": None}, ["worker1"])
    assert wrong == [
        "worker2 did not answer and may hold a scheduler: bring it back, or if you know that it is "
        'off, add -e \'{"stack_dead_hosts": ["worker2"]}\'.'
    ]


@pytest.mark.parametrize(
    "scheduler",
    ["redbeat.RedBeatScheduler", "redbeat:RedBeatScheduler", "redbeat.schedulers.RedBeatScheduler"],
)
def test_one_started_by_hand_that_asks_for_the_lock_is_a_warning(scheduler: str) -> None:
    mine = beat(200, None, scheduler=scheduler)
    hosts = {"worker1": running(), "worker2": running(mine), "web1": census(mine)}
    assert redbeat(hosts, ["worker1"]) == (
        [],
        [
            "worker2 runs a standby too many: beside pid 100 of celery-beat.service also pid 200 "
            "of user shop, `celery -A shop beat`, started by hand; stop it with `kill 200` on "
            "worker2.",
            "A standby that nobody deployed runs on web1, started by hand: pid 200 of user shop, "
            "`celery -A shop beat`; stop it with `kill 200` on web1.",
        ],
    )


@pytest.mark.parametrize("scheduler", ["", "celery.beat:PersistentScheduler", "my.RedBeat"])
def test_one_started_by_hand_that_does_not_ask_for_the_lock_is_a_second(scheduler: str) -> None:
    mine = beat(200, None, scheduler=scheduler)
    hosts = {"worker1": running(), "worker2": running(mine), "web1": census(mine)}
    assert redbeat(hosts, ["worker1", "worker2", "web1"]) == (
        [
            "worker2 runs more than one scheduler: beside pid 100 of celery-beat.service also pid "
            "200 of user shop, `celery -A shop beat`, started by hand, which does not ask for "
            "RedBeat's lock; stop it with `kill 200` on worker2.",
            "A second scheduler runs on web1, started by hand, which does not ask for RedBeat's "
            "lock: pid 200 of user shop, `celery -A shop beat`; stop it with `kill 200` on web1.",
        ],
        [],
    )


def test_one_started_by_hand_that_holds_the_lock_on_a_wrong_host_is_wrong() -> None:
    mine = beat(200, None, **HELD)
    wrong, warnings = redbeat(
        {"worker1": running(), "worker2": running(), "web1": census(mine)}, ["web1"]
    )
    assert warnings == []
    (problem,) = wrong
    assert problem.startswith("A second scheduler runs on web1, started by hand: pid 200")


def test_a_worker_with_beat_asks_for_the_lock_too() -> None:
    worker = {**embedded(200, "celery-worker.service"), **HELD}
    hosts = {"worker1": running(worker), "worker2": running()}
    wrong, (warning,) = redbeat(hosts, ["worker2"])
    assert wrong == []
    assert warning.startswith("A standby that nobody deployed runs inside a worker on worker1")


def test_with_redbeat_the_unit_on_another_host_is_wrong_still() -> None:
    hosts = {"worker1": running(), "worker2": running(), "web1": running()}
    (problem,), _ = redbeat(hosts, ["worker1"])
    assert problem.startswith("celery-beat.service schedules on web1, which must not")


# --- Pacemaker ----------------------------------------------------------------------------------

THREE = ["worker1", "worker2", "worker3"]
NODE = census(load="loaded", enabled="disabled")
CLUSTER = {"quorum": True, "holder": "worker1", "online": THREE, "failed": []}


def in_cluster(**cluster: Any) -> tuple[list[str], list[str]]:
    """Return the verdict on a cluster whose worker1 runs the scheduler."""
    hosts = {"worker1": node(), "worker2": NODE, "worker3": NODE, "web1": census()}
    return both(THREE, hosts, engine="pacemaker", cluster={**CLUSTER, **cluster})


def node(*more: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of the node that holds the scheduler."""
    return census(beat(), *more, load="loaded", active="active", enabled="disabled", main_pid=100)


def test_one_node_that_runs_it_and_two_that_could_are_right() -> None:
    assert in_cluster() == ([], [])
    hosts = {"worker1": node(), "worker2": NODE, "worker3": census()}
    told = {**CLUSTER, "online": ["worker1", "worker2"]}
    assert roles(hosts, THREE, engine="pacemaker", cluster=told) == {
        "schedules": ["worker1"],
        "standby": ["worker2"],
        "unknown": [],
    }


def test_a_node_that_is_offline_is_a_warning() -> None:
    assert in_cluster(online=["worker1", "worker2"]) == (
        [],
        [
            "worker3 is not online in the cluster: no further node may fail before nobody "
            "schedules; see `systemctl status pacemaker corosync` there."
        ],
    )


def test_a_cluster_without_quorum_is_wrong() -> None:
    wrong, _ = in_cluster(quorum=False, online=["worker1"])
    assert wrong == [
        "A scheduler runs on worker1, but the cluster has no quorum (online: worker1); "
        "see `crm_mon -1` on worker1."
    ]


@pytest.mark.parametrize(
    ("cluster", "why"),
    [
        (
            {},
            "Pacemaker answers on none of them; see `systemctl status pacemaker corosync` there.",
        ),
        (
            {**CLUSTER, "quorum": False, "online": ["worker1"]},
            "the cluster has no quorum (online: worker1); see `crm_mon -1` on worker1.",
        ),
        (
            {**CLUSTER, "holder": ""},
            "the cluster runs it nowhere; see `crm_mon -1` on worker1.",
        ),
        (None, "see `systemctl status pacemaker corosync` there."),
    ],
)
def test_no_scheduler_in_the_cluster_is_told_with_the_reason(cluster: Any, why: str) -> None:
    hosts = dict.fromkeys(THREE, NODE)
    wrong, _ = both(THREE, hosts, engine="pacemaker", cluster=cluster)
    assert wrong == [
        f"No scheduler runs anywhere, and one of worker1, worker2, worker3 must run it: {why}"
    ]


def test_of_a_cluster_that_did_not_answer_at_all_the_hosts_are_told() -> None:
    wrong, warnings = both(THREE, dict.fromkeys(THREE), engine="pacemaker", cluster={})
    assert [one.partition(" did not")[0] for one in wrong] == THREE
    assert warnings == []


def test_a_failure_that_the_cluster_notes_is_told() -> None:
    failure = "celery-beat_start_0 on worker3: timed out"
    wrong, (warning,) = in_cluster(failed=[failure])
    assert wrong == []
    assert warning == (
        f"The cluster notes a failure: {failure}; see `crm_mon -1` on worker1, and when the cause "
        "is gone, `crm_resource --cleanup` there."
    )
    told = {**CLUSTER, "holder": "", "failed": [failure]}
    wrong, warnings = both(THREE, dict.fromkeys(THREE, NODE), engine="pacemaker", cluster=told)
    assert [failure in problem for problem in wrong] == [False, True]
    assert warnings == []


def test_one_started_past_the_cluster_is_told() -> None:
    hosts = {"worker1": node(), "worker2": node(), "worker3": NODE}
    wrong, _ = both(THREE, hosts, engine="pacemaker", cluster=CLUSTER)
    assert wrong == [
        "The scheduler on worker2 was started past the cluster, which runs it on worker1: pid 100 "
        "of user shop, `celery -A shop beat`; `systemctl stop celery-beat` on worker2."
    ]
    (problem,), _ = both(THREE, hosts, engine="pacemaker")
    assert problem == (
        "2 hosts schedule at once, worker1 and worker2; see `crm_mon -1` on worker1."
    )


@pytest.mark.parametrize("host", ["worker1", "worker2"])
def test_a_unit_of_the_cluster_that_is_enabled_is_told(host: str) -> None:
    hosts = {"worker1": node(), "worker2": NODE, "worker3": NODE}
    answer = hosts[host]
    enabled = {**answer, "units": [{**answer["units"][0], "enabled": "enabled"}]}
    wrong, _ = both(THREE, {**hosts, host: enabled}, engine="pacemaker", cluster=CLUSTER)
    assert wrong == [
        f"celery-beat.service on {host} would start at the next boot, past the cluster: "
        f"`systemctl disable celery-beat` on {host}."
    ]


def test_a_node_without_the_unit_is_no_standby() -> None:
    hosts = {"worker1": node(), "worker2": census(), "worker3": NODE}
    wrong, (warning,) = both(THREE, hosts, engine="pacemaker", cluster=CLUSTER)
    assert wrong == []
    assert warning.startswith("worker2 is no standby: celery-beat.service is masked; ")


def test_a_host_outside_the_run_that_asks_for_no_lock_is_told() -> None:
    """Where a failover is introduced, a beat that --limit leaves out would go on beside it."""
    left_behind = filters["left_behind"]
    asks, does_not = {"schedulers": [beat(**HELD)]}, {"schedulers": [beat()]}
    hosts = {"worker1": asks, "worker2": does_not, "worker3": None}
    assert left_behind(hosts, ["worker1", "worker3", "absent"]) == []
    (said,) = left_behind(hosts, ["worker1", "worker2"])
    assert said.startswith("worker2 schedules and does not ask for RedBeat's lock")
    assert "leave --limit away" in said


LOOK, RECONCILED, COUNTED = ({"schedulers": [{"pid": pid}]} for pid in (1, 2, 3))
SILENT = {"unreachable": True, "msg": "no route"}


@pytest.mark.parametrize(
    ("registered", "latest"),
    [
        ({}, {}),
        ({"__verify_census": LOOK}, LOOK),
        ({"__verify_census": LOOK, "__process_manager_result": {"census": RECONCILED}}, RECONCILED),
        # Silence is an answer too, and the last one counts.
        ({"__verify_census": LOOK, "__process_manager_result": SILENT}, SILENT),
        (
            {
                "__verify_census": LOOK,
                "__process_manager_result": {"census": RECONCILED},
                "__verify_counted": COUNTED,
            },
            COUNTED,
        ),
        ({"__process_manager_result": {"census": RECONCILED}, "__verify_counted": SILENT}, SILENT),
    ],
)
def test_the_latest_census_of_a_host_counts(
    registered: dict[str, Any], latest: dict[str, Any]
) -> None:
    hostvars = {"web1": registered, "web2": {"__verify_census": LOOK}, "other": {}}
    assert latest_censuses(hostvars, ["web1", "web2"]) == {"web1": latest, "web2": LOOK}


def test_hosts_outside_a_run_have_their_own_results() -> None:
    outside = [{"__verify_host": "web2", **LOOK}]
    found = latest_censuses({"web1": {}, "web2": {}}, ["web1", "web2"], outside)
    assert found == {"web1": {}, "web2": outside[0]}
