"""Resources that refer to each other, through the service and on both databases."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi import APIRouter, Depends
from sqlalchemy import ForeignKey, insert
from sqlalchemy.orm import Mapped, mapped_column

from app.highload.columns import StoredRow
from app.highload.reads.dependencies import Opened
from app.highload.repository import Repository
from tests.conftest import in_database, running
from tests.highload.everything import (
    CHILDREN,
    PARENTS,
    ChildCreate,
    ChildRead,
    ChildUpdate,
    ParentCreate,
    ParentRead,
    ParentUpdate,
)
from tests.highload.notes import Base, notes_service


class Tied(StoredRow, Base):
    __tablename__ = "highload_tied"

    parent_id: Mapped[UUID] = mapped_column(ForeignKey("highload_parents.id", ondelete="RESTRICT"))


router = APIRouter()
Parents = Annotated[Repository[ParentCreate, ParentUpdate, ParentRead], Depends(Opened(PARENTS.name))]
Children = Annotated[Repository[ChildCreate, ChildUpdate, ChildRead], Depends(Opened(CHILDREN.name))]


@router.post("/parents")
async def create_parent(parents: Parents, body: ParentCreate) -> ParentRead:
    return (await parents.create(body)).row


@router.patch("/parents/{parent_id}")
async def change_parent(parents: Parents, parent_id: UUID, body: ParentUpdate) -> ParentRead | None:
    return await parents.change(parent_id, body)


@router.delete("/parents/{parent_id}")
async def delete_parent(parents: Parents, parent_id: UUID) -> bool:
    return await parents.delete(parent_id)


@router.post("/children")
async def create_child(children: Children, body: ChildCreate) -> ChildRead:
    return (await children.create(body)).row


@router.patch("/children/{child_id}")
async def change_child(children: Children, child_id: UUID, body: ChildUpdate) -> ChildRead | None:
    return await children.change(child_id, body)


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


@pytest.fixture
async def client(database_url: str) -> AsyncGenerator[httpx2.AsyncClient]:
    service = notes_service(database_url=database_url, resources=[PARENTS, CHILDREN], routers=[router])
    async with running(service) as client:
        yield client


def assert_refused(answer: httpx2.Response, status: int, words: str, constraint: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"]
    assert constraint in answer.json()["detail"]
    assert "Key (" not in answer.text


async def test_what_the_database_refuses_is_named(client: httpx2.AsyncClient, database_url: str) -> None:
    embedded = database_url.startswith("sqlite")
    unique = "highload_parents.name" if embedded else "highload_parents_name_key"
    reference = "" if embedded else "highload_children_parent_id_fkey"
    parent = (await client.post("/parents", json={"name": "a"})).json()
    other = (await client.post("/parents", json={"name": "b"})).json()
    child = (await client.post("/children", json={"parent_id": parent["id"]})).json()

    for answer in (
        await client.post("/parents", json={"name": "a"}),
        await client.patch(f"/parents/{other['id']}", json={"name": "a"}),
    ):
        assert_refused(answer, 409, "Another row does not allow this", unique)
    for answer in (
        await client.post("/children", json={"parent_id": str(uuid4())}),
        await client.patch(f"/children/{child['id']}", json={"parent_id": str(uuid4())}),
    ):
        assert_refused(answer, 422, "refers to a row that does not exist", reference)
    assert_refused(await client.delete(f"/parents/{parent['id']}"), 409, "Another row does not allow this", reference)
    if not embedded:
        assert_refused(await client.post("/parents", json={"name": "x" * 21}), 422, "does not allow a value", "")
    assert (await client.delete(f"/parents/{other['id']}")).json() is True


async def test_a_row_that_is_restricted_is_not_deleted(client: httpx2.AsyncClient, database_url: str) -> None:
    parent = (await client.post("/parents", json={"name": "a"})).json()
    tie = insert(Tied).values(id=uuid4(), parent_id=UUID(parent["id"]), created_at=datetime.now(UTC))
    await in_database(database_url, lambda connection: connection.execute(tie))
    assert_refused(await client.delete(f"/parents/{parent['id']}"), 409, "Another row does not allow this", "")


async def test_a_refused_row_does_not_take_the_others_of_its_batch_along(client: httpx2.AsyncClient) -> None:
    names = ["a", "b", "a", "c", "a", "b"]
    answers = await asyncio.gather(*(client.post("/parents", json={"name": name}) for name in names))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 409, 409, 409]
