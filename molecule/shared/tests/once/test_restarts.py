"""Huey's periodic tasks through restarts: it repeats no minute and skips none."""

from __future__ import annotations

import time

import pytest
from counting import count
from faults import now, read
from fleet import PERIODIC, SCHEDULER, Fleet, Page, wait_for


# Five minutes, once.
@pytest.mark.only(queue="huey", broker="redis")
def test_a_periodic_task_through_five_restarts(fleet: Fleet, page: Page) -> None:
    begin = now()
    # Behind its look at the minute, which a busy machine delays, and before the next minute's.
    for second in (25, 32, 39, 46, 53):
        time.sleep((second - time.time()) % 60)
        fleet.service(PERIODIC, SCHEDULER).restart()
    restarted = now()
    wait_for(
        lambda: any(tick.sent > restarted for tick in read(page)),
        80,
        lambda: f"no tick since {restarted}: {read(page)[-6:]}",
    )
    found = count(read(page), begin, now(), begin)
    assert found.twice == []
    assert found.missing == []
