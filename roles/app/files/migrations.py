"""Say which applied migrations another release lacks, and whether they can be taken back.

Usage, in the directory and environment of the current release: python - RELEASE_DIRECTORY
Prints JSON:
    applied_not_in_target: list of {app, name, reversible}, in the order of their application.
    down: list of {app, name}: what to migrate to, so that none of them is applied any more; the
        name is "zero" where nothing of the app stays.
"""

import json
import subprocess
import sys
from pathlib import Path

# Runs with the other release's interpreter: what it knows, with what a squashed one stands for.
KNOWN = """
import json, django
from django.db.migrations.loader import MigrationLoader
django.setup()
found = MigrationLoader(None, ignore_no_migrations=True).disk_migrations
print(json.dumps([*found, *(old for one in found.values() for old in one.replaces)]))
"""

Key = tuple[str, str]


def ask(release: Path) -> subprocess.Popen[str]:
    """Have a release say which migrations it has; see `known_to`."""
    return subprocess.Popen(  # noqa: S603
        [release / ".venv/bin/python", "-c", KNOWN],
        cwd=release, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip


def known_to(asked: subprocess.Popen[str]) -> set[Key]:
    """Return the migrations that a release has, as (app, name).

    Raises:
        subprocess.CalledProcessError: it could not say.
    """
    said, _ = asked.communicate()
    if asked.returncode:
        raise subprocess.CalledProcessError(asked.returncode, asked.args)
    # A project may print while it is imported.
    return {(app, name) for app, name in json.loads(said.splitlines()[-1])}


def main() -> None:
    """Compare and print."""
    # Both take a second to load Django.
    asked = ask(Path(sys.argv[1]))
    import django

    django.setup()
    from django.db import connection
    from django.db.migrations.loader import MigrationLoader
    from django.db.migrations.recorder import MigrationRecorder

    known = known_to(asked)
    loader = MigrationLoader(connection, ignore_no_migrations=True)
    recorded = MigrationRecorder(connection).applied_migrations()
    applied = sorted(recorded, key=lambda key: recorded[key].applied)
    here = loader.disk_migrations
    gone = [
        key
        for key in applied
        if key not in known
        # A squashed one is nothing new to a release that has all that it stands for.
        and not (key in here and here[key].replaces and set(here[key].replaces) <= known)
    ]

    down, straight = [], {}
    for app in dict.fromkeys(app for app, _ in gone):
        stay = {key for key in applied if key[0] == app and key not in gone}
        needed = {parent for key in stay if key in here for parent in here[key].dependencies}
        last = sorted(name for _, name in stay - needed if (app, name) in loader.graph.nodes)
        # With two ends there is no one migration to go back to.
        straight[app] = len(last) == 1 or not stay
        down.append({"app": app, "name": last[0] if last else "zero"})
    report = {
        "applied_not_in_target": [
            {
                "app": app,
                "name": name,
                "reversible": straight[app]
                and (app, name) in here
                and all(step.reversible for step in here[app, name].operations),
            }
            for app, name in gone
        ],
        "down": down,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
