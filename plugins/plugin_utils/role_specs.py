# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What the roles can be told: their argument specs, read once for a run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"


@functools.cache
def role_specs(roles: Path) -> dict[str, Any]:
    """Return role -> entry point -> argument spec of all roles in a directory; not to be changed.

    Raises:
        OSError: a spec cannot be read.
        yaml.YAMLError: a spec is not YAML.
    """
    # Ten times as fast, where PyYAML was built with it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return {
        path.parent.parent.name: yaml.load(path.read_text(), loader)["argument_specs"]  # noqa: S506
        for path in sorted(roles.glob("*/meta/argument_specs.yml"))
    }
