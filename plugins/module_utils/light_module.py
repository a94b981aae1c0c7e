# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What this project's modules use of Ansible's AnsibleModule, without what else that brings.

To compile and import Ansible's own takes a host 0.15 seconds of CPU in each module run, more than
most of these modules need for their work. plugin_utils/light_action.py puts this in its place.

Arguments come from this project's own actions: they get defaults and types here, and are not held
against the rest of the argument spec.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Set by the program that runs a module; with Ansible's own keys, which begin with `_ansible_`.
GIVEN: dict[str, Any] = {}
# Not in every environment's path, but where system tools are.
SYSTEM_PATHS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
TRUE = {"1", "on", "t", "true", "y", "yes"}


def _boolean(value: object) -> bool:
    return str(value).lower() in TRUE


TYPES: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "path": str,
    "int": int,
    "float": float,
    "bool": _boolean,
}


def _converted(value: Any, spec: Mapping[str, Any]) -> Any:
    """Return a value as its spec has it."""
    kind = spec.get("type", "str")
    if kind == "dict":
        return parameters(value, spec["options"]) if "options" in spec else dict(value)
    if kind == "list":
        element = {**spec, "type": spec.get("elements", "raw")}
        return [_converted(one, element) for one in value]
    convert = TYPES.get(kind)
    return convert(value) if convert else value


def parameters(given: Mapping[str, Any], specs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of each option in an argument spec, as AnsibleModule does.

    Args:
        given: option -> value; others than those of the spec are left out.
        specs: option -> `type`, `default`, `elements` and `options`.

    Raises:
        ValueError, TypeError: a value does not have its type.
    """
    found = {}
    for name, spec in specs.items():
        value = given.get(name)
        if value is None:
            value = spec.get("default")
        found[name] = None if value is None else _converted(value, spec)
    return found


class AnsibleModule:
    """A module run."""

    def __init__(self, argument_spec: Mapping[str, Any], supports_check_mode: bool = False) -> None:
        """Take the arguments; ends the run where it is a check and the module cannot check."""
        self._warnings: list[str] = []
        self.params = parameters(GIVEN, argument_spec)
        self.check_mode = bool(GIVEN.get("_ansible_check_mode"))
        if self.check_mode and not supports_check_mode:
            self.exit_json(skipped=True)

    def run_command(self, args: list[str]) -> tuple[int, str, str]:
        """Run a command and return its status, output and errors; end the run if there is none."""
        try:
            done = subprocess.run(  # noqa: S603
                args, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                encoding="utf-8", errors="surrogateescape",
            )  # fmt: skip
        except OSError as error:
            self.fail_json(msg=f"{args[0]} cannot be run: {error}")
        return done.returncode, done.stdout, done.stderr

    def get_bin_path(self, name: str) -> str | None:
        """Return the path of a program, None if there is none of that name."""
        # Not shutil.which: its module takes longer to import than all of this run.
        places = [*os.environ["PATH"].split(os.pathsep), *SYSTEM_PATHS]
        paths = (Path(place, name) for place in places)
        return next((str(one) for one in paths if one.is_file() and os.access(one, os.X_OK)), None)

    def warn(self, warning: str) -> None:
        """Have the operator warned."""
        self._warnings.append(warning)

    def exit_json(self, **result: Any) -> NoReturn:
        """End the run with its result."""
        self._end({"changed": False, **result})
        sys.exit(0)

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        """End the run with the reason why it failed."""
        self._end({"failed": True, "msg": msg, **result})
        sys.exit(1)

    def _end(self, result: dict[str, Any]) -> None:
        if self._warnings:
            result["warnings"] = self._warnings
        print(json.dumps(result))
