"""Nothing is open, nothing runs as root, no secret lies about."""

from __future__ import annotations

import base64
import re

import pytest
from conftest import STACK, Fleet, names

SERVICES = [
    *((name, "celery-worker") for name in names("workers")),
    *((name, "celery-beat") for name in names("scheduler")),
    *((name, "web") for name in names("web")),
    *((name, "flower") for name in names("flower")),
]


def listening(fleet: Fleet, name: str) -> set[str]:
    """Return ADDRESS:PORT of what listens on a host, but for its sshd and Docker's resolver."""
    rows = fleet[name].check_output("ss -Htln").splitlines()
    addresses = {row.split()[3] for row in rows}
    return {one for one in addresses if not re.search(r":22$|^127\.0\.0\.11:", one)}


def test_every_host_listens_only_where_it_should(fleet: Fleet) -> None:
    wanted: dict[str, set[str]] = {name: set() for name in names("all")}
    for group, port in (("brokers", 6379), ("database", 5432), ("web", 8000)):
        for name in names(group):
            wanted[name].add(f"{fleet.address(name)}:{port}")
    for group, port in (("brokers", 6379), ("database", 5432), ("flower", 5555)):
        for name in names(group):
            wanted[name].add(f"127.0.0.1:{port}")
    assert {name: listening(fleet, name) for name in names("all")} == wanted


def test_redis_answers_nobody_without_its_password(fleet: Fleet) -> None:
    broker = names("brokers")[0]
    script = (
        f"import socket; s = socket.create_connection(('{fleet.address(broker)}', 6379), 5); "
        "s.sendall(b'PING\\r\\n'); print(s.recv(100).decode())"
    )
    said = fleet.one("workers").check_output("python3 -c %s", script)
    assert said.startswith("-NOAUTH"), said


def test_the_database_answers_nobody_without_its_password(fleet: Fleet) -> None:
    address = fleet.address(names("database")[0])
    script = (
        "import psycopg\n"
        f"try: psycopg.connect('host={address} user={STACK} dbname={STACK} password=wrong')\n"
        "except psycopg.OperationalError as error: print(error)"
    )
    said = fleet.one("workers").check_output(f"{STACK}-shell python -c %s", script)
    assert "password authentication failed" in said


def test_flower_asks_for_its_credentials(fleet: Fleet) -> None:
    host = fleet.one("flower")
    code = "curl -s -o /dev/null -w '%{http_code}' "
    login = base64.b64encode(fleet.environment()["FLOWER_BASIC_AUTH"].encode()).decode()
    assert host.check_output(code + "http://127.0.0.1:5555/") == "401"
    assert host.check_output(code + "http://127.0.0.1:5555/api/workers") == "401"
    known = f"-H 'Authorization: Basic {login}' http://127.0.0.1:5555/"
    assert host.check_output(code + known) == "200"


@pytest.mark.parametrize(("name", "unit"), SERVICES)
def test_a_service_is_its_own_user_without_privileges(fleet: Fleet, name: str, unit: str) -> None:
    pid = fleet[name].check_output(f"systemctl show --property=MainPID --value {unit}")
    status = fleet[name].check_output(f"cat /proc/{pid}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uid = fleet[name].check_output(f"id -u {STACK}")
    assert set(fields["Uid"].split()) == {uid}
    assert uid != "0"
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"


@pytest.mark.parametrize("name", sorted({name for name, _ in SERVICES}))
def test_the_environment_file_is_closed(fleet: Fleet, name: str) -> None:
    file = fleet[name].file(f"/etc/{STACK}/{STACK}.env")
    assert (file.user, file.group, file.mode) == ("root", STACK, 0o640)
    assert fleet[name].run("runuser -u nobody -- cat /etc/%s/%s.env", STACK, STACK).failed


def test_all_hosts_have_the_same_environment(fleet: Fleet) -> None:
    sums = {
        fleet[name].check_output(f"sha256sum < /etc/{STACK}/{STACK}.env")
        for name in {name for name, _ in SERVICES}
    }
    assert len(sums) == 1


def test_systemd_and_the_shell_read_the_same_environment(fleet: Fleet) -> None:
    host = fleet.one("workers")
    pid = host.check_output("systemctl show --property=MainPID --value celery-worker")
    unit = host.check_output(f"cat /proc/{pid}/environ").split("\0")
    assert "ODD_VALUE=a b$c\"d'e\\f`g%h#i" in unit
    file = host.file(f"/etc/{STACK}/{STACK}.env").content_string
    keys = re.findall(r"^(\w+)=", file, re.MULTILINE)
    assert len(keys) > 5
    shell = fleet.environment()
    assert [key for key in keys if f"{key}={shell[key]}" not in unit] == []


def test_no_secret_is_in_argv_units_or_journal(fleet: Fleet) -> None:
    environment = fleet.environment()
    secrets = [environment["SECRET_KEY"], environment["FLOWER_COOKIE_SECRET"]]
    secrets.append(environment["FLOWER_BASIC_AUTH"].split(":", 1)[1])
    for url in (environment["CELERY_BROKER_URL"], environment["DATABASE_URL"]):
        password = re.search(r"://[^:]*:([^@]+)@", url)
        assert password
        secrets.append(password.group(1))
    found = []
    for name, host in fleet.hosts.items():
        places = {
            "argv": host.check_output("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true"),
            "units": host.check_output("cat /etc/systemd/system/*.service; true"),
            "journal": host.check_output("journalctl --no-pager --boot"),
        }
        found += [
            (name, place) for place, text in places.items() for secret in secrets if secret in text
        ]
    assert found == []
