"""The overlay under real Celery: the deployment's settings win over whatever the project says."""

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from loading import ROOT, load

filters = load("filter/celery_settings")
celery_settings = filters.celery_settings
specs = load("filter/service_specs")

# The oldest and the newest that the overlay is meant for.
VERSIONS = ("5.3.6", "5.7.0")

# Each is the project's `shop.py`, and its Django settings where it has some.
PROJECTS = {
    "namespace in Django's settings": (
        "app.config_from_object('django.conf:settings', namespace='CELERY')",
        "CELERY_BEAT_SCHEDULER = 'own'\nCELERY_TIMEZONE = 'Europe/Rome'",
    ),
    "namespace in lower case": (
        "app.config_from_object(type('c', (), {'shop_beat_scheduler': 'own',"
        " 'shop_timezone': 'Europe/Rome'}), namespace='shop')",
        "",
    ),
    "the names of Celery 3": (
        "app.config_from_object(type('c', (), {'CELERYBEAT_SCHEDULER': 'own',"
        " 'CELERY_TIMEZONE': 'Europe/Rome'}))",
        "",
    ),
    "a dict": ("app.config_from_object({'beat_scheduler': 'own', 'timezone': 'Europe/Rome'})", ""),
    "conf.update": ("app.conf.update(beat_scheduler='own', timezone='Europe/Rome')", ""),
    "assigned after it was read": (
        "app.conf.timezone\napp.conf.beat_scheduler = 'own'\napp.conf.timezone = 'Europe/Rome'",
        "",
    ),
    "read before it is configured": (
        "app.conf.timezone\n"
        "app.config_from_object({'beat_scheduler': 'own', 'timezone': 'Europe/Rome'})",
        "",
    ),
    "configured twice": (
        "app.config_from_object({'beat_scheduler': 'first'}, force=True)\n"
        "app.config_from_object({'beat_scheduler': 'own', 'timezone': 'Europe/Rome'}, force=True)",
        "",
    ),
    "a reference kept from before": (
        "conf = app.conf\n"
        "app.config_from_object({'beat_scheduler': 'own', 'timezone': 'Europe/Rome'})\n"
        "conf.timezone\nconf.beat_scheduler = 'own'",
        "",
    ),
    "nothing": ("", ""),
}


@pytest.fixture(scope="session", params=VERSIONS)
def celery(request: pytest.FixtureRequest) -> Path:
    """Return the directory of programs of an environment with this Celery."""
    home = ROOT / f".cache/celery-{request.param}"
    if not (home / "made").exists():
        wanted = [f"celery[redis]=={request.param}", "celery-redbeat==2.4.2", "django~=5.2.0"]
        uv = ROOT / ".venv/bin/uv"
        env = {**os.environ, "UV_SYSTEM_CERTS": "true", "VIRTUAL_ENV": str(home)}
        subprocess.run([uv, "venv", "--quiet", "--clear", home], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", *wanted], check=True, env=env)
        (home / "made").touch()
    return home / "bin"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a directory for a project, and the overlay beside it as it is on a host."""
    overlay = tmp_path / "lib/stack_celery.py"
    overlay.parent.mkdir()
    overlay.write_text((ROOT / "templates/stack_celery.py").read_text())
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def write(project: Path, configure: str, django: str = "") -> None:
    app = f"from celery import Celery\napp = Celery('shop')\n{configure}\n"
    (project / "shop.py").write_text(app)
    (project / "shop_settings.py").write_text(f"SECRET_KEY = 'x'\n{django}\n")


def run(
    celery: Path, project: Path, settings: Any, *argv: str, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment as the deployment runs it."""
    text = settings if isinstance(settings, str) else json.dumps(settings)
    env = {"CELERY_LOADER": "stack_celery:Loader", "STACK_CELERY_SETTINGS": text}
    env |= {"CELERY_BEAT_HOSTNAME": "celerybeat@worker1", "PATH": os.environ["PATH"]}
    env["PYTHONUNBUFFERED"] = "1"
    env |= {"PYTHONPATH": str(project.parent / "lib"), "DJANGO_SETTINGS_MODULE": "shop_settings"}
    command = [*more.get("under", []), celery / argv[0], *argv[1:]]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, cwd=project, env=env
    )


