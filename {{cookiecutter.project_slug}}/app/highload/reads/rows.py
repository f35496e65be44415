"""Rows for readers: by id, all that wait with one SELECT, and page by page."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.batching import Batcher
from app.highload.database import Database, DatabaseUnavailable
from app.highload.pagination import Position, encode_cursor

MAX_IDS = 500


# SQL that returns, of some ids, the rows that exist, and up to so many rows, newest first, that follow a position.
type FindRows[R] = Callable[[AsyncConnection, Sequence[UUID]], Awaitable[Mapping[UUID, R]]]
type ListRows[R] = Callable[[AsyncConnection, int, Position | None], Awaitable[Sequence[R]]]


class RowReader[R]:
    """Reads rows of one kind. `position` tells where a row stands in the order of the list."""

    def __init__(
        self,
        database: Database,
        *,
        find: FindRows[R],
        list_rows: ListRows[R],
        position: Callable[[R], Position],
        max_waiting: int,
    ) -> None:
        self._database = database
        self._find = find
        self._list_rows = list_rows
        self._position = position
        self._by_id = Batcher(
            self._find_batch, max_batch=MAX_IDS, max_waiting=max_waiting, outages=(DatabaseUnavailable,)
        )

    async def one(self, row_id: UUID) -> R | None:
        """Return a row, or None when there is none; all ids that wait share one SELECT.

        Raises DatabaseUnavailable, or Overloaded.
        """
        return await self._by_id(row_id)

    async def page(self, *, limit: int, after: Position | None) -> tuple[Sequence[R], str | None]:
        """Return up to `limit` rows, newest first, and the cursor of the page that follows, if one does.

        Raises DatabaseUnavailable.
        """
        rows = await self._database.read(lambda connection: self._list_rows(connection, limit + 1, after))
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], encode_cursor(self._position(rows[limit - 1]))

    async def _find_batch(self, ids: Sequence[UUID]) -> Sequence[R | None]:
        found = await self._database.read(lambda connection: self._find(connection, ids))
        return [found.get(row_id) for row_id in ids]
