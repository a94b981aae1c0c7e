# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Ansible's default output, but for playbooks that show one screen only that screen."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.plugins
from ansible.playbook import Playbook
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import filter_loader, test_loader

# Ansible finds no such helpers of a project's by itself.
ansible.plugins.__path__.append(str(Path(__file__).resolve().parents[1]))
from ansible.plugins.plugin_utils.role_specs import ROLES, role_specs  # noqa: E402

DOCUMENTATION = r"""
name: screen
type: stdout
short_description: Ansible's default output, or one screen and nothing else
version_added: "0.2.0"
author:
  - The django-background-fleet authors
description:
  - A playbook with a play that has the variable C(screen_only) set to V(true) shows on stdout what
    its tasks of M(ansible.builtin.debug) say, and nothing else. What fails is shown on stderr.
  - Such a playbook ends with status 0, with 1 where a failure was ignored (a warning), and else
    with Ansible's own, which is 2 for a failure.
  - Every other playbook is shown as by P(ansible.builtin.default#callback), and so is this one with
    C(-v).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration
"""

WARNING = 1  # The exit status.
# What these say is a sentence by itself.
SAYS_ALL = ("ansible.builtin.fail", "ansible.builtin.assert", "ansible.builtin.debug")


def load_for_all() -> None:
    """Load what every process needs that Ansible starts, one for each task on a host.

    Each of them has what is loaded before, and would spend a tenth of a second on that alone.
    """
    for loader in (filter_loader, test_loader):
        list(loader.all())
    role_specs(ROLES)
    # A collection in such a process would go through all that it shares, and so copy it.
    gc.freeze()


class Silence:
    """Stands for Ansible's display and shows nothing."""

    verbosity = 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return a method that does nothing."""
        return lambda *args, **kwargs: None


class CallbackModule(Default):  # type: ignore[misc]
    """The callback; its methods are called by Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "screen"

    def __init__(self) -> None:
        """Begin like any other playbook."""
        super().__init__()
        self._display: Any = self._display
        self.show: Callable[..., None] | None = None
        self.screen_only = False
        self.failed = self.warned = False

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        """Find out which kind of playbook this is."""
        load_for_all()
        self.screen_only = any(play.vars.get("screen_only") for play in playbook.get_plays())
        if self.screen_only and self._display.verbosity == 0:
            self.show, self._display = self._display.display, Silence()
        super().v2_playbook_on_start(playbook)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print what a debug task says."""
        if self.show and result.task.resolved_action == "ansible.builtin.debug":
            self.show(str(result.result.get("msg", "")).rstrip("\n"))
        super().v2_runner_on_ok(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Print why."""
        self.failed = self.failed or not ignore_errors
        self.warned = self.warned or ignore_errors
        if self.show:
            words = str(result.result.get("msg") or result.result.get("stderr") or "failed")
            if result.task.resolved_action not in SAYS_ALL:
                words = f"{result.host.get_name()}: {result.task.get_name()}: {words}"
            self.show(words.strip(), stderr=True)
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Print it where nobody has planned for it."""
        if not result.task.ignore_unreachable:
            self.failed = True
            if self.show:
                words = f"{result.host.get_name()} does not answer: {result.result.get('msg')}"
                self.show(words, stderr=True)
        super().v2_runner_on_unreachable(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End a run of warnings with a status of its own."""
        super().v2_playbook_on_stats(stats)
        if self.screen_only and self.warned and not self.failed:
            # Not an Exception, which Ansible would report as a broken callback. It lets this one
            # through, after it has cleaned up.
            sys.exit(WARNING)
