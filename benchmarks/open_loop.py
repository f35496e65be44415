"""Requests that arrive at a constant rate, whether or not the ones before are answered.

A latency counts from the moment at which a request was due, so a server that stalls is charged for everybody who would
have come meanwhile (coordinated omission; G. Tene, "How NOT to Measure Latency", 2015).
"""

import asyncio
import math
import time
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.load import FIRST_ERROR, NEW_ITEM, Report

CONNECTIONS = 100
# Seconds that the last answers may take.
PATIENCE = 10.0


class Client(asyncio.Protocol):
    """A connection that sends one request at a time."""

    def __init__(self, arrivals: "Arrivals") -> None:
        """Take the requests from there."""
        self._arrivals = arrivals
        self._received = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what requests are written to."""
        # That of uvloop is none by its class.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Finish the request when its answer is whole."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._received = b""
            self._arrivals.answered(self, int(head.split(b" ", 2)[1]))

    def connection_lost(self, _: Exception | None) -> None:
        """Tell that no answer comes any more."""
        self._arrivals.closed(self)


class Arrivals:
    """Requests that are due one after the other; they wait in line while no connection is free."""

    def __init__(self, request: bytes, *, rate: float, count: int) -> None:
        """Send a request so many times, at so many a second."""
        self._request = request
        self._rate = rate
        self._count = self._unfinished = count
        self._began = 0.0
        self._arrived = 0
        self._waiting: deque[float] = deque()
        self._free: list[Client] = []
        self.latencies: list[float] = []
        self.errors = 0
        self.done = asyncio.Event()

    async def run(self, host: str, port: int) -> None:
        """Send everything, and return when all is answered."""
        loop = asyncio.get_running_loop()
        clients = [await loop.create_connection(lambda: Client(self), host, port) for _ in range(CONNECTIONS)]
        self._free = [client for _, client in clients]
        self._began = loop.time()
        while self._arrived < self._count:
            due = math.floor((loop.time() - self._began) * self._rate)
            for number in range(self._arrived, min(due, self._count)):
                self._waiting.append(self._began + number / self._rate)
            self._arrived = max(self._arrived, min(due, self._count))
            self._send()
            await asyncio.sleep(0.001)
        await asyncio.wait_for(self.done.wait(), PATIENCE)
        for transport, _ in clients:
            transport.abort()

    def answered(self, client: Client, status: int) -> None:
        """Note an answer, and use its connection for the next request."""
        self.latencies.append(asyncio.get_running_loop().time() - client.due)
        self.errors += status >= FIRST_ERROR
        self._free.append(client)
        self._send()
        self._finish_one()

    def closed(self, client: Client) -> None:
        """Note a request that gets no answer."""
        if client in self._free:
            self._free.remove(client)
            return
        self.errors += 1
        self._finish_one()

    def _send(self) -> None:
        while self._waiting and self._free:
            client = self._free.pop()
            client.due = self._waiting.popleft()
            client.transport.write(self._request)

    def _finish_one(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            self.done.set()


def write(url: str, *, rate: float, seconds: float) -> Report:
    """Send so many POSTs of new items a second."""
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    head = f"POST /items HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(NEW_ITEM)}\r\n\r\n{NEW_ITEM}".encode()
    host, port = address.hostname, address.port

    async def send() -> Arrivals:
        arrivals = Arrivals(request, rate=rate, count=int(rate * seconds))
        await arrivals.run(host, port)
        return arrivals

    began = time.monotonic()
    arrivals: Arrivals = uvloop.run(send())
    latencies = sorted(arrivals.latencies)

    def percentile(share: float) -> float:
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))]

    return Report(
        len(latencies) / (time.monotonic() - began),
        percentile(0.5),
        percentile(0.99),
        latencies[-1],
        arrivals.errors,
        p999=percentile(0.999),
    )
