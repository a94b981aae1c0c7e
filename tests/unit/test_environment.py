"""The environment file means the same to systemd and to a shell."""

import subprocess
from typing import Any

import pytest
from loading import load

environment = load("filter/environment")

HARD = ["plain", "two words", "a$b", 'quo"te', "it's", "back\\slash", "`id`", "#hash", "ünï", ""]


@pytest.mark.parametrize("value", [*HARD, "two\nlines", "trailing\\"])
def test_a_shell_reads_the_value_unchanged(value: str) -> None:
    script = f"KEY={environment.env_value(value)}\nprintf '%s' \"$KEY\""
    read = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert read.stdout == value


@pytest.mark.parametrize(
    ("value", "quoted"), [(True, '"true"'), (False, '"false"'), (8000, '"8000"')]
)
def test_numbers_and_booleans_are_written_as_in_yaml(value: Any, quoted: str) -> None:
    assert environment.env_value(value) == quoted


@pytest.mark.parametrize("value", [None, ["a"], {"a": 1}, "nul\0"])
def test_what_no_variable_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(environment.AnsibleFilterError, match="environment variable cannot hold"):
        environment.env_value(value)
