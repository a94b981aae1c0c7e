"""The filters that build URLs: what a client reads out of a URL is what went in."""

from collections.abc import Callable
from urllib.parse import SplitResult, unquote, urlsplit

import pytest
from ansible.errors import AnsibleFilterError
from loading import load

FILTERS: dict[str, Callable[..., str]] = load("filter/urls").FilterModule().filters()
broker_url = FILTERS["broker_url"]
database_url = FILTERS["database_url"]
rabbitmq_api_url = FILTERS["rabbitmq_api_url"]

AWKWARD = [
    "plain",
    "sl/ash",
    "at@colon:hash#question?",
    "per%cent",
    "%2F",
    "a space",
    "plus+and&equals=",
    "quote\"'back\\slash",
    "[brackets]{braces}",
    "ünï漢",
    "$HOME `id` !",
]


def path_of(url: SplitResult) -> str:
    """Return the decoded path without its first slash, as kombu and libpq read it."""
    return unquote(url.path[1:])


@pytest.mark.parametrize("password", AWKWARD)
def test_redis_clients_read_the_password_that_was_set(password: str) -> None:
    url = urlsplit(broker_url("redis", "10.0.0.5", 6379, password))
    assert unquote(url.password or "") == password
    assert (url.scheme, url.username, url.hostname, url.port) == ("redis", "", "10.0.0.5", 6379)
    assert (url.path, url.query, url.fragment) == ("/0", "", "")


@pytest.mark.parametrize("text", AWKWARD)
def test_rabbitmq_clients_read_user_password_and_vhost(text: str) -> None:
    url = urlsplit(broker_url("rabbitmq", "mq", 5672, text, user=text, vhost=text))
    assert (unquote(url.username or ""), unquote(url.password or "")) == (text, text)
    assert (url.scheme, url.hostname, url.port) == ("amqp", "mq", 5672)
    assert path_of(url) == text


@pytest.mark.parametrize("password", AWKWARD)
def test_sentinel_clients_read_each_host_and_the_password(password: str) -> None:
    joined = broker_url("sentinel", ["10.0.0.5", "fd00::6"], 26379, password, database=2)
    urls = [urlsplit(url) for url in joined.split(";")]
    assert [(url.scheme, url.hostname, url.port) for url in urls] == [
        ("sentinel", "10.0.0.5", 26379),
        ("sentinel", "fd00::6", 26379),
    ]
    assert {(unquote(url.password or ""), url.path) for url in urls} == {(password, "/2")}


@pytest.mark.parametrize("text", AWKWARD)
def test_postgresql_clients_read_user_password_and_name(text: str) -> None:
    url = urlsplit(database_url("postgresql", text, host="db", user=text, password=text))
    assert (unquote(url.username or ""), unquote(url.password or "")) == (text, text)
    assert (url.scheme, url.hostname, url.port) == ("postgresql", "db", 5432)
    assert path_of(url) == text


@pytest.mark.parametrize("path", ["/var/lib/shop/db.sqlite3", "/srv/a b/+ %41 ü.sqlite3"])
def test_sqlite_keeps_the_absolute_path(path: str) -> None:
    url = urlsplit(database_url("sqlite", path))
    assert (url.scheme, url.netloc) == ("sqlite", "")
    assert path_of(url) == path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (broker_url("redis", "b", 6379, "p"), "redis://:p@b:6379/0"),
        (broker_url("redis", "b", 6379, "p", database=3), "redis://:p@b:6379/3"),
        (broker_url("redis", "b", 6379, "p", user="u"), "redis://u:p@b:6379/0"),
        (
            broker_url("redis", "b", 6379, "p", tls=True),
            "rediss://:p@b:6379/0?ssl_cert_reqs=required",
        ),
        (broker_url("rabbitmq", "b", 5672, "p", user="u"), "amqp://u:p@b:5672/%2F"),
        (
            broker_url("rabbitmq", "b", 5671, "p", user="u", vhost="shop", tls=True),
            "amqps://u:p@b:5671/shop",
        ),
        (broker_url("sentinel", "b", 26379, "p"), "sentinel://:p@b:26379/0"),
        (
            broker_url("sentinel", ["b", "c"], 26379, "p;w"),
            "sentinel://:p%3Bw@b:26379/0;sentinel://:p%3Bw@c:26379/0",
        ),
        (rabbitmq_api_url("b"), "http://b:15672/api/"),
        (rabbitmq_api_url("fd00::5", "15673"), "http://[fd00::5]:15673/api/"),
        (
            database_url("postgresql", "shop", host="d", port=5433, user="u", password="p"),
            "postgresql://u:p@d:5433/shop",
        ),
        (database_url("sqlite", "/srv/db"), "sqlite:////srv/db"),
    ],
)
def test_url_has_the_form_that_celery_and_django_expect(url: str, expected: str) -> None:
    assert url == expected


