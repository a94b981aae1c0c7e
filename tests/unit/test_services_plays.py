"""Which hosts change over together, and which one after the other."""

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


@pytest.mark.parametrize("managers", [("systemd",), ("systemd", "supervisord")])
@pytest.mark.parametrize("play", PLAYS[:3], ids=lambda play: play["name"])
def test_all_hosts_take_the_same_of_a_role(play: dict[str, Any], managers: tuple[str, ...]) -> None:
    """Ansible gives them what the first of them takes, so it depends on nothing of their own."""
    (asked,) = [
        task["ansible.builtin.include_role"]["tasks_from"]
        for task in play["tasks"]
        if task["name"] == "Reconcile"
    ]
    seen = {"__verify_managers_seen": dict(enumerate(managers))}
    entry = Templar(loader=DataLoader(), variables=seen).template(trust_as_template(asked))
    assert entry == ("main" if "supervisord" in managers else "reconcile")
