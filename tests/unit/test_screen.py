"""The callback: what a playbook that shows one screen prints, and how it ends."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import ROOT

PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  vars:
    screen_only: {screen}
  tasks:
    - ansible.builtin.command: "true"
    - ansible.builtin.debug:
        msg: "one\\n  two"
    - ansible.builtin.fail:
        msg: Look at it soon.
      when: warned is defined
      ignore_errors: true
    - ansible.builtin.fail:
        msg: It is wrong.
      when: wrong is defined
    - ansible.builtin.debug:
        msg: It is bad.
      failed_when: true
      when: bad is defined
    - ansible.builtin.command: "false"
      when: broken is defined
"""


def run(folder: Path, *args: str, screen: bool = True) -> subprocess.CompletedProcess[str]:
    playbook = folder / "playbook.yml"
    playbook.write_text(PLAYBOOK.format(screen=str(screen).lower()))
    return subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", str(playbook), *args],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ([], 0, ""),
        (["-e", "warned=1"], 1, "Look at it soon.\n"),
        (["-e", "wrong=1"], 2, "It is wrong.\n"),
        (["-e", "bad=1"], 2, "It is bad.\n"),
        (["-e", "warned=1", "-e", "wrong=1"], 2, "Look at it soon.\nIt is wrong.\n"),
        (["-e", "broken=1"], 2, "localhost: ansible.builtin.command: non-zero return code\n"),
    ],
)
def test_only_the_screen_is_on_stdout(
    tmp_path: Path, args: list[str], status: int, words: str
) -> None:
    result = run(tmp_path, *args)
    assert result.stdout == "one\n  two\n"
    assert result.stderr == words
    assert result.returncode == status


def test_with_v_everything_is_shown_and_ends_the_same_way(tmp_path: Path) -> None:
    result = run(tmp_path, "-v", "-e", "warned=1")
    assert "TASK [ansible.builtin.debug]" in result.stdout
    assert "PLAY RECAP" in result.stdout
    assert result.returncode == 1


def test_other_playbooks_are_shown_as_ever(tmp_path: Path) -> None:
    result = run(tmp_path, "-e", "warned=1", screen=False)
    assert "TASK [ansible.builtin.debug]" in result.stdout
    assert "PLAY RECAP" in result.stdout
    assert result.returncode == 0


def strings(data: Any) -> Iterator[str]:
    """Yield all texts in what YAML says."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        yield from strings(list(data.values()))
    elif isinstance(data, list):
        for one in data:
            yield from strings(one)


def test_line_breaks_are_line_breaks() -> None:
    # A template keeps the two characters; only in double quotes does YAML make them one.
    paths = [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
    assert paths
    found = {
        f"{path.relative_to(ROOT)}: {one}"
        for path in paths
        for one in strings(yaml.safe_load(path.read_text()))
        if "\\n" in one and "match(" not in one
    }
    assert found == set()
