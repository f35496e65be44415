"""How a row gets stored: by group commit."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.batching import Batcher
from app.highload.database import ContentRefused, Database, DatabaseUnavailable, Work
from app.highload.writes.idempotency import IdempotencyKeyReused
from app.highload.writes.insert import NewRow

MAX_BATCH = 200

type Insert[R] = Callable[[AsyncConnection, Sequence[R]], Awaitable[Sequence[R | IdempotencyKeyReused]]]


class Receipt[R](NamedTuple):
    """A row for which the service answers from now on; `stored` tells whether reads see it already."""

    row: R
    stored: bool


class Writer[R](Protocol):
    """Takes new rows."""

    async def create(self, row: R) -> Receipt[R]:
        """Accept a row for good.

        Raises IdempotencyKeyReused, Overloaded, or DatabaseUnavailable when there is no place to keep it.
        """
        ...

    async def drain(self) -> None:
        """Return when everything that was accepted is kept."""
        ...


class DirectWriter[R: NewRow]:
    """Stores rows in the database: all that wait share one statement and one commit (group commit).

    `insert` is idempotent. `on_change` runs after each commit and before the writes are answered.
    """

    def __init__(
        self,
        database: Database,
        insert: Insert[R],
        on_change: Sequence[Callable[[], Awaitable[None]]],
        *,
        max_waiting: int,
    ) -> None:
        self._database = database
        self._insert = insert
        self._on_change = on_change
        self._inserts = Batcher(
            self._insert_batch,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting,
            content_errors=(ContentRefused,),
            outages=(DatabaseUnavailable,),
        )

    async def create(self, row: R) -> Receipt[R]:
        """Store a row, or return the one that its idempotency key stored before."""
        return Receipt(await self._inserts(row), stored=True)

    async def change[T](self, work: Work[T]) -> T:
        """Run work that changes or deletes rows in one transaction, and return its result."""
        try:
            return await self._database.write(work)
        finally:
            # After an error too: the database may have committed before it went away.
            for tell in self._on_change:
                await tell()

    async def drain(self) -> None:
        """Return when everything that was accepted is stored."""
        await self._inserts.drain()

    async def _insert_batch(self, rows: Sequence[R]) -> Sequence[R | IdempotencyKeyReused]:
        return await self.change(lambda connection: self._insert(connection, rows))
