"""Clients that create, list, fetch, change and delete rows, and remember every answer."""

import asyncio
import random
import sys
import time
from collections import Counter
from typing import Protocol
from uuid import uuid4

from tests.drills import history
from tests.drills.client import CONNECT_TIMEOUT, Broken, Connection, Refused, Reply, Silent
from tests.drills.faults import BROKEN, REFUSED, SILENT, UNAVAILABLE
from tests.drills.history import Ask, Record

CLIENTS = 20
TIMEOUT = 15.0
ACCEPTED = (201, 202)
NOT_THERE = 404
GOOD = (200, *ACCEPTED, 204)
# Clients share so few rows, and this part of the new ones takes the place of others.
SHARED = 20
SHARE_OF_NEW = 0.05
BROKEN_WHEN_KEPT = "broken on a kept connection"


class Service(Protocol):
    """What is loaded; see `Stack`."""

    @property
    def address(self) -> tuple[str, int]: ...

    @property
    def direct(self) -> bool: ...


class Load:
    """The clients and their memory.

    Each row has a name of its own. Half of the clients send an idempotency key and repeat after a failure, a quarter
    makes a new connection for each request, and all of them fetch, change and delete a few rows that they share.
    """

    def __init__(self, service: Service, *, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self._service = service
        self._connect_timeout = connect_timeout
        self._stopping = False
        self._shared: dict[str, str] = {}
        self.started = time.monotonic()
        self.seconds = 0.0
        self.history: list[Record] = []
        self.answers: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.accepted: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.mistaken: list[str] = []
        self.posts: list[tuple[float, float]] = []
        self.slowest = 0.0
        self.slowest_unavailable = 0.0
        self.last_failure = 0.0
        # Reads, and new rows with a key: a proxy may send these again.
        self.failed_repeatables: Counter[str] = Counter()

    @property
    def kept(self) -> dict[str, str]:
        """The ids of what was accepted and may not be gone, by their keys."""
        return {key: row_id for key, row_id in self.accepted.items() if key not in self.deleted}

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
        connection = Connection(
            lambda: self._service.address, timeout=TIMEOUT, keeps=keeps, connect_timeout=self._connect_timeout
        )
        while not self._stopping:
            new = history.create(str(uuid4()), keyed=keyed)
            accepted = await self._ask(connection, new)
            while keyed and not accepted and not self._stopping:
                await asyncio.sleep(0.1)
                accepted = await self._ask(connection, new)
            await self._ask(connection, history.page())
            if self._shared and random.random() < 0.5:
                await self._ask(connection, history.anything(self._shared))
        connection.close()

    async def _ask(self, connection: Connection, ask: Ask) -> bool:
        """Send a request, remember it with its answer, and return whether it was answered well."""
        started = time.monotonic()
        reply: Reply | None = None
        try:
            reply = await connection.request(ask.method, ask.path, body=ask.body, headers=ask.headers)
        except Refused:
            self.fail(ask, REFUSED, started)
            await asyncio.sleep(0.05)
            return False
        except Broken as error:
            if self._service.direct or error.reused:
                self.fail(ask, BROKEN_WHEN_KEPT if error.reused else BROKEN, started)
            else:
                self.fail(ask, REFUSED, started)
        except Silent:
            self.fail(ask, SILENT, started)
        ended = time.monotonic()
        self.slowest = max(self.slowest, ended - started)
        if ask.kind == "create":
            self.posts.append((started, ended - started))
        self.remember(ask.record(started, ended, reply))
        if reply is None:
            await asyncio.sleep(0.05)
            return False
        self.answers[f"{ask.method} {reply.status}"] += 1
        good = reply.status in GOOD or (reply.status == NOT_THERE and ask.kind in ("fetch", "change", "delete"))
        if not good:
            self.fail(ask, str(reply.status), started)
        if str(reply.status) == UNAVAILABLE:
            self.slowest_unavailable = max(self.slowest_unavailable, ended - started)
        return good

    def remember(self, record: Record) -> None:
        """Add a request to the history, and tell which rows must be there."""
        self.history.append(record)
        if record.kind == "create" and record.status in ACCEPTED:
            row_id = record.rows[0].id
            if self.accepted.setdefault(record.key, row_id) != row_id:
                self.mistaken.append(record.key)
            if len(self._shared) < SHARED or random.random() < SHARE_OF_NEW:
                self._shared = dict([*self._shared.items(), (record.key, row_id)][-SHARED:])
        elif record.kind == "delete" and record.status != NOT_THERE:
            self.deleted.add(record.key)

    def fail(self, ask: Ask, failure: str, started: float) -> None:
        """Count a request that did not end well."""
        self.failures[failure] += 1
        if ask.method == "GET" or history.IDEMPOTENCY_KEY in ask.headers:
            self.failed_repeatables[failure] += 1
        self.last_failure = max(self.last_failure, started)
