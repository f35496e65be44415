"""SQL on items: the only place that knows the table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Integer, Row, String, Table, Text, any_, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from app.models import Item
from app.pagination import Position
from app.schemas import NewItem

type ItemRow = Row[UUID, str, str | None, datetime]

READ_COLUMNS = (Item.id, Item.name, Item.description, Item.created_at)
NEW_COLUMNS = (*READ_COLUMNS, Item.fingerprint)


class IdempotencyKeyReused(Exception):
    """The idempotency key came before, with another request."""


async def list_items(connection: AsyncConnection, *, limit: int, after: Position | None) -> Sequence[ItemRow]:
    """Return up to `limit` items, newest first, that follow a position."""
    if after is None:
        return (await connection.execute(FIRST_PAGE, {"limit": limit})).all()
    return (await connection.execute(NEXT_PAGE, {"limit": limit, **after._asdict()})).all()


async def get_items(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, ItemRow]:
    """Return the items among `ids` that exist."""
    rows = (await connection.execute(SELECTS[connection.dialect.name], {"ids": ids})).all()
    return {row.id: row for row in rows}


async def insert_items(
    connection: AsyncConnection, items: Sequence[NewItem]
) -> Sequence[NewItem | IdempotencyKeyReused]:
    """Insert what is not there yet and return, for each item, what the table holds under its id.

    An item whose fingerprint differs from the stored one yields IdempotencyKeyReused.
    """
    await INSERTS[connection.dialect.name](connection, items)
    keyed = [item.id for item in items if item.fingerprint is not None]
    if not keyed:
        return items
    rows = (await connection.execute(select(*NEW_COLUMNS).where(Item.id.in_(keyed)))).all()
    stored = {row.id: NewItem(*row) for row in rows}
    return [the_stored(stored.get(item.id, item), item) for item in items]


def the_stored(stored: NewItem, item: NewItem) -> NewItem | IdempotencyKeyReused:
    """Return the stored item when `item` is a repetition of it."""
    if stored.fingerprint != item.fingerprint:
        return IdempotencyKeyReused()
    return stored


async def update_item(connection: AsyncConnection, item_id: UUID, changes: Mapping[str, str | None]) -> ItemRow | None:
    """Change an item and return it, or None when there is none."""
    statement = update(Item).where(Item.id == item_id).values(changes).returning(*READ_COLUMNS)
    return (await connection.execute(statement)).one_or_none()


async def delete_item(connection: AsyncConnection, item_id: UUID) -> bool:
    """Delete an item and tell whether there was one."""
    return (await connection.execute(delete(Item).where(Item.id == item_id))).rowcount > 0


def array_of(column_type: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of an array parameter for a column.

    Text instead of VARCHAR(n), because a cast to the latter cuts what is too long without an error.
    """
    if isinstance(column_type, String):
        return ARRAY(Text())
    return ARRAY(column_type)


def insert_from_arrays(table: Table) -> postgresql.Insert:
    """Return an insert whose text is the same for any number of rows: an array for each column."""
    names = [column.name for column in table.columns]
    arrays = [bindparam(column.name, type_=array_of(column.type)) for column in table.columns]
    rows = func.unnest(*arrays).table_valued(*names).render_derived()
    return postgresql.insert(table).from_select(names, select(*rows.c)).on_conflict_do_nothing()


ITEMS = Item.metadata.tables[Item.__tablename__]
INSERT_FROM_ARRAYS = insert_from_arrays(ITEMS)


async def insert_into_postgresql(connection: AsyncConnection, items: Sequence[NewItem]) -> None:
    """Insert all items with one statement that is planned once."""
    # Two inserts of the same items in different orders would wait for each other.
    rows = sorted(items, key=lambda item: item.id.int)
    columns = {column.name: list(map(attrgetter(column.name), rows)) for column in ITEMS.columns}
    await connection.execute(INSERT_FROM_ARRAYS, columns)


async def insert_into_sqlite(connection: AsyncConnection, items: Sequence[NewItem]) -> None:
    """Insert all items with one statement."""
    rows = [asdict(item) for item in items]
    await connection.execute(sqlite.insert(Item).values(rows).on_conflict_do_nothing())


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
INSERTS = {"postgresql": insert_into_postgresql, "sqlite": insert_into_sqlite}