@pytest.mark.parametrize("host", ["10.0.0.5", "broker1", "broker-1.example.org", "under_score"])
def test_name_or_ipv4_address_is_taken_as_it_is(host: str) -> None:
    assert broker_url("redis", host, 6379, "p") == f"redis://:p@{host}:6379/0"


@pytest.mark.parametrize("host", ["::1", "fd00::5", "2001:db8::1:2"])
def test_ipv6_address_is_put_in_brackets(host: str) -> None:
    url = broker_url("redis", host, 6379, "p")
    assert url == f"redis://:p@[{host}]:6379/0"
    assert urlsplit(url).hostname == host


def test_numbers_that_a_template_made_text_are_taken() -> None:
    assert broker_url("redis", "b", "6379", 12345, database="2") == "redis://:12345@b:6379/2"


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: broker_url("redis", "b", 6379, ""), "broker_url: password is empty"),
        (lambda: broker_url("redis", "b", 6379, None), "broker_url: password is empty"),
        (lambda: broker_url("redis", "", 6379, "p"), "broker_url: host is empty"),
        (lambda: broker_url("rabbitmq", "b", 5672, "p"), "broker_url: user is empty"),
        (
            lambda: broker_url("rabbitmq", "b", 5672, "p", user="u", vhost=""),
            "broker_url: vhost is empty",
        ),
        (
            lambda: broker_url("kafka", "b", 1, "p"),
            "broker_url: broker is 'kafka', not one of redis, sentinel, rabbitmq",
        ),
        (
            lambda: broker_url("redis", ["a", "b"], 6379, "p"),
            "broker_url: only a Sentinel has several hosts, not 'redis'",
        ),
        (lambda: broker_url("sentinel", [], 26379, "p"), "broker_url: host is empty"),
        (lambda: broker_url("sentinel", ["a", ""], 26379, "p"), "broker_url: host is empty"),
        (
            lambda: broker_url("sentinel", ["a"], 26379, "p", tls=True),
            "broker_url: tls is not part of a Sentinel's URL",
        ),
        (lambda: rabbitmq_api_url(""), "rabbitmq_api_url: host is empty"),
        (
            lambda: rabbitmq_api_url("b", 0),
            "rabbitmq_api_url: port is 0, not a number of 1 to 65535",
        ),
        (
            lambda: broker_url("redis", "b", 0, "p"),
            "broker_url: port is 0, not a number of 1 to 65535",
        ),
        (
            lambda: broker_url("redis", "b", "http", "p"),
            "broker_url: port is 'http', not a number of 1 to 65535",
        ),
        (
            lambda: broker_url("redis", "b", 6379, "p", database=-1),
            "broker_url: database is -1, not a number of 0 to 2147483647",
        ),
        (
            lambda: database_url("mysql", "shop"),
            "database_url: database is 'mysql', not 'postgresql' or 'sqlite'",
        ),
        (lambda: database_url("postgresql", ""), "database_url: name is empty"),
        (
            lambda: database_url("postgresql", "shop", host="d", password="p"),
            "database_url: user is empty",
        ),
        (
            lambda: database_url("postgresql", "shop", host="d", user="u"),
            "database_url: password is empty",
        ),
        (
            lambda: database_url("sqlite", "db.sqlite3"),
            "database_url: name is 'db.sqlite3', not an absolute path",
        ),
    ],
)
def test_missing_or_malformed_part_is_refused_by_name(
    build: Callable[[], str], sentence: str
) -> None:
    with pytest.raises(AnsibleFilterError) as refusal:
        build()
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    "host", ["a/b", "user@host", "host:6379", "[::1]", "a b", "host?", "-h", "host\n"]
)
def test_host_that_would_break_the_url_is_refused(host: str) -> None:
    with pytest.raises(AnsibleFilterError, match="not a name or an IP address"):
        broker_url("redis", host, 6379, "p")


def test_refusal_does_not_show_the_password() -> None:
    with pytest.raises(AnsibleFilterError) as refusal:
        broker_url("redis", "a/b", 6379, "s3cret")
    assert "s3cret" not in str(refusal.value)
