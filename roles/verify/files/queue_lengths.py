"""Print how many messages wait in each queue, as JSON: {"celery": 3}.

Arguments: `celery APP QUEUE...`, or `huey [INSTANCE]`: its dotted path, or none for the one in
Django's settings. Ends with the reason as the last line of stderr where the broker does not answer.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module


def celery(name: str, queues: list[str]) -> dict[str, int]:
    """Return queue -> waiting messages; asks as the project's own application would."""
    from celery.app.utils import find_app

    lengths = {}
    with find_app(name).connection_for_read(connect_timeout=5) as connection:
        connection.ensure_connection(max_retries=1)
        for queue in queues:
            # A new channel for each: the broker closes one that asks for an unknown queue.
            with connection.channel() as channel:
                try:
                    lengths[queue] = channel.queue_declare(queue, passive=True).message_count
                except connection.channel_errors:
                    lengths[queue] = (
                        0  # Redis keeps no empty queue; RabbitMQ makes it on first use.
                    )
    return lengths


def huey(path: str) -> dict[str, int]:
    """Return name of the instance -> waiting tasks."""
    import django

    django.setup()
    module, _, name = path.rpartition(".")
    instance = getattr(import_module(module), name)
    return {instance.name: instance.pending_count()}


if __name__ == "__main__":
    queue, *rest = sys.argv[1:]
    path = rest[0] if rest else "huey.contrib.djhuey.HUEY"
    print(json.dumps(celery(path, rest[1:]) if queue == "celery" else huey(path)))
