"""What the deployment says by the environment."""

import os

from django.core.exceptions import ImproperlyConfigured


def required(name: str) -> str:
    """Return the environment variable `name`; an unset or empty one is an error."""
    value = os.environ.get(name, "")
    if not value:
        raise ImproperlyConfigured(f"The environment variable {name} is not set.")
    return value


def words(name: str) -> list[str]:
    """Return the comma separated environment variable `name` as a list, empty if unset."""
    return [word.strip() for word in os.environ.get(name, "").split(",") if word.strip()]


# The one whose broker's URL is given.
TASK_QUEUE = "huey" if os.environ.get("HUEY_URL") else "celery"
