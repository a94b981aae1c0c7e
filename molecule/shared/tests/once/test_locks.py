"""Task locks: who holds them is shown, and one is freed by its name alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from fleet import BROKER, QUEUE, Fleet, names

# Two of each kind, so that what must stay is seen to stay.
TAKE = {
    "redis": """
import os, redis
url = os.environ.get("CELERY_BROKER_URL") or os.environ["HUEY_URL"]
cache = redis.Redis.from_url(url.rpartition("/")[0] + "/1")
for name in ("SearchTask", "MailTask"):
    assert cache.lock(name, timeout=600).acquire(blocking=False)
cache.set("MailTask:cached", "x" * 32)
""",
    "huey": """
from huey.contrib.djhuey import HUEY
for name in ("search", "mail"):
    HUEY.lock_task(name).acquire()
""",
}
GIVE_BACK = {
    "redis": TAKE["redis"].partition("for name")[0]
    + 'cache.delete("SearchTask", "MailTask", "MailTask:cached")',
    "huey": TAKE["huey"].replace("acquire", "clear"),
}
KINDS = [
    *(["redis"] if BROKER == "redis" else []),
    *(["huey"] if QUEUE == "huey" else []),
]


@pytest.fixture
def taken(fleet: Fleet) -> Iterator[None]:
    for kind in KINDS:
        fleet.python("workers", TAKE[kind])
    yield
    for kind in KINDS:
        fleet.python("workers", GIVE_BACK[kind])


def held(fleet: Fleet, *args: str) -> tuple[int, dict[tuple[str, str], dict[str, object]], str]:
    """Return the exit status, the locks by kind and name, and what was said on stderr."""
    result = fleet.playbook("locks", "-e", "format=json", *args)
    found = json.loads(result.stdout)
    assert found["complete"]
    return (
        result.returncode,
        {(one["kind"], one["name"]): one for one in found["locks"]},
        result.stderr,
    )


# Celery on RabbitMQ has no place for locks.
@pytest.mark.parametrize(
    ("mail", "search"),
    [
        pytest.param("MailTask", "SearchTask", marks=pytest.mark.only(broker="redis")),
        pytest.param("mail", "search", marks=pytest.mark.only(broker="sqlite")),
    ],
)
@pytest.mark.usefixtures("taken")
def test_a_lock_is_shown_and_freed_by_its_name_alone(fleet: Fleet, mail: str, search: str) -> None:
    code, found, said = held(fleet, "-e", f"free={mail[:-1]}")
    assert code == 2
    assert f"Did you mean {mail}?" in said
    names_ = {"redis": {"SearchTask", "MailTask"}, "huey": {"search", "mail"}}
    assert set(found) == {(kind, name) for kind in KINDS for name in names_[kind]}
    assert not any(one["freed"] for one in found.values())
    if "redis" in KINDS:
        one = found["redis", "MailTask"]
        assert one["owner"] == names("workers")[0]
        assert 0 < float(str(one["left"])) <= 600
    if "huey" in KINDS:
        assert found["huey", "mail"]["left"] is None

    code, found, said = held(fleet, "-e", "free=*a*")
    assert code == 2
    assert "-e confirm=yes" in said
    assert not any(one["freed"] for one in found.values())

    result = fleet.playbook("locks", "-e", f"free={mail}")
    assert result.returncode == 0, result.stderr
    assert f"{mail}: taken" in result.stdout
    assert "FREED" in result.stdout
    assert search not in result.stdout

    code, found, said = held(fleet)
    assert code == 0
    assert {name for _, name in found} & {mail, search} == {search}
