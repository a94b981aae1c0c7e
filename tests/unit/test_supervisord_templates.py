"""The programs and launchers that supervisord gets to run."""

import configparser
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from loading import load
from test_service_specs import choices, specs
from test_systemd_templates import HOST, STACK, action

programs = load("module_utils/supervisord_files")

LOGS = {"log_dir": "/var/log/shop", "log_size": "50MB", "log_backups": 5}
GROUPS = ("web", "workers", "scheduler", "flower")


def render(
    *groups: str,
    stack: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the file set of a host in `groups`, files by path; `spec` changes every spec."""
    found = specs.service_specs(choices(*groups, **more))
    services = [{**one, **(spec or {})} for one in found["services"]]
    result = action.render_supervisord(
        {**STACK, **LOGS, **(stack or {})}, services, found["absent"], HOST
    )
    files = {one["path"]: one["content"] for one in result["files"]}
    modes = {one["path"]: one["mode"] for one in result["files"]}
    return {**result, "files": files, "modes": modes}


def conf(name: str, **more: Any) -> Any:
    """Return a program's section as supervisord's parser reads it, without its expansions."""
    text = render(*GROUPS, **more)["files"][f"/etc/supervisor/conf.d/{name}.conf"]
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(text)
    assert parser.sections() == [f"program:{name}"]
    return parser[f"program:{name}"]


def launcher(name: str, *groups: str, **more: Any) -> str:
    text: str = render(*(groups or GROUPS), **more)["files"][f"/usr/local/lib/shop/{name}"]
    return text


def test_every_file_names_its_stack_near_the_top() -> None:
    for text in render(*GROUPS)["files"].values():
        assert "# stack: shop" in text.splitlines()[:3]


def test_a_service_is_a_program_of_its_name_with_a_launcher() -> None:
    result = render("workers", "flower")
    assert result["modes"] == {
        "/etc/supervisor/conf.d/celery-worker.conf": "0644",
        "/usr/local/lib/shop/celery-worker": "0755",
        "/etc/supervisor/conf.d/flower.conf": "0644",
        "/usr/local/lib/shop/flower": "0755",
    }
    assert [unit["name"] for unit in result["units"]] == ["celery-worker", "flower"]


def test_the_prefix_is_in_every_name() -> None:
    result = render("web", stack={"prefix": "shop-"})
    assert set(result["files"]) == {
        "/etc/supervisor/conf.d/shop-web-socket.conf",
        "/usr/local/lib/shop/shop-web-socket",
        "/etc/supervisor/conf.d/shop-web.conf",
        "/usr/local/lib/shop/shop-web",
    }
    assert result["masked"][0] == "shop-celery-beat.service"


@pytest.mark.parametrize("name", ["web", "celery-worker", "celery-beat", "flower"])
def test_a_program_stops_gracefully_and_never_stays_down(name: str) -> None:
    program = conf(name)
    assert program["stopsignal"] == "TERM"
    assert program["stopasgroup"] == "false"
    assert program["killasgroup"] == "true"
    assert program["autostart"] == program["autorestart"] == "true"
    assert int(program["startretries"]) >= 1000000
    assert program["user"] == "shop"
    assert program["stdout_logfile"] == f"/var/log/shop/{name}.log"


def test_the_stop_signal_and_its_time_come_from_the_spec() -> None:
    program = conf("celery-worker", spec={"stop_signal": "INT", "stop_timeout": 77, "settle": 2.5})
    assert (program["stopsignal"], program["stopwaitsecs"]) == ("INT", "77")
    assert program["startsecs"] == "3"


def test_the_scheduler_starts_last() -> None:
    others = [int(conf(name)["priority"]) for name in ("web", "celery-worker", "flower")]
    assert int(conf("celery-beat")["priority"]) > max(others)
    assert [unit["name"] for unit in render(*GROUPS)["units"] if unit.get("scheduler")] == [
        "celery-beat"
    ]


@pytest.mark.parametrize("groups", [("workers",), GROUPS])
def test_no_scheduler_can_start_under_systemd(groups: tuple[str, ...]) -> None:
    assert sorted(render(*groups)["masked"]) == ["celery-beat.service", "huey-periodic.service"]


def test_a_value_with_a_percent_sign_is_no_expansion() -> None:
    assert action.ini_value("100%") == "100%%"


@pytest.mark.parametrize("value", ["a ;b", "a #b", "a\nb", "#b"])
def test_a_value_that_would_be_cut_off_is_refused(value: str) -> None:
    with pytest.raises(AnsibleActionFail, match="as a comment"):
        action.ini_value(value)


@pytest.mark.parametrize("name", ["web", "celery-worker", "celery-beat", "flower"])
def test_a_launcher_is_valid_and_becomes_its_program(name: str) -> None:
    text = launcher(name, spec={"handover": False})
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    last = text[text.rindex("\nexec ") :]
    assert last.startswith("\nexec /usr/bin/setpriv --no-new-privs -- \\\n")
    first, _, rest = last.partition(" \\\n")
    # The census knows these as what the launcher becomes on its way.
    steps = [first.removeprefix("\nexec "), *rest.split("\n")[:1]]
    known = [programs.is_launching("\0".join(step.split()).encode(), "shop") for step in steps]
    assert known == [True, name == "celery-beat"]


@pytest.mark.parametrize("name", ["web", "celery-worker", "celery-beat", "flower"])
def test_only_a_launcher_of_what_is_handed_over_stays(name: str) -> None:
    text = launcher(name)
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    stays = f"\n    /usr/local/lib/shop/{name} stay \\\n" in text
    assert stays == (name in ("web", "celery-worker"))


def test_only_the_scheduler_is_locked_and_bound_to_its_host() -> None:
    texts = {name: launcher(name) for name in ("web", "celery-worker", "celery-beat", "flower")}
    assert [name for name, text in texts.items() if HOST["machine_id"] in text] == ["celery-beat"]
    lock = "flock --nonblock --no-fork --conflict-exit-code 75 /var/lib/shop/scheduler.lock"
    assert [name for name, text in texts.items() if lock in text] == ["celery-beat"]


def runnable(
    tmp_path: Path, argv: list[str], host: dict[str, str] | None = None, **spec: Any
) -> Path:
    """Write a launcher that runs on this machine; return its path."""
    env = tmp_path / "shop.env"
    env.write_text('ODD_VALUE="a b\\$c\'d%"\nDJANGO_SETTINGS_MODULE="shop.settings"\n')
    one = specs.spec("job", "A job", argv, **spec)
    stack = {
        **STACK,
        **LOGS,
        "current": str(tmp_path),
        "state_dir": str(tmp_path),
        "env_file": str(env),
    }
    files = action.render_supervisord(stack, [one], [], host or HOST)["files"]
    path = tmp_path / "job"
    text = next(f["content"] for f in files if f["path"].endswith("/job"))
    path.write_text(text.replace("/usr/local/lib/shop/job", str(path)))
    path.chmod(0o755)
    return path


def test_a_program_gets_its_environment_and_every_word(tmp_path: Path) -> None:
    words = ["a b", "c'd", "$HOME", "%h", 'e"f', ""]
    code = "import os, sys; print(sys.argv[1:], os.environ['ODD_VALUE'], os.getcwd(), os.getpid())"
    path = runnable(tmp_path, [sys.executable, "-c", code, *words])
    child = subprocess.Popen([path], stdout=subprocess.PIPE, text=True)
    out, _ = child.communicate()
    # The process that supervisord started is the program.
    assert out == f"{words} a b$c'd% {tmp_path} {child.pid}\n"


def test_a_services_own_environment_gives_way_to_the_environment_file(tmp_path: Path) -> None:
    code = "import os; print(os.environ['OWN'], os.environ['DJANGO_SETTINGS_MODULE'])"
    own = {"OWN": "a 'b' $c %h", "DJANGO_SETTINGS_MODULE": "other.settings"}
    path = runnable(tmp_path, [sys.executable, "-c", code], environment=own)
    said = subprocess.run([path], capture_output=True, text=True, check=True).stdout
    assert said == "a 'b' $c %h shop.settings\n"


# Says its pid, then the name of each signal it gets; ends with status 7 at TERM or INT.
TELLS = """
import os, signal, sys, time
def told(number, _):
    print(signal.Signals(number).name, flush=True)
    if number in (signal.SIGTERM, signal.SIGINT):
        sys.exit(7)
for one in ("TERM", "INT", "HUP", "USR1", "USR2", "WINCH", "TTIN", "TTOU", "QUIT"):
    signal.signal(getattr(signal, f"SIG{one}"), told)
print(os.getpid(), flush=True)
while True:
    time.sleep(10)
"""


@contextmanager
def staying(tmp_path: Path, **spec: Any) -> Iterator[tuple[Any, int]]:
    """Run a launcher that stays above its program; yield it, and the program's pid."""
    path = runnable(tmp_path, [sys.executable, "-c", TELLS], handover=True, **spec)
    # As supervisord starts it, even where a shell runs these tests in the background.
    argv = ["env", "--default-signal=INT,QUIT", path]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    pid = int(child.stdout.readline())

    def end() -> None:
        for one in (child.pid, pid):
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)

    # A word that never comes would be waited for without end.
    late = threading.Timer(10, end)
    late.start()
    try:
        yield child, pid
    finally:
        late.cancel()
        end()
        child.communicate()


