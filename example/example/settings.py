"""Settings; everything that differs between hosts comes from the environment."""

import os
from pathlib import Path

import dj_database_url
from celery.schedules import crontab
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


BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = required("SECRET_KEY")
DEBUG = os.environ.get("DEBUG", "").lower() in {"1", "true", "yes", "on"}
ALLOWED_HOSTS = words("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = words("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = ["django.contrib.staticfiles", "django_celery_results", "ticks"]
MIDDLEWARE = [
    "ticks.health.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

DATABASES = {
    "default": dj_database_url.parse(
        required("DATABASE_URL"), conn_max_age=60, conn_health_checks=True
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("connect_timeout", 5)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-gb"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = os.environ.get("STATIC_ROOT") or BASE_DIR / "static_root"
STORAGES = {
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    # Django's own handlers mail the administrators; everything goes to stderr instead.
    "loggers": {"django": {"handlers": [], "level": "INFO"}},
}

# Ticks older than this are deleted by the minute tick.
TICK_RETENTION_HOURS = float(os.environ.get("TICK_RETENTION_HOURS", "6"))
# The longest `slow` a visitor of the page may ask for, in seconds; the task itself allows 3600.
PAGE_SLOW_SECONDS = 300

CELERY_BROKER_URL = required("CELERY_BROKER_URL")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = TIME_ZONE

CELERY_RESULT_BACKEND = "django-db"
CELERY_RESULT_EXTENDED = True
CELERY_TASK_TRACK_STARTED = True
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_TASK_SEND_SENT_EVENT = True

# Longer than the longest `slow`; the deployment's stop timeout must be longer still.
CELERY_TASK_TIME_LIMIT = 3660
# Redis hands a message that was not acknowledged for so long to another worker: it must be
# longer than any task may take, or a running task is run a second time beside itself.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 2 * 3600,
    # A Redis that falls silent is an error after so many seconds, not a wait for the kernel's.
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
}
# Acknowledged when done: a killed worker's tasks run again instead of vanishing. All tasks
# here may run twice (`add` and `slow` change nothing, `record_tick` knows a message again).
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
# A worker busy with `slow` must not keep ticks waiting that another one could record.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# A task that outlives its broker connection ends; its second run does no harm.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False

# Neither entry expires: a tick that expired in the queue would look like one never sent.
CELERY_BEAT_SCHEDULE = {
    "tick-second": {
        "task": "ticks.tasks.record_tick",
        "schedule": 1.0,
        "args": ("tick-second",),
    },
    "tick-minute": {
        "task": "ticks.tasks.record_tick",
        "schedule": crontab(),
        "args": ("tick-minute",),
    },
}
# Written after every send, so that a killed beat does not repeat what it has sent.
CELERY_BEAT_SYNC_EVERY = 1
# A beat that was away for longer does not catch up on crontab entries at once, in seconds.
CELERY_BEAT_CRON_STARTING_DEADLINE = 600