def conf(celery: Path, project: Path, settings: Any, *names: str) -> list[Any]:
    """Return what an app's configuration says, in a process that imports the project."""
    show = f"import json, shop; print(json.dumps([shop.app.conf[n] for n in {names!r}]))"
    done = run(celery, project, settings, "python", "-c", show)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", PROJECTS)
def test_the_deployments_setting_wins_and_the_projects_others_stay(
    celery: Path, project: Path, name: str
) -> None:
    write(project, *PROJECTS[name])
    wanted = {"beat_scheduler": "ours", "beat_sync_every": 1}
    found = conf(celery, project, wanted, "beat_scheduler", "beat_sync_every", "timezone")
    assert found[:2] == ["ours", 1]
    assert found[2] == (None if name == "nothing" else "Europe/Rome")


def test_without_settings_of_the_deployment_the_projects_stay(celery: Path, project: Path) -> None:
    write(project, *PROJECTS["namespace in Django's settings"])
    assert conf(celery, project, "", "beat_scheduler") == ["own"]


def test_every_command_of_celery_has_the_settings(celery: Path, project: Path) -> None:
    write(project, *PROJECTS["namespace in Django's settings"])
    said = run(celery, project, {"beat_scheduler": "ours"}, "celery", "-A", "shop", "report")
    assert "beat_scheduler: 'ours'" in said.stdout


def until_it_says_so(file: Path) -> list[str]:
    """Return what runs a program until it has written into a file."""
    until = '"$@" & until [ -s "$0" ]; do sleep 0.1; done; kill $!; wait $!'
    return ["env", f"STACK_READY_FILE={file}", "sh", "-c", until, str(file)]


def test_a_worker_says_when_it_consumes(celery: Path, project: Path) -> None:
    write(project, "app.conf.broker_url = 'memory://'")
    file = project / "celery-worker.ready"
    said = run(
        *(celery, project, {}, "celery", "-A", "shop", "worker", "--pool=solo", "--loglevel=INFO"),
        under=until_it_says_so(file),
    )
    assert file.read_text() == "ready\n"
    assert " ready." in said.stderr + said.stdout
    # One that cannot write there works all the same.
    tell = "import stack_celery; stack_celery.tell_ready(sender=None)"
    said = run(celery, project, {}, "python", "-c", tell, under=["env", "STACK_READY_FILE=/no/x"])
    assert said.returncode == 0, said.stderr


# One that runs until the file "over" is there, and three that are not begun: they wait for their
# time, for a thread, and for their turn.
GIVES_BACK = """
import os, time
from celery.signals import worker_ready
app.conf.broker_url = "filesystem://"
folders = ("data_folder_in", "data_folder_out", "control_folder")
app.conf.broker_transport_options = dict.fromkeys(folders, "queue")
@app.task
def hold():
    later.apply_async(countdown=3600); seldom.delay(); seldom.delay()
    while not os.path.exists("over"):
        time.sleep(0.05)
@app.task
def later(): pass
@app.task(rate_limit="1/h")
def seldom(): pass
worker_ready.connect(lambda **_: hold.delay(), weak=False)
"""
# Tells a worker to end when it has all four, and prints which of them others could take before it
# lets the one under way come to its end.
TELL = """
"$@" >log 2>&1 &
for i in $(seq 200); do [ "$(grep -c ' received$' log)" = 4 ] || sleep 0.1; done
kill $!
for i in $(seq 50); do [ "$(cat queue/*.msg | grep -c .)" = 3 ] || sleep 0.1; done
cat queue/*.msg; echo; echo "still $(ls -d /proc/$!)"; touch over; wait $!; echo "ended with $?"
cat log >&2
"""


