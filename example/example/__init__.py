"""Example project; the app of the task queue in use is loaded with it."""

from example.environment import TASK_QUEUE

if TASK_QUEUE == "celery":
    # So that shared tasks find their broker, in every process.
    from example.celery import app as celery_app

    __all__ = ["celery_app"]
