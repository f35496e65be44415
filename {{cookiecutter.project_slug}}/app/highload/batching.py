"""Natural batching: what arrives while a flush is under way goes out together with the next one."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Protocol

from app.highload.metrics.instruments import counter, histogram

# {%- if cookiecutter.observability +%}
from app.highload.tracing.spans import follow, in_span

# {%- endif +%}

logger = logging.getLogger(__name__)


SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Overloaded(Exception):
    """More callers wait than are allowed to: try again later."""


class Flushes:
    """What is counted of the flushes of one kind."""

    def __init__(self, kind: str) -> None:
        # {% if cookiecutter.observability %}
        self.kind = kind
        # {% endif %}
        self.size = histogram("highload_flush_size", "Entries that share a flush.", SIZES, kind=kind)
        self.failures = counter("highload_flush_failures_total", "Flushes that failed as a whole.", kind=kind)


OTHER = Flushes("other")


class Waiter[V](Protocol):
    """Who gets a result of a flush: a future, or what uses the result at once and without waiting."""

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
    """Sends what arrives while a flush is under way together with the next flush.

    There is no timer. A call that finds nothing under way leaves at once; under load batches form by themselves, and
    their size follows the load. Databases know the idea as group commit.

    `send` gets between 1 and `max_batch` entries and returns one result for each, in the same order. A result that is
    an exception is raised to its caller alone. When `send` raises one of `content_errors`, an entry is to blame and
    each is sent again by itself; every other exception is raised to all callers of the flush. One of `outages` is
    raised to all who wait for the next flush too, because that would only tell them the same, later.

    A caller joins only a flush that has not begun yet, so whatever happened before the call is visible to its flush.
    A flush belongs to no caller: it runs in an empty context, so no context variable of one of them reaches the others.
    It is counted in `flushes`.
    # {% if cookiecutter.observability %}
    Where callers are traced, so is the flush.
    # {% endif %}
    """

    def __init__(
        self,
        send: Callable[[Sequence[K]], Awaitable[Sequence[V | Exception]]],
        *,
        max_batch: int,
        max_waiting: int,
        content_errors: tuple[type[Exception], ...] = (),
        outages: tuple[type[Exception], ...] = (),
        flushes: Flushes = OTHER,
    ) -> None:
        self._send = send
        self._flushes = flushes
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._content_errors = content_errors
        self._outages = outages
        self._waiting: deque[tuple[K, Waiter[V]]] = deque()
        self._flushing: asyncio.Task[None] | None = None

    async def __call__(self, entry: K) -> V:
        """Return the result for `entry` from the next flush.

        Raises Overloaded at once when `max_waiting` callers wait already, and whatever `send` raised.
        """
        future: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self.submit(entry, future)
        return await future

    def submit(self, entry: K, waiter: Waiter[V]) -> None:
        """Let the next flush give the result for `entry` to a waiter.

        Raises Overloaded at once when `max_waiting` wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded
        # {% if cookiecutter.observability %}
        waiter = follow(waiter)
        # {% endif %}
        self._waiting.append((entry, waiter))
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush_all(), context=Context())

    async def drain(self) -> None:
        """Return when everything that was accepted was sent."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])

    async def _flush_all(self) -> None:
        try:
            while self._waiting:
                await self._flush(self._next_batch())
        finally:
            self._flushing = None

    def _next_batch(self) -> list[tuple[K, Waiter[V]]]:
        batch: list[tuple[K, Waiter[V]]] = []
        while self._waiting and len(batch) < self._max_batch:
            first = self._waiting.popleft()
            if not first[1].done():
                batch.append(first)
        return batch

    async def _flush(self, batch: list[tuple[K, Waiter[V]]]) -> None:
        if not batch:
            return
        self._flushes.size.observe(len(batch))
        results: Sequence[V | Exception]
        try:
            send = self._send
            # {% if cookiecutter.observability %}
            send = in_span(f"flush {self._flushes.kind}", send, [waiter for _, waiter in batch])
            # {% endif %}
            results = await send([entry for entry, _ in batch])
        except self._content_errors as error:
            if len(batch) > 1:
                for single in batch:
                    await self._flush([single])
                return
            results = [error]
        except self._outages as error:
            self._flushes.failures.add()
            batch = [*batch, *self._waiting]
            self._waiting.clear()
            results = [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - the callers get it
            self._flushes.failures.add()
            results = [error] * len(batch)
        except BaseException:
            for _, waiter in [*batch, *self._waiting]:
                waiter.cancel()
            self._waiting.clear()
            raise
        deliver(batch, results)


def deliver[K, V](batch: Sequence[tuple[K, Waiter[V]]], results: Sequence[V | Exception]) -> None:
    """Give the results to those who still wait."""
    for (_, waiter), result in zip(batch, results, strict=True):
        if waiter.done():
            continue
        try:
            if isinstance(result, Exception):
                waiter.set_exception(result)
            else:
                waiter.set_result(result)
        except Exception:
            # The others of the batch are not to blame.
            logger.exception("a result could not be used")
            waiter.cancel()
