"""Which hosts change over together, and which one after the other."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from loading import ROOT

PLAYS = yaml.safe_load((ROOT / "playbooks/plays/services.yml").read_text())


def hosts_of(play: dict[str, Any], groups: dict[str, list[str]]) -> list[str]:
    """Return the hosts of a play in a fleet of which every host has a new release."""
    names = list(dict.fromkeys(name for members in groups.values() for name in members))
    told = {**groups, "all": names, "__due_process_manager": names}
    hosts: dict[str, dict[str, Any]] = {name: {} for name in names}
    templar = Templar(loader=DataLoader(), variables={"groups": told, "hostvars": hosts})
    found: list[str] = templar.template(trust_as_template(play["hosts"]))
    return found


@pytest.mark.parametrize(
    ("groups", "stages"),
    [
        # All that schedules is last; what else its host runs is not.
        (
            {"scheduler": ["one"], "web": ["two", "three"], "workers": ["one", "four"]},
            (["two", "three"], ["four", "one"], ["one"]),
        ),
        # A web host that schedules is a batch of its own, behind all others.
        (
            {"scheduler": ["one"], "web": ["one", "two"], "workers": ["one", "two", "three"]},
            (["two"], ["three", "one"], ["one"]),
        ),
        # Two of them are not: they change over one after the other.
        (
            {"scheduler": ["one", "two"], "web": ["one", "two"], "workers": ["three"]},
            ([], ["three"], ["one", "two"]),
        ),
        (
            {"scheduler": ["one", "two"], "web": ["two"], "workers": ["three"]},
            ([], ["three", "one"], ["one", "two"]),
        ),
        # With nobody to change over with, it does so once.
        ({"scheduler": ["one"], "web": ["one", "two"]}, (["two"], [], ["one"])),
        ({"web": ["one"], "workers": ["two"]}, (["one"], ["two"], [])),
    ],
)
def test_the_scheduler_comes_last_and_web_hosts_never_two_at_a_time(
    groups: dict[str, list[str]], stages: tuple[list[str], list[str], list[str]]
) -> None:
    web, others, schedulers, _ = PLAYS
    assert tuple(hosts_of(play, groups) for play in (web, others, schedulers)) == stages
    assert schedulers["serial"] == 1
    # Only the last of them may touch a scheduler.
    assert others["vars"]["__process_manager_leaves_schedulers"]


def test_a_play_has_no_hosts_where_nothing_is_due() -> None:
    templar = Templar(loader=DataLoader(), variables={"groups": {"all": ["one"]}, "hostvars": {}})
    for play in PLAYS:
        assert templar.template(trust_as_template(play["hosts"])) == []


@pytest.mark.parametrize("play", [PLAYS[1], PLAYS[2]], ids=["others", "schedulers"])
def test_each_host_of_a_mixed_fleet_is_reconciled_as_its_manager_needs_it(
    play: dict[str, Any], tmp_path: Path
) -> None:
    tasks = tmp_path / "roles/process_manager/tasks"
    tasks.mkdir(parents=True)
    for entry in ("main", "reconcile"):
        said = {"msg": f"{{{{ inventory_hostname }}}} takes {entry}"}
        (tasks / f"{entry}.yml").write_text(yaml.safe_dump([{"ansible.builtin.debug": said}]))
    book = tmp_path / "book.yml"
    found = [task for task in play["tasks"] if task["name"] == "Reconcile"]
    book.write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": found}]))
    inventory = tmp_path / "hosts.yml"
    # The others' variable decides about the last one: it leaves its scheduler.
    hosts: dict[str, dict[str, Any]] = {
        "one": {},
        "two": {"stack_process_manager": "supervisord"},
        "three": {
            "stack_process_manager": "supervisord",
            "__process_manager_leaves_schedulers": True,
        },
    }
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    ran = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", book, "-i", inventory, "--forks", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = sorted(re.findall(r"(?:one|two|three) takes \w+", ran.stdout))
    assert told == ["one takes reconcile", "three takes reconcile", "two takes main"], ran.stdout
