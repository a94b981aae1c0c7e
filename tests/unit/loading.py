"""Load a plugin by its path: plugins are found by Ansible through directories, not packages."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[2]
# Ansible finds a project's module_utils by itself only when it ships a module.
ansible.module_utils.__path__.append(str(ROOT / "plugins" / "module_utils"))


def load(path: str) -> ModuleType:
    """Return the module at `path` below plugins/, without its suffix, such as "filter/urls"."""
    name = "plugin_" + path.replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "plugins" / f"{path}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
