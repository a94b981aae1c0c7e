"""The forum works: its page, its search index, and the one scheduler that keeps it up to date."""

from __future__ import annotations

import re
import secrets
import urllib.parse

import pytest
from fleet import QUEUE, SCHEDULER, STACK, WORKER, Fleet, Page, names, wait_for

USER, PASSWORD = "reader", secrets.token_urlsafe()
# What a worker writes when it takes the periodic task.
TAKEN = {
    "huey": r"Executing spirit\.core\.tasks\.full_search_index_update",
    "celery": r"Task spirit\.core\.tasks\.full_search_index_update\[.*\] received",
}[QUEUE]
INDEX = f"/var/lib/{STACK}/search"
OTHER_QUEUE = {
    "huey": ("celery-beat", "celery-worker"),
    "celery": ("huey-periodic", "huey-worker"),
}[QUEUE]


def new_word() -> str:
    """Return a word that no topic has had."""
    return f"w{secrets.token_hex(6)}"


def title(word: str) -> str:
    """Return the title of a topic; the page of a search shows the word in any case."""
    return f"About {word}"


class Forum(Page):
    """The forum as a visitor uses it."""

    def post(self, path: str, **form: str) -> str:
        """Fill in a page's form and return the page that follows."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(path))
        assert token, path
        data = urllib.parse.urlencode({**form, "csrfmiddlewaretoken": token.group(1)}).encode()
        with self.opener.open(self.base + path, data, timeout=20) as answer:
            return str(answer.read().decode())

    def finds(self, word: str) -> bool:
        """Say whether the search for the word lists the topic `title(word)`."""
        return title(word) in self.get(f"/search/?q={word}")


@pytest.fixture(scope="module")
def forum(fleet: Fleet) -> Forum:
    """The forum with a category, visited by a user who has logged in."""
    fleet.python(
        "web",
        "from django.contrib.auth import get_user_model\n"
        "from spirit.category.models import Category\n"
        "Category.objects.get_or_create(title='News')\n"
        f"user, _ = get_user_model().objects.get_or_create(username={USER!r})\n"
        f"user.set_password({PASSWORD!r})\n"
        "user.save()",
    )
    made = Forum(fleet.address(names("web")[0]))
    assert "/user/logout/" in made.post("/user/login/", username=USER, password=PASSWORD)
    return made


def test_the_front_page_and_its_style_answer(fleet: Fleet) -> None:
    visitor = Page(fleet.address(names("web")[0]))
    front = visitor.get("/")
    assert "Latest active topics" in front
    style = re.search(r'rel="stylesheet" href="(/static/[^"]+)"', front)
    assert style
    assert "{" in visitor.get(style.group(1))


def test_exactly_one_scheduler_runs_by_census(fleet: Fleet) -> None:
    result = fleet.playbook("verify")
    assert result.returncode == 0, result.stdout
    assert f"Exactly one scheduler runs, on {SCHEDULER}" in result.stdout


def test_nothing_of_the_other_queue_is_left(fleet: Fleet) -> None:
    left = [(unit, host) for unit in OTHER_QUEUE for host in fleet.hosts]
    assert [(u, h) for u, h in left if fleet.service(u, h).is_defined] == []


def test_a_topic_from_the_page_is_indexed_by_a_worker(forum: Forum) -> None:
    category = re.search(r'<option value="(\d+)">News', forum.get("/topic/publish/"))
    assert category
    word = new_word()
    forum.post("/topic/publish/", title=title(word), category=category.group(1), comment=word)
    wait_for(lambda: forum.finds(word), 20, lambda: "the topic was not indexed when published")


@pytest.mark.only(queue="celery")
def test_the_web_server_sends_tasks_as_the_settings_say(fleet: Fleet) -> None:
    """With the project's application, not with Celery's default one."""
    said = fleet.python("web", "import celery\nprint(celery.current_app.main)")
    assert said == "mysite"


def test_the_scheduled_task_indexes_a_topic(fleet: Fleet, forum: Forum) -> None:
    """A topic that was written past the forum, so that no worker was told of it."""
    word = new_word()
    fleet.python(
        "scheduler",
        "from django.contrib.auth import get_user_model\n"
        "from spirit.category.models import Category\n"
        "from spirit.topic.models import Topic\n"
        f"Topic.objects.create(title={title(word)!r}, category=Category.objects.get(title='News'), "
        f"user=get_user_model().objects.get(username={USER!r}))",
    )
    # Every minute; Huey's scheduler takes up to one more to start.
    wait_for(lambda: forum.finds(word), 150, lambda: "the topic was not indexed in time")


def test_the_scheduled_task_runs_once_a_minute(fleet: Fleet) -> None:
    """Counted by the workers, who would take the task of a second scheduler as well."""

    def minutes() -> list[str]:
        """The minute of each run, as the journal writes it: `Nov 20 13:12`."""
        logs = [fleet.service(WORKER, name).log for name in names("workers")]
        return [line[:12] for log in logs for line in log.splitlines() if re.search(TAKEN, line)]

    wait_for(lambda: len(minutes()) > 1, 130, lambda: f"taken at {minutes()}")
    assert sorted(set(minutes())) == sorted(minutes())


def test_the_index_is_where_the_web_server_reads_it(fleet: Fleet) -> None:
    """It consists of files: a worker on another host would write one that nobody reads."""
    having = [name for name, host in fleet.hosts.items() if host.file(INDEX).exists]
    assert having == names("web") == names("workers")
