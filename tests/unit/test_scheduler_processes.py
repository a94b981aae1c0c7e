"""Which processes schedule: by the meaning of argv, by what is recorded, and in the real /proc."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loading import load

census = load("module_utils/scheduler_processes")
BEAT, EMBEDDED, HUEY = census.BEAT, census.EMBEDDED, census.HUEY

VENV = "/opt/shop/venvs/1f0c/bin"

# --- The meaning of an argv ---------------------------------------------------------------------

CELERY_BEAT = [
    "celery beat",
    "celery -A shop beat",
    "celery -A shop beat -l info -S redbeat.RedBeatScheduler --pidfile=",
    "celery -Ashop beat",
    "celery --app=shop beat",
    "celery --app shop -C -q --skip-checks beat",
    "celery -qA shop beat",
    "celery -b redis://h -A shop --result-backend rpc:// --workdir /srv --config c --loader l beat",
    "celery -A shop -- beat",
    "celery -A beat beat",
    "celery beat -A shop",
    "celery -A shop beat --detach --enable-remote-control -n celerybeat@web1",
    f"{VENV}/celery -A shop beat",
    f"{VENV}/python {VENV}/celery -A shop beat",
    f"{VENV}/python3.11 -X dev -m celery -A shop beat",
    "python -m celery -A shop beat",
    "python3 -mcelery beat",
    "python3.13t -Ium celery --app=shop beat",
    "pypy3 -W ignore -u -m celery beat",
    "python3 -Wignore -OO --check-hash-based-pycs always -m celery beat",
    "python -m celery.__main__ -A shop beat",
    "python /usr/lib/python3/dist-packages/celery/__main__.py beat",
    "python shop/celery.py beat",
    "python -m shop.celery beat",
    "python -m cProfile -o /tmp/out -m celery -A shop beat",
    f"python -m coverage run {VENV}/celery beat",
    "python manage.py celery beat",
    "python manage.py celery --settings shop.settings -A shop beat -l info",
    "python -X dev ./manage.py celery -A shop beat",
    "django-admin celery beat",
    "'[celery beat] -A shop beat -l info'",
    "'[celery beat]'",
]

WORKER_WITH_BEAT = [
    "celery -A shop worker -B",
    "celery -A shop worker --beat",
    "celery -A shop worker -EB",
    "celery -A shop worker -BE",
    "celery -A shop worker -EBl info",
    "celery -A shop worker -Ofair -c4 -B",
    "celery -A shop worker -Q B -B",
    "celery worker -A shop -B",
    "celery -A worker worker -n w@host -s /srv/schedule --scheduler s -B",
    "celery -A shop worker -D -B --pidfile=w.pid",
    f"{VENV}/python -m celery -A shop worker --detach -EB -c 1 -n w1@vm --executable={VENV}/python",
    "celery multi start w1 -A shop -B -l info",
    "celery -A shop multi start 3 -EB -c 1",
    "celery multi restart w1 w2 -B:w1 -A shop",
    "celery multi start w1 w2 --beat:1",
    "python manage.py celery worker -B",
    "python manage.py celery start -b",
    "python manage.py celery start --beat",
    "python manage.py celery -b start",
    "python manage.py celery --settings=shop.settings start -vb",
    "'[celeryd: celery@vm:MainProcess] -active- (-A shop worker -EB -c 2)'",
    "'[celeryd: celery@vm:MainProcess] -active- (worker -B)'",
    # celery drops one word too many when the path of its program holds "manage".
    "'[celeryd: celery@vm:MainProcess] -active- (shop worker --beat)'",
    "'[celeryd: celery@vm:MainProcess] -active- (-A shop worker -c1 -B -n celery@work'",
]

HUEY_WITH_PERIODIC = [
    "huey_consumer shop.huey",
    "huey_consumer.py shop.huey",
    f"{VENV}/huey_consumer -w 2 -k process shop.huey",
    f"{VENV}/python {VENV}/huey_consumer.py shop.huey -v",
    "python -m huey.bin.huey_consumer shop.huey",
    "python /srv/site-packages/huey/bin/huey_consumer.py shop.huey",
    "huey_consumer shop.huey -l -n",
    "huey_consumer shop.huey -L n --logfile --no-periodic",
    "huey_consumer -wn shop.huey",
    "huey_consumer -qS -d 0.1 -m 10 -b 1.2 -c 10 -s 1 -M 9 -t 5 -g TERM -Cf shop.huey",
    "python manage.py run_huey",
    "python manage.py run_huey -w 2 -V -A",
    "python manage.py run_huey -v 2 --no-color --settings shop.settings --pythonpath n",
    "django-admin run_huey",
    f"{VENV}/python {VENV}/django-admin run_huey --settings shop.settings",
    "python -m django run_huey",
    "python -m shop.manage run_huey",
]

NO_SCHEDULER = [
    "",
    "celery",
    "celery -A shop",
    "celery -A beat",
    "celery -A shop worker",
    "celery -A beat worker",
    "celery --app beat worker",
    "celery -A shop worker -n beat@host",
    "celery -A shop worker -Q beat",
    "celery -A shop worker -Q B",
    "celery -A shop worker -n B",
    "celery -A shop worker -n -B",
    "celery -A shop worker -QB",
    "celery -A shop worker -ElB -c 4",
    "celery -A shop worker --hostname --beat",
    "celery -A shop worker --queues=--beat -X beat",
    "celery -A shop worker -l info -- -B",
    "celery -A shop events",
    "celery -A shop events -c camera -F 2.0 -d",
    "celery -A shop flower --basic-auth=beat:x",
    "celery -A shop shell -B",
    "celery -A shop inspect ping -d beat@host",
    "celery inspect active",
    "celery -A shop control enable_events",
    "celery -A shop status",
    "celery -A shop call beat",
    "celery multi start w1 -A shop",
    "celery multi start beat -A shop -Q B",
    "celery multi stop w1 -B",
    "celery multi show w1 -B",
    "python manage.py celery start",
    "python manage.py celery stop -b",
    "python manage.py celery worker -b redis://h",
    "python manage.py shell celery beat",
    "python manage.py beat",
    "python -c 'import os  # celery beat'",
    "python -c 'celery beat' -m celery beat",
    "python",
    "python -",
    "python -m",
    "python beat.py",
    "python -m pytest celery beat",
    "python -m cProfile beat.py",
    f"{VENV}/python /root/.ansible/tmp/AnsiballZ_scheduler_census.py",
    "python /usr/bin/ansible all -m shell -a 'celery -A shop beat'",
    "python /usr/bin/supervisord -n",
    "python /usr/bin/watchmedo auto-restart -- celery -A shop beat",
    "ansible celery beat",
    "grep beat",
    "grep celery beat",
    "pgrep -f 'celery beat'",
    "vim beat.py",
    "vim celery.py beat",
    "tail -f beat.log",
    "less /var/log/celery/beat.log",
    "journalctl -u celery-beat",
    "systemctl status celery-beat",
    "man celery beat",
    "docker exec app celery -A shop beat",
    "ssh worker2 celery -A shop beat",
    "sh -c 'celery beat'",
    "bash -lc 'exec celery -A shop beat'",
    "flock -n /run/lock/beat celery -A shop beat",
    "sudo -u shop celery -A shop beat",
    "runuser -u shop -- celery beat",
    "nice -n 5 celery -A shop beat",
    "env X=y celery -A shop beat",
    "timeout 5 celery -A shop beat",
    "tini -- celery -A shop beat",
    "huey_consumer shop.huey -n",
    "huey_consumer -n shop.huey",
    "huey_consumer shop.huey --no-periodic",
    "huey_consumer --no-p shop.huey",
    "huey_consumer -k process -w 2 -qn shop.huey",
    "huey_consumer -vnw 2 shop.huey",
    "python manage.py run_huey -n",
    "python manage.py run_huey --no-periodic -w 4",
    "python manage.py run_huey -Vn",
    "python manage.py run_huey -qnk thread",
    "python manage.py migrate run_huey",
    "vim run_huey.py",
    "'[celeryd: celery@vm:MainProcess] -active- (-A shop worker -c 1 -n beat@host)'",
    "'[celeryd: celery@vm:MainProcess] -active- (-A shop worker -Q B)'",
    "'[celeryd: celery@vm:ForkPoolWorker-2]'",
    "'[celery events]'",
]


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        *((command, BEAT) for command in CELERY_BEAT),
        *((command, EMBEDDED) for command in WORKER_WITH_BEAT),
        *((command, HUEY) for command in HUEY_WITH_PERIODIC),
        *((command, None) for command in NO_SCHEDULER),
    ],
)
def test_argv_is_judged_by_its_meaning(command: str, kind: str | None) -> None:
    assert census.scheduler_kind(shlex.split(command) or [""]) == kind


@pytest.mark.parametrize(
    ("command", "scheduler"),
    [
        ("celery -A shop beat", ""),
        (
            "celery -A shop beat -l info -S redbeat.RedBeatScheduler --pidfile=",
            "redbeat.RedBeatScheduler",
        ),
        ("celery -A shop beat -Sdjango", "django"),
        ("celery -A shop beat --scheduler=a.b:C", "a.b:C"),
        ("celery -A shop beat --scheduler a.b:C -l info", "a.b:C"),
        ("celery -A shop beat -n -S -s /srv/--scheduler", ""),
        ("celery -A shop beat -S first -S last", "last"),
        (f"{VENV}/python -m celery -A shop beat -l info -S x", "x"),
        (f"{VENV}/python -IS {VENV}/celery -A shop beat", ""),
        ("celery -A shop worker -B --scheduler x", "x"),
        ("celery -A shop worker -B -S /srv/state", ""),
        ("python manage.py celery beat -S x", "x"),
        ("'[celery beat] -A shop beat -l info -S x'", "x"),
        ("'[celeryd: celery@vm:MainProcess] -active- (-A shop worker -B --scheduler x)'", "x"),
        ("huey_consumer shop.huey -S", ""),
    ],
)
def test_the_class_of_a_scheduler_is_read_from_its_argv(command: str, scheduler: str) -> None:
    argv = shlex.split(command)
    assert census.scheduler_kind(argv)
    assert census.scheduler_class(argv) == scheduler


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("/opt/v/bin/celery -A shop beat -S %h", BEAT),
        ("/usr/bin/flock -n /run/lock/beat /opt/v/bin/celery -A shop beat", BEAT),
        ("/bin/sh -c 'exec /opt/v/bin/celery -A shop worker -B >> /var/log/x 2>&1'", EMBEDDED),
        ("env DJANGO_SETTINGS_MODULE=x python manage.py run_huey", HUEY),
        ("/opt/v/bin/celery -A shop worker -Q beat", None),
        ("/opt/v/bin/gunicorn shop.wsgi --name 'celery worker'", None),
        ("/bin/sh -c 'it is not closed", None),
        ("", None),
    ],
)
def test_a_command_is_seen_through_its_wrapper(command: str, kind: str | None) -> None:
    assert census.command_kind(command) == kind


# --- A host, built file by file -----------------------------------------------------------------

BIN = "/opt/v/bin"
NO_SERVICE = "1:name=systemd:/user.slice/user-0.slice/session-3.scope\n0::/"


class Host:
    """A /proc, unit files and supervisord's; user 4000 and up have no name."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.units = root / "units"
        self.programs = root / "programs"
        self.answers: list[dict[str, Any]] = []
        for directory in (self.proc, self.units, self.programs):
            directory.mkdir()
        (self.proc / "stat").write_text("cpu  1 2 3\nbtime 1767225600\nctxt 5\n")
        self.run(1, "/sbin/init\0splash\0")
        self.run(2, "", name="kthreadd")

    def run(
        self,
        pid: int,
        cmdline: str,
        *,
        ppid: int = 1,
        uid: int = 4000,
        unit: str = "",
        name: str = "celery",
        environment: str = "",
    ) -> None:
        directory = self.proc / str(pid)
        directory.mkdir()
        ticks = os.sysconf("SC_CLK_TCK")
        fields = " ".join(["0"] * 17)
        (directory / "cmdline").write_text(cmdline)
        (directory / "environ").write_text(environment)
        (directory / "stat").write_text(f"{pid} ({name}) S {ppid} {fields} {ticks * pid // 4} 0 0")
        (directory / "status").write_text(f"Name:\tx\nUid:\t0\t{uid}\t{uid}\t{uid}\nGid:\t0\n")
        (directory / "cgroup").write_text(f"0::/system.slice/{unit}\n" if unit else NO_SERVICE)

    def unit(self, name: str, stack: str, user: str = "") -> None:
        user_line = f"User={user}\n" if user else ""
        (self.units / name).write_text(f"# Managed\n# stack: {stack}\n[Service]\n{user_line}")

    def program(self, name: str, stack: str, user: str = "", *more: str) -> None:
        """Write the file of a supervisord program."""
        lines = ["; Managed", f"# stack: {stack}", f"[program:{name}]", f"command=/x/{name} %%h"]
        lines += [f"user={user}"] if user else []
        (self.programs / f"{name}.conf").write_text("\n".join([*lines, *more]) + "\n")

    def supervise(self, name: str, state: str, pid: int = 0, group: str = "") -> None:
        """Let supervisord answer for a program."""
        self.answers.append({"name": name, "group": group or name, "statename": state, "pid": pid})

    def census(self, stack: str = "shop") -> Any:
        return census.take_census(
            stack,
            census.read_units(self.units),
            census.read_programs(self.programs),
            census.running_programs(self.answers),
            proc=self.proc,
        )

    def states(self, *names: str) -> Any:
        programs = census.read_programs(self.programs)
        return census.program_states(names, "shop", programs, self.answers, proc=self.proc)

    def kinds(self) -> dict[int, str]:
        return {one["pid"]: one["kind"] for one in self.census()["schedulers"]}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def cmdline(command: str) -> str:
    return "".join(f"{word}\0" for word in shlex.split(command))


