"""What HTTP and its neighbours ask of answers: media types, what caches may do, links, problem types, no content."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Body, Depends, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.responses import Response

import app.highload
from app.highload import idempotency
from app.highload.http.changes import Changes
from app.highload.http.problems import CONFLICT, TYPES, ProblemError
from app.highload.pagination import Cursor, Limit
from app.highload.reads.dependencies import Granted, Guard
from app.highload.reads.shared import shared
from app.highload.service import Service
from tests.conftest import Serve
from tests.highload import notes
from tests.highload.notes import NOTES, Notes

README = Path(app.highload.__file__).with_name("README.md")
router = APIRouter(prefix="/standards")


def with_credentials(connection: HTTPConnection) -> Granted:
    if "authorization" not in connection.headers:
        raise HTTPException(401, "Send credentials.", {"WWW-Authenticate": "Bearer"})
    return Granted()


ANYBODY = Guard(HTTPBearer(), with_credentials)


class Document(Changes):
    text: str = ""


@router.post("/document")
@router.put("/document")
@router.patch("/document")
async def take(body: Document) -> str:
    return body.text


@router.patch("/declared")
async def take_declared(body: Annotated[Document, Body(media_type="application/json-patch+json")]) -> str:
    return body.text


@router.post("/raw")
async def take_raw(request: Request) -> str:
    return (await request.body()).decode()


@router.get("/own")
@shared
async def own(accept_language: Annotated[str, Header()] = "") -> Response:
    fields = {"Cache-Control": "max-age=60", "ETag": '"own"', "Vary": "Accept-Language", "X-Own": "y"}
    return Response(accept_language, headers=fields)


@router.get("/guarded", dependencies=[Depends(ANYBODY)])
@shared
async def guarded() -> str:
    return "x"


@router.get("/alone")
async def alone() -> str:
    return "x"


@router.get("/broken")
@shared
async def broken() -> str:
    raise RuntimeError


@router.get("/nothing", status_code=204)
@shared
async def nothing() -> None:
    """Answer with nothing."""


@router.delete("/nothing", status_code=204)
async def delete_nothing() -> None:
    """Answer with nothing."""


@router.get("/filtered")
@shared(reads=[NOTES.rows])
async def filtered(
    rows: Notes,
    text: str = "",
    limit: Limit = 100,
    cursor: Cursor | None = None,
) -> list[str]:
    page, _ = await rows.page(NOTES.table.c.text.startswith(text), limit=limit, cursor=cursor)
    return [row.text for row in page]


@router.get("/two")
@shared(reads=[NOTES.rows])
async def two(rows: Notes, cursor: Cursor | None = None) -> None:
    for _ in range(2):
        await rows.page(limit=1, cursor=cursor)


@router.get("/newest")
@shared(reads=[NOTES.rows])
async def newest(rows: Notes) -> None:
    await rows.page(limit=1)


@router.post("/conflict")
async def conflict() -> None:
    raise ProblemError(CONFLICT, "It is there already.")


@router.get("/teapot")
@shared
async def teapot() -> None:
    raise HTTPException(418, "It is a teapot.")


@pytest.fixture
async def client(serve: Serve) -> AsyncGenerator[httpx2.AsyncClient]:
    async with serve(routers=[router, notes.router]) as client:
        yield client


ACCEPT_PATCH = "application/merge-patch+json, application/json"


async def test_a_body_of_another_type_is_refused_and_the_right_one_named(client: httpx2.AsyncClient) -> None:
    for method in ("POST", "PUT", "PATCH"):
        for kind, status in {
            "application/json": 200,
            "Application/JSON; charset=utf-8": 200,
            "application/merge-patch+json": 200 if method == "PATCH" else 415,
            "application/merge-patch+json;a=b": 200 if method == "PATCH" else 415,
            "application/json-patch+json": 415,
            "application/vnd.x+json": 415,
            "text/plain": 415,
        }.items():
            fields = {"Content-Type": kind}
            answer = await client.request(method, "/standards/document", content=b'{"text":"x"}', headers=fields)
            assert answer.status_code == status, (method, kind)
            if status == 415:
                named = {"Accept-Patch": ACCEPT_PATCH} if method == "PATCH" else {"Accept": "application/json"}
                assert {name: answer.headers.get(name) for name in ("Accept", "Accept-Patch")} == {
                    "Accept": named.get("Accept"),
                    "Accept-Patch": named.get("Accept-Patch"),
                }
                assert answer.headers["content-type"] == "application/problem+json"


async def test_a_route_takes_the_type_that_it_declares(client: httpx2.AsyncClient) -> None:
    for path, method, kind, content in (
        ("declared", "PATCH", "application/json-patch+json", b'{"text":"x"}'),
        ("raw", "POST", "application/vnd.x+json", b"x"),
    ):
        answer = await client.request(method, f"/standards/{path}", content=content, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()) == (200, "x"), path


CREDENTIALS = {"Authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("method", "path", "fields", "expected"),
    [
        ("GET", "/notes", {}, "no-cache"),
        ("HEAD", "/notes", {}, "no-cache"),
        ("GET", "/notes", {"If-None-Match": "*"}, "no-cache"),
        ("GET", "/notes", CREDENTIALS, "private, no-cache"),
        ("GET", "/standards/guarded", CREDENTIALS, "private, no-cache"),
        ("GET", "/standards/guarded", {}, "no-store"),
        ("GET", "/standards/own", {}, "max-age=60"),
        ("GET", "/standards/own", {"If-None-Match": "*"}, "max-age=60"),
        ("GET", "/standards/alone", {}, None),
        ("GET", "/notes?limit=0", {}, "no-store"),
        ("GET", "/notes?limit=0", CREDENTIALS, "no-store"),
        ("GET", "/notes/x", {}, "no-store"),
        ("GET", "/standards/broken", {}, "no-store"),
        ("GET", "/nowhere", {}, "no-store"),
        ("PUT", "/notes", {}, "no-store"),
        ("POST", "/notes", {}, "no-store"),
        ("DELETE", "/standards/nothing", {}, "no-store"),
    ],
)
async def test_an_answer_says_what_caches_may_do(
    client: httpx2.AsyncClient, method: str, path: str, fields: dict[str, str], expected: str | None
) -> None:
    answer = await client.request(method, path, headers=fields)
    assert answer.headers.get_list("cache-control") == ([expected] if expected else [])


async def test_a_refused_body_is_not_stored(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/notes", content=b"x" * 100_000)
    assert (answer.status_code, answer.headers["cache-control"]) == (413, "no-store")


async def test_what_is_refused_under_overload_is_not_stored(serve: Serve) -> None:
    for path in ("/notes", "/nowhere"):
        async with serve(limit_concurrency=0) as client:
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["cache-control"]) == (503, "no-store")
            assert answer.json()["type"] == "/problems/overloaded"


async def test_the_tag_of_an_answer_is_that_of_its_bytes(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/standards/own")
    (tag,) = answer.headers.get_list("etag")
    assert tag != '"own"'
    again = await client.get("/standards/own", headers={"If-None-Match": tag})
    assert again.status_code == 304
    assert {"etag", "cache-control", "vary"} <= set(again.headers)
    assert "x-own" not in again.headers


async def test_no_content_has_no_type_and_no_length(client: httpx2.AsyncClient) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        answer = await client.request(method, "/standards/nothing")
        assert answer.status_code == 204
        assert not {"content-type", "content-length", "transfer-encoding"} & set(answer.headers)


async def test_a_page_links_to_the_next(client: httpx2.AsyncClient) -> None:
    for number in range(5):
        await client.post("/notes", content=f"a&b {number}".encode())
    await client.post("/notes", content=b"c")
    for fields in ({}, CREDENTIALS):
        url = client.base_url.join("/standards/filtered?limit=2&text=a%26b")
        seen: list[list[str]] = []
        while True:
            answer = await client.get(url, headers=fields)
            assert answer.status_code == 200
            seen.append(answer.json())
            if "next" not in answer.links:
                break
            assert answer.headers["link"].startswith("<?limit=2&text=a%26b&cursor=")
            url = url.join(answer.links["next"]["url"])
        assert seen == [["a&b 4", "a&b 3"], ["a&b 2", "a&b 1"], ["a&b 0"]]
    assert "next" in (await client.head("/standards/filtered?limit=1")).links
    for path in ("two", "newest"):
        assert "link" not in (await client.get(f"/standards/{path}")).headers
    assert "link" not in (await client.get("/notes?limit=1", headers={"If-None-Match": "*"})).headers


async def test_a_problem_has_a_type_where_its_status_does_not_tell(client: httpx2.AsyncClient) -> None:
    for method, path, kind, title in (
        ("GET", "/notes?limit=0", "/problems/invalid-request", "Invalid request"),
        ("POST", "/standards/conflict", "/problems/conflict", "Conflict"),
        ("GET", "/nowhere", "about:blank", "Not Found"),
        ("PUT", "/notes", "about:blank", "Method Not Allowed"),
        ("GET", "/standards/broken", "about:blank", "Internal Server Error"),
        ("GET", "/standards/teapot", "about:blank", "I'm a Teapot"),
    ):
        document = (await client.request(method, path)).json()
        assert (document["type"], document["title"]) == (kind, title)
    key = {"Idempotency-Key": "k"}
    await client.post("/notes", content=b"a", headers=key)
    reused = await client.post("/notes", content=b"b", headers=key)
    assert (reused.status_code, reused.json()["type"]) == (422, "/problems/idempotency-key-reused")


def test_the_types_of_problems_are_documented() -> None:
    assert len({kind.reason for kind in TYPES}) == len(TYPES)
    rows = [f"| `{kind.uri}` | {kind.status} | {kind.meaning} |" for kind in TYPES]
    table = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| `/problems/")]
    assert table == rows
    service = Service(limit_concurrency=1, max_body_bytes=1, max_waiting=1)

    @service.get("/", responses={422: {"model": app.highload.http.problems.Problem}})
    async def route() -> None:
        """Need a schema."""

    described = service.openapi()["components"]["schemas"]["Problem"]["properties"]["type"]["description"]
    assert all(f"- `{kind.uri}` ({kind.status}): {kind.meaning}." in described for kind in TYPES)


def request_with(*keys: str) -> Request:
    return Request({"type": "http", "headers": [(b"idempotency-key", key.encode("latin-1")) for key in keys]})


@pytest.mark.parametrize(
    ("field", "key"),
    [
        ("k", "k"),
        ('"k"', "k"),
        (' "k" ', "k"),
        (r'"a\"b\\c"', 'a"b\\c'),
        ('a"b', 'a"b'),
        ('"' + "k" * 255 + '"', "k" * 255),
    ],
)
def test_a_quoted_key_is_the_key_without_its_quotes(field: str, key: str) -> None:
    assert idempotency.key_of(request_with(field)) == key


@pytest.mark.parametrize(
    "field", ['"', '"k', '"k"x', '"a"b"', r'"a\b"', '"k";a=1', '"\xe9"', '""', '"' + "k" * 256 + '"']
)
def test_a_key_with_quotes_that_do_not_match_is_refused(field: str) -> None:
    with pytest.raises(RequestValidationError):
        idempotency.key_of(request_with(field))
