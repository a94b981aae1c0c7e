# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Values of the environment file."""

from __future__ import annotations

import re
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: env_value
short_description: Quote a value for an environment file
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Quotes a value so that systemd's C(EnvironmentFile=) and a POSIX shell read the same string.
options:
  _input:
    description: A string, number or boolean. Booleans become V(true) and V(false).
    type: raw
    required: true
"""

EXAMPLES = r"""
line: "SECRET={{ 'a$b\"c' | env_value }}"
"""

RETURN = r"""
_value:
  description: The value in double quotes.
  type: str
"""


def env_value(value: Any) -> str:
    r"""Quote a value for an environment file.

    Within double quotes systemd and POSIX shells agree: a backslash before one of `"`, `\`, `$`
    and a backquote takes it literally, everything else stands for itself (systemd's
    SHELL_NEED_ESCAPE; POSIX 2.2.3).

    Args:
        value: string, number or boolean.

    Returns:
        The quoted value.

    Raises:
        AnsibleFilterError: the value is a list, a mapping or empty (None), or holds a NUL.
    """
    if value is None or isinstance(value, list | tuple | dict):
        raise AnsibleFilterError(f"An environment variable cannot hold {type(value).__name__}.")
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "\0" in text:
        raise AnsibleFilterError("An environment variable cannot hold a NUL character.")
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"env_value": env_value}
