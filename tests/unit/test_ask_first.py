"""A host that comes back asks who schedules before it does; what Celery answers is played here."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from loading import load

ASK_FIRST = load("filter/service_specs").ASK_FIRST
ANSWER = '{{"celery@worker1": {{"ok": "pong"}}, "celerybeat@{}": {{"ok": "pong"}}}}'


@pytest.mark.parametrize(
    ("answer", "status", "ends_with", "starts"),
    [
        (ANSWER.format("worker2"), 0, 76, False),
        # Its own answer is that of a beat which is just being replaced.
        (ANSWER.format("worker1"), 0, 0, True),
        ('{"celery@worker1": {"ok": "pong"}}', 0, 0, True),
        ("Error: No nodes replied within time constraint", 69, 0, True),
        ("Cannot connect to the broker", 1, 1, False),
    ],
)
def test_it_starts_only_when_no_other_answers(
    tmp_path: Path, answer: str, status: int, ends_with: int, starts: bool
) -> None:
    celery, flag = tmp_path / "celery", tmp_path / "flag"
    celery.write_text(f"#!/bin/sh\necho asked >>{tmp_path}/asked\n")
    with celery.open("a") as file:
        file.write(f"printf '%s\\n' {shlex.quote(answer)}\nexit {status}\n")
    celery.chmod(0o755)
    command = ["/bin/sh", "-c", ASK_FIRST, flag, "celerybeat@worker1", celery]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == ends_with, ran
    assert flag.exists() is starts
    if ends_with == 76:
        assert "celerybeat@worker2 does" in ran.stderr
    # Who has started once since the boot does not ask again, nor who may not start less often.
    subprocess.run(command, capture_output=True, check=False)
    assert len((tmp_path / "asked").read_text().split()) == (1 if starts else 2)
