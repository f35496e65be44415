"""A small service on the engine, for the engine's own tests: notes in a table, a cache and a queue of their own."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, cast
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import DateTime, MetaData, String, Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.exceptions import HTTPException

from app.highload.database import Database, open_database
from app.highload.http import health
from app.highload.pagination import Position, decode_cursor

# {%- if cookiecutter.caching +%}
from app.highload.reads.cache import open_cache

# {%- endif +%}
from app.highload.reads.dependencies import Opened
from app.highload.reads.rows import RowReader
from app.highload.reads.shared import shared
from app.highload.service import Service
from app.highload.sqlite import SQLiteUTC
from app.highload.writes import idempotency
from app.highload.writes.group_commit import DirectWriter, Writer
from app.highload.writes.insert import InsertOnce

# {%- if cookiecutter.queued_writes +%}
from app.highload.writes.publisher import open_publisher
from app.highload.writes.queue import RowQueue
from app.highload.writes.queued import QueuedWriter

# {%- endif +%}

NAME = "highload-tests"
NAMESPACE = idempotency.key_namespace(NAME)


class Base(DeclarativeBase):
    metadata = MetaData()


class Note(Base):
    __tablename__ = "highload_notes"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True).with_variant(SQLiteUTC(), "sqlite"))
    fingerprint: Mapped[str | None] = mapped_column(String(32))


@dataclass(frozen=True, slots=True)
class NewNote:
    id: UUID
    text: str
    created_at: datetime
    fingerprint: str | None = None


NOTES = cast(Table, Note.__table__)
insert_notes = InsertOnce(NOTES, NewNote)
# {% if cookiecutter.queued_writes %}
NOTE_QUEUE = RowQueue(f"{NAME}.notes", "tests.highload.worker.store_notes", NewNote)
# {% endif %}


def new_note(text: str = "x", **fields: Any) -> NewNote:
    """Return a note that no table holds."""
    return NewNote(uuid4(), text, datetime.now(UTC), **fields)


async def find_notes(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, NewNote]:
    rows = await connection.execute(select(NOTES).where(NOTES.c.id.in_(ids)))
    return {row.id: NewNote(*row) for row in rows}


async def list_notes(connection: AsyncConnection, limit: int, after: Position | None) -> Sequence[NewNote]:
    query = select(NOTES).order_by(NOTES.c.created_at.desc(), NOTES.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(NOTES.c.created_at, NOTES.c.id) < tuple_(*after))
    return [NewNote(*row) for row in await connection.execute(query)]


def note_writer(
    database: Database, on_change: Sequence[Callable[[], Awaitable[None]]] = (), *, max_waiting: int = 1000
) -> DirectWriter[NewNote]:
    return DirectWriter(database, insert_notes, on_change, max_waiting=max_waiting)


router = APIRouter(prefix="/notes")
Reader = Annotated[RowReader[NewNote], Depends(Opened("reader"))]


@router.get("")
@shared
async def get_notes(reader: Reader, limit: int = 100, cursor: str | None = None) -> dict[str, Any]:
    rows, next_cursor = await reader.page(limit=limit, after=None if cursor is None else decode_cursor(cursor))
    return {"notes": [{"id": str(row.id), "text": row.text} for row in rows], "next_cursor": next_cursor}


@router.get("/{note_id}")
@shared
async def get_note(reader: Reader, note_id: UUID) -> dict[str, str]:
    row = await reader.one(note_id)
    if row is None:
        raise HTTPException(404, "There is no note with this id.")
    return {"id": str(row.id), "text": row.text}


@router.post("", status_code=201)
async def post_note(request: Request, response: Response) -> dict[str, str]:
    """Store a note with the text of the body, whatever that is."""
    writer: Writer[NewNote] = request.state.writer
    text = (await request.body()).decode()
    key = idempotency.key_of(request)
    note = new_note(text)
    if key is not None:
        note = NewNote(idempotency.id_of(key, NAMESPACE), text, note.created_at, text[:32].rjust(32))
    receipt = await writer.create(note)
    response.status_code = 201 if receipt.stored else 202
    return {"id": str(receipt.row.id), "text": receipt.row.text}


@router.delete("/{note_id}", status_code=204)
async def delete_note(request: Request, note_id: UUID) -> None:
    direct: DirectWriter[NewNote] = request.state.direct_writer
    await direct.change(lambda connection: connection.execute(NOTES.delete().where(NOTES.c.id == note_id)))


def notes_service(
    *,
    database_url: str,
    redis_url: str | None = None,
    broker_url: str | None = None,
    cache_timeout: float = 2.0,
    db_timeout: float = 0.9,
    broker_deadline: float = 1.0,
    limit_concurrency: int = 1000,
    max_waiting: int = 1000,
    routers: Sequence[APIRouter] = (router, health.router),
    **options: Any,
) -> Service:
    """Return a service on the engine, with what of its parts has an address."""

    @asynccontextmanager
    async def lifespan(app: Service) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(
                open_database(database_url, name=NAME, pool_size=5, timeout=db_timeout)
            )
            on_change: list[Callable[[], Awaitable[None]]] = []
            # {% if cookiecutter.caching %}
            if redis_url:
                app.reads.cache = await stack.enter_async_context(
                    open_cache(redis_url, name=NAME, ttl=60, timeout=cache_timeout, max_waiting=max_waiting)
                )
                on_change.append(app.reads.cache.invalidate)
            # {% endif %}
            direct_writer = note_writer(database, on_change, max_waiting=max_waiting)
            writer: Writer[NewNote] = direct_writer
            # {% if cookiecutter.queued_writes %}
            if broker_url:
                publisher = await stack.enter_async_context(
                    open_publisher(broker_url, NOTE_QUEUE, deadline=broker_deadline)
                )
                writer = QueuedWriter(publisher, direct_writer, max_waiting=max_waiting)
            # {% endif %}
            stack.push_async_callback(writer.drain)
            reader = RowReader(
                database,
                find=find_notes,
                list_rows=list_notes,
                position=lambda row: Position(row.created_at, row.id),
                max_waiting=max_waiting,
            )
            checks = {"database": database.ping}
            yield {"checks": checks, "reader": reader, "direct_writer": direct_writer, "writer": writer}

    app = Service(
        lifespan=lifespan,
        limit_concurrency=limit_concurrency,
        max_body_bytes=65_536,
        max_waiting=max_waiting,
        always=[health.LIVEZ],
        **options,
    )
    for one in routers:
        app.include_flat(one)
    return app
