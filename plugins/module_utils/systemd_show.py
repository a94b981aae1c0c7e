# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""What systemd says of units.

Runs on managed hosts: Python 3.9 or newer, standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ansible.module_utils.basic import AnsibleModule

# Unit -> property -> value, of those that were asked for.
Shown = dict[str, dict[str, str]]


def parse_blocks(shown: str) -> list[dict[str, str]]:
    """Return the properties of each unit that `systemctl show` printed."""
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in shown.strip().split("\n\n")
        if block
    ]


def show(
    module: AnsibleModule, units: Iterable[str], properties: Iterable[str], pattern: str = ""
) -> tuple[Shown, list[dict[str, str]]]:
    """Ask systemd for units, in one command for all of them.

    Args:
        module: the module that asks.
        units: their names.
        properties: what to ask for; not every kind of unit has all of them.
        pattern: of further units, a shell's; only those count that systemd has loaded. May be
            empty.

    Returns:
        What it says of `units`, and of those that match the pattern; nothing where it does not run.
    """
    names = list(dict.fromkeys(units))
    more: Sequence[str] = [pattern] if pattern else []
    if not (names or more) or not module.get_bin_path("systemctl"):
        return {}, []
    chosen = ",".join(dict.fromkeys(properties))
    code, said, _ = module.run_command(
        ["systemctl", "show", f"--property={chosen}", "--", *names, *more]
    )
    # It prints a paragraph for each, in their order.
    blocks = parse_blocks(said) if code == 0 else []
    return dict(zip(names, blocks)), blocks[len(names) :]  # noqa: B905 - Python 3.9
