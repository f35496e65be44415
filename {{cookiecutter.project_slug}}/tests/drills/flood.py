"""An open load: requests leave at a given rate, however slowly the answers come."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import ceil
from typing import cast

TICK = 0.01
GOOD = (200, 201, 202)
REFUSED = 503
REFUSAL = b"Too many requests"
# One worker would accept all that come at once, and so serve more with one CPU than two workers do.
OPENED_AT_ONCE = 2


class Flood:
    """Sends requests on kept connections at a given rate, and notes every answer.

    It runs on the CPUs of what it loads, so it is cheap: no streams, no parser, and a fixed number of connections. What
    finds no idle connection is not sent.
    """

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self.address = address
        self.request = request
        self.connections = 0
        self.idle: deque[FloodConnection] = deque()
        self.sent = 0
        self.broken = 0
        self.without_retry_after = 0
        self.answers: Counter[int] = Counter()
        self.accepted_in: list[float] = []
        self.refused_in: list[float] = []

    async def run(self, rate: float, seconds: float) -> float:
        """Offer so many requests a second for so long, and return how many good answers came a second."""
        started = time.monotonic()
        offered = 0
        while (elapsed := time.monotonic() - started) < seconds:
            due = ceil(rate * elapsed)
            for _ in range(min(due - offered, len(self.idle))):
                self.sent += 1
                self.idle.popleft().send()
            offered = due
            await asyncio.sleep(TICK)
        goodput = sum(self.answers[status] for status in GOOD) / elapsed
        async with asyncio.timeout(60):
            while len(self.idle) < self.connections:  # noqa: ASYNC110 - many answers end the wait, not one event
                await asyncio.sleep(TICK)
        return goodput

    def note(self, head: bytes, body: bytes, seconds: float) -> None:
        """Count an answer."""
        status = int(head[9:12])
        self.answers[status] += 1
        if status in GOOD:
            self.accepted_in.append(seconds)
        if status == REFUSED and REFUSAL in body:
            self.refused_in.append(seconds)
        if status == REFUSED and b"\r\nretry-after: " not in head:
            self.without_retry_after += 1


@asynccontextmanager
async def open_flood(address: tuple[str, int], request: bytes, *, connections: int) -> AsyncGenerator[Flood]:
    """Open connections, a few at a time, and close them at the end."""
    flood = Flood(address, request)
    loop = asyncio.get_running_loop()
    for _ in range(connections // OPENED_AT_ONCE):
        await asyncio.gather(
            *(loop.create_connection(lambda: FloodConnection(flood), *address) for _ in range(OPENED_AT_ONCE))
        )
    try:
        yield flood
    finally:
        for connection in flood.idle:
            connection.close()


class FloodConnection(asyncio.Protocol):
    """One connection of a flood."""

    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        self._transport: asyncio.Transport
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flood.connections += 1
        self._flood.idle.append(self)

    def send(self) -> None:
        """Send one request."""
        self._sent_at = time.monotonic()
        self._received = b""
        self._transport.write(self._flood.request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < content_length(head):
            return
        self._flood.note(head, body, time.monotonic() - self._sent_at)
        self._sent_at = 0.0
        self._flood.idle.append(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._flood.connections -= 1
        if self._sent_at:
            self._flood.broken += 1
        elif self in self._flood.idle:
            self._flood.idle.remove(self)


def content_length(head: bytes) -> int:
    """Return the declared length of a body."""
    _, _, rest = head.partition(b"\r\ncontent-length: ")
    return int(rest.partition(b"\r\n")[0] or 0)


def percentile(seconds: list[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    return sorted(seconds)[int(len(seconds) * share)] if seconds else 0.0
