# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Let one run at a time change a fleet.

The lock is a lease: a file on one host, which a process on the controller renews for as long as
the run lives, however the run ends. A lease that nobody renews, since the controller or the way to
the host is gone, ends by itself. Asked again within one run, the lock is held already.

A run looks at the hosts before it takes the lock, since most runs find nothing to change and need
none. What it has seen counts only if nobody held the lock meanwhile, which the lease tells.

The host tells the time by its own /proc/uptime, so that no clock that is set can matter.

Arguments:

    path: absolute path of the lease on the host, in a directory that only root writes and that is
        empty after a boot.
    since: when this run began to look, in seconds of the controller's CLOCK_MONOTONIC. Without it,
        nothing was seen that could be untrue by now.

Result:

    changed: false; a lease is no change of the host.

Fails when another run holds the lock, with a sentence that says which, or has held it since this
one began to look. A host that cannot tell is unreachable.
"""

from __future__ import annotations

import getpass
import os
import select
import shlex
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Seconds after which a lease ends that was not renewed, and between two renewals.
LIFETIME = 20
INTERVAL = 5
# Seconds that one question to the host may take.
PATIENCE = 15.0
# Says "mine" and for how many hundredths of a second nobody has held it, or "theirs" and who they
# are. The file is never removed: one who waits for its flock would get that of a file that is gone.
# A lease that was given back has no owner, and says when that was.
SCRIPT = r"""
set -eu
verb=$1 path=$2 token=$3 lifetime=$4 words=$5
umask 077
exec 9<>"$path"
flock --wait 10 9
owner='' until=0 theirs=''
{ read -r owner; read -r until; read -r theirs; } <&9 || :
read -r now _ </proc/uptime
moment=${now%.*}${now#*.}
now=${now%.*}
if [ -n "$owner" ] && [ "$owner" != "$token" ] && [ "$now" -lt "$until" ]; then
    printf 'theirs\n%s\n' "$theirs"
    exit
fi
case $owner in
'') free=$((moment - ${until:-0})) ;;
"$token") free=$moment ;;
*) free=$((moment - until * 100)) ;;
esac
case $verb in
take) printf '%s\n%s\n%s\n' "$token" $((now + lifetime)) "$words" >"$path" ;;
release) printf '\n%s\n' "$moment" >"$path" ;;
esac
printf 'mine\n%s\n' "$free"
"""


def lease_command(verb: str, path: str, token: str, words: str) -> str:
    """Return the shell command that takes, renews or releases a lease.

    Args:
        verb: "take", also to renew, or "release".
        path: the lease on the host.
        token: names the run; without white space.
        words: a line that tells people who holds the lease.
    """
    return shlex.join(["sh", "-c", SCRIPT, "run_lock", verb, path, token, str(LIFETIME), words])


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when the block takes longer; for a process without other threads."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible has no types
    """The action `run_lock`."""

    _requires_connection = True
    _supports_check_mode = True
    _VALID_ARGS = frozenset({"path", "since"})

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take the lock, and leave a process behind that holds it for the rest of the run."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        if self._task.check_mode:
            return {**result, "changed": False, "skipped": True}
        # This is a worker of ansible-playbook, which ends with its task.
        playbook = os.getppid()
        run = os.pidfd_open(playbook)
        controller = socket.gethostname()
        self.path = str(self._task.args["path"])
        # The start of a process tells it from a later one of the same number.
        started = Path(f"/proc/{playbook}/stat").read_text().rpartition(")")[2].split()[19]
        self.token = f"{controller}:{playbook}:{started}"
        self.words = (
            f"{getpass.getuser()}@{controller} runs "
            f"{', '.join(context.CLIARGS.get('args') or ['a playbook'])} since "
            f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
        )
        said = self._ask("take")
        host = self._task.delegate_to or (task_vars or {}).get("inventory_hostname", "the host")
        if said[0] == "theirs":
            raise AnsibleActionFail(
                f"Nothing was changed, since {said[1]}: wait until that run ends and start yours "
                f"again (the lock, {self.path} on {host}, frees itself when that run ends in any "
                f"way, {LIFETIME} s after its controller is gone)."
            )
        now = time.monotonic()
        if int(said[1]) / 100 < now - float(self._task.args.get("since", now)):
            self._try("release")
            raise AnsibleActionFail(
                "Nothing was changed, since another run changed the fleet while this one looked at "
                f"it: start this one again (the lock, {self.path} on {host}, was given back "
                f"{int(said[1]) / 100:.1f} s ago)."
            )
        if os.fork() == 0:
            try:
                self._detach()
                self._keep(run)
            finally:
                os._exit(0)
        os.close(run)
        return {**result, "changed": False}

    def _ask(self, verb: str) -> list[str]:
        """Return what the host says: "mine" and a number, or "theirs" and who; see SCRIPT.

        Raises:
            AnsibleConnectionFailure: the host cannot tell.
        """
        said = self._low_level_execute_command(
            lease_command(verb, self.path, self.token, self.words)
        )
        lines = str(said["stdout"]).strip().splitlines()
        if said["rc"] != 0 or not lines or lines[0] not in ("mine", "theirs"):
            raise AnsibleConnectionFailure(f"{said['stdout']}{said['stderr']}".strip())
        return [*lines, "somebody"][:2]

    def _detach(self) -> None:
        """Leave the run's process group and its output; a worker's stdio goes nowhere already."""
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        display = Display()
        display.verbosity = 0
        display._final_q = None

    def _keep(self, run: int) -> None:
        """Renew the lease until the run has ended, then release it.

        A run whose lease somebody else has got in the meantime is ended: both could start a
        scheduler.
        """
        ended = select.poll()
        ended.register(run, select.POLLIN)
        while not ended.poll(INTERVAL * 1000):
            if self._try("take") == "theirs":
                signal.pidfd_send_signal(run, signal.SIGTERM)
                return
        deadline = time.monotonic() + LIFETIME
        while self._try("release") == "" and time.monotonic() < deadline:
            time.sleep(1)

    def _try(self, verb: str) -> str:
        """Return "mine" or "theirs"; empty when the host does not answer."""
        try:
            with patience(PATIENCE):
                return self._ask(verb)[0]
        except Exception:
            return ""
