"""What a person sees in a browser: the example's page, and Flower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fleet import BROKER, ROOT, SCENARIO, Fleet, Page, names, wait_for
from playwright.sync_api import (
    ConsoleMessage,
    HttpCredentials,
    Response,
    expect,
    sync_playwright,
)
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Page as Tab
from playwright.sync_api import TimeoutError as BrowserTimeout

PICTURES = ROOT / ".artefacts"
# What browsers complain about although all is well.
HARMLESS = (
    # A request that a page gave up because the browser left it.
    "net::ERR_ABORTED",
    # Django sends this header over plain HTTP too, where it means nothing.
    "The Cross-Origin-Opener-Policy header has been ignored",
)

# Milliseconds. Huey ticks once a minute.
TICK = 90_000
expect.set_options(timeout=30_000)


def picture(tab: Tab, name: str) -> None:
    """Keep a picture of the whole page, for people to look at."""
    tab.screenshot(path=PICTURES / f"{SCENARIO.name}-{name}.png", full_page=True)


@contextmanager
def browser(login: HttpCredentials | None = None) -> Iterator[Tab]:
    """Open a browser; what its console or its network complains about fails the test.

    Args:
        login: what a person would type into the dialogue for user and password.
    """
    complaints: list[str] = []

    def complain(words: str) -> None:
        if not any(harmless in words for harmless in HARMLESS):
            complaints.append(words)

    def hear(said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            complain(said.text)

    def check(answer: Response) -> None:
        if answer.status >= 400:
            complain(f"{answer.status} {answer.url}")

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            # The hosts are on this machine, whatever proxy the environment names.
            args=["--no-proxy-server"],
        )
        tab = chromium.new_context(
            http_credentials=login, viewport={"width": 1280, "height": 800}
        ).new_page()
        tab.on("console", hear)
        tab.on("pageerror", lambda error: complain(str(error)))
        tab.on("response", check)
        tab.on("requestfailed", lambda sent: complain(f"{sent.failure} {sent.url}"))
        try:
            yield tab
        except (AssertionError, BrowserTimeout):
            picture(tab, "failed")
            raise
        finally:
            chromium.close()
    assert complaints == []


def press_add(tab: Tab, url: str) -> str:
    """Run the task `add` by its button on the example's page and see it done; return its id."""
    tab.goto(url)
    tab.get_by_label("First number").fill("2")
    tab.get_by_label("Second number").fill("40")
    tab.get_by_role("button", name="Run add").click()
    # The page looks again by itself.
    expect(tab.locator("#task .state")).to_have_text("success")
    expect(tab.locator("#task .answer")).to_have_text("42")
    return tab.url.rstrip("/").rsplit("/", 1)[1]


@pytest.fixture(scope="module")
def login(fleet: Fleet) -> HttpCredentials:
    user, _, password = fleet.environment["FLOWER_BASIC_AUTH"].partition(":")
    # At once: Flower's API answers 401 without the challenge that a browser waits for.
    return {"username": user, "password": password, "send": "always"}


@pytest.fixture(scope="module")
def flower(fleet: Fleet) -> Iterator[str]:
    """Flower's URL. It listens on the loopback of its host: a proxy of the tests leads there."""
    name = names("flower")[0]
    host, address = fleet[name], f"{fleet.address(name)}:5555"
    close = "systemctl stop test-flower.socket test-flower.service"
    host.run(close)
    host.check_output(
        "systemd-run --collect --unit=test-flower --socket-property=ListenStream=%s "
        "/lib/systemd/systemd-socket-proxyd 127.0.0.1:5555",
        address,
    )
    yield f"http://{address}"
    host.run(close)


