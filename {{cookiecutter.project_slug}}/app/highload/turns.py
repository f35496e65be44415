"""Turns at the connections of a pool, and reads that hand theirs over."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

type Open = Callable[[], AsyncConnection]


class Lease:
    """A connection that is opened when it is first used, and stays open until it is given back, or until an error."""

    def __init__(self, open_one: Open) -> None:
        self._open = open_one
        self._stack = AsyncExitStack()
        self._connection: AsyncConnection | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection]:
        """Yield the connection, or a new one."""
        if self._connection is None:
            self._connection = await self._stack.enter_async_context(self._open())
        try:
            yield self._connection
        except BaseException:
            await self.close()
            raise

    async def renew(self) -> None:
        """Make the connection as new for the next one, who may begin a transaction of his own."""
        if self._connection is None:
            return
        try:
            await self._connection.rollback()
        except SQLAlchemyError:
            await self.close()

    async def close(self) -> None:
        """Give the connection back to the pool."""
        self._connection = None
        await self._stack.aclose()


class Waiting(NamedTuple):
    """Who waits for a turn, and whether a connection on which others have read is of use to him."""

    reads: bool
    turn: asyncio.Future[Lease | None]


class Turns:
    """Lets so many work at a time; the others wait, and the first of them is the next.

    A read that ends while another one waits hands its connection over: to take one from the pool and to give it back
    costs as much as half of a page.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[Waiting] = deque()

    async def take(self, *, reads: bool) -> Lease | None:
        """Return when it is the caller's turn, with a connection on which others have read where there is one."""
        if self._free:
            self._free -= 1
            return None
        turn: asyncio.Future[Lease | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(Waiting(reads, turn))
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                await self.give(turn.result())
            raise

    async def give(self, lease: Lease | None) -> None:
        """End a turn."""
        try:
            if lease is not None and self._next_one_reads():
                await lease.renew()
            # He may have gone away meanwhile.
            if lease is not None and not self._next_one_reads():
                await lease.close()
        finally:
            following = self._first()
            if following is None:
                self._free += 1
            else:
                self._waiting.popleft()
                following.turn.set_result(lease if following.reads else None)

    def _first(self) -> Waiting | None:
        while self._waiting and self._waiting[0].turn.done():
            self._waiting.popleft()
        return self._waiting[0] if self._waiting else None

    def _next_one_reads(self) -> bool:
        following = self._first()
        return following is not None and following.reads