# What celery 5.7.0, huey 3.5.4 and django 5.2 on Linux left in /proc: each process tree as
# (pid, parent, cmdline), and the schedulers it holds.
RECORDED = {
    "beat": (
        [(7, 1, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0beat\0")],
        {7: BEAT},
    ),
    "beat, setproctitle": (
        [(7, 1, "[celery beat] -A demo beat -l info" + "\0" * 44)],
        {7: BEAT},
    ),
    "python -W ignore -um celery, setproctitle": (
        [(7, 1, "[celery beat] -qA demo beat -S celery.beat.PersistentScheduler" + "\0" * 9)],
        {7: BEAT},
    ),
    "beat --detach": (
        [(7, 1, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0beat\0--detach\0--pidfile=/r/b.pid\0")],
        {7: BEAT},
    ),
    "worker -BE, prefork": (
        [
            (7, 1, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0-BE\0-c\x001\0-n\0beat@h\0"),
            (8, 7, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0-BE\0-c\x001\0-n\0beat@h\0"),
            (9, 7, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0-BE\0-c\x001\0-n\0beat@h\0"),
        ],
        {7: EMBEDDED},
    ),
    "worker -EB, prefork, setproctitle": (
        [
            (
                7,
                1,
                "[celeryd: celery@vm:MainProcess] -active- (-A demo worker -EB -c 2)" + "\0" * 14,
            ),
            (8, 7, "[celery beat]" + "\0" * 70),
            (9, 7, "[celeryd: celery@vm:ForkPoolWorker-2]" + "\0" * 44),
            (10, 7, "[celeryd: celery@vm:ForkPoolWorker-3]" + "\0" * 45),
        ],
        {7: EMBEDDED},
    ),
    "worker -B in a small environment, setproctitle cuts the title": (
        [
            (
                7,
                1,
                "[celeryd: celery@worker-12.production.example:MainProcess] -active- (-A demo wo\0",
            ),
            (8, 7, "[celery beat]" + "\0" * 90),
        ],
        {8: BEAT},
    ),
    "worker --beat, threads": (
        [
            (7, 1, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0--beat\0-P\0threads\0"),
            (8, 7, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0--beat\0-P\0threads\0"),
        ],
        {7: EMBEDDED},
    ),
    "worker -D -B": (
        [
            (
                7,
                1,
                f"{BIN}/python3\0-m\0celery\0-A\0demo\0worker\0-B\0-c\x001\0--pidfile=/r/w.pid\0",
            ),
            (
                8,
                7,
                f"{BIN}/python3\0-m\0celery\0-A\0demo\0worker\0-B\0-c\x001\0--pidfile=/r/w.pid\0",
            ),
        ],
        {7: EMBEDDED},
    ),
    "multi start -EB, starting": (
        [
            (7, 1, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0multi\0start\0w1\0-EB\0-c\x001\0"),
            (8, 7, f"{BIN}/python3\0-m\0celery\0-A\0demo\0worker\0--detach\0-EB\0-n\0w1@vm\0"),
        ],
        {7: EMBEDDED},
    ),
    "multi start -B, done": (
        [
            (8, 1, f"{BIN}/python3\0-m\0celery\0-A\0demo\0worker\0-B\0-c\x001\0-n\0w1@vm\0"),
            (9, 8, f"{BIN}/python3\0-m\0celery\0-A\0demo\0worker\0-B\0-c\x001\0-n\0w1@vm\0"),
            (10, 1, f"{BIN}/python3\0-m\0celery\0-A\0demo\0worker\0-B\0-c\x001\0-n\0w2@vm\0"),
        ],
        {8: EMBEDDED, 10: EMBEDDED},
    ),
    "worker -Q B": (
        [
            (7, 1, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0-Q\0B\0-c\x001\0"),
            (8, 7, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0-Q\0B\0-c\x001\0"),
        ],
        {},
    ),
    "manage.py celery start -b": (
        [
            (7, 1, "python\0manage.py\0celery\0start\0-b\0"),
            (8, 7, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0-B\0-l\0info\0-c\x001\0"),
            (9, 8, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0worker\0-B\0-l\0info\0-c\x001\0"),
        ],
        {7: EMBEDDED},
    ),
    "manage.py celery start -b, setproctitle": (
        [
            (7, 1, "python\0manage.py\0celery\0start\0-b\0"),
            (
                8,
                7,
                "[celeryd: celery@vm:MainProcess] -active- (-A demo worker -B -l info -c 1)\0\0",
            ),
            (9, 8, "[celery beat]" + "\0" * 60),
        ],
        {7: EMBEDDED},
    ),
    "huey_consumer, processes": (
        [
            (7, 1, f"{BIN}/python3\0{BIN}/huey_consumer\0-k\0process\0-w\x002\0happ.huey\0"),
            (8, 7, f"{BIN}/python3\0{BIN}/huey_consumer\0-k\0process\0-w\x002\0happ.huey\0"),
            (9, 7, f"{BIN}/python3\0{BIN}/huey_consumer\0-k\0process\0-w\x002\0happ.huey\0"),
        ],
        {7: HUEY},
    ),
    "huey_consumer -qn, processes": (
        [
            (7, 1, f"{BIN}/python3\0{BIN}/huey_consumer\0-k\0process\0-w\x002\0-qn\0happ.huey\0"),
            (8, 7, f"{BIN}/python3\0{BIN}/huey_consumer\0-k\0process\0-w\x002\0-qn\0happ.huey\0"),
        ],
        {},
    ),
    "manage.py run_huey": (
        [
            (7, 1, "python\0manage.py\0run_huey\0-w\x002\0-k\0process\0"),
            (8, 7, "python\0manage.py\0run_huey\0-w\x002\0-k\0process\0"),
        ],
        {7: HUEY},
    ),
    "flock": (
        [
            (7, 1, "flock\0-n\0/tmp/lk\0celery\0-A\0demo\0beat\0"),
            (8, 7, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0beat\0"),
        ],
        {8: BEAT},
    ),
    "sh -c, setproctitle": (
        [
            (7, 1, "sh\0-c\0celery -A demo beat; true\0"),
            (8, 7, "[celery beat] -A demo beat" + "\0" * 40),
        ],
        {8: BEAT},
    ),
    "runuser": (
        [
            (7, 1, "runuser\0-u\0root\0--\0celery\0-A\0demo\0beat\0"),
            (8, 7, f"{BIN}/python3\0{BIN}/celery\0-A\0demo\0beat\0"),
        ],
        {8: BEAT},
    ),
}


@pytest.mark.parametrize("form", RECORDED)
def test_recorded_process_trees_hold_each_scheduler_once(host: Host, form: str) -> None:
    processes, schedulers = RECORDED[form]
    for pid, ppid, words in processes:
        host.run(pid, words, ppid=ppid)
    assert host.kinds() == schedulers


def test_children_whose_parent_is_gone_count(host: Host) -> None:
    worker = cmdline("celery -A shop worker -B")
    host.run(20, worker, ppid=1)
    host.run(21, worker, ppid=19)
    host.run(22, "[celery beat]\0", ppid=1)
    assert host.kinds() == {20: EMBEDDED, 21: EMBEDDED, 22: BEAT}


def test_a_beat_that_a_worker_with_beat_started_is_a_second_scheduler(host: Host) -> None:
    host.run(20, cmdline("celery -A shop worker -B"))
    host.run(21, cmdline("celery -A shop beat"), ppid=20)
    assert host.kinds() == {20: EMBEDDED, 21: BEAT}


def test_two_copies_of_one_command_are_two_schedulers(host: Host) -> None:
    host.run(20, cmdline("bash"))
    for pid in (21, 22):
        host.run(pid, cmdline("celery -A shop beat"), ppid=20)
    assert host.kinds() == {21: BEAT, 22: BEAT}


def test_a_scheduler_is_described_in_full(host: Host) -> None:
    host.run(
        10, cmdline("celery -A shop beat"), ppid=3, unit="celery-beat.service", name="a) S 9 (b"
    )
    assert host.census() == {
        "schedulers": [
            {
                "pid": 10,
                "ppid": 3,
                "user": "4000",
                "argv": ["celery", "-A", "shop", "beat"],
                "command": "celery -A shop beat",
                "kind": BEAT,
                "scheduler": "",
                "started": 1767225602.5,
                "unit": "celery-beat.service",
                "program": None,
            }
        ],
        "other_stacks": [],
        "foreign": {},
    }


def test_a_user_with_a_name_is_named(host: Host) -> None:
    host.run(10, cmdline("celery beat"), uid=0)
    assert host.census()["schedulers"][0]["user"] == "root"


def test_a_process_that_ends_meanwhile_is_no_scheduler(host: Host) -> None:
    (host.proc / "30").mkdir()
    host.run(31, cmdline("celery beat"))
    (host.proc / "31" / "status").unlink()
    assert host.kinds() == {}


def test_hidden_processes_are_refused(host: Host) -> None:
    shutil.rmtree(host.proc / "1")
    with pytest.raises(PermissionError, match="hides other users' processes"):
        host.census()


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/celery-beat.service\n", "celery-beat.service"),
        (
            "4:memory:/x\n1:name=systemd:/docker/d5/system.slice/celery-beat.service\n0::/docker/d5\n",
            "celery-beat.service",
        ),
        ("9:pids:/system.slice/a.service\n1:name=systemd:/\n0::/\n", None),
        ("0::/system.slice/system-shop.slice/shop@1.service/payload\n", "shop@1.service"),
        ("0::/system.slice/cron.service\n", "cron.service"),
        ("0::/system.slice/ssh.service\n", None),
        ("0::/system.slice/ssh@3-10.0.0.1:22-10.0.0.2:4.service\n", None),
        ("0::/system.slice/system-getty.slice/getty@tty1.service\n", None),
        ("0::/system.slice/console-getty.service\n", None),
        ("0::/user.slice/user-0.slice/session-3.scope\n", None),
        ("0::/user.slice/user-7.slice/user@7.service/app.slice/celery-beat.service\n", None),
        ("0::/system.slice/run-r1.scope\n", None),
        ("0::/init.scope\n", None),
        ("", None),
    ],
)
def test_the_unit_is_the_service_that_runs_the_process(cgroup: str, unit: str | None) -> None:
    assert census.unit_of(cgroup) == unit


# --- Several stacks on one host -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "uid", "stack"),
    [
        ("celery-beat.service", 4001, "shop"),
        ("library-celery-beat.service", 4002, "library"),
        ("library-celery-beat.service", 4001, "library"),
        ("library-pool@3.service", 0, "library"),
        ("", 4002, "library"),
        ("unlabelled.service", 4002, "library"),
        ("celery-beat.service", 4002, "shop"),
        ("", 4001, "shop"),
        ("", 4003, "shop"),
        ("", 0, "shop"),
        ("", 4999, "shop"),
    ],
)
def test_a_scheduler_belongs_to_the_stack_of_its_unit_or_user(
    host: Host, unit: str, uid: int, stack: str
) -> None:
    host.unit("celery-beat.service", "shop", user="4001")
    host.unit("celery-worker.service", "shop", user="4003")
    host.unit("library-celery-beat.service", "library", user="4002")
    host.unit("library-pool@.service", "library", user="4003")
    host.unit("library-web.service", "library", user="nobody-has-this-name")
    (host.units / "unlabelled.service").write_text("[Service]\nUser=4999\n")
    (host.units / "masked.service").symlink_to("/dev/null")
    (host.units / "gone.service").symlink_to("/nowhere")
    host.run(10, cmdline("celery beat"), uid=uid, unit=unit)
    result = host.census()
    if stack == "shop":
        assert [one["pid"] for one in result["schedulers"]] == [10]
        assert result["other_stacks"] == []
    else:
        assert result["schedulers"] == []
        assert [(one["pid"], one["stack"]) for one in result["other_stacks"]] == [(10, stack)]


def test_a_host_without_unit_directory_has_one_stack(host: Host) -> None:
    host.units.rmdir()
    host.run(10, cmdline("celery beat"))
    assert host.kinds() == {10: BEAT}


def test_names_that_other_stacks_have_are_told(host: Host) -> None:
    host.unit("celery-beat.service", "shop")
    host.unit("web.service", "library")
    host.program("flower", "library")
    host.program("celery-worker", "shop")
    (host.programs / "nobodys.conf").write_text("[program:nobodys]\ncommand=/bin/true\n")
    assert host.census()["foreign"] == {"flower": "library", "web": "library"}


# --- supervisord --------------------------------------------------------------------------------

SUPERVISOR = "supervisor.service"


def test_a_scheduler_that_is_a_program_is_told_with_it(host: Host) -> None:
    host.run(20, cmdline("python3 /usr/bin/supervisord -n"), unit=SUPERVISOR)
    host.run(21, cmdline("celery -A shop beat"), ppid=20, unit=SUPERVISOR)
    host.supervise("celery-beat", "RUNNING", 21)
    (one,) = host.census()["schedulers"]
    assert (one["program"], one["unit"]) == ("celery-beat", SUPERVISOR)


def test_a_scheduler_below_a_program_is_told_with_it(host: Host) -> None:
    host.run(20, cmdline("python3 /usr/bin/supervisord -n"), unit=SUPERVISOR)
    host.run(21, cmdline("sh -c 'celery beat; true'"), ppid=20, unit=SUPERVISOR)
    host.run(22, cmdline("timeout 9 celery beat"), ppid=21, unit=SUPERVISOR)
    host.run(23, cmdline("celery beat"), ppid=22, unit=SUPERVISOR)
    host.supervise("beat", "RUNNING", 21, group="old")
    (one,) = host.census()["schedulers"]
    assert (one["pid"], one["program"]) == (23, "old:beat")


def test_what_supervisord_lost_is_no_program(host: Host) -> None:
    host.run(21, cmdline("celery beat"), ppid=1, unit=SUPERVISOR)
    host.run(23, cmdline("celery beat"), ppid=22, unit=SUPERVISOR)  # Its parent has just ended.
    host.supervise("celery-beat", "STARTING", 40)
    found = host.census()["schedulers"]
    assert [(one["pid"], one["program"], one["unit"]) for one in found] == [
        (21, None, SUPERVISOR),
        (23, None, SUPERVISOR),
    ]


@pytest.mark.parametrize(
    ("program", "uid", "stack"),
    [
        ("celery-beat", 4001, "shop"),
        ("library-celery-beat", 4001, "library"),
        ("unlabelled", 4002, "library"),
        ("unlabelled", 4001, "shop"),
        ("unlabelled", 0, "shop"),
    ],
)
def test_a_scheduler_belongs_to_the_stack_of_its_program_or_user(
    host: Host, program: str, uid: int, stack: str
) -> None:
    host.program("celery-beat", "shop", "4001")
    host.program("library-celery-beat", "library", "4002")
    host.program("library-worker", "library", "4001")
    (host.programs / "unlabelled.conf").write_text("[program:unlabelled]\nuser=4002\n")
    host.run(10, cmdline("celery beat"), uid=uid, unit=SUPERVISOR)
    host.supervise(program, "RUNNING", 10)
    result = host.census()
    assert len(result["schedulers"]) == (stack == "shop")
    assert [one["stack"] for one in result["other_stacks"]] == ([stack] if stack != "shop" else [])


def test_a_program_is_described_in_full(host: Host) -> None:
    log = "stdout_logfile=/var/log/shop/celery-beat.log ; rotated"
    host.program("celery-beat", "shop", "4001", "autostart = FALSE", log)
    host.run(21, cmdline("celery beat"))
    host.supervise("celery-beat", "RUNNING", 21)
    assert host.states("celery-beat", "huey-periodic") == [
        {
            "name": "celery-beat",
            "state": "RUNNING",
            "pid": 21,
            "starting": False,
            "defined": True,
            "autostart": False,
            "log": "/var/log/shop/celery-beat.log",
        },
        {
            "name": "huey-periodic",
            "state": "",
            "pid": 0,
            "starting": False,
            "defined": False,
            "autostart": False,
            "log": "",
        },
    ]


@pytest.mark.parametrize(
    ("command", "starting"),
    [
        ("/bin/sh /usr/local/lib/shop/huey-periodic", True),
        ("/bin/sh -eu /usr/local/lib/shop/huey-periodic", True),
        ("/bin/sh /usr/local/lib/library/huey-periodic", False),
        ("huey_consumer shop.huey", False),
        ("", False),
    ],
)
def test_a_program_is_starting_while_it_is_its_launcher(
    host: Host, command: str, starting: bool
) -> None:
    host.program("huey-periodic", "shop")
    host.run(21, cmdline(command))
    host.supervise("huey-periodic", "RUNNING", 21)
    assert [one["starting"] for one in host.states("huey-periodic")] == [starting]
    assert bool(host.kinds()) == command.startswith("huey")


def test_a_program_that_ends_meanwhile_is_not_starting(host: Host) -> None:
    host.supervise("huey-periodic", "RUNNING", 21)
    assert [one["starting"] for one in host.states("huey-periodic")] == [False]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[fcgi-program:web]\nsocket=tcp://127.0.0.1:8000\n", ["web"]),
        ('[program:a]\ncommand=a\n[program:b]\nenvironment=A="%%x",B=c\n', ["a", "b"]),
        ("[eventlistener:mail]\ncommand=x\n[group:all]\nprograms=a\n", []),
        ("[program:a]\ncommand=x\nthis is no option\n", ["a"]),
        ("no section\n", []),
        ("", []),
    ],
)
def test_programs_are_read_from_every_file(host: Host, text: str, names: list[str]) -> None:
    (host.programs / "file.conf").write_text(text)
    (host.programs / "note.txt").write_text("[program:not-read]\n")
    assert list(census.read_programs(host.programs)) == names


def test_a_host_without_supervisord_has_no_programs(host: Host) -> None:
    host.programs.rmdir()
    assert census.read_programs(host.programs) == {}


# --- The class of beat --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "settings", "scheduler"),
    [
        (
            "celery beat",
            '{"beat_scheduler": "redbeat.RedBeatScheduler"}',
            "redbeat.RedBeatScheduler",
        ),
        ("celery beat -S x", '{"beat_scheduler": "redbeat.RedBeatScheduler"}', "x"),
        ("celery beat", '{"redbeat_redis_options": {"password": "hunter2"}}', ""),
        ("celery beat", "not JSON", ""),
        ("celery beat", '["beat_scheduler"]', ""),
    ],
)
def test_the_settings_of_a_process_choose_the_class(
    host: Host, command: str, settings: str, scheduler: str
) -> None:
    environment = f"PATH=/bin\0XSTACK_CELERY_SETTINGS={{}}\0STACK_CELERY_SETTINGS={settings}\0A=b\0"
    host.run(10, cmdline(command), environment=environment)
    (one,) = host.census()["schedulers"]
    assert one["scheduler"] == scheduler
    assert "hunter2" not in str(one)


# --- What lurks ---------------------------------------------------------------------------------


def test_units_and_programs_of_nobodys_that_would_schedule_are_found(host: Host) -> None:
    files = {
        "old.service": "[Service]\nExecStart=-/opt/v/bin/celery -A shop \\\n  beat\n",
        "wrapped.service": "[Service]\nExecStart=/bin/sh -c 'python manage.py run_huey'\n",
        "worker.service": "[Service]\nExecStart=/opt/v/bin/celery -A shop worker -Q beat\n",
        "empty.service": "[Service]\nExecStart=\n",
        "old@.service": "[Service]\nExecStart=/opt/v/bin/celery -A shop beat\n",
        "copy of old.service": "[Service]\nExecStart=/opt/v/bin/celery -A shop beat\n",
        "celery-beat.service": "# stack: shop\n[Service]\nExecStart=/opt/v/bin/celery beat\n",
        "library-beat.service": "# stack: library\n[Service]\nExecStart=/opt/v/bin/celery beat\n",
    }
    for name, text in files.items():
        (host.units / name).write_text(text)
    (host.programs / "old.conf").write_text("[program:old]\ncommand=celery -A shop beat\n")
    (host.programs / "odd.conf").write_text("[program:odd]\ncommand=celery worker %%h 'x\n")
    units, programs = census.read_units(host.units), census.read_programs(host.programs)
    kinds = {**census.nobodys(units), **census.nobodys(programs)}
    assert kinds == {"old.service": BEAT, "wrapped.service": HUEY, "old": BEAT}
    host.supervise("old", "STOPPED")
    (old,) = census.unit_states(["old.service"], {"old.service": SHOWN["ssh.service"]})
    states = [{**old, "name": "ssh.service"}, {**old, "enabled": "enabled-runtime"}]
    assert census.lurkers(kinds, states, host.states("celery-beat", "old")) == [
        {
            "name": "old.service",
            "manager": "systemd",
            "kind": BEAT,
            "state": "activating",
            "enabled": True,
        },
        {
            "name": "old",
            "manager": "supervisord",
            "kind": BEAT,
            "state": "STOPPED",
            "enabled": True,
        },
    ]


# --- Secrets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("celery -b redis://:hunter2@h:6379/0 beat", "celery -b redis://***@h:6379/0 beat"),
        ("celery --broker=amqp://u:hunter2@h// beat", "celery --broker=amqp://***@h// beat"),
        ("celery -b 'redis://:hun/ter2@x@h/0' beat", "celery -b redis://***@h/0 beat"),
        ("celery -b redis://h:6379/0 beat", "celery -b redis://h:6379/0 beat"),
        ("celery beat --password hunter2 -l info", "celery beat --password *** -l info"),
        ("celery beat --Broker-Password=hunter2", "celery beat --Broker-Password=***"),
        ("celery worker -B -- broker.password=hunter2", "celery worker -B -- broker.password=***"),
        ("celery beat --api_key hunter2 --token=hunter2", "celery beat --api_key *** --token=***"),
        (
            "'[celery beat] -b redis://:hunter2@h/0 --password hunter2 beat'",
            "[celery beat] -b redis://***@h/0 --password *** beat",
        ),
        ("celery beat 'a\x1b[2Jb\nc'", "celery beat a?[2Jb?c"),
    ],
)
def test_secrets_and_unprintable_characters_are_not_shown(
    host: Host, argv: str, shown: str
) -> None:
    host.run(10, cmdline(argv))
    scheduler = host.census()["schedulers"][0]
    assert scheduler["command"] == shown
    assert "hunter2" not in str(scheduler)


# --- systemctl ----------------------------------------------------------------------------------

SHOWN = {
    "celery-beat.service": {
        "MainPID": "0",
        "LoadState": "masked",
        "ActiveState": "inactive",
        "SubState": "dead",
        "UnitFileState": "masked",
    },
    "ssh.service": {
        "MainPID": "46",
        "LoadState": "loaded",
        "ActiveState": "activating",
        "SubState": "start-pre",
        "UnitFileState": "enabled",
    },
    "nope.service": {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""},
}


def test_unit_states_are_told_in_the_order_asked_for() -> None:
    units = ["celery-beat.service", "ssh.service", "unknown.service", "nope.service"]
    keys = ("name", "load", "active", "enabled", "main_pid", "starting")
    assert [tuple(state[key] for key in keys) for state in census.unit_states(units, SHOWN)] == [
        ("celery-beat.service", "masked", "inactive", "masked", 0, False),
        ("ssh.service", "loaded", "activating", "enabled", 46, True),
        ("nope.service", "not-found", "inactive", "", 0, False),
    ]


# --- The real /proc -----------------------------------------------------------------------------

# A program named celery that ignores its arguments; FORK makes a pool child of it.
PROGRAM = f"""#!{sys.executable} -IS
import os, time
if "FORK" in os.environ: os.fork()
os.write(1, b"x")
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Give a function that runs a shell command in an own session and returns the leader's pid."""
    program = tmp_path / "celery"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    started = []

    def run(command: str, ready: int = 1, **environment: str) -> int:
        process = subprocess.Popen(
            shlex.split(command),
            cwd=tmp_path,
            env={**environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout
        while ready:
            ready -= len(os.read(process.stdout.fileno(), ready))
        return process.pid

    yield run
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout
        process.stdout.close()


def real_schedulers(session: int) -> list[Any]:
    """Return the schedulers that belong to one session of this very machine."""
    members = shlex.split(
        subprocess.check_output(["ps", "-s", str(session), "-o", "pid="], text=True)
    )
    found = census.take_census("shop", {}, {}, {})["schedulers"]
    return [one for one in found if str(one["pid"]) in members]


@pytest.mark.parametrize(
    ("command", "is_leader"),
    [
        ("celery -A shop beat", True),
        ("env X=y celery -A shop beat", True),
        ("nice celery -A shop beat", True),
        ("timeout --foreground 60 celery -A shop beat", False),
        ("flock lock celery -A shop beat", False),
        ("flock --no-fork lock celery -A shop beat", True),
        ("sh -c 'celery -A shop beat; true'", False),
        (f"{sys.executable} -X dev ./celery -A shop worker -EB", True),
    ],
)
def test_a_real_scheduler_counts_once_and_its_wrapper_never(
    start: Callable[..., int], command: str, is_leader: bool
) -> None:
    before = time.time()
    leader = start(command)
    (found,) = real_schedulers(leader)
    assert (found["pid"] == leader) == is_leader
    assert (found["ppid"] == os.getpid()) == is_leader
    assert found["argv"][0] == sys.executable
    assert found["started"] == pytest.approx(before, abs=3)


def test_the_class_in_the_settings_of_a_real_scheduler_is_read(start: Callable[..., int]) -> None:
    settings = '{"beat_scheduler": "redbeat.RedBeatScheduler"}'
    (found,) = real_schedulers(start("celery -A shop beat", STACK_CELERY_SETTINGS=settings))
    assert found["scheduler"] == "redbeat.RedBeatScheduler"


def test_real_pool_children_are_folded_into_their_parent(start: Callable[..., int]) -> None:
    leader = start("celery -A shop worker -B", ready=2, FORK="1")
    assert [one["pid"] for one in real_schedulers(leader)] == [leader]


def test_a_real_child_counts_when_its_parent_is_gone(start: Callable[..., int]) -> None:
    leader = start("celery -A shop worker -B", ready=2, FORK="1")
    os.kill(leader, signal.SIGKILL)
    os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    # The leader stays a zombie until the test ends, and does not count.
    assert (Path("/proc") / str(leader)).exists()
    (orphan,) = real_schedulers(leader)
    assert orphan["pid"] != leader
    assert orphan["ppid"] != leader


@pytest.mark.parametrize(
    "command",
    [
        "celery -A beat worker -n beat@host -Q B",
        "sh -c 'printf x; tail -f /dev/null beat.log celery beat 2>&1; true'",
        f"{sys.executable} -ISc 'import os, time; os.write(1, b\"x\"); time.sleep(60)' celery beat",
    ],
)
def test_real_processes_that_only_speak_of_beat_do_not_count(
    start: Callable[..., int], command: str
) -> None:
    assert real_schedulers(start(command)) == []
