"""The rows of a resource, as handlers use them: create, fetch, page, change, delete."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ColumnElement
from sqlalchemy.engine import Row as SQLRow
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.batching import Batcher, Flushes
from app.highload.database import Database, DatabaseUnavailable, Work
from app.highload.etags import PreconditionFailed, Preconditions, bytes_of, entity_tag
from app.highload.generations import announce, announce_no_key, ended_by_change, ended_by_insert, lists, slot
from app.highload.json_pages import Encoded, JSONPages
from app.highload.pagination import Position, announce_next, decode_cursor, encode_cursor

# {%- if cookiecutter.caching +%}
from app.highload.reads.cache import ResponseCache

# {%- endif +%}
from app.highload.resource import Resource, id_in
from app.highload.statements import Conditions, Statements
from app.highload.writes.group_commit import DirectWriter, Receipt, Writer

# {%- if cookiecutter.queued_writes +%}
from app.highload.writes.publisher import Publisher
from app.highload.writes.queued import QueuedWriter

# {%- endif +%}

MAX_IDS = 500
LOOK_UPS = Flushes("rows")


class Repository[C: BaseModel, U: BaseModel, R: BaseModel]:
    """Reads and writes the rows of a resource; rows that are asked for, or created, at the same time share a statement.

    Every method may raise DatabaseUnavailable or Overloaded, and those that write ContentRefused.
    """

    def __init__(self, resource: Resource[C, U, R], storage: "Storage") -> None:
        self.resource = resource
        self._service = storage.name
        self._database = storage.database
        self._statements = Statements(resource)
        self._json_pages = JSONPages(resource)
        self._by_id = Batcher(
            self._find_batch,
            max_batch=MAX_IDS,
            max_waiting=storage.max_waiting,
            outages=(DatabaseUnavailable,),
            flushes=LOOK_UPS,
        )
        self.direct = DirectWriter(
            storage.database,
            self._statements.insert,
            storage.end,
            ended_by_insert=lambda rows: ended_by_insert(
                resource.name, *(id_in(row) for row in rows if row["fingerprint"] is not None)
            ),
            max_waiting=storage.max_waiting,
        )
        self._writer: Writer = self.direct
        # {% if cookiecutter.queued_writes %}
        if storage.publisher is not None and resource.queued:
            publish = storage.publisher.of(resource)
            self._writer = QueuedWriter(publish, self.direct, max_waiting=storage.max_waiting)
        # {% endif %}

    async def one(self, row_id: UUID) -> R | None:
        """Return a row, or None when there is none."""
        announce(self.resource.name, slot(self.resource.name, row_id))
        row = await self._by_id(row_id)
        if row is None:
            # That it is not there changes with a new row, which ends the lists only.
            announce(self.resource.name, lists(self.resource.name))
            return None
        return self.resource.show(row)

    async def page(
        self, *conditions: ColumnElement[bool], limit: int, cursor: str | None = None
    ) -> tuple[list[R], str | None]:
        """Return up to `limit` rows under some conditions, newest first, and the cursor of the page that follows.

        Raises ValueError for a cursor that no page gave.
        """
        announce(self.resource.name, lists(self.resource.name))
        after = None if cursor is None else decode_cursor(cursor)
        # One row more tells that there is a next page, and one more at the front that the cursor names a row.
        wanted = limit + 1 + (after is not None)
        rows = await self._database.read(
            lambda connection: self._statements.page(connection, wanted, after, conditions)
        )
        if rows and after == (rows[0].created_at, rows[0].id):
            rows = rows[1:]
        elif after is not None:
            # Anyone may make a cursor up, and each would fill the cache with a page of its own.
            announce_no_key()
        next_cursor = None
        if len(rows) > limit:
            rows = rows[:limit]
            next_cursor = encode_cursor(Position(rows[-1].created_at, rows[-1].id))
        announce_next(next_cursor)
        return self.resource.show_all(rows), next_cursor

    async def page_as_json(
        self, *conditions: ColumnElement[bool], limit: int, cursor: str | None = None
    ) -> tuple[Encoded, str | None]:
        """Return what `page` returns, with the rows as a client sees them, in JSON.

        PostgreSQL writes them where `read` does nothing but copy columns of plain types; that is several times faster.
        """
        if not self._json_pages.possible or self._database.dialect != "postgresql":
            shown, next_cursor = await self.page(*conditions, limit=limit, cursor=cursor)
            return Encoded(self.resource.encode(shown)), next_cursor
        announce(self.resource.name, lists(self.resource.name))
        after = None if cursor is None else decode_cursor(cursor)
        rows, last, found = await self._database.read(
            lambda connection: self._json_pages.read(connection, limit, after, conditions)
        )
        if not found:
            announce_no_key()
        next_cursor = encode_cursor(last) if len(rows) > limit else None
        announce_next(next_cursor)
        return Encoded(f"[{','.join(rows[:limit])}]".encode()), next_cursor

    async def create(self, body: C, idempotency_key: str | None = None) -> Receipt[R]:
        """Accept a new row for good; requests with the same key and body create one row.

        Raises IdempotencyKeyReused when the key came before with another body.
        """
        receipt = await self._writer.create(self.resource.new_row(body, idempotency_key, service=self._service))
        return Receipt(self.resource.show(receipt.row), receipt.stored)

    async def change(
        self,
        row_id: UUID,
        changes: U,
        *conditions: ColumnElement[bool],
        only_if: Preconditions | None = None,
    ) -> R | None:
        """Change the fields of a row that are set in `changes`, and return it, or None when there is none.

        Raises PreconditionFailed when the row is there, and its entity tag is not what `only_if` asks for.
        """
        values = {name: getattr(changes, name) for name in changes.model_fields_set}
        # The work may run twice, and find at the second time what it has made at the first.
        made: set[str] = set()

        async def work(connection: AsyncConnection) -> SQLRow[Any] | None:
            if only_if is None:
                return await self._statements.change(connection, row_id, values, conditions)
            await self._compare(connection, row_id, conditions, only_if, made)
            row = await self._statements.change(connection, row_id, values, conditions)
            made.add(self._tag_of(row))
            return row

        row = await self.direct.change(
            work,
            ended_by_change(self.resource.name, row_id),
            changed=lambda row: row is not None,
        )
        return None if row is None else self.resource.show(row)

    async def delete(
        self,
        row_id: UUID,
        *conditions: ColumnElement[bool],
        only_if: Preconditions | None = None,
    ) -> bool:
        """Delete a row, and tell whether there was one.

        Raises PreconditionFailed as `change` does.
        """

        async def work(connection: AsyncConnection) -> bool:
            if only_if is not None:
                await self._compare(connection, row_id, conditions, only_if)
            return await self._statements.delete(connection, row_id, conditions)

        return await self.direct.change(
            work,
            ended_by_change(self.resource.name, row_id),
            changed=bool,
        )

    async def write[T](self, work: Work[T], *row_ids: UUID) -> T:
        """Run SQL of your own that changes rows of the table in one transaction, and return its result.

        Name the ids of all rows that it changes; without an id, every kept answer of the table ends.
        """
        return await self.direct.change(work, ended_by_change(self.resource.name, *row_ids))

    async def drain(self) -> None:
        """Return when every row that was accepted is kept."""
        await self._writer.drain()

    async def _compare(
        self,
        connection: AsyncConnection,
        row_id: UUID,
        conditions: Conditions,
        only_if: Preconditions,
        made: Collection[str] = (),
    ) -> None:
        """Lock a row, and compare its entity tag: nobody changes it between that and the end of the transaction."""
        row = await self._statements.lock(connection, row_id, conditions)
        if row is None:
            return
        tag = self._tag_of(row)
        if tag not in made and not only_if.allow(tag):
            raise PreconditionFailed

    def _tag_of(self, row: SQLRow[Any] | None) -> str:
        return "" if row is None else entity_tag(bytes_of(self.resource.show(row)))

    async def _find_batch(self, ids: Sequence[UUID]) -> Sequence[SQLRow[Any] | None]:
        found = await self._database.read(lambda connection: self._statements.find(connection, ids))
        return [found.get(row_id) for row_id in ids]


class Storage:
    """Where a service keeps its rows: the database and, where there are any, the cache and the queue before it.

    `name` is what the service calls itself; `max_waiting` bounds how many calls of one kind may wait.
    """

    def __init__(self, database: Database, *, name: str, max_waiting: int) -> None:
        self.database = database
        self.name = name
        self.max_waiting = max_waiting
        self._repositories: list[Repository[Any, Any, Any]] = []
        # {% if cookiecutter.caching %}
        self.cache: ResponseCache | None = None
        # {% endif %}
        # {% if cookiecutter.queued_writes %}
        self.publisher: Publisher | None = None
        # {% endif %}

    def open[C: BaseModel, U: BaseModel, R: BaseModel](self, resource: Resource[C, U, R]) -> Repository[C, U, R]:
        """Return the rows of a resource; open the cache and the queue before."""
        repository = Repository(resource, self)
        self._repositories.append(repository)
        return repository

    async def end(self, places: Collection[str]) -> None:
        """Let no kept answer count that depends on these places."""
        # {% if cookiecutter.caching %}
        if self.cache is not None:
            await self.cache.invalidate(places)
        # {% endif %}

    async def drain(self) -> None:
        """Return when every row that was accepted is kept."""
        for repository in self._repositories:
            await repository.drain()
