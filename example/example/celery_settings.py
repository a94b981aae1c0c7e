"""Celery's settings, as its documentation names them in a Django project: CELERY_*."""

import os

from celery.schedules import crontab

from example.environment import required

# Celery reads CELERY_BROKER_URL from the environment by itself. As a setting of that name it would
# show the password in `inspect conf` and on Flower's pages, which blank only what they know.
_broker_url = required("CELERY_BROKER_URL")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"

CELERY_RESULT_BACKEND = "django-db"
CELERY_RESULT_EXTENDED = True
CELERY_TASK_TRACK_STARTED = True
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_TASK_SEND_SENT_EVENT = True

# Longer than the longest `slow`; the deployment's stop timeout must be longer still.
CELERY_TASK_TIME_LIMIT = 3660
if _broker_url.startswith("amqp"):
    # A task counts as sent when RabbitMQ has it, not when the socket took it.
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, object] = {"confirm_publish": True}
    # RabbitMQ keeps a queue's type for good: another one needs a queue of another name.
    CELERY_TASK_DEFAULT_QUEUE_TYPE = os.environ.get("CELERY_QUEUE_TYPE", "classic")
    CELERY_TASK_CREATE_MISSING_QUEUE_TYPE = CELERY_TASK_DEFAULT_QUEUE_TYPE
else:
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        # Redis hands a message that was not acknowledged for so long to another worker: it must be
        # longer than any task may take, or a running task is run a second time beside itself.
        "visibility_timeout": 2 * 3600,
        # A Redis that falls silent is an error after so many seconds, not a wait for the kernel's.
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        # Keeps apart two projects that share a database of Redis.
        "global_keyprefix": os.environ.get("CELERY_GLOBAL_KEYPREFIX", ""),
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
    # Longer than a beat may live that is restarted over and over: it must remember across restarts.
    "tick-long": {
        "task": "ticks.tasks.record_tick",
        "schedule": 100.0,
        "args": ("tick-long",),
    },
}
