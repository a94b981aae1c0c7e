"""The drift check knows of every role what it has to."""

import re

import pytest
import yaml
from loading import ROOT, load

VARS = yaml.safe_load((ROOT / "roles/drift/vars/main.yml").read_text())
PUBLIC = load("action/drift").PUBLIC
# Beside the role itself, what it renders.
FILES = {
    "redis": ["templates/broker/redis.conf.j2"],
    "rabbitmq": [
        "templates/broker/rabbitmq.conf.j2",
        "templates/broker/rabbitmq-env.conf.j2",
        "templates/broker/enabled_plugins.j2",
        "templates/broker/definitions.json.j2",
    ],
    "postgresql": [],
}
# These have what they manage in a module's result.
IN_RESULT = {"app", "process_manager"}


@pytest.mark.parametrize("role", FILES)
def test_a_server_reads_no_variable_that_does_not_count_for_it(role: str) -> None:
    paths = [ROOT / name for name in FILES[role]]
    paths += [p for p in (ROOT / "roles" / role).rglob("*") if p.is_file() and p.suffix != ".md"]
    used = {name for path in paths for name in re.findall(r"\w+", path.read_text())}
    counts = tuple(VARS["__drift_reads"][role])
    assert {name for name in used & PUBLIC if not name.startswith(counts)} == set()
    assert {name for name in PUBLIC if name.startswith(f"{role}_")} & used


@pytest.mark.parametrize("role", sorted(VARS["__drift_hosts_of"].keys() - IN_RESULT))
def test_every_role_that_manages_something_says_what(role: str) -> None:
    assert f"__{role}_manages:" in (ROOT / f"roles/{role}/vars/main.yml").read_text()
    last = yaml.safe_load((ROOT / f"roles/{role}/tasks/main.yml").read_text())[-1]
    assert f"'{role}': __{role}_manages" in last["ansible.builtin.set_fact"]["__drift_managed"]


def test_what_the_others_manage_is_in_a_result() -> None:
    assert "{'app': __app_look.manages}" in VARS["__drift_done"]
    first = yaml.safe_load((ROOT / "roles/app/tasks/main.yml").read_text())[0]
    assert first["register"] == "__app_look"
    assert "{'process_manager': __process_manager_result.manages}" in VARS["__drift_done"]
    (only,) = yaml.safe_load((ROOT / "roles/process_manager/tasks/reconcile.yml").read_text())
    assert only["register"] == "__process_manager_result"


def test_every_role_that_changes_hosts_is_looked_at() -> None:
    others = {"drift", "locks", "preflight", "services", "stack", "verify"}
    assert {path.name for path in (ROOT / "roles").iterdir()} - others == set(
        VARS["__drift_hosts_of"]
    )
