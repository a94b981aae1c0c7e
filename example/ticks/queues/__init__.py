"""The task queue in use; each module here gives the same names to the rest of the project.

task: decorator of a task. tick: decorator of FUNCTION(entry, task_id, stamp), which runs for
    every tick of the scheduler.
send(task, *args): queue it and return its id; raises one of ERRORS without a broker.
find(task_id), latest(limit): what is known of tasks, as `ticks.queues.description` has it.
check(): return when the broker answers, raise when it does not.
clean(): forget what is known of old tasks.
ENTRY, SILENCE: the entry that proves who schedules, and the seconds without it after which
    its sender does not count as active.
"""

from importlib import import_module

from example.environment import TASK_QUEUE

queue = import_module(f"ticks.queues.{TASK_QUEUE}")
