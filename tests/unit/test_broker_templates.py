"""What Redis, RabbitMQ and PostgreSQL get to read, rendered by Ansible's own templar."""

import base64
import hashlib
import json
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from loading import ROOT, load

HOSTS: dict[str, dict[str, Any]] = {
    "db1": {"stack_address": "10.0.0.5"},
    "web1": {"stack_address": "10.0.0.11", "ansible_host": "203.0.113.11"},
    "worker1": {"ansible_host": "fd00::21"},
    "worker2": {},
}
GROUPS = {
    "all": list(HOSTS),
    "brokers": ["db1"],
    "database": ["db1"],
    "web": ["web1"],
    "workers": ["worker1", "worker2"],
    "scheduler": ["worker1"],
}


password_hash = load("filter/rabbitmq_password_hash").rabbitmq_password_hash


def trusted(value: Any) -> Any:
    """Return defaults and vars as Ansible loads them: their texts are templates."""
    if isinstance(value, dict):
        return {key: trusted(one) for key, one in value.items()}
    if isinstance(value, list):
        return [trusted(one) for one in value]
    return trust_as_template(value) if isinstance(value, str) else value


def role_variables(role: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in ("defaults", "vars"):
        found |= yaml.safe_load((ROOT / "roles" / role / part / "main.yml").read_text())
    return found


def render(role: str, template: str, **more: Any) -> list[str]:
    """Return the lines of a template, given as a path below the root."""
    path = ROOT / template
    variables = trusted(role_variables(role)) | {
        "ansible_managed": "Ansible managed",
        "stack_name": "web-shop",
        "stack_address": "10.0.0.5",
        "groups": GROUPS,
        "hostvars": HOSTS,
    }
    templar = Templar(loader=DataLoader(), variables=variables | more)
    text: str | None = templar.template(trust_as_template(path.read_text()))
    return (text or "").splitlines()


def redis(**more: Any) -> list[str]:
    return render(
        "redis", "templates/broker/redis.conf.j2", **({"redis_password": "s3cret"} | more)
    )


def rabbitmq(template: str = "rabbitmq.conf", **more: Any) -> list[str]:
    return render(
        "rabbitmq", f"templates/broker/{template}.j2", **({"rabbitmq_password": "s3cret"} | more)
    )


def definitions(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads("\n".join(rabbitmq("definitions.json", **more)))
    return found


def hba(**more: Any) -> list[str]:
    return render("postgresql", "roles/postgresql/templates/pg_hba.conf.j2", **more)


def settings(**more: Any) -> list[str]:
    return render("postgresql", "roles/postgresql/templates/stack.conf.j2", **more)


def directives(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def test_redis_sets_each_directive_once() -> None:
    names = directives(redis())
    assert sorted(names) == sorted(set(names))


def test_redis_listens_on_loopback_and_the_private_address_alone() -> None:
    assert "bind 127.0.0.1 10.0.0.5" in redis()


def test_redis_binds_an_address_once_on_a_host_of_its_own() -> None:
    assert "bind 127.0.0.1" in redis(stack_address="127.0.0.1")


@pytest.mark.parametrize("password", ["s3cret", "a b\"c'd\\e#f%", "ünï漢", 12345])
def test_redis_is_given_the_hash_of_the_password_and_not_the_password(password: Any) -> None:
    lines = redis(redis_password=password)
    digest = hashlib.sha256(str(password).encode()).hexdigest()
    assert f"user default on #{digest} ~* &* +@all" in lines
    assert str(password) not in "\n".join(lines).replace(digest, "")


def test_redis_lets_nobody_in_without_a_password() -> None:
    lines = redis()
    assert "protected-mode yes" in lines
    assert not [line for line in lines if "nopass" in line]


@pytest.mark.parametrize(
    "line",
    [
        "appendonly yes",
        "appendfsync everysec",
        "dir /var/lib/redis",
        "maxmemory 0",
        "maxmemory-policy noeviction",
    ],
)
def test_redis_keeps_every_accepted_message(line: str) -> None:
    assert line in redis()


def test_redis_takes_port_and_limit_from_the_inventory() -> None:
    lines = redis(redis_port=6380, redis_maxmemory="512mb")
    assert {"port 6380", "maxmemory 512mb"} <= set(lines)


def test_rabbitmq_sets_each_directive_once() -> None:
    names = directives(rabbitmq())
    assert sorted(names) == sorted(set(names))


def test_rabbitmq_listens_on_loopback_and_the_private_address_alone() -> None:
    assert [line for line in rabbitmq() if "listener" in line or ".ip" in line] == [
        "listeners.tcp.1 = 127.0.0.1:5672",
        "listeners.tcp.2 = 10.0.0.5:5672",
        "management.tcp.ip = 10.0.0.5",
    ]


def test_rabbitmq_binds_an_address_once_on_a_host_of_its_own() -> None:
    lines = rabbitmq(stack_address="127.0.0.1")
    assert [line for line in lines if line.startswith("listeners")] == [
        "listeners.tcp.1 = 127.0.0.1:5672"
    ]
    assert "management.tcp.ip = 127.0.0.1" in lines


def test_rabbitmq_keeps_erlangs_own_port_on_loopback() -> None:
    option = "-kernel inet_dist_use_interface {127,0,0,1}"
    assert f'export ERL_AFLAGS="{option}"' in rabbitmq("rabbitmq-env.conf")


def test_rabbitmq_is_told_seconds_in_milliseconds() -> None:
    assert "consumer_timeout = 3900000" in rabbitmq(rabbitmq_consumer_timeout=3900)


@pytest.mark.parametrize(
    ("limit", "line"),
    [
        ("0.4", "vm_memory_high_watermark.relative = 0.4"),
        (0.6, "vm_memory_high_watermark.relative = 0.6"),
        ("2GB", "vm_memory_high_watermark.absolute = 2GB"),
        ("1073741824", "vm_memory_high_watermark.absolute = 1073741824"),
    ],
)
def test_rabbitmq_tells_a_part_of_the_memory_from_an_amount(limit: Any, line: str) -> None:
    assert line in rabbitmq(rabbitmq_memory_high_watermark=limit)


def test_rabbitmq_has_one_user_for_one_virtual_host_and_no_guest() -> None:
    found = definitions()
    assert [(user["name"], user["tags"]) for user in found["users"]] == [("web-shop", "management")]
    assert found["vhosts"] == [{"name": "web-shop"}]
    assert found["permissions"] == [
        {"user": "web-shop", "vhost": "web-shop", "configure": ".*", "write": ".*", "read": ".*"}
    ]
    assert "load_definitions = /etc/rabbitmq/definitions.json" in rabbitmq()


@pytest.mark.parametrize("password", ["s3cret", "a b\"c'd\\e#f%", "ünï漢", 12345])
def test_rabbitmq_is_given_the_salted_hash_of_the_password_and_not_the_password(
    password: Any,
) -> None:
    lines = rabbitmq("definitions.json", rabbitmq_password=password)
    (user,) = definitions(rabbitmq_password=password)["users"]
    given = base64.b64decode(user["password_hash"])
    salt, digest = given[:4], given[4:]
    assert digest == hashlib.sha256(salt + str(password).encode()).digest()
    assert user["hashing_algorithm"] == "rabbit_password_hashing_sha256"
    assert str(password) not in "\n".join(lines)


def test_rabbitmq_gets_no_empty_password() -> None:
    with pytest.raises(AnsibleFilterError, match="the password is empty"):
        password_hash("", "shop")


def test_postgresql_lets_in_each_host_of_the_project_once() -> None:
    assert hba() == [
        'host "web_shop" "web_shop" 10.0.0.11/32 scram-sha-256',
        'host "web_shop" "web_shop" fd00::21/128 scram-sha-256',
        'host "web_shop" "web_shop" worker2 scram-sha-256',
    ]


def test_postgresql_lets_in_nobody_when_there_is_no_host() -> None:
    assert hba(groups={"all": ["db1"], "database": ["db1"]}) == []


def test_postgresql_lets_in_the_named_user_to_the_named_database() -> None:
    lines = hba(postgresql_user="anna", postgresql_database="all")
    assert lines[0] == 'host "all" "anna" 10.0.0.11/32 scram-sha-256'


def test_postgresql_listens_on_loopback_and_the_private_address_alone() -> None:
    assert [line for line in settings() if line and not line.startswith("#")] == [
        "listen_addresses = '127.0.0.1,10.0.0.5'",
        "port = 5432",
        "max_connections = 100",
        "password_encryption = 'scram-sha-256'",
    ]


@pytest.mark.parametrize(
    "drop_in",
    [
        "redis/files/stack.conf",
        "rabbitmq/files/rabbitmq-server.service.d/stack.conf",
        "postgresql/files/stack.conf",
    ],
)
def test_service_starts_after_the_network(drop_in: str) -> None:
    lines = (ROOT / "roles" / drop_in).read_text().splitlines()
    assert {"Wants=network-online.target", "After=network-online.target"} <= set(lines)


CONFIGURATION = {
    "redis": ("/etc/redis/redis.conf", "/run/redis/redis-server.pid"),
    "rabbitmq": (
        "/etc/rabbitmq/definitions.json",
        "/var/lib/rabbitmq/mnesia/rabbit@localhost.pid",
    ),
    "postgresql": ("/etc/postgresql/15/main/conf.d/stack.conf", "/run/postgresql/15-main.pid"),
}


@pytest.mark.parametrize("role", CONFIGURATION)
@pytest.mark.parametrize(
    ("written", "started", "outdated"),
    [(100.5, 100.4, True), (100.4, 100.5, False), (100.5, None, False), (None, 100.4, False)],
    ids=["written after start", "started after writing", "not running", "not written"],
)
def test_a_service_older_than_its_configuration_is_noticed(
    role: str, written: float | None, started: float | None, outdated: bool
) -> None:
    paths = ("/etc/postgresql/15/main/postgresql.conf", *CONFIGURATION[role])
    times = zip(paths, (1.0, written, started), strict=True)
    search = {"files": [{"path": path, "mtime": time} for path, time in times if time is not None]}
    templar = Templar(
        loader=DataLoader(),
        variables=trusted(role_variables(role)) | {f"__{role}_search": search},
    )
    assert templar.template(trust_as_template(f"{{{{ __{role}_is_outdated }}}}")) is outdated
