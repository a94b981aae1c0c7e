"""What a scheduler last sent, read from a log file whose stamps may be in any time zone."""

import os
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from loading import ROOT

SCRIPT = ROOT / "roles/verify/files/host_status.py"
spec = spec_from_file_location("host_status", SCRIPT)
assert spec
assert spec.loader
script = module_from_spec(spec)
sys.modules["host_status"] = script
spec.loader.exec_module(script)

NOW = 1_800_000_000
SENDING = "Sending due task"


def beat(clock: str, text: str = f"Scheduler: {SENDING} add (shop.add)") -> str:
    return f"[2026-11-20 {clock}: INFO/MainProcess] {text}\n"


def huey(clock: str, text: str) -> str:
    return f"[2026-11-20 {clock}] INFO:huey.consumer.Scheduler:Scheduler:{text}\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "celery-beat.log"


def tick(log: Path, text: str) -> tuple[float, str] | None:
    """Return how many seconds before NOW, when the log was written last, and which line."""
    os.utime(log, (NOW, NOW))
    found = script.tick_of_log(log, text)
    return (round(NOW - found["time"], 3), found["line"]) if found else None


def test_the_last_line_with_the_text_counts(log: Path) -> None:
    later = beat("13:00:12,500", "beat: Shutting down...")
    log.write_text(beat("13:00:01,000") + beat("13:00:02,000") + later + "Traceback\n")
    assert tick(log, SENDING) == (10.5, beat("13:00:02,000").strip())


def test_the_zone_of_the_stamps_does_not_matter(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write_text(huey("23:59:06,100", "Enqueueing periodic task shop.minute: 4f."))
    for zone in ("UTC", "Pacific/Auckland"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        found = tick(log, "Enqueueing periodic task")
        assert found
        assert found[0] == 0
    monkeypatch.undo()
    time.tzset()


def test_a_log_that_was_just_rotated_is_read_too(log: Path) -> None:
    log.with_name("celery-beat.log.1").write_text(beat("13:00:01,000"))
    log.write_text(beat("13:00:04,000", "beat: Waking up."))
    assert tick(log, SENDING) == (3, beat("13:00:01,000").strip())


def test_lines_without_a_stamp_count_as_new(log: Path) -> None:
    log.write_text(f"{SENDING} add\n")
    assert tick(log, SENDING) == (0, f"{SENDING} add")


@pytest.mark.parametrize("text", ["", beat("13:00:01,000", "beat: Starting...")])
def test_without_such_a_line_nothing_is_said(log: Path, text: str) -> None:
    log.write_text(text)
    assert tick(log, SENDING) is None


def test_only_the_end_of_a_long_log_is_read(log: Path) -> None:
    log.write_text(beat("13:00:01,000") + "x\n" * script.TAIL)
    assert tick(log, SENDING) is None


def test_a_log_that_is_not_there_says_nothing(log: Path) -> None:
    assert script.tick_of_log(log, SENDING) is None


def test_the_last_deploy_is_the_last_whole_line_of_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "deploys.jsonl"
    assert script.last_deploy(journal) is None
    journal.write_text('{"release": "one"}\n{"release": "two"}\n{"rel')
    assert script.last_deploy(journal) == {"release": "two"}
