"""A client that has read a row changes it only if nobody else has, and each answer that shows a row names its state."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx2
import pytest
from fastapi import APIRouter, Depends, Header, Request
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.highload.database import Database, DatabaseUnavailable, open_database
from app.highload.etags import (
    OnlyIf,
    PreconditionFailed,
    Preconditions,
    bytes_of,
    entity_tag,
    preconditions_of,
    represent,
)
from app.highload.reads.dependencies import Opened
from app.highload.reads.shared import shared
from app.highload.repository import Repository
from app.highload.statements import Statements
from tests.conftest import Serve
from tests.highload.counting import Runs, counting_service
from tests.highload.everything import PARENTS, ParentCreate, ParentRead, ParentUpdate
from tests.highload.notes import NAME, NOTES, NoteCreate, NoteRead, NoteRepository, NoteUpdate, new_note, storage_of
from tests.highload.test_writes import CommitsAndTriesAgain
from tests.waiting import PATIENCE

router = APIRouter(prefix="/parents")
Parents = Annotated[Repository[ParentCreate, ParentUpdate, ParentRead], Depends(Opened("highload_parents"))]


@router.post("", status_code=201)
async def create(parents: Parents, body: ParentCreate) -> Response:
    receipt = await parents.create(body)
    return represent(receipt.row, 201 if receipt.stored else 202)


@router.get("/{parent_id}")
@shared(reads=[PARENTS.row("parent_id")])
async def get(parents: Parents, parent_id: UUID) -> Response:
    return represent(found(await parents.one(parent_id)))


@router.get("/{parent_id}/as-the-framework-does")
@shared(reads=[PARENTS.row("parent_id")])
async def get_model(parents: Parents, parent_id: UUID) -> ParentRead:
    return found(await parents.one(parent_id))


@router.patch("/{parent_id}")
async def change(parents: Parents, parent_id: UUID, only_if: OnlyIf, body: ParentUpdate) -> Response:
    return represent(found(await parents.change(parent_id, body, only_if=only_if)))


@router.delete("/{parent_id}", status_code=204)
async def delete(parents: Parents, parent_id: UUID, only_if: OnlyIf) -> None:
    if not await parents.delete(parent_id, only_if=only_if):
        raise HTTPException(404, "There is no parent with this id.")


@router.put("/{parent_id}")
async def put(parent_id: UUID) -> None:
    """Compare no tags."""


@router.put("/{parent_id}/request")
async def put_request(request: Request, parent_id: UUID) -> str | None:
    return request.headers.get("if-match")


@router.put("/{parent_id}/header")
async def put_header(parent_id: UUID, if_match: Annotated[str, Header()]) -> str:
    return if_match


def found(parent: ParentRead | None) -> ParentRead:
    if parent is None:
        raise HTTPException(404, "There is no parent with this id.")
    return parent


@pytest.fixture
async def client(serve: Serve) -> AsyncGenerator[httpx2.AsyncClient]:
    async with serve(routers=[router], resources=[PARENTS]) as client:
        yield client


async def test_a_client_chains_changes_by_the_tags_of_the_answers(client: httpx2.AsyncClient) -> None:
    created = await client.post("/parents", json={"name": "a"})
    address = f"/parents/{created.json()['id']}"

    async def assert_current(answer: httpx2.Response) -> str:
        for path in (address, f"{address}/as-the-framework-does"):
            for credentials in ({}, {"Authorization": "x"}):
                got = await client.get(path, headers=credentials)
                assert got.content == answer.content
                if path == address or not credentials:
                    assert got.headers.get_list("etag") == answer.headers.get_list("etag")
        assert (await client.head(address)).headers["etag"] == answer.headers["etag"]
        return answer.headers["etag"]

    first = await assert_current(created)
    changed = await client.patch(address, json={"name": "b"}, headers={"If-Match": f'"x", {first}'})
    assert changed.status_code == 200
    second = await assert_current(changed)
    for method in ("PATCH", "DELETE"):
        body = {"name": "c"} if method == "PATCH" else None
        for refused in (
            {"If-Match": first},
            {"If-Match": f"W/{second}"},
            {"If-Match": ""},
            {"If-None-Match": "*"},
            {"If-None-Match": f"W/{second}"},
        ):
            answer = await client.request(method, address, headers=refused, json=body)
            assert (answer.status_code, answer.headers["content-type"]) == (412, "application/problem+json")
        answer = await client.request(method, address, headers={"If-Match": second[1:-1]}, json=body)
        assert (answer.status_code, "quotes" in answer.json()["detail"]) == (400, True)
    assert await assert_current(await client.get(address)) == second
    assert (await client.delete(address, headers={"If-Match": second, "If-None-Match": first})).status_code == 204
    # Else the answer would be the same (RFC 9110, section 13.2.1).
    assert (await client.patch(address, json={"name": "c"}, headers={"If-Match": "*"})).status_code == 404
    assert (await client.delete(address, headers={"If-Match": second})).status_code == 404


async def test_a_client_that_is_answered_alone_is_told_that_nothing_has_changed(client: httpx2.AsyncClient) -> None:
    created = await client.post("/parents", json={"name": "a"})
    alone = {"Authorization": "x", "If-None-Match": created.headers["etag"]}
    answer = await client.get(f"/parents/{created.json()['id']}", headers=alone)
    assert (answer.status_code, answer.content, answer.headers["x-cache"]) == (304, b"", "bypass")
    assert answer.headers["etag"] == created.headers["etag"]
    assert "content-length" not in answer.headers
    assert "content-type" not in answer.headers


async def test_a_route_that_cannot_see_if_match_does_not_ignore_it(client: httpx2.AsyncClient) -> None:
    address = f"/parents/{uuid4()}"
    assert (await client.put(address, headers={"If-Match": '"x"'})).status_code == 412
    assert (await client.put(address, headers={"If-Match": "*"})).status_code == 200
    assert (await client.put(address)).status_code == 200
    for route in ("request", "header"):
        assert (await client.put(f"{address}/{route}", headers={"If-Match": '"x"'})).json() == '"x"'
    assert (await client.put("/parents", headers={"If-Match": '"x"'})).status_code == 405


LISTS = {
    "": [],
    " , ,": [],
    "*": ["*"],
    '"a"': ['"a"'],
    '"a" , W/"b",, "" ,': ['"a"', 'W/"b"', '""'],
    '"a,b"': ['"a,b"'],
    '"\xe9"': ['"\xe9"'],
}
MALFORMED = ["a", '"a', 'a"', '"a" "b"', '"a""b"', '"a"b', 'w/"a"', 'W/ "a"', '"a b"', '"a", *', "*, *", "**"]


async def tags_of(*lines: str) -> list[str]:
    request = Request({"type": "http", "headers": [(b"if-match", line.encode("latin-1")) for line in lines]})
    preconditions = await preconditions_of(request)
    assert preconditions is not None
    assert preconditions.if_none_match is None
    return sorted(preconditions.if_match or ())


@pytest.mark.parametrize("field", LISTS)
async def test_a_list_of_tags_is_read(field: str) -> None:
    assert await tags_of(field) == sorted(LISTS[field])


async def test_the_lines_of_a_field_are_one_list() -> None:
    assert await tags_of('"a"', '"b"') == ['"a"', '"b"']


@pytest.mark.parametrize("field", MALFORMED)
async def test_what_is_no_list_of_tags_is_refused(field: str) -> None:
    with pytest.raises(HTTPException, match=r"If-Match is neither \* nor a list"):
        await tags_of(field)


@pytest.fixture
async def notes(database_url: str) -> AsyncGenerator[NoteRepository]:
    async with opened(database_url) as database:
        yield storage_of(database).open(NOTES)


@asynccontextmanager
async def opened(database_url: str) -> AsyncGenerator[Database]:
    async with open_database(database_url, name=NAME, pool_size=1, timeout=PATIENCE) as database:
        yield database


def only_if(row: NoteRead) -> Preconditions:
    return Preconditions(frozenset([entity_tag(bytes_of(row))]), None)


async def test_a_change_that_is_refused_ends_no_kept_answer(
    notes: NoteRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = (await notes.create(NoteCreate(text="a"))).row
    ended: list[Any] = []

    async def end(places: Any) -> None:
        ended.append(places)

    monkeypatch.setattr(notes.direct, "_end", end)
    wrong = Preconditions(frozenset(['"x"']), None)
    with pytest.raises(PreconditionFailed):
        await notes.change(row.id, NoteUpdate(text="b"), only_if=wrong)
    with pytest.raises(PreconditionFailed):
        await notes.delete(row.id, only_if=wrong)
    assert ended == []
    assert await notes.one(row.id) == row
    assert await notes.change(row.id, NoteUpdate(text="b"), NOTES.table.c.text == "c", only_if=wrong) is None
    assert await notes.delete(row.id, only_if=only_if(row))
    assert len(ended) == 1


async def lock_at_once(connection: AsyncConnection, row_id: UUID) -> None:
    """Lock a row, or fail at once because somebody else has."""
    if connection.dialect.name == "sqlite":
        await connection.execute(text("PRAGMA busy_timeout = 0"))
        await connection.execute(update(NOTES.table).where(NOTES.table.c.id == row_id).values(text="theirs"))
    else:
        await connection.execute(select(NOTES.table).where(NOTES.table.c.id == row_id).with_for_update(nowait=True))


@pytest.mark.parametrize("method", ["change", "delete"])
async def test_nobody_changes_a_row_between_its_comparison_and_its_end(
    notes: NoteRepository, database_url: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = (await notes.create(NoteCreate(text="a"))).row
    original: Callable[..., Awaitable[Any]] = getattr(Statements, method)
    tried: list[bool] = []

    async def after_another(self: Statements, *arguments: Any) -> Any:
        async with opened(database_url) as other:
            with pytest.raises(DatabaseUnavailable, match="lock"):
                await other.write(lambda connection: lock_at_once(connection, row.id))
        tried.append(True)
        return await original(self, *arguments)

    monkeypatch.setattr(Statements, method, after_another)
    if method == "change":
        after = await notes.change(row.id, NoteUpdate(text="b"), only_if=only_if(row))
        assert after == await notes.one(row.id) == row.model_copy(update={"text": "b"})
    else:
        assert await notes.delete(row.id, only_if=only_if(row))
    assert tried == [True]


async def test_a_change_that_runs_once_more_finds_what_it_has_made(database_url: str) -> None:
    """Else a client would be told that somebody else was faster."""
    async with opened(database_url) as plain, opened(database_url) as database:
        row = (await storage_of(plain).open(NOTES).create(NoteCreate(text="a"))).row
        database.__class__ = CommitsAndTriesAgain
        notes = storage_of(database).open(NOTES)
        after = await notes.change(row.id, NoteUpdate(text="b"), only_if=only_if(row))
        assert after == row.model_copy(update={"text": "b"})


async def test_without_a_precondition_nothing_is_locked_first(
    notes: NoteRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Statements, "lock")
    row = (await notes.create(NoteCreate(text="a"))).row
    assert await notes.change(row.id, NoteUpdate(text="b")) == row.model_copy(update={"text": "b"})
    assert await notes.delete(row.id)


def test_a_202_has_no_tag() -> None:
    row = NOTES.show(new_note())
    assert "etag" not in represent(row, 202).headers
    assert represent(row, 201).headers["etag"] == entity_tag(bytes_of(row))


def test_the_document_tells_who_compares_tags() -> None:
    service = counting_service(Runs())
    service.include_flat(router)
    paths = service.openapi()["paths"]
    for method, compares in (("patch", True), ("delete", True), ("put", False)):
        operation = paths["/parents/{parent_id}"][method]
        names = [parameter["name"] for parameter in operation["parameters"]]
        assert ("If-Match" in names) == ("412" in operation["responses"]) == compares
    got = paths["/parents/{parent_id}"]["get"]["responses"]
    assert {"ETag", "Cache-Control"} == set(got["200"]["headers"])
    assert "ETag" in got["304"]["headers"]
    assert "Link" in paths["/notes"]["get"]["responses"]["200"]["headers"]
    assert {"application/json", "application/merge-patch+json"} == set(
        paths["/parents/{parent_id}"]["patch"]["requestBody"]["content"]
    )
    assert service.openapi() is service.openapi()


async def test_a_request_without_preconditions_has_none() -> None:
    request = Request({"type": "http", "headers": [(b"if-modified-since", b"x")]})
    assert await preconditions_of(request) is None
