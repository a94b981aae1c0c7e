"""The new process is asked, and nobody else who accepts from the same socket."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loading import load

health = load("module_utils/process_health")


def serve(listener: socket.socket, answer: bytes) -> None:
    """Answer every request on a socket, for ever."""
    while True:
        connection, _ = listener.accept()
        if connection.recv(4096):
            connection.sendall(answer)
        connection.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def address(listener: socket.socket) -> str:
    return "{}:{}".format(*listener.getsockname())


@pytest.fixture
def start(listener: socket.socket) -> Iterator[Callable[[int], int]]:
    """Start a server on the one socket that answers with a status; 0 closes without an answer."""
    started = []

    def one(status: int) -> int:
        pid = os.fork()
        if not pid:
            answer = f"HTTP/1.1 {status} Word\r\nContent-Length: 0\r\n\r\n".encode()
            try:
                serve(listener, answer if status else b"")
            finally:
                os._exit(1)
        started.append(pid)
        return pid

    yield one
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def asked_until_known(one: Any, *pids: int) -> str:
    deadline = time.monotonic() + 20
    while (said := one.ask(lambda: pids)) is None:
        assert time.monotonic() < deadline
    return str(said)


def what(address: str, *status: int) -> dict[str, Any]:
    return {"address": address, "path": "/healthz", "status": list(status)}


def test_the_status_is_that_of_the_process_that_is_meant(
    start: Callable[[int], int], address: str
) -> None:
    old, new = start(200), start(503)
    seen = {old: set[int](), new: set[int]()}
    for pid, statuses in seen.items():
        for _ in range(200):
            with contextlib.suppress(health.NoAnswerError):
                statuses.add(health.answer_of(address, "/", lambda pid=pid: [pid]))
    assert seen == {old: {200}, new: {503}}


def test_a_good_answer_is_enough(start: Callable[[int], int], address: str) -> None:
    start(500)
    new = start(204)
    assert asked_until_known(health.Health(what(address, 200, 204), 20), new) == ""


def test_a_wrong_answer_must_come_several_times(
    start: Callable[[int], int], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PAUSE", 0.1)
    start(200)
    new, one = start(500), health.Health(what(address, 200), 20)
    begin = time.monotonic()
    said = asked_until_known(one, new)
    assert said == f"GET http://{address}/healthz is answered with 500, not 200."
    assert time.monotonic() - begin > (health.TRIES - 1) * health.PAUSE


@pytest.mark.parametrize(
    ("status", "is_new", "why"),
    [
        (200, False, "only the former process accepts connections"),
        (0, True, "it closes the connection without an answer"),
    ],
)
def test_one_that_does_not_answer_is_given_its_time(
    start: Callable[[int], int], address: str, status: int, is_new: bool, why: str
) -> None:
    pid, one = start(status), health.Health(what(address, 200), 0.5)
    begin = time.monotonic()
    said = asked_until_known(one, *[pid] * is_new)
    assert said == f"GET http://{address}/healthz: {why}."
    assert time.monotonic() - begin > 0.5


def test_a_socket_that_nobody_serves_is_no_answer(address: str) -> None:
    with pytest.raises(health.NoAnswerError, match="no process accepts"):
        health.answer_of(address, "/", lambda: [os.getpid()])


def test_a_port_that_is_closed_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        closed = "{}:{}".format(*listening.getsockname())
    with pytest.raises(health.NoAnswerError, match="refused"):
        health.answer_of(closed, "/", list)


TABLE = "head\n   0: {} {} 01 00000000:00000000 00:00000000 00000000     0        0 {} 1 0\n"
LOCAL = "0100007F:1F40"
REMOTE = "0100007F:D431"
MAPPED = "0000000000000000FFFF0000"


def test_whoever_answers_counts_when_nobody_is_meant(
    start: Callable[[int], int], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PAUSE", 0)
    start(503)
    asked = {"address": address, "path": "/up", "status": [200, 503]}
    found = {"url": f"http://{address}/up", "wanted": [200, 503], "status": 503}
    assert health.answer_now(asked, 5) == found
    assert health.answer_now({**asked, "status": [200]}, 5)["status"] == 503


@pytest.mark.parametrize(
    ("answers", "status", "times"),
    [([503, 503, 200], 200, 3), ([503] * 9, 503, 5), ([200], 200, 1)],
)
def test_a_wrong_answer_is_not_the_last_one(
    answers: list[int], status: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(answers)
    asked = []
    monkeypatch.setattr(health, "PAUSE", 0)
    monkeypatch.setattr(health, "answer_of", lambda *args: asked.append(args) or next(left))
    found = health.answer_now({"address": "127.0.0.1:1", "path": "/", "status": [200]}, 5)
    assert (found["status"], len(asked)) == (status, times)


def test_one_that_does_not_answer_says_why(listener: socket.socket, address: str) -> None:
    begin = time.monotonic()
    found = health.answer_now({"address": address, "path": "/", "status": [200]}, 0.3)
    assert found["status"] == -1
    assert "it does not answer" in found["msg"]
    assert time.monotonic() - begin < 5, "It is not asked again."


@pytest.mark.parametrize(
    ("table", "line", "found"),
    [
        ("tcp", (LOCAL, REMOTE, "77"), "77"),
        ("tcp", (LOCAL, REMOTE, "0"), None),  # Not accepted yet.
        ("tcp", (LOCAL, "0200007F:D431", "77"), None),  # Another client.
        ("tcp6", (MAPPED + LOCAL, MAPPED + REMOTE, "78"), "78"),
    ],
)
def test_the_kernel_tells_who_has_accepted(
    tmp_path: Path, table: str, line: tuple[str, str, str], found: str | None
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / table).write_text(TABLE.format(*line))
    ends = ("127.0.0.1", 8000), ("127.0.0.1", 0xD431)
    assert health.inode_of(*ends, proc=tmp_path) == found


def test_an_address_of_ipv6_is_written_word_by_word() -> None:
    assert health.hex_address("::1", 8000) == "00000000000000000000000001000000:1F40"
