#!/usr/bin/python
# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Find every process of a host that schedules periodic tasks."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: scheduler_census
short_description: Find every process of a host that schedules periodic tasks
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Reads C(/proc) and lists the processes that schedule periodic tasks of Celery or Huey, however
    they were started, and the state of the systemd units and supervisord programs that could start
    one.
  - Judges a process by what its arguments mean to the program that reads them, not by a text
    pattern. So C(celery -A shop worker -EB) is a scheduler, while C(celery -A beat worker -n
    beat@host -Q B) is none.
  - A scheduler is listed once. What it forked, and what wraps it (C(flock), C(sudo), C(sh -c),
    C(timeout)), is not listed beside it. A forked process whose parent is gone is listed by itself.
  - Knows C(celery beat), C(celery worker -B), C(celery multi), C(manage.py celery start -b),
    C(huey_consumer) and C(manage.py run_huey) without C(--no-periodic), interpreters with options,
    and titles set by C(setproctitle).
  - The filter P(scheduler_verdict#filter) judges the answers of a whole fleet.
options:
  stack:
    description:
      - Name of the stack to count for.
      - "A scheduler belongs to another stack if the file of its program in
        C(/etc/supervisor/conf.d) or of its unit in C(/etc/systemd/system) carries the line C(#
        stack: OTHER), or if it runs as the user of such a file and of none of this stack's."
      - Every other scheduler counts as this stack's, also one that root started by hand.
    type: str
    required: true
  units:
    description: The units that would be a scheduler of this stack, with their suffix.
    type: list
    elements: str
    default: []
  programs:
    description: The supervisord programs that would be a scheduler of this stack.
    type: list
    elements: str
    default: []
  names:
    description:
      - Names of all services of this stack on this host, without suffix.
      - RV(foreign_units) tells which of them another stack already has, RV(releases) what those
        that run were started from. Without any, RV(draining) is empty.
    type: list
    elements: str
    default: []
  wait:
    description:
      - Seconds for which to wait at the most while one of O(units) or O(programs) is starting.
      - Nothing is waited for in any other state.
    type: int
    default: 0
requirements:
  - Python 3.9 or newer on the managed host.
  - The right to see all processes, which needs root where C(/proc) is mounted with C(hidepid).
attributes:
  check_mode:
    description: Can run in check mode and reports the same.
    support: full
  diff_mode:
    description: Has nothing to show, since it changes nothing.
    support: none
  platform:
    description: Linux.
    platforms: linux
    support: full
notes:
  - Never changes anything, and needs no facts.
  - Asks supervisord at its socket C(/run/supervisor.sock), and only where that exists.
  - Huey's C(periodic) setting in Django's settings cannot be seen from outside. A consumer counts
    as a scheduler unless its arguments say C(--no-periodic).
  - The processes of containers are seen on the host that runs them, and count there.
seealso:
  - plugin: scheduler_verdict
    plugin_type: filter
    description: Turns the answers of all hosts into a list of problems.
"""

EXAMPLES = r"""
- name: Find the schedulers of this host
  scheduler_census:
    stack: shop
    units:
      - celery-beat.service
  become: true
  register: census

- name: Show what schedules here
  ansible.builtin.debug:
    msg: "pid {{ item.pid }} of {{ item.user }} since {{ item.started }}: {{ item.command }}"
  loop: "{{ census.schedulers }}"
  loop_control:
    label: "{{ item.pid }}"
"""

RETURN = r"""
schedulers:
  description: The schedulers of this stack, by rising pid.
  returned: success
  type: list
  elements: dict
  contains:
    pid:
      description: Process id.
      type: int
      sample: 4711
    ppid:
      description: Process id of the parent, V(1) if that is gone.
      type: int
      sample: 1
    user:
      description: Name of the effective user, or the number of a user without a name.
      type: str
      sample: shop
    argv:
      description:
        - The arguments, or the title that the process gave itself as the only one.
        - Values of options that look like a secret, and user and password in URLs, are replaced by
          V(***).
      type: list
      elements: str
      sample: [/opt/shop/bin/python, /opt/shop/bin/celery, -A, shop, beat]
    command:
      description: The same as one text.
      type: str
      sample: /opt/shop/bin/python /opt/shop/bin/celery -A shop beat
    kind:
      description:
        - V(celery beat), V(celery worker with embedded beat) or V(huey consumer with periodic
          tasks).
      type: str
      sample: celery beat
    scheduler:
      description:
        - The class that the command (C(-S)) or the deployment's settings in its environment choose
          for Celery's beat, such as V(redbeat.RedBeatScheduler).
        - Empty where the project chooses, and for Huey.
      type: str
      sample: celery.beat:PersistentScheduler
    started:
      description: When the process started, in seconds since the epoch.
      type: float
      sample: 1767225600.25
    unit:
      description:
        - The systemd service it runs in, for a supervisord program that of supervisord.
        - Null for a login session and outside of services.
      type: str
      sample: celery-beat.service
    program:
      description: The supervisord program that it or an ancestor of it is; null for none.
      type: str
      sample: null
other_stacks:
  description: The schedulers of other stacks on this host, as in RV(schedulers) and with one more
    key.
  returned: success
  type: list
  elements: dict
  contains:
    stack:
      description: Name of the stack it belongs to.
      type: str
      sample: library
units:
  description: The state of each of O(units), in their order; empty where systemd does not answer.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the unit as given.
      type: str
      sample: celery-beat.service
    load:
      description: Such as V(loaded), V(masked) or V(not-found).
      type: str
      sample: loaded
    active:
      description: Such as V(active), V(activating), V(failed) or V(inactive).
      type: str
      sample: active
    enabled:
      description: Such as V(enabled), V(disabled) or V(masked); empty for a unit without a file.
      type: str
      sample: enabled
    main_pid:
      description: Main process of the unit, V(0) without one.
      type: int
      sample: 4711
    starting:
      description: It has not become its program yet; what it runs before that may be a wait.
      type: bool
      sample: false
programs:
  description: The state of each of O(programs), in their order.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the program as given.
      type: str
      sample: celery-beat
    state:
      description:
        - Such as V(RUNNING), V(STARTING), V(BACKOFF), V(STOPPED) or V(FATAL).
        - Empty if supervisord does not know the program, or does not run.
      type: str
      sample: RUNNING
    pid:
      description: Process of the program, V(0) without one.
      type: int
      sample: 4711
    starting:
      description: Its process is still the launcher, C(/usr/local/lib/STACK/NAME).
      type: bool
      sample: false
    defined:
      description: A file in C(/etc/supervisor/conf.d) has the program.
      type: bool
      sample: true
    autostart:
      description: That file lets it start with supervisord.
      type: bool
      sample: true
    log:
      description: Path of its log in that file; may be empty.
      type: str
      sample: /var/log/shop/celery-beat.log
lurking:
  description:
    - Units in C(/etc/systemd/system) and programs in C(/etc/supervisor/conf.d) that belong to no
      stack and whose command would schedule, whether they run or not.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the unit, with suffix, or of the program.
      type: str
      sample: old-beat.service
    manager:
      description: V(systemd) or V(supervisord).
      type: str
      sample: systemd
    kind:
      description: As in RV(schedulers).
      type: str
      sample: celery beat
    state:
      description: What its manager says of it, such as V(inactive) or V(STOPPED).
      type: str
      sample: inactive
    enabled:
      description: It starts at the next boot, or with supervisord.
      type: bool
      sample: true
starting:
  description: Those of O(units) and O(programs) that are on their way to a process that schedules.
  returned: success
  type: list
  elements: str
  sample: [huey-periodic.service]
foreign_units:
  description: Those of O(names) whose unit or program file belongs to another stack, with its name.
  returned: success
  type: dict
  sample: {"web": "library"}
draining:
  description: The former processes of this stack's services that finish their work.
  returned: success
  type: list
  elements: dict
  contains:
    unit:
      description: Name of the service, without suffix.
      type: str
      sample: celery-worker
    pid:
      description: Process id.
      type: int
      sample: 4711
    since:
      description: When it was told to stop, in seconds since the epoch.
      type: float
      sample: 1767225600.25
    until:
      description: When it is killed, in seconds since the epoch.
      type: float
      sample: 1767229260.0
    release:
      description: The release it was started from; empty if that cannot be told.
      type: str
      sample: 20260101-ab12
releases:
  description: What C(/opt/STACK/current) names, and what runs.
  returned: success
  type: dict
  contains:
    current:
      description: The release; empty where there is none.
      type: str
      sample: 20260101-ab12
    running:
      description: Those of O(names) that run, with the release their process was started from.
      type: dict
      sample: {"celery-worker": "20260101-ab12"}
memory_total:
  description: Memory of the host in bytes, V(0) if that cannot be told.
  returned: success
  type: int
  sample: 4294967296
host_identity:
  description: Which machine answered, to recognize one machine behind two inventory names.
  returned: success
  type: dict
  contains:
    hostname:
      description: Name that the machine gives itself.
      type: str
      sample: worker1
    machine_id:
      description: Content of C(/etc/machine-id), empty without that file.
      type: str
      sample: 5b4e6c1f0a9d4b7e8c2d3f4a5b6c7d8e
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.scheduler_look import OPTIONS, census


def main() -> None:
    """Read the module's arguments, print its answer."""
    module = AnsibleModule(
        argument_spec={"stack": {"type": "str", "required": True}, **OPTIONS},
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **census(module, module.params["stack"], module.params))


if __name__ == "__main__":
    main()