def test_a_worker_that_is_told_to_end_gives_back_at_once_what_it_has_not_begun(
    celery: Path, project: Path
) -> None:
    write(project, GIVES_BACK)
    (project / "queue").mkdir()
    worker = ["celery", "-A", "shop", "worker", "--loglevel=INFO", "--without-mingle"]
    more = ["--pool=threads", "--concurrency=1", "--without-gossip"]
    said = run(celery, project, {}, *worker, *more, under=["bash", "-c", TELL, "sh"])
    given = re.findall(r'"task": "shop\.(\w+)"', said.stdout)
    assert sorted(given) == ["later", "seldom", "seldom"], said.stderr
    assert "still /proc/" in said.stdout, said.stderr
    assert "ended with 0" in said.stdout, said.stderr
    assert re.findall(r"Task shop\.(\w+)\[.*succeeded", said.stderr) == ["hold"]
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("works", [True, False])
def test_beat_says_when_it_can_read_its_schedule(celery: Path, project: Path, works: bool) -> None:
    write(project, "app.conf.broker_url = 'memory://'")
    file = project / "celery-beat.ready"
    schedule = "schedule" if works else "no/such/directory/schedule"
    # One that cannot ends by itself.
    under = until_it_says_so(file) if works else ["env", f"STACK_READY_FILE={file}"]
    said = run(
        *(celery, project, {}, "celery", "-A", "shop", "beat", "--pidfile=", "-s", schedule),
        under=under,
    )
    assert file.exists() == works, said.stderr


def test_beat_waits_for_nobody_when_it_ends(celery: Path, project: Path) -> None:
    """Not for the thread that answers questions, here kept by a broker that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write(project, f"app.conf.broker_url = 'amqp://127.0.0.1:{silent.getsockname()[1]}//'")
        said = run(
            *(celery, project, {"beat_enable_remote_control": True}),
            *("celery", "-A", "shop", "beat", "--pidfile=", "-s", "schedule"),
            under=until_it_says_so(project / "celery-beat.ready"),
        )
    assert "is starting" in said.stdout, said.stderr
    assert "did not stop" not in said.stderr
    assert "Traceback" not in said.stderr
    assert list(project.glob("schedule*"))


# Stops the program when it begins to tick and lets it go on, until it sends or ends, at most for
# ten seconds. It prints whether it goes on, how often it had sent by then, and how often it has.
STANDS_STILL = """
"$@" & until [ -s "$0" ]; do sleep 0.1; done; sleep 0.3; touch sent
kill -STOP $!; sleep 1.5; before=$(wc -c <sent); kill -CONT $!
for i in $(seq 100); do
  [ -e "/proc/$!/exe" ] && [ "$before" = "$(wc -c <sent)" ] && sleep 0.1
