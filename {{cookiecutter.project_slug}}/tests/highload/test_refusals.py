"""What the database refuses, on shelves and the books that stand on them."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Request
from sqlalchemy import CheckConstraint, Column, Executable, ForeignKey, Integer, MetaData, String, Table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.database import (
    Conflict,
    ContentRefused,
    Database,
    DatabaseUnavailable,
    MissingReference,
    Work,
    open_database,
)
from tests.conftest import Serve, in_database
from tests.highload.notes import NAME, NoteRepository
from tests.waiting import PATIENCE

METADATA = MetaData()
SHELVES = Table(
    "highload_shelves",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(20), CheckConstraint("name <> ''", name="named"), nullable=False, unique=True),
)
BOOKS = Table(
    "highload_books",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("shelf", ForeignKey(SHELVES.c.id, name="stands")),
    Column("later", ForeignKey(SHELVES.c.id, name="stands_later", deferrable=True, initially="DEFERRED")),
    Column("sequel_of", ForeignKey("highload_books.id", name="follows")),
)


REASONS = {Conflict: "conflict", MissingReference: "missing-reference", ContentRefused: "value-refused"}


def executing(statement: Executable) -> Work[None]:
    """Return work that is one statement."""

    async def execute(connection: AsyncConnection) -> None:
        await connection.execute(statement)

    return execute


@pytest.fixture
async def shelves_url(database_url: str) -> AsyncGenerator[str]:
    """The address of a database with two shelves and two books."""
    await in_database(database_url, lambda connection: connection.run_sync(METADATA.create_all))
    await in_database(
        database_url, executing(SHELVES.insert().values([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]))
    )
    await in_database(database_url, executing(BOOKS.insert().values(id=1, shelf=1)))
    await in_database(database_url, executing(BOOKS.insert().values(id=2, sequel_of=1)))
    yield database_url
    await in_database(database_url, lambda connection: connection.run_sync(METADATA.drop_all))


@pytest.fixture
async def database(shelves_url: str) -> AsyncGenerator[Database]:
    async with open_database(shelves_url, name=NAME, pool_size=1, timeout=PATIENCE) as database:
        yield database


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        (SHELVES.insert().values(id=1, name="c"), Conflict),
        (SHELVES.insert().values(id=3, name="a"), Conflict),
        (SHELVES.update().where(SHELVES.c.id == 2).values(name="a"), Conflict),
        (SHELVES.delete().where(SHELVES.c.id == 1), Conflict),
        (text("  delete from highload_shelves where id = 1"), Conflict),
        (BOOKS.delete().where(BOOKS.c.id == 1), Conflict),
        (BOOKS.insert().values(id=3, shelf=9), MissingReference),
        (BOOKS.insert().values(id=3, sequel_of=9), MissingReference),
        (BOOKS.insert().values(id=3, later=9), MissingReference),
        (BOOKS.update().where(BOOKS.c.id == 1).values(shelf=9), MissingReference),
        (BOOKS.update().where(BOOKS.c.id == 1).values(sequel_of=9), MissingReference),
        (BOOKS.update().where(BOOKS.c.id == 1).values(later=9), MissingReference),
        (SHELVES.insert().values(id=3, name=""), ContentRefused),
        (SHELVES.insert().values(id=3, name=None), ContentRefused),
        (SHELVES.insert().values(id=2**70, name="c"), ContentRefused),
    ],
    ids=lambda value: str(value).replace("\n", "") if isinstance(value, Executable) else "",
)
async def test_a_refusal_says_of_which_kind_it_is(
    database: Database, statement: Executable, kind: type[ContentRefused]
) -> None:
    with pytest.raises(ContentRefused) as raised:
        await database.write(executing(statement))
    assert type(raised.value) is kind
    assert raised.value.reason == REASONS[kind]


@pytest.mark.usefixtures("postgresql_url")
@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        (SHELVES.update().where(SHELVES.c.id == 1).values(id=9), Conflict),
        (SHELVES.insert().values(id=3, name="c" * 21), ContentRefused),
        (SHELVES.insert().values(id=3, name="\0"), ContentRefused),
        (SHELVES.insert().values(id=3, name="\ud800"), ContentRefused),
    ],
)
async def test_postgresql_refuses_more(database: Database, statement: Executable, kind: type[ContentRefused]) -> None:
    with pytest.raises(ContentRefused) as raised:
        await database.write(executing(statement))
    assert type(raised.value) is kind


@pytest.mark.usefixtures("postgresql_url")
async def test_a_row_that_is_referred_to_is_told_at_the_commit(database: Database) -> None:
    await database.write(executing(BOOKS.update().where(BOOKS.c.id == 1).values(shelf=None, later=1)))
    with pytest.raises(Conflict) as raised:
        await database.write(executing(SHELVES.delete().where(SHELVES.c.id == 1)))
    assert raised.value.constraint == "stands_later"


async def test_a_mistake_in_a_statement_is_no_refusal(database: Database) -> None:
    with pytest.raises(Exception, match="missing") as raised:
        await database.write(executing(text("DELETE FROM missing")))
    assert not isinstance(raised.value, ContentRefused | DatabaseUnavailable)


router = APIRouter(prefix="/shelves")


async def change(request: Request, statement: Executable) -> None:
    notes: NoteRepository = request.state.notes
    await notes.write(executing(statement))


@router.post("", status_code=201)
async def post(request: Request, book: dict[str, int]) -> None:
    await change(request, BOOKS.insert().values(book))


@router.patch("/{shelf_id}")
async def patch(request: Request, shelf_id: int, name: str) -> None:
    await change(request, SHELVES.update().where(SHELVES.c.id == shelf_id).values(name=name))


@router.delete("/{shelf_id}")
async def delete(request: Request, shelf_id: int) -> None:
    await change(request, SHELVES.delete().where(SHELVES.c.id == shelf_id))


type Send = Callable[[httpx2.AsyncClient], Any]


@pytest.mark.parametrize(
    ("send", "status", "words"),
    [
        (
            lambda client: client.post("/shelves", json={"id": 3, "shelf": 9}),
            422,
            ("missing-reference", "refers to a row that does not exist"),
        ),
        (
            lambda client: client.patch("/shelves/2?name=a"),
            409,
            ("conflict", "Another row does not allow this (highload_shelves"),
        ),
        (
            lambda client: client.patch("/shelves/2?name="),
            422,
            ("value-refused", "does not allow a value of this request (named)."),
        ),
        (lambda client: client.delete("/shelves/1"), 409, ("conflict", "Another row does not allow this")),
    ],
    ids=["a missing parent", "a name that is taken", "a value that is not valid", "a parent with children"],
)
async def test_a_refusal_is_answered(
    serve: Serve, shelves_url: str, send: Send, status: int, words: tuple[str, str]
) -> None:
    async with serve(routers=[router]) as client:
        response = await send(client)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    reason, sentence = words
    assert response.json()["type"] == f"/problems/{reason}"
    assert sentence in response.json()["detail"]


async def test_an_answer_does_not_show_the_row_of_another_client(serve: Serve, shelves_url: str) -> None:
    await in_database(shelves_url, executing(SHELVES.update().where(SHELVES.c.id == 1).values(name="secret")))
    async with serve(routers=[router]) as client:
        response = await client.patch("/shelves/2?name=secret")
    assert response.status_code == 409
    assert "secret" not in response.text
