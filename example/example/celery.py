"""Celery app: its settings are in celery_settings.py, its tasks those of the installed apps."""

import os
from typing import Any

from celery import Celery
from celery.signals import before_task_publish
from ticks.stamp import sender

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

app = Celery("example")
app.config_from_object("example.celery_settings", namespace="CELERY")
app.autodiscover_tasks()


@before_task_publish.connect(sender="ticks.tasks.record_tick")
def stamp_tick(headers: dict[str, Any], body: tuple[Any, ...], **_: Any) -> None:
    """Write into the message who sends it; runs in the publishing process, here beat."""
    # A retry is published by a worker: it carries the first sender's stamp on.
    if "tick" not in headers:
        args, kwargs, _embed = body
        headers["tick"] = sender.stamp(*args, **kwargs)
