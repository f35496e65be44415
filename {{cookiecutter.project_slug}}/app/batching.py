"""Natural batching: what arrives while a trip is under way travels together on the next one."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

logger = logging.getLogger(__name__)


class Overloaded(Exception):
    """More callers wait than are allowed to: try again later."""


class Ticket[V](Protocol):
    """Where a trip leaves a result: a future, or what uses the result at once and without waiting."""

    def done(self) -> bool:
        """Tell whether nobody waits for the result any more."""
        ...

    def set_result(self, result: V, /) -> None:
        """Take the result."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Take the reason why there is no result."""
        ...

    def cancel(self) -> object:
        """Take notice that there will be no result, because the loop ends."""
        ...


class Batcher[K, V]:
    """Sends what arrives while a trip is under way together on the next trip.

    There is no timer. A call that finds nothing under way leaves at once; under load batches form by themselves, and
    their size follows the load. Databases know the idea as group commit.

    `send` gets between 1 and `max_batch` items and returns one result for each, in the same order. A result that is an
    exception is raised to its caller alone. When `send` raises one of `content_errors`, an item is to blame and each is
    sent again by itself; every other exception is raised to all callers of the trip. One of `outages` is raised to all
    who wait for the next trip too, because that would only tell them the same, later.

    A caller joins only a trip that has not left yet, so whatever happened before the call is visible to its trip.
    """

    def __init__(
        self,
        send: Callable[[Sequence[K]], Awaitable[Sequence[V | Exception]]],
        *,
        max_batch: int,
        max_waiting: int,
        content_errors: tuple[type[Exception], ...] = (),
        outages: tuple[type[Exception], ...] = (),
    ) -> None:
        self._send = send
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._content_errors = content_errors
        self._outages = outages
        self._waiting: deque[tuple[K, Ticket[V]]] = deque()
        self._trips: asyncio.Task[None] | None = None

    async def __call__(self, item: K) -> V:
        """Return the result for `item` from the next trip.

        Raises Overloaded at once when `max_waiting` callers wait already, and whatever `send` raised.
        """
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self.board(item, future)
        return await future

    def board(self, item: K, ticket: Ticket[V]) -> None:
        """Let the next trip leave the result for `item` in a ticket.

        Raises Overloaded at once when `max_waiting` wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded
        self._waiting.append((item, ticket))
        if self._trips is None:
            self._trips = asyncio.create_task(self._run_trips())

    async def drain(self) -> None:
        """Return when everything that was accepted has travelled."""
        while self._trips is not None:
            await asyncio.wait([self._trips])

    async def _run_trips(self) -> None:
        try:
            while self._waiting:
                await self._run_trip(self._next_passengers())
        finally:
            self._trips = None

    def _next_passengers(self) -> list[tuple[K, Ticket[V]]]:
        passengers: list[tuple[K, Ticket[V]]] = []
        while self._waiting and len(passengers) < self._max_batch:
            item, ticket = self._waiting.popleft()
            if not ticket.done():
                passengers.append((item, ticket))
        return passengers

    async def _run_trip(self, passengers: list[tuple[K, Ticket[V]]]) -> None:
        if not passengers:
            return
        results: Sequence[V | Exception]
        try:
            results = await self._send([item for item, _ in passengers])
        except self._content_errors as error:
            if len(passengers) > 1:
                for passenger in passengers:
                    await self._run_trip([passenger])
                return
            results = [error]
        except self._outages as error:
            passengers = [*passengers, *self._waiting]
            self._waiting.clear()
            results = [error] * len(passengers)
        except Exception as error:  # noqa: BLE001 - the callers get it
            results = [error] * len(passengers)
        except BaseException:
            for _, ticket in [*passengers, *self._waiting]:
                ticket.cancel()
            self._waiting.clear()
            raise
        deliver(passengers, results)


def deliver[K, V](passengers: Sequence[tuple[K, Ticket[V]]], results: Sequence[V | Exception]) -> None:
    """Leave the results in the tickets of those who still wait."""
    for (_, ticket), result in zip(passengers, results, strict=True):
        if ticket.done():
            continue
        try:
            if isinstance(result, Exception):
                ticket.set_exception(result)
            else:
                ticket.set_result(result)
        except Exception:
            # The others of the trip are not to blame.
            logger.exception("a result could not be used")
            ticket.cancel()
