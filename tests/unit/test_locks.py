"""Which of the locks a name frees; Redis and Huey themselves are asked in molecule/."""

import importlib.util
import sys
import uuid
from typing import Any

import pytest
from loading import ROOT

spec = importlib.util.spec_from_file_location("locks", ROOT / "roles/locks/files/locks.py")
assert spec
assert spec.loader
script = importlib.util.module_from_spec(spec)
sys.modules["locks"] = script
spec.loader.exec_module(script)


def locks(*names: str) -> list[dict[str, Any]]:
    return [script.lock(name, "redis", lambda: True) for name in names]


def chosen(found: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in found if one["chosen"]]


def test_a_name_chooses_that_one_lock() -> None:
    found = locks("MailTask", "MailTask2", "Task")
    assert script.choose(found, "MailTask", False) == ""
    assert chosen(found) == ["MailTask"]


def test_an_unknown_name_chooses_nothing_and_says_what_is_near() -> None:
    found = locks("UpdateSearchIndexTask", "Other")
    words = script.choose(found, "UpdateSearchIndexTsk", True)
    assert "Did you mean UpdateSearchIndexTask?" in words
    assert chosen(found) == []


@pytest.mark.parametrize("confirm", [False, True])
def test_a_pattern_needs_a_confirmation(confirm: bool) -> None:
    found = locks("MailTask", "SearchTask", "Other")
    words = script.choose(found, "*Task", confirm)
    assert chosen(found) == (["MailTask", "SearchTask"] if confirm else [])
    assert ("add -e confirm=yes" in words) is not confirm


def test_a_pattern_that_matches_one_lock_needs_a_confirmation_too() -> None:
    found = locks("MailTask", "Other")
    assert "add -e confirm=yes" in script.choose(found, "*Task", False)
    assert chosen(found) == []


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    assert "No lock matches x*" in script.choose(locks("MailTask"), "x*", True)


def test_a_lock_with_a_star_in_its_name_can_be_named() -> None:
    found = locks("Mail*", "MailTask")
    assert script.choose(found, "Mail*", False) == ""
    assert chosen(found) == ["Mail*"]


def test_a_name_that_two_locks_have_needs_a_confirmation() -> None:
    found = locks("MailTask", "MailTask")
    assert "2 locks are called MailTask" in script.choose(found, "MailTask", False)
    assert chosen(found) == []


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        pytest.param(uuid.uuid1().hex.encode(), True, id="uuid1"),
        pytest.param(uuid.uuid4().hex.encode(), True, id="uuid4"),
        (b"x" * 32, False),
        (b"1", False),
        (b"\xff" * 32, False),
    ],
)
def test_a_token_is_known_by_its_form(value: bytes, is_one: bool) -> None:
    assert (script.token(value) is not None) is is_one
