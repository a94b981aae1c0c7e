# ruff: noqa: F403, F405
"""What the operator of a forum adds to Spirit's own production settings.

Everything that differs between hosts and everything secret comes from the environment.
"""

import os
from pathlib import Path

import dj_database_url

from .prod import *

STATE_DIR = Path(os.environ["STATE_DIR"])

SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")
ST_SITE_URL = os.environ["ST_SITE_URL"]
# Spirit's example names somebody at example.com, who would be sent every error.
ADMINS = []
EMAIL_BACKEND = os.environ.get("EMAIL_BACKEND", "django.core.mail.backends.smtp.EmailBackend")
EMAIL_HOST = os.environ.get("EMAIL_HOST", "localhost")
DATABASES = {
    "default": dj_database_url.parse(
        os.environ["DATABASE_URL"], conn_max_age=60, conn_health_checks=True
    )
}

# What the services write must outlive a release, in which they cannot write anyway.
HAYSTACK_CONNECTIONS["default"]["PATH"] = str(STATE_DIR / "search")
MEDIA_ROOT = str(STATE_DIR / "media")
# Nothing logs to this handler, but Django would open its file in the release.
del LOGGING["handlers"]["file"]
MIDDLEWARE.insert(1, "whitenoise.middleware.WhiteNoiseMiddleware")

ST_TASK_MANAGER = os.environ["ST_TASK_MANAGER"]
SEARCH_MINUTES = f"*/{os.environ.get('SEARCH_INDEX_MINUTES', '10')}"

if ST_TASK_MANAGER == "huey":
    INSTALLED_APPS.append("huey.contrib.djhuey")
    # Huey takes a URL or single parameters, not both.
    HUEY["connection"] = {"url": os.environ["HUEY_URL"]}
    ST_HUEY_SCHEDULE = {"full_search_index_update": {"minute": SEARCH_MINUTES}}
else:
    from celery.schedules import crontab

    # Makes this the current application, which the generated package leaves commented out: the web
    # server would send its tasks by Celery's defaults, not as these settings say.
    from mysite.celery import app as celery_app  # noqa: F401

    # Celery takes away this logger's handlers and Spirit lets it propagate nothing: no log at all.
    del LOGGING["loggers"]["celery"]
    CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
    CELERY_BEAT_SCHEDULE["full_search_index_update"]["schedule"] = crontab(minute=SEARCH_MINUTES)