done
[ -e "/proc/$!/exe" ] && echo "goes on" || echo "ends"; kill -9 $!; echo "$before" "$(wc -c <sent)"
"""


# Also in the middle of a long sleep: what is due behind it would be sent a moment later.
@pytest.mark.parametrize(
    ("may_for", "every", "then"),
    [("0.2", 1.2, "ends"), ("0.2", 60, "ends"), ("60", 1.2, "goes on")],
)
def test_a_beat_that_stood_still_ends_before_it_sends_anything(
    celery: Path, project: Path, may_for: str, every: float, then: str
) -> None:
    write(
        project,
        "from celery.signals import before_task_publish\n"
        "app.conf.broker_url = 'memory://'\n"
        f"app.conf.beat_schedule = {{'tick': {{'task': 'tick', 'schedule': {every}}}}}\n"
        "before_task_publish.connect(lambda **_: open('sent', 'a').write('x'), weak=False)",
    )
    beat = ["celery", "-A", "shop", "beat", "--pidfile=", "--loglevel=INFO"]
    told = [f"STACK_STILL_MAX={may_for}", "STACK_READY_FILE=ready"]
    under = ["env", *told, "sh", "-c", STANDS_STILL, "ready"]
    said = run(celery, project, {}, *beat, under=under)
    *_, found, counts = said.stdout.splitlines()
    before, after = map(int, counts.split())
    assert found == then, said.stderr
    assert (after > before) == (then == "goes on")
    assert ("This host stood still for" in said.stderr) == (then == "ends")


def test_beat_answers_on_the_broker_under_its_hosts_name(celery: Path, project: Path) -> None:
    """Also one that somebody starts by hand. Celery before 5.7 knows nothing of it, and runs."""
    write(project, "app.conf.broker_url = 'memory://'")
    settings = celery_settings(choices(scheduler="memory"))
    # It says where it answers before it starts to schedule.
    said = run(
        *(celery, project, settings, "celery", "-A", "shop", "beat"),
        under=until_it_says_so(project / "celery-beat.ready"),
    )
    assert "maxinterval" in said.stdout, said.stderr
    assert ("celerybeat@worker1" in said.stdout) == ("5.7" in str(celery))


@pytest.mark.parametrize(
    ("broker", "may_start"),
    [("memory://", True), ("redis://127.0.0.1:1/0", False), ("amqp://u:p@127.0.0.1:1//", False)],
)
def test_a_host_that_boots_schedules_only_when_the_broker_says_that_nobody_does(
    celery: Path, project: Path, broker: str, may_start: bool
) -> None:
    write(project, f"app.conf.broker_url = {broker!r}")
    options = {"engine": "", "celery_app": "shop", "state_dir": "/var/lib/shop", "host": "worker1"}
    ((*script, _, me, _, app, shop),) = specs.ask_first({**options, "bin": "."})
    flag = project / "has-scheduled"
    done = run(
        *(celery, project, {}, "celery", app, shop),
        under=[*script, flag, me],
    )
    assert flag.exists() == may_start, done.stderr
    assert (done.returncode == 0) == may_start, done.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ('{"a": "hunter2"', "STACK_CELERY_SETTINGS is not valid JSON"),
        ('["hunter2"]', "STACK_CELERY_SETTINGS is not a JSON object"),
        (
            {"CELERY_BEAT_SCHEDULER": "hunter2"},
            "names CELERY_BEAT_SCHEDULER: Celery's names are lower-case, without a prefix.",
        ),
    ],
)
def test_malformed_settings_are_refused_without_being_repeated(
    celery: Path, project: Path, settings: Any, sentence: str
) -> None:
    write(project, "")
    said = run(celery, project, settings, "celery", "-A", "shop", "report")
    assert said.returncode != 0
    assert sentence in said.stdout + said.stderr
    assert "hunter2" not in said.stdout + said.stderr


def choices(**more: Any) -> dict[str, Any]:
    """Return what roles/services hands to the filter."""
    return {
        "scheduler": "project",
        "engine": "",
        "stack": "shop",
        "lock_url": "",
        "lock_timeout": "30",
        "max_interval": "5",
        "starting_deadline": "600",
        "own": {},
        **more,
    }


def redbeat(url: str, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = celery_settings(choices(engine="redbeat", lock_url=url, **more))
    return settings


def test_beat_keeps_what_it_sent_and_answers_whichever_scheduler_it_has() -> None:
    assert celery_settings(choices()) == {
        "beat_enable_remote_control": True,
        "beat_sync_every": 1,
        "beat_cron_starting_deadline": 600,
    }
    free = celery_settings(choices(starting_deadline=0))
    assert "beat_cron_starting_deadline" not in free


@pytest.mark.parametrize("choice", ["file", "memory", "redbeat"])
def test_every_choice_of_a_scheduler_is_a_class_of_celery(
    celery: Path, project: Path, choice: str
) -> None:
    write(project, "")
    settings = celery_settings(choices(scheduler=choice, lock_url="redis://h/0"))
    load_class = (
        "from celery.utils.imports import symbol_by_name; import shop;"
        "print(symbol_by_name(shop.app.conf.beat_scheduler).__name__)"
    )
    found = run(celery, project, settings, "python", "-c", load_class)
    names = {"file": "PersistentScheduler", "memory": "Scheduler", "redbeat": "RedBeatScheduler"}
    assert found.stdout.strip() == names[choice], found.stderr


def test_the_engine_brings_its_scheduler_and_its_times() -> None:
    settings = redbeat("redis://:pw@10.0.0.1:6379/2", scheduler="project")
    assert settings["beat_scheduler"] == "redbeat.RedBeatScheduler"
    assert (settings["redbeat_lock_timeout"], settings["beat_max_loop_interval"]) == (30, 5)
    assert "shop" in settings["redbeat_key_prefix"]


def test_a_project_cannot_switch_the_lock_off(celery: Path, project: Path) -> None:
    write(project, "app.conf.redbeat_lock_key = None")
    show = "import shop, redbeat.schedulers as r; print(r.ensure_conf(shop.app).lock_key)"
    done = run(celery, project, redbeat("redis://h/0"), "python", "-c", show)
    assert done.stdout.strip() == "redbeat:shop::lock", done.stderr


def test_the_operators_own_setting_wins_over_ours() -> None:
    assert celery_settings(choices(own={"beat_sync_every": 7}))["beat_sync_every"] == 7


@pytest.mark.parametrize("url", ["amqp://u:hunter2@h//", "sqlite:////f", ""])
def test_redbeat_without_a_redis_is_refused(url: str) -> None:
    with pytest.raises(filters.AnsibleFilterError, match="keeps its lock in Redis") as caught:
        redbeat(url)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_scheduler_is_refused() -> None:
    with pytest.raises(filters.AnsibleFilterError, match="'files'"):
        celery_settings(choices(scheduler="files"))


# What a Redis client is made with, out of what the deployment says.
CONNECTION = """
import shop
from redbeat.schedulers import get_redis
pool = get_redis(shop.app).connection_pool
one = pool.connection_kwargs
print([one.get(k) for k in ("host", "port", "db", "username", "password", "socket_timeout")])
"""


@pytest.mark.parametrize(
    ("url", "reaches"),
    [
        ("redis://:p%2F%40w@10.0.0.1:6380/2", ["10.0.0.1", 6380, 2, None, "p/@w", 2]),
        ("redis://me:pw@[fd00::5]:6379/3", ["fd00::5", 6379, 3, "me", "pw", 2]),
        ("rediss://:pw@h:6379/0?ssl_cert_reqs=required", ["h", 6379, 0, None, "pw", 2]),
    ],
)
def test_redbeat_reaches_the_redis_of_the_url(
    celery: Path, project: Path, url: str, reaches: list[Any]
) -> None:
    write(project, "")
    done = run(celery, project, redbeat(url), "python", "-c", CONNECTION)
    assert done.stdout.strip() == str(reaches), done.stderr


def test_redbeat_asks_sentinel_for_the_master_that_the_project_names(
    celery: Path, project: Path
) -> None:
    write(project, "app.conf.broker_transport_options = {'master_name': 'blue'}")
    url = "sentinel://:pw@h1:26380/4;sentinel://:pw@h2/4"
    show = (
        "import shop; from redbeat.schedulers import get_redis;"
        "pool = get_redis(shop.app).connection_pool; one = pool.connection_kwargs;"
        "print(pool.service_name, one['password'], one['db'],"
        "[s.connection_pool.connection_kwargs['port'] for s in pool.sentinel_manager.sentinels])"
    )
    done = run(celery, project, redbeat(url), "python", "-c", show)
    assert done.stdout.strip() == "blue pw 4 [26380, 26379]", done.stderr


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@h:6379/2", "sentinel://:hunter2@h1:26379/0;sentinel://:hunter2@h2/0"]
)
def test_celery_shows_no_password_of_the_lock(celery: Path, project: Path, url: str) -> None:
    """`report` prints what `inspect conf` sends and Flower shows: the censored table."""
    write(project, *PROJECTS["namespace in Django's settings"])
    said = run(celery, project, redbeat(url), "celery", "-A", "shop", "report")
    assert "redbeat_redis_options" in said.stdout
    assert "hunter2" not in said.stdout + said.stderr
