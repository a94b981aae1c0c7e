"""Flower keeps what it saw, shows no password, and lets nobody act without its credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import pytest
from fleet import Fleet, Page, names, wait_for

pytestmark = pytest.mark.only(queue="celery")

SEEN = ("/", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/queues/length")
DONE = (
    "/api/task/async-apply/ticks.tasks.add",
    *(f"/api/worker/pool/grow/celery@{name}?n=1" for name in names("workers")),
)
# Takes a path and curl's options; returns the status, 0 without an answer, and the text.
Ask = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def ask(fleet: Fleet) -> Ask:
    """Ask Flower on its own host: it listens on the loopback alone."""

    def asked(path: str, *options: str) -> tuple[int, str]:
        words = ["curl", "-s", "-w", "\\n%{http_code}", f"http://127.0.0.1:5555{path}", *options]
        said = fleet.one("flower").run(" ".join(["%s"] * len(words)), *words).stdout
        text, _, status = said.rpartition("\n")
        return int(status), text

    return asked


@pytest.fixture(scope="module")
def login(fleet: Fleet) -> tuple[str, str]:
    """Return the options of curl that send the credentials."""
    return "--user", fleet.environment["FLOWER_BASIC_AUTH"]


def test_a_restart_forgets_no_task(
    fleet: Fleet, page: Page, ask: Ask, login: tuple[str, str]
) -> None:
    task = page.run_task(task="add", x="2", y="40")
    page.finished(task, 30)

    def known() -> str:
        status, text = ask("/api/tasks?limit=100&taskname=ticks.tasks.add", *login)
        return str(json.loads(text).get(task, {}).get("state")) if status == 200 else f"{status}"

    wait_for(lambda: known() == "SUCCESS", 30, known)
    fleet.service("flower", names("flower")[0]).restart()
    wait_for(lambda: ask("/healthcheck") == (200, "OK"), 30, lambda: "Flower does not answer")
    assert known() == "SUCCESS"


def test_nobody_sees_anything_without_the_credentials(ask: Ask, login: tuple[str, str]) -> None:
    for path in SEEN:
        assert ask(path)[0] == 401, path
        assert ask(path, *login)[0] == 200, path
    assert ask("/", "--user", "admin:wrong")[0] == 401


def test_nobody_changes_anything_without_the_credentials(ask: Ask, login: tuple[str, str]) -> None:
    add = ("--data", '{"args": [2, 40]}')
    for path in DONE:
        assert ask(path, *add)[0] == 401, path
        # A page elsewhere, in the browser of somebody who has typed them in here.
        elsewhere = ("--header", "Origin: http://elsewhere.example")
        assert ask(path, *add, *elsewhere, *login)[0] == 403, path
    assert ask(DONE[0], *add, *login)[0] == 200


def test_only_health_and_numbers_are_open(ask: Ask) -> None:
    """Flower itself leaves them open: for monitoring, which reaches them on the host alone."""
    assert ask("/healthcheck") == (200, "OK")
    assert ask("/metrics")[0] == 200

    def online() -> list[str]:
        return re.findall(
            r'^flower_worker_online{worker="celery@(.+)"} 1', ask("/metrics")[1], re.M
        )

    # A Flower that has just started hears of a worker with its next heartbeat, every two seconds.
    wait_for(lambda: set(names("workers")) <= set(online()), 30, lambda: str(online()))


def test_no_secret_is_shown_even_with_the_credentials(
    fleet: Fleet, ask: Ask, login: tuple[str, str]
) -> None:
    secrets = {fleet.environment["SECRET_KEY"], fleet.environment["FLOWER_COOKIE_SECRET"]}
    secrets.add(fleet.environment["FLOWER_BASIC_AUTH"].split(":", 1)[1])
    for url in (fleet.environment["CELERY_BROKER_URL"], fleet.environment["DATABASE_URL"]):
        password = urlsplit(url).password
        assert password
        secrets |= {password, unquote(password)}
    workers = [f"/worker/celery@{name}" for name in names("workers")]
    for path in (*workers, "/api/workers?refresh=1", *SEEN):
        status, text = ask(path, *login)
        assert status == 200, path
        # A page may write the characters at a password's end in another way.
        assert [secret for secret in secrets if secret[:16] in text] == [], path
