"""Clients that send new items, read lists, and remember every answer."""

import asyncio
import json
import sys
import time
from collections import Counter
from datetime import datetime
from typing import Any
from uuid import uuid4

from loadtest import resource
from tests.drills.client import Broken, Connection, Refused, Reply, Silent
from tests.drills.faults import BROKEN, REFUSED, SILENT, UNAVAILABLE
from tests.drills.stack import Stack

CLIENTS = 20
TIMEOUT = 15.0
READ = 200
ACCEPTED = (201, 202)
STORED = 201
BROKEN_WHEN_KEPT = "broken on a kept connection"


class Load:
    """The clients and their memory.

    Each item has a name of its own. A list that is read after its 201 must show it, if it
    reaches so far back; where it does not, the list is old, and `oldest` tells by how many seconds.

    Half of the clients send an idempotency key and repeat after a failure, and a quarter makes a new connection for
    each request.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stopping = False
        self.started = time.monotonic()
        self.seconds = 0.0
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.accepted: dict[str, str] = {}
        self.mistaken: list[str] = []
        self.posts: list[tuple[float, float]] = []
        self.slowest = 0.0
        self.slowest_unavailable = 0.0
        self.oldest = 0.0
        self.last_failure = 0.0

    async def run(self, name: str) -> None:
        """Send until it is told to stop, and show on a terminal how it goes."""
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._be_a_client(keyed=number % 2 == 0, keeps=number % 4 < 3))
            while not self._stopping:
                await asyncio.sleep(0.2)
                self.seconds = time.monotonic() - self.started
                if sys.stderr.isatty():
                    line = f"{name}: {self.seconds:.0f} s, {len(self.accepted)} accepted"
                    print(f"{line:<79}", end="\r", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Let the clients end after the request that they wait for."""
        self._stopping = True

    async def _be_a_client(self, *, keyed: bool, keeps: bool) -> None:
        connection = Connection(lambda: self._stack.address, timeout=TIMEOUT, keeps=keeps)
        while not self._stopping:
            name = str(uuid4())
            headers = {"Idempotency-Key": name} if keyed else {}
            reply = await self._post(connection, name, headers)
            while keyed and not accepts(reply) and not self._stopping:
                await asyncio.sleep(0.1)
                reply = await self._post(connection, name, headers)
            answered = time.monotonic()
            listed = await self._send(connection, "GET", b"", {})
            if reply and reply.status == STORED and listed and listed.status == READ and lacks(listed, reply):
                self.oldest = max(self.oldest, time.monotonic() - answered)
        connection.close()

    async def _post(self, connection: Connection, name: str, headers: dict[str, str]) -> Reply | None:
        started = time.monotonic()
        reply = await self._send(connection, "POST", resource.body(name).encode(), headers)
        self.posts.append((started, time.monotonic() - started))
        if reply and accepts(reply):
            item_id = json.loads(reply.body)["id"]
            if self.accepted.setdefault(name, item_id) != item_id:
                self.mistaken.append(name)
        return reply

    async def _send(self, connection: Connection, method: str, body: bytes, headers: dict[str, str]) -> Reply | None:
        started = time.monotonic()
        reply = None
        try:
            reply = await connection.request(method, resource.PATH, body=body, headers=headers)
        except Refused:
            self._fail(REFUSED, started)
        except Broken as error:
            if self._stack.direct or error.reused:
                self._fail(BROKEN_WHEN_KEPT if error.reused else BROKEN, started)
            else:
                self._fail(REFUSED, started)
        except Silent:
            self._fail(SILENT, started)
        else:
            self.answers[f"{method} {reply.status}"] += 1
            if reply.status not in (READ, *ACCEPTED):
                self._fail(str(reply.status), started)
        seconds = time.monotonic() - started
        self.slowest = max(self.slowest, seconds)
        if reply is None:
            await asyncio.sleep(0.05)
        elif str(reply.status) == UNAVAILABLE:
            self.slowest_unavailable = max(self.slowest_unavailable, seconds)
        return reply

    def _fail(self, failure: str, started: float) -> None:
        self.failures[failure] += 1
        self.last_failure = max(self.last_failure, started)


def accepts(reply: Reply | None) -> bool:
    """Whether an answer promises that the item is kept."""
    return reply is not None and reply.status in ACCEPTED


def lacks(listed: Reply, stored: Reply) -> bool:
    """Whether a list does not show a stored item although it reaches back to its time."""
    item = json.loads(stored.body)
    items = items_in(listed)
    if item["id"] in (shown["id"] for shown in items):
        return False
    return not items or created_at(items[-1]) < created_at(item)


def items_in(reply: Reply) -> list[dict[str, Any]]:
    """Return the items in a list, newest first."""
    items: list[dict[str, Any]] = json.loads(reply.body)[resource.ROWS]
    return items


def created_at(item: dict[str, Any]) -> datetime:
    """Return when an item was made."""
    return datetime.fromisoformat(item["created_at"])