def test_a_staying_launcher_ends_like_a_program_that_is_killed(tmp_path: Path) -> None:
    with staying(tmp_path) as (child, pid):
        os.kill(pid, signal.SIGKILL)
        assert child.wait(timeout=10) == 128 + signal.SIGKILL


@pytest.mark.parametrize("end", ["TERM", "INT"])
def test_a_staying_launcher_passes_signals_on_and_ends_like_its_program(
    tmp_path: Path, end: str
) -> None:
    with staying(tmp_path, stop_signal=end) as (child, pid):
        assert pid != child.pid
        command = Path(f"/proc/{child.pid}/cmdline").read_bytes()
        assert f"{tmp_path}/job\0stay\0".encode() in command
        for one in ("HUP", "USR1", "USR2", "WINCH", "TTIN", "TTOU", "QUIT", end):
            os.kill(child.pid, getattr(signal, f"SIG{one}"))
            assert child.stdout.readline() == f"SIG{one}\n"
        assert child.wait(timeout=10) == 7


@pytest.mark.parametrize("end", ["TERM", "INT"])
def test_a_program_whose_launcher_was_killed_is_told_to_stop(tmp_path: Path, end: str) -> None:
    """Its successor would work beside it for ever."""
    with staying(tmp_path, stop_signal=end) as (child, _):
        child.kill()
        assert child.stdout.readline() == f"SIG{end}\n"


