"""What a role documents is what it does by default."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from loading import ROOT

ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
STACK_VARS = (ROOT / "roles/stack/vars/main.yml").read_text()


def read(path: Path) -> Any:
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def options(role: Path) -> dict[str, Any]:
    first, *_ = read(role / "meta/argument_specs.yml")["argument_specs"].values()
    found: dict[str, Any] = first.get("options", {})
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_specs_agree(role: Path) -> None:
    documented = {name: one.get("default") for name, one in options(role).items()}
    # A required variable has an empty default or none: the inventory gives it.
    required = {name for name, one in options(role).items() if one.get("required")}
    defaults = read(role / "defaults/main.yml")
    assert {k: v for k, v in defaults.items() if k not in required} == {
        k: v for k, v in documented.items() if k not in required
    }


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_says_what_it_is(role: Path) -> None:
    def silent(found: dict[str, Any]) -> list[str]:
        return [
            name
            for name, one in found.items()
            if "type" not in one or not one.get("description") or silent(one.get("options", {}))
        ]

    assert silent(options(role)) == []


@pytest.mark.parametrize(
    "name",
    [
        "redis_port",
        "redis_database",
        "redis_cache_database",
        "redis_lock_database",
        "rabbitmq_port",
        "rabbitmq_management_port",
        "rabbitmq_user",
        "rabbitmq_vhost",
        "postgresql_port",
        "postgresql_database",
        "postgresql_user",
    ],
)
def test_what_clients_assume_of_a_server_is_its_default(name: str) -> None:
    """Clients cannot see the defaults of a role that runs elsewhere."""
    defaults = read(ROOT / "roles" / name.partition("_")[0] / "defaults/main.yml")
    assert f"{name} | default({str(defaults[name]).strip('{ }')})" in STACK_VARS


def test_the_variables_in_the_readmes_are_up_to_date() -> None:
    script = ROOT / "bin/lib/role_tables.py"
    said = subprocess.run(
        [sys.executable, script, "--check"], check=False, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stdout


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_role_has_a_readme_with_its_variables(role: Path) -> None:
    readme = (role / "README.md").read_text()
    assert [name for name in options(role) if f"| `{name}` |" not in readme] == []
