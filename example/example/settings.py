"""Settings; everything that differs between hosts comes from the environment."""

import os
from pathlib import Path

import dj_database_url

from example.environment import TASK_QUEUE, required, words

if TASK_QUEUE == "huey":
    from example.huey_settings import HUEY  # noqa: F401 (Huey reads it here)

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_KEY = required("SECRET_KEY")
DEBUG = os.environ.get("DEBUG", "").lower() in {"1", "true", "yes", "on"}
ALLOWED_HOSTS = words("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = words("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.staticfiles",
    "huey.contrib.djhuey" if TASK_QUEUE == "huey" else "django_celery_results",
    "ticks",
]
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

database = dj_database_url.parse(required("DATABASE_URL"), conn_max_age=60, conn_health_checks=True)
if database["ENGINE"] == "django.db.backends.postgresql":
    database["OPTIONS"] = {"connect_timeout": 5, **database.get("OPTIONS", {})}
elif database["ENGINE"] == "django.db.backends.sqlite3":
    # Several processes: readers beside a writer, and writers that wait for each other. A
    # transaction that begins to write only later could not wait, it would fail at once.
    database["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    }
DATABASES = {"default": database}
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
    # Huey would add a handler of its own beside the root's and write every line twice.
    "loggers": {
        "django": {"handlers": [], "level": "INFO"},
        "huey": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}

# Ticks older than this are deleted by the minute tick.
TICK_RETENTION_HOURS = float(os.environ.get("TICK_RETENTION_HOURS", "6"))
# The longest `slow` a visitor of the page may ask for, in seconds; the task itself allows 3600.
PAGE_SLOW_SECONDS = 300
