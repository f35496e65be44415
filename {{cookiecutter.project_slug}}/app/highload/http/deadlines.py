"""Deadlines for clients: the server hangs up on one that it waits for too long.

A client may be slow, but not for ever: it has some seconds for each thing that the server waits for, and more of them
for what moves, a second for each `BYTES_PER_SECOND` (as Apache's mod_reqtimeout counts).
"""

import asyncio
from collections.abc import Collection
from typing import NamedTuple, Protocol, cast

BYTES_PER_SECOND = 1000
LOOKS = 10


class Awaited(NamedTuple):
    """What a connection waits for, compared by identity, and a count of bytes that grows while it comes."""

    what: object
    moved: int


class Awaiting(Protocol):
    """A connection that can tell what it waits for."""

    def awaited(self) -> Awaited | None:
        """Return what the client has to do next, or None while it is not its turn."""

    def hang_up(self) -> None:
        """End the connection at once."""


class Wait(NamedTuple):
    """What is awaited, since which look, and the count of bytes at that time."""

    what: object
    since: int
    moved: int


class Deadlines:
    """Looks at all connections ten times in `patience` seconds, and hangs up on those who let it wait for longer.

    A timer for each request would cost more than all these looks together. Looks are counted, not seconds: a process
    that was frozen has not looked, and does not blame its clients.
    """

    def __init__(self, connections: Collection[object], patience: float) -> None:
        self._connections = connections
        self._patience = patience
        self._looks = 0
        self._waits: dict[Awaiting, Wait] = {}

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._patience / LOOKS)
            self.look()

    def look(self) -> None:
        """Hang up on those who let the server wait for too long."""
        self._looks += 1
        waits: dict[Awaiting, Wait] = {}
        for connection in cast(list[Awaiting], list(self._connections)):
            awaited = connection.awaited()
            if awaited is None:
                continue
            wait = self._waits.get(connection)
            if wait is None or wait.what is not awaited.what:
                wait = Wait(awaited.what, self._looks, awaited.moved)
            seconds = (self._looks - wait.since) * self._patience / LOOKS
            if seconds > self._patience + (awaited.moved - wait.moved) / BYTES_PER_SECOND:
                connection.hang_up()
            else:
                waits[connection] = wait
        self._waits = waits