def test_a_task_is_started_by_its_button_and_done_on_the_page(page: Page) -> None:
    with browser() as tab:
        tab.goto(page.base)
        picture(tab, "page-before")
        task = press_add(tab, page.base)
        picture(tab, "page-task")
        tab.get_by_role("link", name="Back to the fleet").click()
        expect(tab.locator("#scheduler h1")).to_have_text("One scheduler is ticking", timeout=TICK)
        row = tab.locator("#results tr", has=tab.get_by_role("link", name=task[:8]))
        expect(row).to_contain_text("success")
        picture(tab, "page-after")


def test_the_page_renews_itself(page: Page) -> None:
    with browser() as tab:
        tab.goto(page.base)
        # With the age of its last tick.
        scheduler = tab.locator("#scheduler")
        first = scheduler.text_content() or ""
        expect(scheduler).not_to_have_text(first, timeout=TICK)


@pytest.mark.only(queue="celery")
def test_flower_shows_all_workers_online(fleet: Fleet, flower: str, login: HttpCredentials) -> None:
    with browser(login) as tab:
        tab.goto(flower)
        expect(tab.locator("#workers-online")).to_have_text(str(len(names("workers"))))
        for name in names("workers"):
            row = tab.locator("#workers-table tbody tr", has_text=f"celery@{name}")
            expect(row).to_contain_text("Online")
        picture(tab, "flower-workers")


@pytest.mark.only(queue="celery")
def test_flower_shows_a_task_of_the_page(page: Page, flower: str, login: HttpCredentials) -> None:
    with browser(login) as tab:
        task = press_add(tab, page.base)
        # The list does not renew itself.
        known = f"{flower}/api/task/info/{task}"
        wait_for(
            lambda: '"state": "SUCCESS"' in tab.request.get(known).text(),
            30,
            lambda: tab.request.get(known).text(),
        )
        tab.goto(f"{flower}/tasks")
        # Among the ticks of every second.
        tab.locator("#tasks-table_filter input").fill(task)
        row = tab.locator("#tasks-table tbody tr", has_text=task)
        expect(row).to_contain_text("ticks.tasks.add")
        expect(row).to_contain_text("SUCCESS")
        picture(tab, "flower-tasks")
        row.get_by_role("link", name=task).click()
        expect(tab.locator("#task-page")).to_contain_text("42")
        picture(tab, "flower-task")


@pytest.mark.only(queue="celery")
def test_flower_shows_the_queue_of_the_broker(flower: str, login: HttpCredentials) -> None:
    with browser(login) as tab:
        tab.goto(f"{flower}/broker")
        cells = tab.locator("#queue-table tbody tr", has_text="celery").locator("td")
        expect(cells.first).to_have_text("celery")
        # How many messages wait.
        expect(cells.nth(1)).to_have_text(re.compile(r"^\d+$"))
        scheme = {"rabbitmq": "amqp"}.get(BROKER, BROKER)
        expect(tab.locator(".broker-url")).to_contain_text(f"{scheme}://")
        picture(tab, "flower-broker")


@pytest.mark.only(queue="celery")
def test_flower_shows_nothing_without_credentials(flower: str) -> None:
    with pytest.raises(BrowserError, match="ERR_INVALID_AUTH_CREDENTIALS"), browser() as tab:
        tab.goto(flower)


# The manager makes no difference to it.
@pytest.mark.only(queue="celery", manager="systemd")
@pytest.mark.usefixtures("restored")
def test_flower_works_under_a_prefix(fleet: Fleet, flower: str, login: HttpCredentials) -> None:
    result = fleet.playbook("services", "-e", "flower_url_prefix=/flower")
    assert result.returncode == 0, result.stdout
    with browser(login) as tab:
        tab.goto(f"{flower}/flower/")
        # Asked for by the page's script, whose files are under the prefix as well.
        expect(tab.locator("#workers-online")).to_have_text(str(len(names("workers"))))
        tab.get_by_role("link", name="Tasks").click()
        expect(tab).to_have_url(f"{flower}/flower/tasks")
        expect(tab.locator("#tasks-table tbody tr").first).to_contain_text("ticks.tasks")
        picture(tab, "flower-prefix")
