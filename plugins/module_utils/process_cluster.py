# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""The cluster that starts a scheduler in failover mode, as a host leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ansible.module_utils.process_plan import State, Unit

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

CONFIGURATION = Path("/etc/corosync/corosync.conf")
AUTHKEY = CONFIGURATION.with_name("authkey")
NAME = "pacemaker"
# Seconds that the cluster may take to stop its resources; it kills a scheduler after a few.
STOP_TIMEOUT = 30
# Stops or runs all resources of the cluster; in the set of properties that the role writes, which
# takes it back when the cluster shall schedule again.
RESOURCES = ["crm_attribute", "--set-name", "stack", "--name", "stop-all-resources"]


class Cluster:
    """What a reconcile takes away of a cluster; see `process_plan.Manager`.

    The role `pacemaker` sets it up. Here it only exists to end before something else schedules.
    """

    def __init__(self, module: AnsibleModule) -> None:
        """Keep the module for running commands."""
        self.module = module
        self.draining: dict[str, str] = {}

    def run(self, *argv: str) -> int:
        """Run a command; return its status."""
        # By env: a program that is not installed is a status, too.
        return int(self.module.run_command(["env", *argv])[0])

    def files(self) -> dict[str, str]:
        """Return the cluster's configuration, whoever owns it."""
        if not CONFIGURATION.is_file():
            return {}
        return {str(CONFIGURATION): CONFIGURATION.read_text(encoding="utf-8", errors="replace")}

    def unit_of(self, path: str) -> str | None:
        """Return the cluster's name for its configuration."""
        return NAME if Path(path) == CONFIGURATION else None

    def states(self, names: list[str]) -> dict[str, State]:
        """Return nothing: no unit of a set is the cluster's own."""
        return {}

    def check(self, texts: dict[str, str]) -> None:
        """Do nothing: the role that writes the configuration has it checked."""

    def stop(self, names: list[str]) -> None:
        """Let no host of the cluster schedule any more, then end the cluster on this one.

        On this one alone, its resources would move to the hosts that still have it.
        """
        if self.run(*RESOURCES, "--update", "true") == 0:
            self.run("crm_resource", "--wait", f"--timeout={STOP_TIMEOUT}s")
        # One after the other: in one job, systemd would keep a resource from stopping in between.
        for service in ("pacemaker", "corosync"):
            self.run("systemctl", "disable", "--now", service)

    def reload(self) -> None:
        """Do nothing: the cluster reads its configuration when it starts."""

    def enable(self, names: list[str]) -> None:
        """Let the cluster come back after a reboot."""
        self.run("systemctl", "enable", "corosync", "pacemaker")

    def restart(self, names: list[str]) -> None:
        """Start the cluster, which then starts its resources."""
        self.run("systemctl", "start", "corosync", "pacemaker")
        self.run(*RESOURCES, "--update", "false")

    def hand_over(self, units: list[Unit]) -> list[str]:
        """Hand nothing over: two schedulers are one too many."""
        return []

    def watch(self, units: list[Unit]) -> dict[str, str]:
        """Return nothing: the cluster is no unit of a set."""
        return {}

    def retire(self) -> None:
        """Forget the cluster's secret; the packages stay."""
        AUTHKEY.unlink(missing_ok=True)
