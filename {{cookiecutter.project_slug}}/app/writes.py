"""How an item gets stored: by group commit."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol
from uuid import UUID

from app import crud
from app.batching import Batcher
from app.db import ContentRefused, Database, DatabaseUnavailable, Work
from app.schemas import NewItem

MAX_BATCH = 200


class Receipt(NamedTuple):
    """An item for which the service answers from now on; `stored` tells whether reads see it already."""

    item: NewItem
    stored: bool


class Writer(Protocol):
    """Takes new items."""

    async def create(self, item: NewItem) -> Receipt:
        """Accept an item for good.

        Raises IdempotencyKeyReused, Overloaded, or DatabaseUnavailable when there is no place to keep it.
        """
        ...

    async def drain(self) -> None:
        """Return when everything that was accepted is kept."""
        ...


class DirectWriter:
    """Stores items in the database: all that wait share one statement and one commit (group commit).

    `on_change` runs after each commit and before the writes are answered.
    """

    def __init__(
        self, database: Database, on_change: Sequence[Callable[[], Awaitable[None]]], *, max_waiting: int
    ) -> None:
        self._database = database
        self._on_change = on_change
        self._insert = Batcher(
            self._insert_batch,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting,
            content_errors=(ContentRefused,),
            outages=(DatabaseUnavailable,),
        )

    async def create(self, item: NewItem) -> Receipt:
        """Store an item, or return the one that its idempotency key stored before."""
        return Receipt(await self._insert(item), stored=True)

    async def update(self, item_id: UUID, changes: Mapping[str, str | None]) -> crud.ItemRow | None:
        """Change an item and return it, or None when there is none."""
        return await self._write(partial(crud.update_item, item_id=item_id, changes=changes))

    async def delete(self, item_id: UUID) -> bool:
        """Delete an item and tell whether there was one."""
        return await self._write(partial(crud.delete_item, item_id=item_id))

    async def drain(self) -> None:
        """Return when everything that was accepted is stored."""
        await self._insert.drain()

    async def _insert_batch(self, items: Sequence[NewItem]) -> Sequence[NewItem | crud.IdempotencyKeyReused]:
        return await self._write(partial(crud.insert_items, items=items))

    async def _write[T](self, work: Work[T]) -> T:
        try:
            return await self._database.write(work)
        finally:
            # After an error too: the database may have committed before it went away.
            for tell in self._on_change:
                await tell()
