"""A move that cannot succeed, and two runs at once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleet import PERIODIC, ROGUE, SCHEDULER, STACK, Fleet, flat, names, wait_for

# Where every run takes its lock.
LOCKED = sorted(names("all"))[0]


@pytest.fixture
def unable(fleet: Fleet) -> Iterator[None]:
    """Let the scheduler fail on the host that it shall move to."""
    drop_in = f"/etc/systemd/system/{PERIODIC}.service.d/unable.conf"
    host = fleet[ROGUE]
    text = "[Service]\nExecStartPre=/bin/sh -c 'echo this host is unable; exit 1'\n"
    host.check_output(
        f"mkdir -p $(dirname {drop_in}) && printf %%s %s > {drop_in} && systemctl daemon-reload",
        text,
    )
    yield
    host.check_output(f"rm -r $(dirname {drop_in}) && systemctl daemon-reload")


@pytest.mark.usefixtures("unable")
def test_a_move_that_fails_is_undone_and_shuts_out_other_runs(fleet: Fleet) -> None:
    held = fleet[LOCKED]
    before = fleet.service(PERIODIC, SCHEDULER).pid
    with ThreadPoolExecutor() as pool:
        moving = pool.submit(fleet.playbook, "move_scheduler", "-e", f"to={ROGUE}")
        lease = f"/run/{STACK}-run"
        # One that was given back has an empty first line.
        taken = f"head -n 1 {lease} | grep -q ."
        wait_for(lambda: held.run(taken).succeeded, 60, lambda: "no lock is taken")
        # A run that finds nothing to change would need no lock.
        refused: subprocess.CompletedProcess[str] = fleet.playbook(
            "services", "-e", "stack_full=true"
        )
        result = moving.result()
    assert refused.returncode != 0
    said = flat(refused.stdout)
    assert "runs playbooks/move_scheduler.yml since" in said, said
    assert f"{lease} on {LOCKED}" in said
    assert "Reconcile the services" not in said
    # Nor does it count as one that did not end well.
    begun = f"ls /var/lib/{STACK}-deployed/*.begun"
    assert [host for host in fleet.hosts if fleet[host].run(begun).succeeded] == []

    assert result.returncode != 0
    said = flat(result.stdout)
    assert f"The scheduler runs on {SCHEDULER} again, as before." in said, said
    assert "this host is unable" in said
    assert fleet.service(PERIODIC, SCHEDULER).pid not in (0, before)
    assert not fleet.service(PERIODIC, ROGUE).is_defined
    # The lock is free again, and all is as it was: the way back needs no other run.
    result = fleet.playbook("move_scheduler", "-e", f"to={SCHEDULER}")
    assert result.returncode == 0, result.stdout
    assert f"The scheduler runs on {SCHEDULER} already" in flat(result.stdout)
