"""An open loop: requests are due at a constant rate, however slowly the answers come.

A latency counts from the time at which its request was due. So it holds the wait of those that stood in line, and a
slow answer keeps no request from being counted (no coordinated omission: G. Tene, How NOT to Measure Latency, 2013).
"""

import asyncio
import random
import select
import selectors
import sys
import time
from collections import Counter
from urllib.parse import urlsplit

from loadtest.connection import Broken, Connection
from loadtest.process import PAUSE, TIMEOUT, Tick
from loadtest.results import Answer, Measurement, Schedule, measure
from loadtest.service import JSON, Workload, authorization

# Seconds by which a request leaves late before that is counted.
LATE = 0.001


def load(url: str, workload: Workload, *, rate: int, connections: int, seconds: int, tick: Tick) -> Measurement:
    """Send a workload at so many requests a second and return what was measured."""
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(send(url, workload, rate=rate, connections=connections, seconds=seconds, tick=tick))


async def send(url: str, workload: Workload, *, rate: int, connections: int, seconds: float, tick: Tick) -> Measurement:
    """Send requests at a constant rate through at most so many connections, and wait for their answers.

    What has no answer after TIMEOUT seconds, counted from when it was due, is given up.
    """
    sender = Sender(url, workload, connections)
    began = time.monotonic()
    ticked = began
    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            elif number % connections == 0:
                # The answers that came meanwhile are read before more is sent.
                await asyncio.sleep(0)
            group.create_task(sender.send(due))
            if due > ticked + PAUSE:
                ticked = due
                tick(due - began)
    sender.close()
    answers = [Answer(due - began, latency, status) for due, latency, status in sender.answers]
    return measure(
        workload.title,
        workload.request,
        "Python",
        seconds=seconds,
        answers=answers,
        unanswered=sender.unanswered,
        schedule=Schedule(sender.due, sender.late, sender.latest, sender.waited),
    )


class Sender:
    """Sends the requests of a workload, and notes their answers and its own delays."""

    def __init__(self, url: str, workload: Workload, connections: int) -> None:
        self.answers: list[Answer] = []
        self.unanswered: Counter[str] = Counter()
        self.due = self.late = self.waited = 0
        self.latest = 0.0
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._requests = [rendered(parts.netloc, workload, path) for path in workload.paths]
        self._places = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []

    async def send(self, due: float) -> None:
        """Send a request that is due, or as soon as a connection is free, and note what comes of it."""
        self._note_delay(time.monotonic() - due)
        self.waited += self._places.locked()
        try:
            async with asyncio.timeout(due + TIMEOUT - time.monotonic()), self._places:
                connection = await self._connection()
                status = await connection.exchange(random.choice(self._requests))
        except TimeoutError:
            self.unanswered["timeout"] += 1
        except (OSError, Broken) as error:
            self.unanswered[str(error) if isinstance(error, Broken) else type(error).__name__] += 1
        else:
            self.answers.append(Answer(due, time.monotonic() - due, status))
            self._idle.append(connection)

    def _note_delay(self, delay: float) -> None:
        """Note by how much a request left late, or had to begin its wait for a connection late."""
        self.due += 1
        self.late += delay >= LATE
        self.latest = max(self.latest, delay)

    async def _connection(self) -> Connection:
        """Return the connection that was used last and is still open, or a new one."""
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        _, new = await asyncio.get_running_loop().create_connection(Connection, *self._address)
        return new

    def close(self) -> None:
        """Close all connections."""
        for connection in self._idle:
            connection.close()


def rendered(host: str, workload: Workload, path: str) -> bytes:
    """Return the bytes of a request."""
    body = (workload.body or "").encode()
    fields = {"Host": host, **authorization()}
    if body:
        fields |= JSON | {"Content-Length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{workload.method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def precise_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are exact to some microseconds; epoll alone rounds up to a millisecond."""
    if sys.platform != "linux":
        return asyncio.new_event_loop()

    class Precise(selectors.EpollSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout and timeout > 0:
                select.select([self.fileno()], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    return asyncio.SelectorEventLoop(Precise())
