"""Write the table of variables into every role's README, from its argument specs.

Usage: role_tables.py [--check]. With --check nothing is written; the exit status is 1 when a table
is out of date.
"""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TABLE = re.compile(r"(<!-- variables -->\n).*?(<!-- end of variables -->)", re.DOTALL)
MARKUP = re.compile(r"\b[CVOMPF]\(([^)]*)\)")


def sentence(description: str | list[str]) -> str:
    """Return a description as one Markdown line, Ansible's markup as code."""
    text = " ".join([description] if isinstance(description, str) else description)
    return MARKUP.sub(lambda found: f"`{found[1]}`", text).replace("|", "\\|")


def default(option: dict[str, Any]) -> str:
    """Return an option's default as Markdown."""
    if option.get("required"):
        return "required"
    value = option.get("default")
    if value in ("", None, [], {}):
        return "none"
    if isinstance(value, list | dict) and len(str(value)) > 40:
        return "see `defaults/main.yml`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`".replace("|", "\\|")


def table(options: dict[str, Any]) -> str:
    """Return the Markdown table of a role's options."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, option in options.items():
        said = sentence(option["description"])
        if "choices" in option:
            said += f" One of {', '.join(f'`{one}`' for one in option['choices'])}."
        rows.append(f"| `{name}` | {default(option)} | {said} |")
        rows += [
            f"| `{name}` → `{key}` | {default(sub)} | {sentence(sub['description'])} |"
            for key, sub in option.get("options", {}).items()
        ]
    return "\n".join(rows) + "\n"


def main(check: bool) -> int:
    """Bring all READMEs up to date, or tell which are not; return the exit status."""
    stale = 0
    for readme in sorted(ROOT.glob("roles/*/README.md")):
        specs = yaml.safe_load((readme.parent / "meta/argument_specs.yml").read_text())
        options = next(iter(specs["argument_specs"].values())).get("options", {})
        before = readme.read_text()
        rows = table(options).replace("\\", "\\\\")
        after = TABLE.sub(rf"\1{rows}\2", before)
        if after != before:
            stale += 1
            if check:
                print(f"{readme.relative_to(ROOT)} is out of date: run bin/lib/role_tables.py")
            else:
                readme.write_text(after)
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
