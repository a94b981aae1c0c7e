"""Example project; the Celery app is loaded with it so that shared tasks find their broker."""

from example.celery import app as celery_app

__all__ = ["celery_app"]
