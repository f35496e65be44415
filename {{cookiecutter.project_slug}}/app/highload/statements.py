"""The SQL of a resource, for PostgreSQL and SQLite."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    CursorResult,
    Integer,
    any_,
    bindparam,
    cast,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Row as SQLRow
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.columns import array_literal, array_of
from app.highload.idempotency import IdempotencyKeyReused
from app.highload.pagination import Position
from app.highload.resource import Resource, Row, id_in

# No column has this name.
ROW_ID = "id of the row"

type Conditions = Sequence[ColumnElement[bool]]


class Statements:
    """The statements of a resource; those that run most are made once, which saves a sixth of the time of a page."""

    def __init__(self, resource: Resource[Any, Any, Any]) -> None:
        self._table = table = resource.table
        self._shows_what_is_stored = resource.shows_what_the_database_makes
        self._inserts: dict[frozenset[str], postgresql.Insert] = {}
        self._arrays = [column.name for column in table.columns if isinstance(column.type, ARRAY)]
        self._columns = [table.c[name] for name in dict.fromkeys([*resource.shown, "created_at", "id"])]
        rows = select(*self._columns)
        self._first_page = rows.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(
            bindparam("limit", type_=Integer)
        )
        self._next_page = self._first_page.where(
            tuple_(table.c.created_at, table.c.id)
            <= tuple_(bindparam("created_at", type_=table.c.created_at.type), bindparam("id", type_=table.c.id.type))
        )
        one = table.c.id == bindparam(ROW_ID, type_=table.c.id.type)
        # An update in SQLite, because a row has no lock of its own there.
        self._lock: dict[str, Any] = {
            "postgresql": rows.where(one).with_for_update(key_share=True, of=table),
            "sqlite": update(table).where(one).values(created_at=table.c.created_at).returning(*self._columns),
        }
        # The parameters name the columns that change.
        self._change = update(table).where(one).returning(*self._columns)
        # An array keeps the text of the statement the same for any number of ids.
        self._by_ids = {
            "postgresql": rows.where(table.c.id == any_(bindparam("ids", type_=ARRAY(table.c.id.type)))),
            "sqlite": rows.where(table.c.id.in_(bindparam("ids", expanding=True))),
        }

    async def insert(self, connection: AsyncConnection, rows: Sequence[Row]) -> Sequence[Row | IdempotencyKeyReused]:
        """Insert the rows that the table does not hold yet, and return what it holds under the id of each.

        A row whose fingerprint differs from the stored one yields IdempotencyKeyReused.
        """
        same_columns: dict[frozenset[str], list[Row]] = {}
        for row in rows:
            same_columns.setdefault(frozenset(row), []).append(row)
        stored: dict[UUID, Row] = {}
        for names, some in same_columns.items():
            stored |= await self._insert_same_columns(connection, names, some)
        asked = [id_in(row) for row in rows if self._shows_what_is_stored or row["fingerprint"] is not None]
        if not asked:
            return rows
        if not stored.keys() >= set(asked):
            query = select(*self._table.columns).where(self._table.c.id.in_(asked))
            stored |= by_id(await connection.execute(query))
        return [the_stored(stored.get(id_in(row), row), row) for row in rows]

    async def find(self, connection: AsyncConnection, ids: Sequence[UUID]) -> Mapping[UUID, SQLRow[Any]]:
        """Return the rows among `ids` that exist."""
        rows = (await connection.execute(self._by_ids[connection.dialect.name], {"ids": ids})).all()
        return {row.id: row for row in rows}

    async def page(
        self, connection: AsyncConnection, limit: int, after: Position | None, conditions: Conditions
    ) -> Sequence[SQLRow[Any]]:
        """Return up to `limit` rows under some conditions, newest first, from a position on."""
        parameters: dict[str, Any] = {"limit": limit}
        query = self._first_page
        if after is not None:
            query = self._next_page
            parameters.update(after._asdict())
        return (await connection.execute(query.where(*conditions), parameters)).all()

    async def lock(self, connection: AsyncConnection, row_id: UUID, conditions: Conditions) -> SQLRow[Any] | None:
        """Return a row under some conditions, or None; nobody else changes it before the transaction ends."""
        statement = self._lock[connection.dialect.name]
        statement = statement.where(*conditions) if conditions else statement
        return (await connection.execute(statement, {ROW_ID: row_id})).one_or_none()

    async def change(
        self, connection: AsyncConnection, row_id: UUID, values: Mapping[str, Any], conditions: Conditions
    ) -> SQLRow[Any] | None:
        """Change a row under some conditions and return it, or None when there is none."""
        statement = self._change.where(*conditions) if conditions else self._change
        return (await connection.execute(statement, {ROW_ID: row_id, **values})).one_or_none()

    async def delete(self, connection: AsyncConnection, row_id: UUID, conditions: Conditions) -> bool:
        """Delete a row under some conditions and tell whether there was one."""
        statement = delete(self._table).where(self._table.c.id == row_id, *conditions)
        return (await connection.execute(statement)).rowcount > 0

    async def _insert_same_columns(
        self, connection: AsyncConnection, names: Collection[str], rows: Sequence[Row]
    ) -> dict[UUID, Row]:
        """Insert rows, and return them as they are stored where that is shown."""
        if connection.dialect.name == "sqlite":
            statement = sqlite.insert(self._table).values(list(rows)).on_conflict_do_nothing(index_elements=["id"])
            return await self._execute(connection, statement)
        # Two inserts of the same rows in different orders would wait for each other.
        ordered = sorted(rows, key=lambda row: id_in(row).int)
        columns = {name: [row[name] for row in ordered] for name in names}
        for name in self._arrays:
            if name in columns:
                columns[name] = [array_literal(values) for values in columns[name]]
        return await self._execute(connection, self._from_arrays(frozenset(names)), columns)

    async def _execute(self, connection: AsyncConnection, insert: Any, parameters: Any = None) -> dict[UUID, Row]:
        if not self._shows_what_is_stored:
            await connection.execute(insert, parameters)
            return {}
        return by_id(await connection.execute(insert.returning(*self._table.columns), parameters))

    def _from_arrays(self, names: frozenset[str]) -> postgresql.Insert:
        """Return an insert whose text is the same for any number of rows: an array for each column."""
        if names not in self._inserts:
            targets = [column for column in self._table.columns if column.name in names]
            arrays = [bindparam(column.name, type_=array_of(column.type)) for column in targets]
            rows = func.unnest(*arrays).table_valued(*[column.name for column in targets]).render_derived()
            # What comes as a text becomes an array of texts, which is checked like one when it is assigned.
            values = [
                cast(value, array_of(column.type.item_type)) if isinstance(column.type, ARRAY) else value
                for column, value in zip(targets, rows.c, strict=True)
            ]
            self._inserts[names] = (
                postgresql.insert(self._table)
                .from_select([column.name for column in targets], select(*values))
                .on_conflict_do_nothing(index_elements=["id"])
            )
        return self._inserts[names]


def by_id(result: CursorResult[Any]) -> dict[UUID, Row]:
    """Return the rows of a result by their ids."""
    return {row["id"]: dict(row) for row in result.mappings()}


def the_stored(stored: Row, row: Row) -> Row | IdempotencyKeyReused:
    """Return the stored row when `row` is a repetition of it."""
    return IdempotencyKeyReused() if stored["fingerprint"] != row["fingerprint"] else stored
