"""Nothing is open, nothing runs as root, no secret lies about."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote

import pytest
from fleet import BROKER, DATABASE, QUEUE, SERVICES, STACK, WORKER, Fleet, manager, names

# Group -> what its hosts listen on beside their sshd: on loopback, and on their private address.
PORTS = {
    "brokers": {
        "redis": ({6379}, {6379}),
        # Clients; the management API, for Flower. On loopback also its own distribution.
        "rabbitmq": ({4369, 5672, 25672}, {5672, 15672}),
        "sqlite": (set(), set()),
    }[BROKER],
    "database": ({5432}, {5432}) if DATABASE == "postgresql" else (set(), set()),
    "web": (set(), {8000}),
    "flower": ({5555}, set()) if QUEUE == "celery" else (set(), set()),
}
APP_HOSTS = sorted({host for _, host in SERVICES})


def test_every_host_listens_only_where_it_should(fleet: Fleet) -> None:
    for name, host in fleet.hosts.items():
        rows = host.check_output("ss -Htln").splitlines()
        heard = {row.split()[3] for row in rows}
        # Docker's own resolver.
        heard = {one for one in heard if not re.search(r":22$|^127\.0\.0\.11:", one)}
        wanted = {
            f"{address}:{port}"
            for group, (loopback, private) in PORTS.items()
            if name in names(group)
            for address, ports in (("127.0.0.1", loopback), (fleet.address(name), private))
            for port in ports
        }
        assert heard == wanted, name


@pytest.mark.only(broker="redis")
def test_redis_answers_nobody_without_its_password(fleet: Fleet) -> None:
    script = (
        f"import socket; s = socket.create_connection(('{fleet.address(names('brokers')[0])}', "
        "6379), 5); s.sendall(b'PING\\r\\n'); print(s.recv(100).decode())"
    )
    said = fleet.one("workers").check_output("python3 -c %s", script)
    assert said.startswith("-NOAUTH"), said


@pytest.mark.only(broker="rabbitmq")
def test_rabbitmq_knows_no_guest(fleet: Fleet) -> None:
    users = fleet.one("brokers").check_output("rabbitmqctl --quiet list_users")
    assert [line.split()[0] for line in users.splitlines()[1:]] == [STACK]
    cookie = fleet.one("brokers").file("/var/lib/rabbitmq/.erlang.cookie")
    assert (cookie.user, cookie.mode) == ("rabbitmq", 0o400)
    code = fleet.one("brokers").check_output(
        "curl -s -o /dev/null -w '%%{http_code}' -u guest:guest http://%s:15672/api/whoami",
        fleet.address(names("brokers")[0]),
    )
    assert code == "401"


@pytest.mark.only(database="postgresql")
def test_the_database_answers_nobody_without_its_password(fleet: Fleet) -> None:
    address = fleet.address(names("database")[0])
    said = fleet.python(
        "workers",
        "import psycopg\n"
        f"try: psycopg.connect('host={address} user={STACK} dbname={STACK} password=wrong')\n"
        "except psycopg.OperationalError as error: print(error)",
        django=False,
    )
    assert "password authentication failed" in said


@pytest.mark.only(queue="celery")
def test_flower_asks_for_its_credentials(fleet: Fleet) -> None:
    host = fleet.one("flower")
    code = "curl -s -o /dev/null -w '%{http_code}' "
    login = base64.b64encode(fleet.environment["FLOWER_BASIC_AUTH"].encode()).decode()
    assert host.check_output(code + "http://127.0.0.1:5555/") == "401"
    assert host.check_output(code + "http://127.0.0.1:5555/api/workers") == "401"
    known = f"-H 'Authorization: Basic {login}' http://127.0.0.1:5555/"
    assert host.check_output(code + known) == "200"


def test_every_service_is_its_own_user_without_privileges(fleet: Fleet) -> None:
    for name, host in SERVICES:
        status = fleet[host].check_output(f"cat /proc/{fleet.service(name, host).pid}/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == {fleet[host].check_output(f"id -u {STACK}")}
        assert fields["Uid"].split()[0] != "0"
        assert int(fields["CapEff"], 16) == 0
        assert fields["NoNewPrivs"].strip() == "1"
        # supervisord has no sandbox.
        if manager(host) == "systemd":
            assert int(fields["CapBnd"], 16) == 0
            assert fields["Seccomp"].strip() == "2"


@pytest.mark.only(manager="supervisord")
def test_supervisords_socket_is_closed(fleet: Fleet) -> None:
    for name in APP_HOSTS:
        if manager(name) != "supervisord":
            continue
        host = fleet[name]
        socket = host.file("/run/supervisor.sock")
        assert (socket.user, socket.mode) == ("root", 0o700)
        assert host.run("runuser -u %s -- supervisorctl status", STACK).failed
        assert (
            "inet_http_server" not in host.file("/etc/supervisor/supervisord.conf").content_string
        )


def test_the_environment_file_is_closed_and_the_same_everywhere(fleet: Fleet) -> None:
    for name in APP_HOSTS:
        file = fleet[name].file(f"/etc/{STACK}/{STACK}.env")
        assert (file.user, file.group, file.mode) == ("root", STACK, 0o640)
        assert fleet[name].run("runuser -u nobody -- cat /etc/%s/%s.env", STACK, STACK).failed
    texts = {
        name: fleet[name].file(f"/etc/{STACK}/{STACK}.env").content_string for name in APP_HOSTS
    }
    # A beat answers on the broker under the name of its host.
    same = {text.replace(f'"celerybeat@{name}"', "") for name, text in texts.items()}
    assert len(same) == 1


def test_services_and_the_shell_have_the_same_environment(fleet: Fleet) -> None:
    file = fleet.one("workers").file(f"/etc/{STACK}/{STACK}.env").content_string
    keys = re.findall(r"^(\w+)=", file, re.MULTILINE)
    assert len(keys) > 5
    shell = dict(fleet.environment)
    assert shell["ODD_VALUE"] == "a b$c\"d'e\\f`g%h#i"
    for name, host in SERVICES:
        shell["CELERY_BEAT_HOSTNAME"] = f"celerybeat@{host}"
        pid = fleet.service(name, host).pid
        own = fleet[host].check_output(f"cat /proc/{pid}/environ").split("\0")
        assert [key for key in [*keys, "HOME"] if f"{key}={shell[key]}" not in own] == [], name


def test_no_secret_is_in_argv_definitions_or_logs(fleet: Fleet) -> None:
    environment = fleet.environment
    secrets = {environment["SECRET_KEY"]}
    if QUEUE == "celery":
        secrets.add(environment["FLOWER_COOKIE_SECRET"])
        secrets.add(environment["FLOWER_BASIC_AUTH"].split(":", 1)[1])
    for value in environment.values():
        for password in re.findall(r"://[^:/@]*:([^@/]+)@", value):
            secrets |= {password, unquote(password)}
    wanted = (DATABASE == "postgresql") + (BROKER != "sqlite")
    assert len(secrets) >= 1 + wanted, "the broker's or the database's URL has no password"
    found = []
    for name, host in fleet.hosts.items():
        places = {
            "argv": host.check_output("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true"),
            "units": host.check_output(
                "cat /etc/systemd/system/*.service /etc/supervisor/conf.d/* /usr/local/lib/%s/* "
                "2>/dev/null; true",
                STACK,
            ),
            "journal": host.check_output("journalctl --no-pager --boot"),
            "logs": host.check_output(
                "cat /var/log/%s/* /var/log/supervisor/* /var/log/rabbitmq/* 2>/dev/null; true",
                STACK,
            ),
        }
        found += [
            (name, place) for place, text in places.items() for secret in secrets if secret in text
        ]
    assert found == []


def test_a_worker_runs_what_its_definition_says(fleet: Fleet) -> None:
    """The definition is what an operator reads; its process must be that."""
    for host in names("workers"):
        service = fleet.service(WORKER, host)
        argv = fleet[host].check_output(f"cat /proc/{service.pid}/cmdline").split("\0")
        assert {"celery": "worker", "huey": "--no-periodic"}[QUEUE] in argv
        assert f"# stack: {STACK}" in service.definition