def test_a_launcher_lets_go_of_a_program_that_drains(tmp_path: Path) -> None:
    """It ends at once with status 0 and tells the program nothing: that has its time."""
    # This program goes on after the signal: only the launcher is waited for.
    path = runnable(
        tmp_path, [sys.executable, "-c", TELLS.replace("sys.exit(7)", "pass")], handover=True
    )
    path.write_text(path.read_text().replace("/proc/$program/cgroup", str(tmp_path / "cgroup")))
    (tmp_path / "cgroup").write_text("0::/system.slice/celery-worker-draining-1.scope\n")
    child = subprocess.Popen([path], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    pid = int(child.stdout.readline())
    try:
        child.terminate()
        assert child.wait(timeout=10) == 0
        os.kill(pid, signal.SIGHUP)
        assert child.stdout.readline() == "SIGHUP\n"
        # What is left above it goes on telling it of its own end.
        keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(keeper, signal.SIGKILL)
        assert child.stdout.readline() == "SIGTERM\n"
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "launching", "staying"),
    [
        ("/bin/sh /usr/local/lib/shop/web", True, False),
        ("/bin/sh -e /usr/local/lib/shop/web", True, False),
        ("/bin/sh /usr/local/lib/shop/web stay /usr/bin/gunicorn", False, True),
        ("/usr/bin/python3 /usr/local/lib/shop/web-socket hold", False, False),
        ("/bin/sh /usr/local/lib/blog/web stay /usr/bin/gunicorn", False, False),
        ("/usr/bin/gunicorn", False, False),
        # On its way to the program.
        ("/usr/bin/setpriv --no-new-privs -- /usr/local/lib/shop/web stay gunicorn", True, False),
        ("/usr/bin/flock --nonblock --no-fork --conflict-exit-code 75 lock celery", True, False),
        # An operator's own, which may stay above its program.
        ("/usr/bin/flock /run/mine.lock celery", False, False),
        ("/usr/bin/setpriv --pdeathsig PWR -- /usr/local/lib/shop/web keep", False, False),
    ],
)
def test_what_a_launcher_does_is_told_by_its_arguments(
    command: str, launching: bool, staying: bool
) -> None:
    raw = "".join(f"{word}\0" for word in command.split()).encode()
    assert programs.is_launching(raw, "shop") is launching
    assert programs.is_staying(raw, "shop") is staying


