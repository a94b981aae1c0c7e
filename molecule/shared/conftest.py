"""Keeps a report of every verify step of a scenario."""

import os
from itertools import count
from pathlib import Path

import pytest

ARTEFACTS = Path(__file__).parents[2] / ".artefacts"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Write each verify step's JUnit report to a file of its own: a scenario has several."""
    scenario = os.environ.get("MOLECULE_SCENARIO_NAME")
    if scenario and not config.option.xmlpath:
        reports = (ARTEFACTS / f"molecule-{scenario}-verify{n}.xml" for n in count(1))
        config.option.xmlpath = str(next(path for path in reports if not path.exists()))
