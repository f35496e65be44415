"""How a row gets stored: by group commit."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.batching import Batcher, Flushes
from app.highload.database import ContentRefused, Database, DatabaseUnavailable, Work
from app.highload.idempotency import IdempotencyKeyReused
from app.highload.resource import Row

MAX_BATCH = 200
INSERTS = Flushes("insert")

type Insert = Callable[[AsyncConnection, Sequence[Row]], Awaitable[Sequence[Row | IdempotencyKeyReused]]]


class Receipt[R](NamedTuple):
    """A row for which the service answers from now on; `stored` tells whether reads see it already."""

    row: R
    stored: bool


class Writer(Protocol):
    """Takes new rows."""

    async def create(self, row: Row) -> Receipt[Row]:
        """Accept a row for good.

        Raises IdempotencyKeyReused, Overloaded, or DatabaseUnavailable when there is no place to keep it.
        """
        ...

    async def drain(self) -> None:
        """Return when everything that was accepted is kept."""
        ...


class DirectWriter:
    """Stores rows in the database: all that wait share one statement and one commit (group commit).

    `insert` is idempotent. `end` gets the places that a commit ends, before the writes are answered.
    """

    def __init__(
        self,
        database: Database,
        insert: Insert,
        end: Callable[[Collection[str]], Awaitable[None]],
        *,
        ended_by_insert: Callable[[Sequence[Row]], Collection[str]],
        max_waiting: int,
    ) -> None:
        self._database = database
        self._insert = insert
        self._end = end
        self._ended_by_insert = ended_by_insert
        self._inserts = Batcher(
            self._insert_batch,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting,
            content_errors=(ContentRefused,),
            outages=(DatabaseUnavailable,),
            flushes=INSERTS,
        )

    async def create(self, row: Row) -> Receipt[Row]:
        """Store a row, or return the one that its idempotency key stored before."""
        return Receipt(await self._inserts(row), stored=True)

    async def change[T](
        self, work: Work[T], ends: Collection[str], *, changed: Callable[[T], bool] = lambda _: True
    ) -> T:
        """Run work that changes rows in one transaction, and return its result.

        `ends` are the places of which the result has `changed` something.
        """
        # How often the database may have committed: it may have gone away then, and the work have run again.
        commits = 0

        async def until_commit(connection: AsyncConnection) -> T:
            nonlocal commits
            result = await work(connection)
            commits += 1
            return result

        try:
            result = await self._database.write(until_commit)
        except BaseException:
            if commits:
                await self._end(ends)
            raise
        if changed(result) or commits > 1:
            await self._end(ends)
        return result

    async def drain(self) -> None:
        """Return when everything that was accepted is stored."""
        await self._inserts.drain()

    async def _insert_batch(self, rows: Sequence[Row]) -> Sequence[Row | IdempotencyKeyReused]:
        # Also where the rows were there already: who has stored them may not have told it yet.
        return await self.change(lambda connection: self._insert(connection, rows), self._ended_by_insert(rows))
