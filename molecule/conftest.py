"""What every scenario's tests have: the fleet, its page, a report of every verify step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import faults
import fleet as library
import pytest
from fleet import Fleet, Page, names, wait_for

ARTEFACTS = Path(__file__).parents[1] / ".artefacts"
CHOICES = {
    "queue": library.QUEUE,
    "broker": library.BROKER,
    "database": library.DATABASE,
    "camera": library.CAMERA != "",
    "manager": library.manager(library.SCHEDULER),
    "several_hosts": library.ROGUE != library.SCHEDULER,
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Write each verify step's JUnit report to a file of its own: a scenario has several."""
    config.addinivalue_line("markers", "only(**choices): makes sense under these choices alone.")
    scenario = os.environ.get("MOLECULE_SCENARIO_NAME")
    if scenario and not config.option.xmlpath:
        reports = (ARTEFACTS / f"molecule-{scenario}-verify{n}.xml" for n in count(1))
        config.option.xmlpath = str(next(path for path in reports if not path.exists()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the scenario's choices make meaningless."""

    def applies(item: pytest.Item) -> bool:
        wanted = [mark.kwargs for mark in item.iter_markers("only")]
        return all(CHOICES[key] == value for one in wanted for key, value in one.items())

    left_out = [item for item in items if not applies(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if applies(item)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the faults did to the ticks."""
    for line in faults.table():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    """The fleet, once it is up by itself: the suite also runs right after a reboot of all hosts."""
    made = Fleet()
    for service in made.services():
        wait_for(
            lambda service=service: service.is_running,
            150,
            lambda service=service: f"{service.name} does not run:\n{service.status}",
        )
    return made


@pytest.fixture(scope="session")
def page(fleet: Fleet) -> Page:
    return Page(fleet.address(names("web")[0]))


@pytest.fixture
def restored(fleet: Fleet) -> Iterator[None]:
    """Put the services back as they were deployed."""
    yield
    result = fleet.playbook("services")
    assert result.returncode == 0, result.stdout


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Print the last words of the services with every failure."""
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or report.passed or "fleet" not in getattr(item, "fixturenames", []):
        return
    for name, host in item.funcargs["fleet"].hosts.items():  # type: ignore[attr-defined]
        said = host.run(
            "journalctl --no-pager -n 15 -u 'celery*' -u 'huey*' -u web -u flower -u 'redis*' "
            "-u 'rabbitmq*' -u supervisor; tail -n 15 /var/log/%s/*.log",
            library.STACK,
        )
        report.sections.append((f"last words of {name}", said.stdout))
