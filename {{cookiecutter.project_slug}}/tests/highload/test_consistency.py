"""A read that begins after an acknowledged write sees it: rows and lists of two tables, whatever Redis forgets."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, Depends
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column
from starlette.exceptions import HTTPException

from app.highload import generations
from app.highload.columns import StoredRow
from app.highload.http.changes import Changes
from app.highload.reads.dependencies import Opened
from app.highload.reads.shared import shared
from app.highload.repository import Repository
from app.highload.resource import Resource
from tests.conftest import running, stack_url
from tests.highload.notes import Base, Notes, notes_service
from tests.highload.notes import router as notes_router

ROUNDS = 8
WRITERS = 3


class Remark(StoredRow, Base):
    __tablename__ = "highload_remarks"

    note_id: Mapped[UUID] = mapped_column(ForeignKey("highload_notes.id", ondelete="CASCADE"))
    text: Mapped[str] = mapped_column(String(255))


class RemarkCreate(BaseModel):
    note_id: UUID
    text: str


class RemarkUpdate(Changes):
    text: str = ""


class RemarkRead(BaseModel):
    id: UUID
    note_id: UUID
    text: str
    created_at: datetime


REMARKS = Resource(Remark, create=RemarkCreate, change=RemarkUpdate, read=RemarkRead)
type RemarkRepository = Repository[RemarkCreate, RemarkUpdate, RemarkRead]
Remarks = Annotated[RemarkRepository, Depends(Opened(REMARKS.name))]
router = APIRouter()


@router.get("/remarks")
@shared(reads=[REMARKS.rows])
async def list_remarks(remarks: Remarks) -> dict[str, str]:
    rows, _ = await remarks.page(limit=1000)
    return {str(row.id): row.text for row in rows}


@router.get("/remarks/{remark_id}")
@shared(reads=[REMARKS.row("remark_id")])
async def get_remark(remarks: Remarks, remark_id: UUID) -> RemarkRead:
    row = await remarks.one(remark_id)
    if row is None:
        raise HTTPException(404)
    return row


@router.post("/remarks", status_code=201)
async def post_remark(remarks: Remarks, body: RemarkCreate) -> RemarkRead:
    return (await remarks.create(body)).row


@router.patch("/remarks/{remark_id}")
async def patch_remark(remarks: Remarks, remark_id: UUID, body: RemarkUpdate) -> RemarkRead | None:
    return await remarks.change(remark_id, body)


@router.get("/all")
@shared
async def list_all(notes: Notes, remarks: Remarks) -> dict[str, str]:
    """Read two tables, and name neither."""
    all_notes, _ = await notes.page(limit=1000)
    all_remarks, _ = await remarks.page(limit=1000)
    return {str(row.id): row.text for row in all_notes} | {str(row.id): row.text for row in all_remarks}


@asynccontextmanager
async def process(database_url: str, redis_url: str | None) -> AsyncGenerator[httpx2.AsyncClient]:
    """Serve as one of several processes that share a database and a cache."""
    app = notes_service(
        database_url=database_url,
        redis_url=redis_url,
        resources=[REMARKS],
        routers=[notes_router, router],
    )
    async with running(app) as client:
        yield client


async def texts(client: httpx2.AsyncClient, path: str) -> dict[str, str]:
    """Return the texts in a list by their ids."""
    response = await client.get(path, params={"limit": 1000} if path == "/notes" else {})
    assert response.status_code == 200, response.text
    body: dict[str, str] = response.json()
    return {note["id"]: note["text"] for note in response.json()["notes"]} if path == "/notes" else body


async def expect(client: httpx2.AsyncClient, table: str, row_id: str, text: str | None) -> None:
    """Let a row be what it is now, or nowhere, in each answer that tells of it."""
    row, *listings = await asyncio.gather(
        client.get(f"{table}/{row_id}"), texts(client, table), texts(client, "/all"), texts(client, table)
    )
    assert (row.json()["text"] if row.is_success else None) == text
    assert [listing.get(row_id) for listing in listings] == [text] * len(listings)


async def write_and_read(writer: httpx2.AsyncClient, reader: httpx2.AsyncClient, name: str) -> None:
    for number in range(ROUNDS):
        # A key that was used before a deletion gives the same id again.
        key = {"Idempotency-Key": f"{name}-{number % 2}"}
        note = (await writer.post("/notes", content=name, headers=key)).json()["id"]
        await expect(reader, "/notes", note, name)
        remark = (await writer.post("/remarks", json={"note_id": note, "text": "new"})).json()["id"]
        await expect(reader, "/remarks", remark, "new")
        await writer.patch(f"/notes/{note}", json={"text": "changed"})
        await expect(reader, "/notes", note, "changed")
        await writer.patch(f"/remarks/{remark}", json={"text": "changed"})
        await expect(reader, "/remarks", remark, "changed")
        await writer.delete(f"/notes/{note}")
        await expect(reader, "/notes", note, None)
        await expect(reader, "/remarks", remark, None)


async def read_all_the_time(client: httpx2.AsyncClient) -> None:
    while True:
        await asyncio.gather(*(texts(client, path) for path in ("/notes", "/remarks", "/all")))


async def lose_keys(redis_url: str) -> None:
    """Do what a full Redis does, to answers and generations."""
    async with Redis.from_url(redis_url) as redis:
        while True:
            key = await redis.randomkey()
            if key is not None:
                await redis.delete(key)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("slots", [1, generations.SLOTS])
async def test_a_read_after_a_write_sees_it(database_url: str, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_url = stack_url("REDIS_URL")
    monkeypatch.setattr(generations, "SLOTS", slots)
    async with process(database_url, redis_url) as here, process(database_url, redis_url) as there:
        noise = [asyncio.create_task(read_all_the_time(client)) for client in (here, there)]
        noise.append(asyncio.create_task(lose_keys(redis_url)))
        await asyncio.gather(
            *(write_and_read(here, there, f"across-{number}") for number in range(WRITERS)),
            *(write_and_read(there, there, f"alone-{number}") for number in range(WRITERS)),
        )
        for task in noise:
            task.cancel()
        outcomes = await asyncio.gather(*noise, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
