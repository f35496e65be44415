"""SQL on items: the only place that knows the table."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Row, Table, any_, bindparam, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.database import Database
from app.highload.pagination import Position
from app.highload.reads.rows import RowReader
from app.highload.writes.group_commit import DirectWriter
from app.highload.writes.insert import InsertOnce
from app.models import Item
from app.schemas import NewItem

type ItemRow = Row[UUID, str, str | None, datetime]

READ_COLUMNS = (Item.id, Item.name, Item.description, Item.created_at)

insert_items = InsertOnce(cast(Table, Item.__table__), NewItem)

# What is read most is made once: a statement made anew for each page takes a sixth of its time.
FIRST_PAGE = (
    select(*READ_COLUMNS).order_by(Item.created_at.desc(), Item.id.desc()).limit(bindparam("limit", type_=Integer))
)
NEXT_PAGE = FIRST_PAGE.where(
    tuple_(Item.created_at, Item.id)
    < tuple_(bindparam("created_at", type_=Item.created_at.type), bindparam("id", type_=Item.id.type))
)
# An array keeps the text of the statement the same for any number of ids.
SELECTS = {
    "postgresql": select(*READ_COLUMNS).where(Item.id == any_(bindparam("ids", type_=ARRAY(Item.id.type)))),
    "sqlite": select(*READ_COLUMNS).where(Item.id.in_(bindparam("ids", expanding=True))),
}


async def list_items(connection: AsyncConnection, limit: int, after: Position | None) -> Sequence[ItemRow]:
    """Return up to `limit` items, newest first, that follow a position."""
    if after is None:
        return (await connection.execute(FIRST_PAGE, {"limit": limit})).all()
    return (await connection.execute(NEXT_PAGE, {"limit": limit, **after._asdict()})).all()


async def get_items(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, ItemRow]:
    """Return the items among `ids` that exist."""
    rows = (await connection.execute(SELECTS[connection.dialect.name], {"ids": ids})).all()
    return {row.id: row for row in rows}


async def update_item(connection: AsyncConnection, item_id: UUID, changes: Mapping[str, str | None]) -> ItemRow | None:
    """Change an item and return it, or None when there is none."""
    statement = update(Item).where(Item.id == item_id).values(changes).returning(*READ_COLUMNS)
    return (await connection.execute(statement)).one_or_none()


async def delete_item(connection: AsyncConnection, item_id: UUID) -> bool:
    """Delete an item and tell whether there was one."""
    return (await connection.execute(delete(Item).where(Item.id == item_id))).rowcount > 0


def item_reader(database: Database, *, max_waiting: int) -> RowReader[ItemRow]:
    """Return what reads items, many at a time."""
    return RowReader(
        database,
        find=get_items,
        list_rows=list_items,
        position=lambda row: Position(row.created_at, row.id),
        max_waiting=max_waiting,
    )


def item_writer(
    database: Database, on_change: Sequence[Callable[[], Awaitable[None]]], *, max_waiting: int
) -> DirectWriter[NewItem]:
    """Return what stores items, many at a time, and then tells that they have changed."""
    return DirectWriter(database, insert_items, on_change, max_waiting=max_waiting)