def test_what_comes_before_must_succeed(tmp_path: Path) -> None:
    path = runnable(
        tmp_path,
        ["/bin/echo", "program"],
        before=[["/bin/sh", "-c", 'echo "$ODD_VALUE"'], ["/bin/false"], ["/bin/echo", "second"]],
    )
    done = subprocess.run([path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "a b$c'd%\n")


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_stop_ends_what_comes_before(tmp_path: Path, name: str) -> None:
    path = runnable(
        tmp_path,
        ["/bin/echo", "program"],
        before=[["/bin/true"], ["/bin/sh", "-c", "echo $$ >pid; exec sleep 60"]],
        stop_signal=name,
    )
    # A shell that was started with a signal ignored, as in the background, could not trap it.
    command = ["/usr/bin/env", "--default-signal=INT,TERM", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        deadline = time.monotonic() + 10
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.Signals[f"SIG{name}"])
        # The command holds the other end of the pipe too: this ends with the last of them.
        out, _ = running.communicate(timeout=10)
    assert (out, running.returncode) == (b"", 1)


def test_a_launcher_tells_whether_its_service_is_ready(tmp_path: Path) -> None:
    path = runnable(
        tmp_path,
        ["/bin/echo", "program"],
        ready=["/bin/sh", "-c", 'echo "ready $ODD_VALUE"; exit 3'],
    )
    done = subprocess.run([path, "ready"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "ready a b$c'd%\n")


def test_a_scheduler_refuses_another_host_and_says_so(tmp_path: Path) -> None:
    path = runnable(tmp_path, ["/bin/echo", "program"], scheduler=True)
    done = subprocess.run([path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("job does not start: it was deployed to another host than ")


def test_a_second_scheduler_of_the_host_refuses(tmp_path: Path) -> None:
    here = {
        "hostname": os.uname().nodename,
        "machine_id": Path("/etc/machine-id").read_text().strip(),
    }
    path = runnable(tmp_path, ["/bin/sleep", "60"], host=here, scheduler=True)
    first = subprocess.Popen([path])
    try:
        deadline = time.monotonic() + 10
        while not Path(f"/proc/{first.pid}/cmdline").read_bytes().startswith(b"/bin/sleep"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert subprocess.run([path], timeout=10, check=False).returncode == 75
    finally:
        first.kill()
        first.wait()


SERVER = """
import os, socket
assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "2"
for fd in 3, 4:
    with socket.socket(fileno=fd) as opened:
        print(opened.getsockname()[1], flush=True)
        opened.accept()[0].sendall(b"served")
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[Path, list[int]]]:
    """Return the script of a socket program that holds two free ports, and these."""
    free = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in free]
    for one in free:
        one.close()
    listen = [f"127.0.0.1:{port}" for port in ports]
    text = render("web", spec={"listen": listen})["files"]["/usr/local/lib/shop/web-socket"]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    text = text.replace('USER = "shop"', f'USER = "{user}"')
    script = tmp_path / "web-socket"
    script.write_text(text.replace('"/run/web-socket"', repr(str(tmp_path / "door"))))
    with subprocess.Popen([sys.executable, script, "hold"]) as running:
        yield script, ports
        running.kill()


def test_a_port_stays_open_while_its_server_restarts(holder: tuple[Path, list[int]]) -> None:
    script, ports = holder
    for _ in range(2):
        server = subprocess.Popen(
            [sys.executable, script, "run", sys.executable, "-c", SERVER],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout
        for port in ports:
            assert server.stdout.readline() == f"{port}\n"
            with socket.create_connection(("127.0.0.1", port)) as client:
                assert client.recv(10) == b"served"
        assert server.wait() == 0
        # Nobody serves now, and nobody is refused: whoever comes waits for the next server.
        waiting = [socket.create_connection(("127.0.0.1", port)) for port in ports]
        drain = "import socket; [socket.socket(fileno=fd).accept() for fd in (3, 4)]"
        subprocess.run([sys.executable, script, "run", sys.executable, "-c", drain], check=True)
        for client in waiting:
            client.close()


def test_a_service_with_a_socket_follows_it() -> None:
    units = {unit["name"]: unit for unit in render("web")["units"]}
    assert list(units) == ["web-socket", "web"]
    assert units["web"]["follows"] == ["web-socket"]
    assert "    /usr/local/lib/shop/web-socket run \\\n" in launcher("web")


def test_a_service_is_asked_as_its_user() -> None:
    ready = render("workers")["units"][0]["ready"]
    assert ready[:3] == ["setpriv", "--reuid=shop", "--regid=shop"]
    assert ready[-2:] == ["/usr/local/lib/shop/celery-worker", "ready"]
    assert render("flower")["units"][0]["ready"] == []


def test_what_proves_that_it_works_need_not_settle() -> None:
    web = render("web")["units"][1]
    assert (web["settle"], web["ready"], web["health"]["status"][0]) == (0, [], 200)
    worker = render("workers")["units"][0]
    assert (worker["settle"], worker["health"]) == (0, None)
    flower = render("flower")["units"][0]
    assert (flower["settle"], flower["ready"], flower["health"]) == (3, [], None)
    # One that ends sooner is started again with growing pauses, not as fast as it can.
    assert conf("celery-worker")["startsecs"] == "3"
