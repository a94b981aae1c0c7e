"""Requests at a fixed rate, each on a connection of its own, whether or not earlier ones are done.

Usage: load.py RATE URL... (http://ADDRESS:PORT/PATH, in turns), until standard input ends; then
writes a JSON list of [second, latency in seconds, "" or what failed]. The latency counts from
the time at which the request was due.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

TIMEOUT = 15
Outcome = tuple[float, float, str]


async def ask(url: str) -> str:
    """Make a request and return what failed; an answer must be 200 and whole."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        path = f"{parts.path}?{parts.query}"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {parts.hostname}\r\nConnection: close\r\n\r\n".encode()
        )
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status = head.split(b"\r\n")[0].decode()
    if " 200 " not in status:
        return status or "no answer"
    lengths = [
        line.split(b":")[1] for line in head.lower().split(b"\r\n") if b"content-length" in line
    ]
    return "" if not lengths or int(lengths[0]) == len(body) else "a part of the answer"


async def main(rate: float, urls: list[str]) -> None:
    """Ask until the input ends."""
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    outcomes: list[Outcome] = []

    async def one(due: float, url: str) -> None:
        failed = ""
        try:
            failed = await asyncio.wait_for(ask(url), TIMEOUT)
        except (TimeoutError, OSError, ValueError) as error:
            failed = f"{type(error).__name__} {error}".strip()
        outcomes.append((due - begin, time.monotonic() - due, failed))

    begin = time.monotonic()
    count = 0
    under_way = set()
    while not ended.done():
        due = begin + count / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        task = asyncio.create_task(one(due, urls[count % len(urls)]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        count += 1
    await asyncio.gather(*under_way)
    json.dump(outcomes, sys.stdout)


asyncio.run(main(float(sys.argv[1]), sys.argv[2:]))
