"""What a reconcile decides to do; that the managers do it is proven on the test hosts."""

import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from loading import ROOT, load

# Ansible finds a project's module_utils by itself only when it ships a module.
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))
process_set = load("modules/process_set")
plans = sys.modules["ansible.module_utils.process_plan"]
stack_files = sys.modules["ansible.module_utils.stack_files"]
inputs = sys.modules["ansible.module_utils.process_inputs"]
systemd = sys.modules["ansible.module_utils.process_systemd"]
supervisord = sys.modules["ansible.module_utils.process_supervisord"]
clusters = sys.modules["ansible.module_utils.process_cluster"]

UP = plans.State(up=True, enabled=True)


def text(stack: str = "shop", body: str = "[Unit]") -> str:
    return f"# Managed\n# stack: {stack}\n{body}\n"


class Host:
    """A host's unit directory and what its manager says, to plan against."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def unit(self, name: str = "celery-worker.service", **more: Any) -> Any:
        return plans.Unit(name, [self.path(name)], **more)

    def plan(
        self,
        wanted: dict[str, str] | None = None,
        units: list[Any] | None = None,
        states: dict[str, Any] | None = None,
        masked: list[str] | None = None,
        directories: list[str] | None = None,
    ) -> Any:
        return plans.make_plan(
            stack="shop",
            wanted={self.path(name): body for name, body in (wanted or {}).items()},
            present=stack_files.read_files(self.directory, systemd.SUFFIXES),
            units=units or [],
            states=states or {},
            masked=[self.path(name) for name in masked or []],
            directories=directories,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def put(host: Host, name: str, body: str) -> None:
    Path(host.path(name)).write_text(body)


def test_a_new_unit_is_written_enabled_and_started(host: Host) -> None:
    plan = host.plan({"celery-worker.service": text()}, [host.unit()])
    assert plan.write == [host.path("celery-worker.service")]
    assert plan.enable == plan.start == ["celery-worker.service"]


def test_nothing_is_done_when_nothing_differs(host: Host) -> None:
    put(host, "celery-worker.service", text())
    states = {"celery-worker.service": plans.State(up=True, enabled=True, since=time.time() + 100)}
    plan = host.plan({"celery-worker.service": text()}, [host.unit()], states)
    assert not plan.changes()


def test_a_changed_target_restarts_nothing(host: Host) -> None:
    """Its restart would be that of every unit which is a part of it."""
    put(host, "shop.target", text(body="old"))
    unit = host.unit("shop.target")
    plan = host.plan({"shop.target": text()}, [unit], {"shop.target": UP})
    assert plan.write == [host.path("shop.target")]
    assert plan.enable == ["shop.target"]
    assert (plan.start, plan.restart) == ([], {})


def test_the_scheduler_follows_all_services_and_the_target_everything() -> None:
    names = ["shop.target", "web.socket", "x-celery-beat.service", "web.service", "x-celery-beat"]
    assert plans.in_stages(names, {"x-celery-beat"}) == [
        ["web.socket", "web.service"],
        ["x-celery-beat.service", "x-celery-beat"],
        ["shop.target"],
    ]
    assert plans.in_stages([], {"celery-beat"}) == []


def test_a_target_is_started_after_the_others_and_never_restarted() -> None:
    said: list[list[str]] = []

    class Module:
        def run_command(self, argv: list[str]) -> tuple[int, str, str]:
            said.append(argv)
            return 0, "", ""

    systemd.Systemd(Module()).restart(["shop.target", "web.service"])
    assert [argv[1:] for argv in said if argv[1].endswith("start")] == [
        ["restart", "web.service"],
        ["start", "shop.target"],
    ]


def test_a_changed_unit_is_restarted(host: Host) -> None:
    put(host, "celery-worker.service", text(body="old"))
    plan = host.plan(
        {"celery-worker.service": text()}, [host.unit()], {"celery-worker.service": UP}
    )
    assert plan.restart == {"celery-worker.service": "its file changed"}
    assert plan.start == []


@pytest.mark.parametrize("changed", ["shop.env", "current", "celery-worker.service"])
def test_a_service_older_than_its_input_is_restarted(host: Host, changed: str) -> None:
    """An interrupted run leaves exactly this behind: a new file and an old process."""
    now = time.time()
    put(host, "celery-worker.service", text())
    put(host, "shop.env", "")
    Path(host.path("current")).symlink_to("releases/1")
    for name in ("celery-worker.service", "shop.env", "current"):
        age = 0 if name == changed else 60
        os.utime(host.path(name), (now - age, now - age), follow_symlinks=False)
    states = {"celery-worker.service": plans.State(up=True, enabled=True, since=now - 10)}
    unit = host.unit(newer_than=[host.path("shop.env"), host.path("current")])
    plan = host.plan({"celery-worker.service": text()}, [unit], states)
    reason = plan.restart["celery-worker.service"]
    assert reason == f"{host.path(changed)} is newer than the process"


def test_an_input_that_does_not_exist_asks_for_nothing(host: Host) -> None:
    assert plans.newest_input([host.path("missing")], since=0.0) is None


def test_what_is_not_intended_is_pruned(host: Host) -> None:
    put(host, "celery-worker-mail.service", text())
    plan = host.plan()
    assert plan.prune == [host.path("celery-worker-mail.service")]


@pytest.mark.parametrize("body", [text("other"), "[Unit]\nDescription=by hand\n"])
def test_a_unit_of_somebody_else_is_left_alone(host: Host, body: str) -> None:
    put(host, "celery-worker-mail.service", body)
    assert not host.plan().changes()


def test_another_stacks_unit_is_never_overwritten(host: Host) -> None:
    put(host, "celery-worker.service", text("other"))
    with pytest.raises(plans.SetError, match=r"the stack other: set stack_unit_prefix"):
        host.plan({"celery-worker.service": text()}, [host.unit()])


def test_a_unit_made_by_hand_is_kept_beside_ours(host: Host) -> None:
    put(host, "celery-worker.service", "[Unit]\nDescription=by hand\n")
    plan = host.plan(
        {"celery-worker.service": text()}, [host.unit()], {"celery-worker.service": UP}
    )
    assert plan.keep == [host.path("celery-worker.service")]
    assert plan.restart == {"celery-worker.service": "its file changed"}


def test_a_scheduler_that_must_not_run_is_masked(host: Host) -> None:
    put(host, "celery-beat.service", text())
    plan = host.plan(masked=["celery-beat.service"])
    assert plan.mask == [host.path("celery-beat.service")]
    assert plan.prune == []


def test_a_masked_scheduler_needs_nothing_more(host: Host) -> None:
    Path(host.path("celery-beat.service")).symlink_to("/dev/null")
    assert not host.plan(masked=["celery-beat.service"]).changes()


def test_a_mask_gives_way_to_the_unit(host: Host) -> None:
    Path(host.path("celery-beat.service")).symlink_to("/dev/null")
    name = "celery-beat.service"
    assert host.plan({name: text()}, [host.unit(name)]).write == [host.path(name)]
    stack_files.write_file(Path(host.path(name)), text(), 0o644)
    assert Path(host.path(name)).read_text() == text()
    assert not Path(host.path(name)).is_symlink()
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("active", "sub", "up"),
    [
        ("active", "running", True),
        ("reloading", "reload", True),
        ("activating", "start-pre", True),
        ("activating", "start-post", True),
        ("activating", "auto-restart", False),
        ("inactive", "dead", False),
        ("failed", "failed", False),
        ("deactivating", "stop-sigterm", False),
    ],
)
def test_what_comes_up_by_itself_is_up(active: str, sub: str, up: bool) -> None:
    assert systemd.state_of({"ActiveState": active, "SubState": sub}, 0, 0).up is up


@pytest.mark.parametrize(("up", "starts"), [(True, []), (False, ["web.service"])])
def test_what_does_not_run_is_started(host: Host, up: bool, starts: list[str]) -> None:
    put(host, "web.service", text())
    states = {"web.service": plans.State(up=up, enabled=True)}
    assert host.plan({"web.service": text()}, [host.unit("web.service")], states).start == starts


def test_a_disabled_unit_is_enabled(host: Host) -> None:
    put(host, "web.service", text())
    states = {"web.service": plans.State(up=True, enabled=False)}
    assert host.plan({"web.service": text()}, [host.unit("web.service")], states).enable


def test_a_lost_reload_is_made_up_for(host: Host) -> None:
    put(host, "web.service", text())
    states = {"web.service": plans.State(up=True, enabled=True, stale=True)}
    assert host.plan({"web.service": text()}, [host.unit("web.service")], states).reload


def test_a_service_restarts_with_its_socket(host: Host) -> None:
    put(host, "web.service", text())
    put(host, "web.socket", text(body="old"))
    plan = host.plan(
        {"web.socket": text(), "web.service": text()},
        [host.unit("web.socket"), host.unit("web.service", follows=["web.socket"])],
        {"web.socket": UP, "web.service": UP},
    )
    assert list(plan.restart) == ["web.socket", "web.service"]


def test_the_owner_stands_near_the_top(host: Host) -> None:
    assert stack_files.owner_of(text()) == "shop"
    assert stack_files.owner_of("\n" * 20 + text()) is None


def test_a_unit_of_two_files_restarts_for_either(host: Host) -> None:
    put(host, "web.service", text())
    unit = plans.Unit("web", [host.path("web.service"), host.path("web")])
    plan = host.plan({"web.service": text(), "web": text()}, [unit], {"web": UP})
    assert plan.write == [host.path("web")]
    assert plan.restart == {"web": "its file changed"}


def test_only_a_missing_directory_is_made(host: Host) -> None:
    missing = host.path("log")
    assert host.plan(directories=[str(host.directory), missing]).make == [missing]


@pytest.mark.parametrize(
    ("main_process", "left_inactive", "since"),
    [
        ("990000000", "980000000", 90.0),
        # Its commands before the program run: there is none yet, or systemd tells of the former.
        ("0", "980000000", 80.0),
        ("970000000", "980000000", 80.0),
    ],
)
def test_a_service_is_as_old_as_its_process(
    main_process: str, left_inactive: str, since: float
) -> None:
    said = {
        "ExecMainStartTimestampMonotonic": main_process,
        "InactiveExitTimestampMonotonic": left_inactive,
    }
    assert systemd.started_at(said, now=100.0, monotonic=1000.0) == since


def test_a_socket_has_no_process() -> None:
    assert systemd.started_at({"InactiveExitTimestampMonotonic": "1"}, 100.0, 1000.0) is None


def test_a_process_tells_when_it_started() -> None:
    before = time.time()
    child = subprocess.Popen(["sleep", "60"])
    stat = Path(f"/proc/{child.pid}/stat").read_text()
    now, uptime = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    child.kill()
    child.wait()
    tick = 1 / os.sysconf("SC_CLK_TCK")
    since = supervisord.started_at(stat, now, uptime, os.sysconf("SC_CLK_TCK"))
    # Never before the truth: what was written right before the start must not look newer.
    assert before <= since <= now + tick


def test_a_processs_name_cannot_shift_its_start() -> None:
    stat = "7 (a) b (c) S 1 " + " ".join(["0"] * 17) + " 250 0 0"
    assert supervisord.started_at(stat, 1000.0, 10.0, 100) == pytest.approx(992.51)


@pytest.mark.parametrize(
    ("argv", "launching"),
    [
        (["/bin/sh", "/usr/local/lib/shop/celery-worker"], True),
        (["/usr/bin/python3", "/usr/local/lib/shop/web-socket", "run", "gunicorn"], True),
        (["/usr/bin/python3", "/usr/local/lib/shop/web-socket", "hold"], False),
        (["/opt/shop/venvs/x/bin/python", "/opt/shop/current/.venv/bin/celery", "worker"], False),
        (["/bin/sh", "/usr/local/lib/other/celery-worker"], False),
        (["[celery worker]"], False),
    ],
)
def test_a_launcher_is_not_yet_the_program(argv: list[str], launching: bool) -> None:
    command = "\0".join([*argv, ""]).encode()
    assert supervisord.is_launching(command, "shop") is launching


class Running:
    """A manager of a directory, which notes what it is told; units named in `bad` stay down."""

    def __init__(self, directory: Path, bad: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.bad = bad
        self.told: list[tuple[str, Any]] = []

    def files(self) -> dict[str, str]:
        return stack_files.read_files(self.directory, {".conf", *systemd.SUFFIXES})

    def unit_of(self, path: str) -> str | None:
        name = Path(path).name.replace(".conf", "")
        return name if Path(path).parent == self.directory else None

    def watch(self, units: list[Any]) -> dict[str, str]:
        return {unit.name: "its last words" for unit in units if unit.name in self.bad}

    def __getattr__(self, name: str) -> Any:
        return lambda *said: self.told.append((name, *said))


class Move:
    """A host on which web and celery-beat move from one manager to another."""

    def __init__(self, root: Path, bad: tuple[str, ...] = ()) -> None:
        for name in ("old", "new"):
            (root / name).mkdir()
        self.old, self.new = Running(root / "old"), Running(root / "new", bad)
        self.was = {
            str(root / "old" / name): text()
            for name in ("celery-beat.service", "shop.target", "web.service")
        }
        for path, body in self.was.items():
            Path(path).write_text(body)
        wanted = {str(root / "new" / f"{name}.conf"): text() for name in ("celery-beat", "web")}
        self.units = [
            plans.Unit("web", [str(root / "new" / "web.conf")]),
            plans.Unit("celery-beat", [str(root / "new" / "celery-beat.conf")], scheduler=True),
        ]
        self.arguments = {
            "stack": "shop",
            "wanted": {path: {"content": body, "mode": "0644"} for path, body in wanted.items()},
            "units": self.units,
            "former": self.was,
        }
        self.plan = plans.make_plan(
            stack="shop",
            wanted=wanted,
            present=self.was,
            units=self.units,
            states={},
            masked=[str(root / "old" / "celery-beat.service")],
        )

    def run(self) -> None:
        process_set.apply([self.new, self.old], self.plan, **self.arguments)


def test_the_other_managers_units_go_before_ours_start(tmp_path: Path) -> None:
    move = Move(tmp_path)
    move.run()
    # Workers take their time; beat ticks on for as long.
    stopped = [said[1] for said in move.old.told if said[0] == "stop"]
    assert stopped == [["web.service"], ["celery-beat.service"], ["shop.target"]]
    assert move.old.files() == {}
    assert plans.is_masked(tmp_path / "old" / "celery-beat.service")
    assert ("retire",) in move.old.told
    assert [said[1] for said in move.new.told if said[0] == "restart"] == [
        ["web"],
        ["celery-beat"],
    ]


def test_what_a_scheduler_left_is_forgotten_once_it_is_stopped(tmp_path: Path) -> None:
    left, other = tmp_path / "schedule.db", tmp_path / "other"
    left.touch()
    other.touch()
    pattern = str(tmp_path / "schedule*")
    wanted: dict[str, Any] = {"wanted": {}, "units": []}
    empty: dict[str, Any] = {"present": {}, "states": {}, "masked": []}
    plan = plans.make_plan(stack="shop", **wanted, **empty, forget=[pattern])
    assert plan.forget == [str(left)]
    assert plan.changes()
    process_set.apply([Move(tmp_path).old], plan, stack="shop", former={}, **wanted)
    assert [left.exists(), other.exists()] == [False, True]
    assert not plans.make_plan(stack="shop", **wanted, **empty, forget=[pattern]).changes()


@pytest.mark.parametrize("bad", ["web", "celery-beat"])
def test_a_move_that_fails_is_taken_back(tmp_path: Path, bad: str) -> None:
    move = Move(tmp_path, bad=(bad,))
    with pytest.raises(plans.SetError, match=f"{bad} did not stay up.*\nits last words"):
        move.run()
    assert move.new.files() == {}
    assert move.old.files() == move.was
    assert not plans.is_masked(tmp_path / "old" / "celery-beat.service")
    assert move.old.told[-3:] == [
        ("restart", ["web.service"]),
        ("restart", ["celery-beat.service"]),
        ("restart", ["shop.target"]),
    ]
    # The new ones are gone before the old ones start.
    assert ("stop", ["web", "celery-beat"]) in move.new.told


def bring_up(manager: Any, path: str, former: dict[str, str], **plan: Any) -> None:
    """Have a set of one broken unit established, whose new file is written already."""
    with pytest.raises(process_set.RolledBackError, match="web did not stay up"):
        process_set.establish(
            [manager],
            plans.Plan(**plan),
            stack="shop",
            wanted={},
            units=[plans.Unit("web", [path])],
            former=former,
            switch=inputs.Switch([]),
        )


def test_a_broken_unit_gets_its_former_file_back(tmp_path: Path) -> None:
    manager = Running(tmp_path, bad=("web",))
    path = str(tmp_path / "web.conf")
    Path(path).write_text(text(body="new"))
    former = {path: text(body="old")}
    bring_up(manager, path, former, restart={"web": "its file changed"})
    assert manager.files() == former
    assert manager.told == [("restart", ["web"]), ("reload",), ("restart", ["web"])]


def test_a_broken_unit_without_a_former_file_is_removed(tmp_path: Path) -> None:
    manager = Running(tmp_path, bad=("web",))
    path = str(tmp_path / "web.conf")
    Path(path).write_text(text())
    bring_up(manager, path, {}, start=["web"])
    assert manager.files() == {}
    assert manager.told == [("restart", ["web"]), ("stop", ["web"]), ("reload",)]


LEFT = (".former", ".next")


class Deploy:
    """A host whose services read a release and an environment; some releases are broken.

    Its `kinds` are all services, `bad` those that a broken release does not let come up.
    """

    def __init__(
        self,
        root: Path,
        *,
        broken: str = "",
        was: str = "one",
        kinds: tuple[str, ...] = ("web", "worker"),
        bad: tuple[str, ...] = (),
    ) -> None:
        self.current, self.env = root / "current", root / "shop.env"
        self.next, self.journal = root / "shop.env.next", root / "deploys.jsonl"
        deploy = self

        class Reading(Running):
            def restart(self, names: list[str]) -> None:
                self.told.append(("restart", names))
                deploy.since.update(dict.fromkeys(names, time.time() + 1))

            def watch(self, units: list[Any]) -> dict[str, str]:
                runs = deploy.current.is_symlink() and deploy.current.readlink().name
                fails = {f"{kind}.service" for kind in bad or kinds} if runs == broken != "" else ()
                return {one.name: "no such table" for one in units if one.name in fails}

        self.manager = Reading(root)
        names = [root / f"{kind}.service" for kind in kinds]
        for one in [root / name for name in ("one", "two") if was]:
            one.mkdir()
        if was:
            self.current.symlink_to(root / was)
            self.env.write_text("OLD=1")
            for path in (self.current, self.env):
                os.utime(path, (1000, 1000), follow_symlinks=False)
            for path in names:
                path.write_text(text())
                os.utime(path, (1000, 1000))
        self.next.write_text("NEW=1")
        self.inputs = [
            inputs.Input(str(self.current), link=str(root / "two")),
            inputs.Input(str(self.env), next=str(self.next)),
        ]
        read = [str(self.current), str(self.env)]
        self.units = [
            plans.Unit(path.name, [str(path)], newer_than=read, scheduler=path.stem == "beat")
            for path in names
        ]
        self.since = {unit.name: 2000.0 for unit in self.units}

    def run(self, *, leave: bool = False) -> Any:
        """Do what the module does; `leave` leaves the schedulers."""
        states = {
            name: plans.State(up=True, enabled=True, since=since)
            for name, since in self.since.items()
        }
        units = [unit for unit in self.units if not (leave and unit.scheduler)]
        wanted = {unit.files[0]: text() for unit in self.units}
        former = self.manager.files()
        plan = plans.make_plan(
            stack="shop",
            wanted=wanted,
            present=former,
            units=units,
            states=states if former else {},
            masked=[],
            inputs=self.inputs,
        )
        if leave and not plan.only_switches():
            plan = plans.Plan()
        switch = inputs.Switch(self.inputs)
        if not plan.switch:
            switch.adopt()
        entry = {"who": "ann@desk", "release": "two"}
        files = {path: {"content": body, "mode": "0644"} for path, body in wanted.items()}
        if plan.changes():
            with process_set.noted({"path": str(self.journal), "entry": entry}, plan, switch):
                process_set.apply(
                    [self.manager],
                    plan,
                    stack="shop",
                    wanted=files,
                    units=units,
                    former=former,
                    switch=switch,
                )
        if not leave:
            switch.keep()
        return plan

    @property
    def restarts(self) -> list[list[str]]:
        return [said[1] for said in self.manager.told if said[0] == "restart"]

    @property
    def noted(self) -> dict[str, Any]:
        (line,) = self.lines
        return line

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def left(self) -> list[str]:
        """Return the names of what waits to be put somewhere, or back."""
        return sorted(one.name for one in self.env.parent.glob("*.*") if one.suffix in LEFT)


def test_inputs_are_switched_with_the_units_that_read_them(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path)
    plan = deploy.run()
    assert plan.switch == [str(deploy.current), str(deploy.env)]
    assert plan.restart["web.service"] == f"{deploy.current} changes"
    assert deploy.current.readlink().name == "two"
    assert deploy.env.read_text() == "NEW=1"
    assert deploy.restarts == [["web.service", "worker.service"]]
    assert deploy.noted.pop("seconds") >= 0
    assert {**deploy.noted, "seconds": 0} == {
        "who": "ann@desk",
        "release": "two",
        "from": "one",
        "result": "ok",
        "seconds": 0,
    }
    assert deploy.left() == []
    # A second run has nothing to do.
    assert not any(one.is_due() for one in deploy.inputs)


def test_a_release_that_does_not_come_up_is_given_back(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path, broken="two")
    with pytest.raises(process_set.RolledBackError) as caught:
        deploy.run()
    said = str(caught.value)
    assert "web.service did not stay up. Its last words:\nno such table" in said
    assert said.endswith("This host runs from the release one again.")
    assert deploy.current.readlink().name == "one"
    assert deploy.env.read_text() == "OLD=1"
    # What was not restarted meanwhile is not older than what it reads.
    assert [path.lstat().st_mtime for path in (deploy.current, deploy.env)] == [1000, 1000]
    assert deploy.restarts == [["web.service", "worker.service"]] * 2
    assert deploy.noted["result"] == "rolled back"
    assert "no such table" in deploy.noted["why"]


def test_a_first_release_that_does_not_come_up_leaves_nothing(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path, broken="two", was="")
    with pytest.raises(process_set.RolledBackError, match="It has been undone"):
        deploy.run()
    assert not deploy.current.is_symlink()
    assert not deploy.env.exists()
    assert deploy.manager.files() == {}


ALL = ("web", "worker", "beat")


def test_a_scheduler_that_is_left_follows_in_another_run(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path, kinds=ALL)
    deploy.run(leave=True)
    assert deploy.restarts == [["web.service", "worker.service"]]
    assert deploy.current.readlink().name == "two"
    assert deploy.left() == ["current.former", "shop.env.former"]
    plan = deploy.run()
    assert plan.restart == {"beat.service": f"{deploy.current} is newer than the process"}
    assert deploy.restarts[1:] == [["beat.service"]]
    assert deploy.left() == []
    assert deploy.noted["result"] == "ok"


def test_a_host_goes_back_whole_if_the_scheduler_that_was_left_does_not_come_up(
    tmp_path: Path,
) -> None:
    deploy = Deploy(tmp_path, kinds=ALL, broken="two", bad=("beat",))
    deploy.run(leave=True)
    with pytest.raises(process_set.RolledBackError) as caught:
        deploy.run()
    assert "beat.service did not stay up" in str(caught.value)
    assert str(caught.value).endswith("This host runs from the release one again.")
    assert deploy.current.readlink().name == "one"
    assert deploy.env.read_text() == "OLD=1"
    first, second, back = deploy.restarts
    assert [first, second] == [["web.service", "worker.service"], ["beat.service"]]
    assert sorted(back) == sorted([*first, *second])
    assert [one["result"] for one in deploy.lines] == ["ok", "rolled back"]
    assert deploy.lines[1]["from"] == "one"
    assert deploy.left() == []


def test_a_release_that_does_not_come_up_is_given_back_before_the_scheduler_is_touched(
    tmp_path: Path,
) -> None:
    deploy = Deploy(tmp_path, kinds=ALL, broken="two", bad=("web",))
    with pytest.raises(process_set.RolledBackError, match="from the release one again"):
        deploy.run(leave=True)
    assert deploy.restarts == [["web.service", "worker.service"]] * 2
    assert deploy.left() == []
    assert min(deploy.current.lstat().st_mtime, deploy.env.stat().st_mtime) == 1000


def test_more_than_a_switch_is_left_whole(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path, kinds=ALL)
    (tmp_path / "worker.service").write_text(text(body="old"))
    assert not deploy.run(leave=True).changes()
    assert deploy.restarts == []
    assert deploy.current.readlink().name == "one"
    deploy.run()
    assert deploy.restarts == [["web.service", "worker.service"], ["beat.service"]]


def test_what_an_earlier_release_left_is_no_way_back_from_the_next_one(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path, kinds=ALL, broken="three")
    deploy.run(leave=True)
    # The run broke off here, and the next one brings another release with the same environment.
    (tmp_path / "three").mkdir()
    deploy.inputs[0] = inputs.Input(str(deploy.current), link=str(tmp_path / "three"))
    with pytest.raises(process_set.RolledBackError, match="from the release two again"):
        deploy.run()
    assert deploy.env.read_text() == "NEW=1"
    assert deploy.left() == []


def test_a_way_back_to_a_release_that_is_gone_is_none(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path, kinds=ALL, broken="two", bad=("beat",))
    deploy.run(leave=True)
    (tmp_path / "one").rmdir()
    with pytest.raises(process_set.RolledBackError) as caught:
        deploy.run()
    assert "runs from" not in str(caught.value)
    assert deploy.current.readlink().name == "two"
    assert deploy.env.read_text() == "NEW=1"


def test_what_is_broken_before_and_after_is_told_with_both_words(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path, broken="two", was="two")
    deploy.inputs[0] = inputs.Input(str(deploy.current), link=str(tmp_path / "two"))
    with pytest.raises(process_set.RolledBackError, match="From what was there before it does not"):
        deploy.run()
    assert deploy.env.read_text() == "OLD=1"


def test_a_set_that_is_refused_gives_the_inputs_back(tmp_path: Path) -> None:
    deploy = Deploy(tmp_path)

    def refuse(*_: Any) -> None:
        raise plans.SetError("no bus")

    deploy.manager.restart = refuse
    with pytest.raises(plans.SetError, match="no bus"):
        deploy.run()
    assert deploy.current.readlink().name == "one"
    assert deploy.env.read_text() == "OLD=1"
    # What was restarted until then is restarted by the next run.
    assert min(path.lstat().st_mtime for path in (deploy.current, deploy.env)) > 2000
    assert deploy.noted["result"] == "failed"


@pytest.mark.parametrize(
    ("bad", "begun"),
    [
        ((), [["web.service"], ["celery-beat.service"], ["shop.target"]]),
        (("web.service",), [["web.service"]]),
        (("celery-beat.service",), [["web.service"], ["celery-beat.service"]]),
    ],
)
def test_a_stage_waits_for_the_one_before(
    tmp_path: Path, bad: tuple[str, ...], begun: list[list[str]]
) -> None:
    manager = Running(tmp_path, bad)
    names = ["shop.target", "web.service", "celery-beat.service"]
    units = [plans.Unit(name, [str(tmp_path / name)], scheduler="beat" in name) for name in names]
    wanted = {str(tmp_path / name): text() for name in names}
    plan = plans.make_plan(
        stack="shop", wanted=wanted, present={}, units=units, states={}, masked=[]
    )
    with pytest.raises(plans.SetError, match="did not stay up") if bad else nullcontext():
        process_set.apply(
            [manager],
            plan,
            stack="shop",
            wanted={path: {"content": body, "mode": "0644"} for path, body in wanted.items()},
            units=units,
            former={},
        )
    assert [said[1] for said in manager.told if said[0] == "restart"] == begun
    # All of them come up at the next boot, whatever did not today; what was removed cannot.
    assert [said[1] for said in manager.told if said[0] == "enable"] == [names]
    assert set(manager.files()) == {path for path in wanted if Path(path).name not in bad}


def held(host: Host) -> Any:
    return host.unit("celery-beat.service", held=True, newer_than=[host.path("shop.env")])


def test_a_unit_that_a_cluster_holds_is_written_and_nothing_else(host: Host) -> None:
    plan = host.plan({"celery-beat.service": text()}, [held(host)])
    assert plan.write == [host.path("celery-beat.service")]
    assert (plan.enable, plan.start, plan.restart, plan.stop) == ([], [], {}, [])


@pytest.mark.parametrize("up", [True, False])
def test_a_held_unit_that_systemd_would_start_is_stopped(host: Host, up: bool) -> None:
    """As one of static mode is, which runs outside the cluster."""
    put(host, "celery-beat.service", text(body="static"))
    states = {"celery-beat.service": plans.State(up=up, enabled=True)}
    plan = host.plan({"celery-beat.service": text()}, [held(host)], states)
    assert plan.stop == ["celery-beat.service"]
    assert (plan.enable, plan.start, plan.restart, plan.outdated) == ([], [], {}, {})


@pytest.mark.parametrize("changed", ["shop.env", "celery-beat.service"])
def test_a_held_unit_older_than_its_input_is_left_to_the_cluster(host: Host, changed: str) -> None:
    now = time.time()
    for name, body in (("celery-beat.service", text()), ("shop.env", "")):
        put(host, name, body)
        age = 0 if name == changed else 60
        os.utime(host.path(name), (now - age, now - age))
    states = {"celery-beat.service": plans.State(up=True, since=now - 10)}
    plan = host.plan({"celery-beat.service": text()}, [held(host)], states)
    assert plan.outdated == {
        "celery-beat.service": f"{host.path(changed)} is newer than the process"
    }
    assert plan.changes()
    assert (plan.enable, plan.start, plan.restart, plan.stop) == ([], [], {}, [])
    # A standby has no process.
    assert not host.plan({"celery-beat.service": text()}, [held(host)]).changes()


def test_a_cluster_ends_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []

    class Module:
        def run_command(self, argv: list[str]) -> tuple[int, str, str]:
            said.append(argv)
            return 0, "", ""

    for name in ("corosync.conf", "authkey"):
        (tmp_path / name).write_text(text())
    monkeypatch.setattr(clusters, "CONFIGURATION", tmp_path / "corosync.conf")
    monkeypatch.setattr(clusters, "AUTHKEY", tmp_path / "authkey")
    (tmp_path / "units").mkdir()
    manager, cluster = Running(tmp_path / "units"), clusters.Cluster(Module())
    wanted = {str(tmp_path / "units" / "celery-beat.service"): text()}
    units = [plans.Unit("celery-beat.service", list(wanted), scheduler=True)]
    present = cluster.files()
    plan = plans.make_plan(
        stack="shop", wanted=wanted, present=present, units=units, states={}, masked=[]
    )
    assert process_set.names_of([manager, cluster], plan.prune) == ["pacemaker"]
    manager.restart = lambda names: said.append(["start", *names])  # type: ignore[method-assign]
    process_set.apply(
        [manager, cluster],
        plan,
        stack="shop",
        wanted={path: {"content": body, "mode": "0644"} for path, body in wanted.items()},
        units=units,
        former=present,
    )
    # All hosts of the cluster first, or its scheduler would move to another one.
    assert [argv[1] if argv[0] == "env" else argv[0] for argv in said] == [
        "crm_attribute",
        "crm_resource",
        "systemctl",
        "systemctl",
        "start",
    ]
    assert [argv[-1] for argv in said[2:4]] == ["pacemaker", "corosync"]
    assert list(tmp_path.glob("*")) == [tmp_path / "units"]


def test_another_stacks_cluster_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corosync.conf").write_text(text("other"))
    monkeypatch.setattr(clusters, "CONFIGURATION", tmp_path / "corosync.conf")
    present = clusters.Cluster(None).files()
    plan = plans.make_plan(stack="shop", wanted={}, present=present, units=[], states={}, masked=[])
    assert present
    assert not plan.changes()


def ask(*argv: str, stdin: str = "") -> dict[str, Any]:
    return {"seconds": 1.0, "urls": [], "argv": list(argv), "stdin": stdin}


def test_a_question_is_asked_beside_the_work() -> None:
    question = ask("sh", "-c", "cat; echo asked >&2; sleep 0.3; exit 3", stdin="told")
    begin = time.monotonic()
    command = process_set.begin(question)
    assert time.monotonic() - begin < 0.3
    found = process_set.heard(question, [], command)
    assert found == {"answers": {}, "said": {"rc": 3, "stdout": "told", "stderr": "asked\n"}}


def test_without_a_question_nothing_is_said() -> None:
    assert process_set.begin(None) is None
    assert process_set.begin(ask()) is None
    assert process_set.heard(ask(), [], None) == {"answers": {}, "said": None}


def test_a_program_that_is_not_there_is_an_answer() -> None:
    question = ask("/nowhere/shop-shell")
    said = process_set.heard(question, [], process_set.begin(question))["said"]
    assert said["rc"] == 127
    assert "/nowhere/shop-shell" in said["stderr"]


def test_a_unit_with_health_is_asked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(health: dict[str, Any], seconds: float) -> dict[str, Any]:
        asked.append((health["path"], seconds))
        return {"status": 200}

    monkeypatch.setattr(process_set, "answer_now", answer)
    health = {"address": "127.0.0.1:8000", "path": "/up", "status": [200]}
    units = [host.unit("shop-web.service", health=health), host.unit()]
    assert process_set.heard(ask(), units, None)["answers"] == {"shop-web": {"status": 200}}
    assert asked == [("/up", 1.0)]
    flower = {"name": "shop-flower", **health, "path": "/healthcheck"}
    assert process_set.heard({**ask(), "urls": [flower]}, units, None)["answers"] == {
        "shop-web": {"status": 200},
        "shop-flower": {"status": 200},
    }
    assert asked[1:] == [("/up", 1.0), ("/healthcheck", 1.0)]
