"""A small service on the engine, for the engine's own tests: notes in a table, a cache and a queue of their own."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from app.highload import idempotency
from app.highload.columns import ANNOTATIONS, StoredRow
from app.highload.database import Database, open_database
from app.highload.http import health, metrics
from app.highload.http.changes import Changes
from app.highload.pagination import Cursor, Limit

# {%- if cookiecutter.caching +%}
from app.highload.reads.cache import open_cache

# {%- endif +%}
from app.highload.reads.dependencies import Opened
from app.highload.reads.shared import shared
from app.highload.repository import Repository, Storage
from app.highload.resource import Resource, Row
from app.highload.service import Service
from app.highload.statements import Statements
from app.highload.writes.group_commit import DirectWriter

# {%- if cookiecutter.queued_writes +%}
from app.highload.writes.publisher import open_publisher
from app.highload.writes.queue import RowQueue

# {%- endif +%}
from tests.waiting import PATIENCE

NAME = "highload-tests"


class Base(DeclarativeBase):
    type_annotation_map = ANNOTATIONS


class Note(StoredRow, Base):
    __tablename__ = "highload_notes"

    text: Mapped[str] = mapped_column(String(255))


class NoteCreate(BaseModel):
    text: str


class NoteUpdate(Changes):
    text: str = ""


class NoteRead(BaseModel):
    id: UUID
    text: str
    created_at: datetime


NOTES = Resource(Note, create=NoteCreate, change=NoteUpdate, read=NoteRead)
# {% if cookiecutter.queued_writes %}
QUEUE = RowQueue(f"{NAME}.rows", "tests.highload.worker.store_rows")
# {% endif %}

type NoteRepository = Repository[NoteCreate, NoteUpdate, NoteRead]


def new_note(text: str = "x", key: str | None = None) -> Row:
    """Return a note that no table holds, or that of a key."""
    return NOTES.new_row(NoteCreate(text=text), key, service=NAME)


statements = Statements(NOTES)


insert_notes = statements.insert


async def nothing_ends(_: Collection[str]) -> None:
    pass


def note_writer(
    database: Database, end: Callable[[Collection[str]], Awaitable[None]] = nothing_ends, *, max_waiting: int = 1000
) -> DirectWriter:
    """Return a writer for tests of the writer itself."""
    return DirectWriter(database, statements.insert, end, ended_by_insert=lambda _: ["notes"], max_waiting=max_waiting)


def storage_of(database: Database, *, max_waiting: int = 1000) -> Storage:
    return Storage(database, name=NAME, max_waiting=max_waiting)


router = APIRouter(prefix="/notes")
Notes = Annotated[NoteRepository, Depends(Opened("notes"))]


@router.get("")
@shared(reads=[NOTES.rows])
async def get_notes(notes: Notes, limit: Limit = 100, cursor: Cursor | None = None) -> dict[str, Any]:
    rows, next_cursor = await notes.page(limit=limit, cursor=cursor)
    return {"notes": [{"id": str(row.id), "text": row.text} for row in rows], "next_cursor": next_cursor}


@router.get("/{note_id}")
@shared(reads=[NOTES.row("note_id")])
async def get_note(notes: Notes, note_id: UUID) -> dict[str, str]:
    row = await notes.one(note_id)
    if row is None:
        raise HTTPException(404, "There is no note with this id.")
    return {"id": str(row.id), "text": row.text}


@router.post("", status_code=201)
async def post_note(request: Request, notes: Notes, response: Response) -> dict[str, str]:
    """Store a note with the text of the body, whatever that is."""
    text = (await request.body()).decode()
    note, stored = await notes.create(NoteCreate(text=text), idempotency.key_of(request))
    response.status_code = 201 if stored else 202
    return {"id": str(note.id), "text": note.text}


@router.patch("/{note_id}")
async def patch_note(notes: Notes, note_id: UUID, body: NoteUpdate) -> NoteRead:
    row = await notes.change(note_id, body)
    if row is None:
        raise HTTPException(404, "There is no note with this id.")
    return row


@router.delete("/{note_id}", status_code=204)
async def delete_note(notes: Notes, note_id: UUID) -> None:
    await notes.delete(note_id)


@contextmanager
def creation_held() -> Iterator[asyncio.Event]:
    """Let whoever creates a note wait for an event, inside of the service."""
    event = asyncio.Event()
    create = Repository.create

    async def held(self: NoteRepository, *arguments: Any) -> Any:
        await event.wait()
        return await create(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repository, "create", held)
        yield event


class Nothing:
    """ASGI middleware that does nothing, which costs the short way."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def notes_service(
    *,
    database_url: str,
    redis_url: str | None = None,
    broker_url: str | None = None,
    cache_timeout: float = PATIENCE,
    db_timeout: float = PATIENCE,
    broker_deadline: float = PATIENCE,
    limit_concurrency: int = 1000,
    max_waiting: int = 1000,
    resources: Sequence[Resource[Any, Any, Any]] = (),
    routers: Sequence[APIRouter] = (router, health.router, metrics.router),
    **options: Any,
) -> Service:
    """Return a service on the engine, with what of its parts has an address."""

    @asynccontextmanager
    async def lifespan(app: Service) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(
                open_database(database_url, name=NAME, pool_size=5, timeout=db_timeout)
            )
            storage = storage_of(database, max_waiting=max_waiting)
            # {% if cookiecutter.caching %}
            if redis_url:
                app.reads.cache = storage.cache = await stack.enter_async_context(
                    open_cache(redis_url, name=NAME, ttl=60, timeout=cache_timeout, max_waiting=max_waiting)
                )
            # {% endif %}
            # {% if cookiecutter.queued_writes %}
            if broker_url:
                storage.publisher = await stack.enter_async_context(
                    open_publisher(broker_url, QUEUE, deadline=broker_deadline)
                )
            # {% endif %}
            stack.push_async_callback(storage.drain)
            opened = {resource.name: storage.open(resource) for resource in resources}
            yield {"checks": {"database": database.ping}, "notes": storage.open(NOTES), **opened}

    app = Service(
        lifespan=lifespan,
        limit_concurrency=limit_concurrency,
        max_body_bytes=65_536,
        max_waiting=max_waiting,
        always=[health.LIVEZ, metrics.METRICS],
        **options,
    )
    for one in routers:
        app.include_flat(one)
    return app
