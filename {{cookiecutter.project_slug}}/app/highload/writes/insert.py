"""Inserting new rows so that a repetition changes nothing."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import ARRAY, String, Table, Text, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from app.highload.writes.idempotency import IdempotencyKeyReused


class NewRow(Protocol):
    """A row on its way to its table: an attribute for each column, among them these two.

    `fingerprint` is the digest of the request that came with an idempotency key, and None without such a key.
    """

    @property
    def id(self) -> UUID:
        """The primary key."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """What tells a repetition from another use of an idempotency key."""
        ...


class InsertOnce[R: NewRow]:
    """Inserts the rows that a table does not hold yet, all with one statement.

    `make_row` makes a row of the values of all columns, in their order.
    """

    def __init__(self, table: Table, make_row: Callable[..., R]) -> None:
        self._table = table
        self._make_row = make_row
        self._names = [column.name for column in table.columns]
        self._from_arrays = insert_from_arrays(table)

    async def __call__(self, connection: AsyncConnection, rows: Sequence[R]) -> Sequence[R | IdempotencyKeyReused]:
        """Insert what is not there yet and return, for each row, what the table holds under its id.

        A row whose fingerprint differs from the stored one yields IdempotencyKeyReused.
        """
        if connection.dialect.name == "sqlite":
            values = [{name: getattr(row, name) for name in self._names} for row in rows]
            await connection.execute(sqlite.insert(self._table).values(values).on_conflict_do_nothing())
        else:
            # Two inserts of the same rows in different orders would wait for each other.
            ordered = sorted(rows, key=lambda row: row.id.int)
            columns = {name: list(map(attrgetter(name), ordered)) for name in self._names}
            await connection.execute(self._from_arrays, columns)
        keyed = [row.id for row in rows if row.fingerprint is not None]
        if not keyed:
            return rows
        query = select(*self._table.columns).where(self._table.c.id.in_(keyed))
        stored = {row.id: self._make_row(*row) for row in (await connection.execute(query)).all()}
        return [the_stored(stored.get(row.id, row), row) for row in rows]


def the_stored[R: NewRow](stored: R, row: R) -> R | IdempotencyKeyReused:
    """Return the stored row when `row` is a repetition of it."""
    if stored.fingerprint != row.fingerprint:
        return IdempotencyKeyReused()
    return stored


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
