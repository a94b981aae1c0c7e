"""A camera for `celery events`: every snapshot is a line in its log."""

import logging

from celery.events.snapshot import Polaroid
from celery.events.state import State

logger = logging.getLogger(__name__)


class LogCamera(Polaroid):
    clear_after = True

    def on_shutter(self, state: State) -> None:
        workers = sorted(worker.hostname for worker in state.alive_workers())
        logger.warning("%s tasks; workers: %s", state.task_count, ", ".join(workers))
