"""What a reconcile decides to do; that systemd does it is proven on the test hosts."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from loading import load

process_set = load("modules/process_set")

UP = {
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
}


def text(stack: str = "shop", body: str = "[Unit]") -> str:
    return f"# Managed\n# stack: {stack}\n{body}\n"


def unit(name: str = "celery-worker.service", newer_than: tuple[str, ...] = ()) -> Any:
    return process_set.Unit(name, list(newer_than), 0, scheduler=False)


class Host:
    """A host's unit directory and what systemd says, to plan against."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def plan(
        self,
        wanted: dict[str, str] | None = None,
        units: list[Any] | None = None,
        status: dict[str, dict[str, str]] | None = None,
        masked: list[str] | None = None,
        clocks: tuple[float, float] = (0.0, 0.0),
    ) -> Any:
        return process_set.make_plan(
            stack="shop",
            wanted={self.path(name): body for name, body in (wanted or {}).items()},
            present=process_set.read_files(self.directory),
            units=units or [],
            status=status or {},
            masked=masked or [],
            directory=self.directory,
            clocks=clocks,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def put(host: Host, name: str, body: str) -> None:
    Path(host.path(name)).write_text(body)


def test_a_new_unit_is_written_enabled_and_started(host: Host) -> None:
    plan = host.plan({"celery-worker.service": text()}, [unit()])
    assert plan.write == [host.path("celery-worker.service")]
    assert plan.enable == plan.start == ["celery-worker.service"]


def test_nothing_is_done_when_nothing_differs(host: Host) -> None:
    put(host, "celery-worker.service", text())
    status = {"celery-worker.service": {**UP, "ExecMainStartTimestampMonotonic": "5000000"}}
    clocks = (time.time() + 100, 5.0)
    plan = host.plan({"celery-worker.service": text()}, [unit()], status, clocks=clocks)
    assert not plan.changes()


def test_a_changed_unit_is_restarted(host: Host) -> None:
    put(host, "celery-worker.service", text(body="old"))
    plan = host.plan({"celery-worker.service": text()}, [unit()], {"celery-worker.service": UP})
    assert plan.restart == {"celery-worker.service": "its file changed"}
    assert plan.start == []


@pytest.mark.parametrize("changed", ["shop.env", "current", "celery-worker.service"])
def test_a_service_older_than_its_input_is_restarted(host: Host, changed: str) -> None:
    """An interrupted run leaves exactly this behind: a new file and an old process."""
    now, uptime = time.time(), 1000.0
    put(host, "celery-worker.service", text())
    put(host, "shop.env", "")
    Path(host.path("current")).symlink_to("releases/1")
    for name in ("celery-worker.service", "shop.env", "current"):
        age = 0 if name == changed else 60
        os.utime(host.path(name), (now - age, now - age), follow_symlinks=False)
    status = {"celery-worker.service": {**UP, "ExecMainStartTimestampMonotonic": "990000000"}}
    inputs = (host.path("shop.env"), host.path("current"))
    plan = host.plan(
        {"celery-worker.service": text()}, [unit(newer_than=inputs)], status, clocks=(now, uptime)
    )
    reason = plan.restart["celery-worker.service"]
    assert reason == f"{host.path(changed)} is newer than the process"


def test_an_input_that_does_not_exist_asks_for_nothing(host: Host) -> None:
    assert process_set.newest_input([host.path("missing")], since=0.0) is None


def test_what_is_not_intended_is_pruned(host: Host) -> None:
    put(host, "celery-worker-mail.service", text())
    plan = host.plan()
    assert plan.prune == ["celery-worker-mail.service"]


@pytest.mark.parametrize("body", [text("other"), "[Unit]\nDescription=by hand\n"])
def test_a_unit_of_somebody_else_is_left_alone(host: Host, body: str) -> None:
    put(host, "celery-worker-mail.service", body)
    assert not host.plan().changes()


def test_another_stacks_unit_is_never_overwritten(host: Host) -> None:
    put(host, "celery-worker.service", text("other"))
    with pytest.raises(process_set.SetError, match=r"the stack other: set stack_unit_prefix"):
        host.plan({"celery-worker.service": text()}, [unit()])


def test_a_unit_made_by_hand_is_kept_beside_ours(host: Host) -> None:
    put(host, "celery-worker.service", "[Unit]\nDescription=by hand\n")
    plan = host.plan({"celery-worker.service": text()}, [unit()], {"celery-worker.service": UP})
    assert plan.keep == [host.path("celery-worker.service")]
    assert plan.restart == {"celery-worker.service": "its file changed"}


def test_a_scheduler_that_must_not_run_is_masked(host: Host) -> None:
    put(host, "celery-beat.service", text())
    plan = host.plan(masked=["celery-beat.service"])
    assert plan.mask == ["celery-beat.service"]
    assert plan.prune == []


def test_a_masked_scheduler_needs_nothing_more(host: Host) -> None:
    Path(host.path("celery-beat.service")).symlink_to("/dev/null")
    assert not host.plan(masked=["celery-beat.service"]).changes()


def test_a_mask_gives_way_to_the_unit(host: Host) -> None:
    Path(host.path("celery-beat.service")).symlink_to("/dev/null")
    name = "celery-beat.service"
    assert host.plan({name: text()}, [unit(name)]).write == [host.path(name)]
    process_set.write_file(Path(host.path(name)), text(), 0o644)
    assert Path(host.path(name)).read_text() == text()
    assert not Path(host.path(name)).is_symlink()
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    ("active", "sub", "starts"),
    [
        ("active", "running", False),
        ("reloading", "reload", False),
        ("activating", "start-post", False),
        ("activating", "auto-restart", True),
        ("inactive", "dead", True),
        ("failed", "failed", True),
        ("deactivating", "stop-sigterm", True),
    ],
)
def test_what_does_not_run_is_started(host: Host, active: str, sub: str, starts: bool) -> None:
    put(host, "web.service", text())
    status = {"web.service": {**UP, "ActiveState": active, "SubState": sub}}
    plan = host.plan({"web.service": text()}, [unit("web.service")], status)
    assert plan.start == (["web.service"] if starts else [])


def test_a_disabled_unit_is_enabled(host: Host) -> None:
    put(host, "web.service", text())
    status = {"web.service": {**UP, "UnitFileState": "disabled"}}
    assert host.plan({"web.service": text()}, [unit("web.service")], status).enable


def test_a_lost_reload_is_made_up_for(host: Host) -> None:
    put(host, "web.service", text())
    status = {"web.service": {**UP, "NeedDaemonReload": "yes"}}
    assert host.plan({"web.service": text()}, [unit("web.service")], status).reload


def test_a_service_restarts_with_its_socket(host: Host) -> None:
    put(host, "web.service", text())
    put(host, "web.socket", text(body="old"))
    plan = host.plan(
        {"web.socket": text(), "web.service": text()},
        [unit("web.socket"), unit("web.service")],
        {"web.socket": UP, "web.service": UP},
    )
    assert list(plan.restart) == ["web.socket", "web.service"]


def test_the_owner_stands_near_the_top(host: Host) -> None:
    assert process_set.owner_of(text()) == "shop"
    assert process_set.owner_of("\n" * 20 + text()) is None
