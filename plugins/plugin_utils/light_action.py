# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Run this project's modules on a host without the weight of Ansible's.

Ansible wraps a module together with all that AnsibleModule imports: 230 kB, which every module run
packs on the controller, and compiles on the host. A class of this kind sends the module, what it
imports of this project, and module_utils/light_module.py in place of AnsibleModule: 40 kB, which a
host compiles once. All else is Ansible's: pipelining or a temporary file, become, the interpreter,
check mode, the result.

Such a module imports of Ansible nothing but `AnsibleModule` and what is in plugins/module_utils.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.executor.module_common import _BuiltModule
from ansible.plugins.action import ActionBase

PLUGINS = Path(__file__).resolve().parents[1]
IMPORT = re.compile(r"^\s*from ansible\.module_utils\.(\w+) import", re.MULTILINE)
STAND_IN = {"basic": "light_module"}

# Root's own, and empty after a boot.
KEEP = "/run"

# Runs on the host. Modules are found in CODES, and the lines of a traceback in the sources.
PROGRAM = """\
import importlib, json, marshal, os, sys
from importlib.machinery import ModuleSpec

PACKED = "%(sources)s"
ARGUMENTS = json.loads(%(arguments)r)
KEPT = "%(keep)s/django-background-fleet-%(name)s-%(digest)s-%%x" %% sys.hexversion


def sources():
    import base64, zlib

    return json.loads(zlib.decompress(base64.b64decode(PACKED)))


def compiled():
    try:
        with open(KEPT, "rb") as kept:
            return marshal.load(kept)
    except (OSError, EOFError, ValueError, TypeError):
        codes = {name: compile(source, name, "exec") for name, source in sources().items()}
    part = "%%s.%%s" %% (KEPT, os.getpid())
    try:
        with open(part, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as kept:
            marshal.dump(codes, kept)
        os.replace(part, KEPT)
    except OSError:
        pass  # Not root: it compiles again.
    return codes


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in CODES:
            return ModuleSpec(name, self, is_package=name.count(".") < 2)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(CODES[module.__name__], module.__dict__)

    def get_source(self, name):
        return sources()[name]


CODES = compiled()
# What lies in the working directory is not meant.
del sys.path[0]
sys.meta_path.insert(0, Finder())
try:
    importlib.import_module("ansible.module_utils.basic").GIVEN.update(ARGUMENTS)
    importlib.import_module("ansible.modules.%(name)s").main()
except Exception as error:
    import traceback

    said = traceback.format_exc()
    print(json.dumps({"failed": True, "msg": "%%s: %%s" %% (type(error).__name__, error),
                      "module_stderr": said}))
    sys.exit(1)
"""


def sources(name: str, plugins: Path = PLUGINS) -> dict[str, str]:
    """Return the names of a module and of all that it imports, each with its source.

    That of a package is empty.
    """
    found = dict.fromkeys(("ansible", "ansible.modules", "ansible.module_utils"), "")
    wanted = {f"ansible.modules.{name}": plugins / "modules" / f"{name}.py"}
    while wanted:
        one, path = wanted.popitem()
        found[one] = path.read_text(encoding="utf-8")
        for other in IMPORT.findall(found[one]):
            if f"ansible.module_utils.{other}" not in found:
                file = plugins / "module_utils" / f"{STAND_IN.get(other, other)}.py"
                wanted[f"ansible.module_utils.{other}"] = file
    return found


@functools.cache
def packed(name: str) -> str:
    """Return a module's sources as the program has them."""
    return base64.b64encode(zlib.compress(json.dumps(sources(name)).encode())).decode()


def program(name: str, arguments: Mapping[str, Any]) -> bytes:
    """Return the Python program that runs a module with these arguments, which are JSON.

    Root's first run of it keeps what it has compiled in KEEP, which spares the next ones a fifth of
    their time.
    """
    values = {
        "name": name,
        "sources": packed(name),
        "digest": hashlib.sha256(packed(name).encode()).hexdigest()[:16],
        "arguments": json.dumps(arguments),
        "keep": KEEP,
    }
    return (PROGRAM % values).encode()


class LightAction(ActionBase):  # type: ignore[misc]  # ansible has no types
    """An action whose module Ansible does not wrap."""

    def _configure_module(
        self, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]
    ) -> tuple[_BuiltModule, str]:
        """Return what Ansible shall run on the host, as ActionBase does."""
        path = PLUGINS / "modules" / f"{module_name}.py"
        delegated = task_vars.get("ansible_delegated_vars", {}).get(self._task.delegate_to)
        variables = delegated or task_vars
        python = str(constants.config.get_config_value("INTERPRETER_PYTHON", variables=variables))
        # One that has yet to be found, or a template, is Ansible's to work out.
        if not path.exists() or not python.startswith("/"):
            wrapped: tuple[_BuiltModule, str] = super()._configure_module(
                module_name, module_args, task_vars
            )
            return wrapped
        built = _BuiltModule(
            b_module_data=program(module_name, module_args),
            module_style="new",
            shebang=f"#!{python}",
            serialization_profile="legacy",
        )
        return built, str(path)
