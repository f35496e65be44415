import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from sqlalchemy import func, select

from app.highload.pagination import Position, decode_cursor, encode_cursor
from app.models import Item
from tests.conftest import Serve, in_database

NEW = {"name": "x", "description": "y"}


async def create(client: httpx2.AsyncClient, name: str = "x", **fields: Any) -> dict[str, Any]:
    response = await client.post("/items", json={"name": name, **fields})
    assert response.status_code == 201, response.text
    item: dict[str, Any] = response.json()
    return item


def assert_problem(response: httpx2.Response, status: int, *, names: str = "") -> None:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert names in problem["detail"]


async def test_an_item_lives_and_dies(client: httpx2.AsyncClient) -> None:
    created = await client.post("/items", json=NEW)
    assert created.status_code == 201
    item = created.json()
    assert item | NEW == item
    assert {"id", "created_at"} <= item.keys()
    assert UUID(item["id"]).version == 7
    assert item["created_at"].endswith("Z")

    location = created.headers["location"]
    assert location == f"/items/{item['id']}"
    assert (await client.get(location)).json() == item
    assert (await client.get("/items")).json() == {"items": [item], "next_cursor": None}

    changed = await client.patch(location, json={"description": None})
    assert changed.status_code == 200
    assert changed.json() == item | {"description": None}
    assert (await client.get(location)).json() == changed.json()

    deleted = await client.delete(location)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert not {"content-type", "content-length"} & set(deleted.headers)
    assert_problem(await client.get(location), 404)
    assert (await client.get("/items")).json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_item_that_is_not_there_is_not_found(client: httpx2.AsyncClient, method: str) -> None:
    body = {"name": "z"} if method == "PATCH" else None
    assert_problem(await client.request(method, f"/items/{uuid4()}", json=body), 404)


async def test_concurrent_reads_of_items_each_get_their_own(client: httpx2.AsyncClient) -> None:
    items = await asyncio.gather(*(create(client, f"item {number}") for number in range(20)))
    paths = [f"/items/{item['id']}" for item in items]
    answers = await asyncio.gather(*map(client.get, paths))
    assert [answer.json() for answer in answers] == items


async def test_pages_follow_each_other_newest_first(client: httpx2.AsyncClient) -> None:
    names = [(await create(client, f"item {number}"))["name"] for number in range(7)]

    seen: list[str] = []
    parameters: dict[str, Any] = {"limit": 3}
    sizes = []
    while True:
        page = (await client.get("/items", params=parameters)).json()
        sizes.append(len(page["items"]))
        seen += [item["name"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]

    assert seen == names[::-1]
    assert sizes == [3, 3, 1]


async def test_a_new_item_moves_no_item_to_another_page(client: httpx2.AsyncClient) -> None:
    items = [await create(client, f"item {number}") for number in range(4)]
    first = (await client.get("/items", params={"limit": 2})).json()
    await create(client, "late")
    second = (await client.get("/items", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert first["items"] + second["items"] == items[::-1]
    assert second["next_cursor"] is None


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many", ""])
async def test_a_bad_limit_is_refused(client: httpx2.AsyncClient, limit: str) -> None:
    assert_problem(await client.get("/items", params={"limit": limit}), 422, names="query.limit")


@pytest.mark.parametrize(
    "cursor", ["", "x", "é", "AAAA", "A" * 31 + "=", "_" * 32, encode_cursor(Position(*decode_cursor("A" * 32))) + "A"]
)
async def test_a_bad_cursor_is_refused(client: httpx2.AsyncClient, cursor: str) -> None:
    assert_problem(await client.get("/items", params={"cursor": cursor}), 422, names="query.cursor")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, "body.name"),
        ({"name": ""}, "body.name"),
        ({"name": "x" * 256}, "body.name"),
        ({"name": "nul \0"}, "body.name"),
        ({"name": 1}, "body.name"),
        ({"name": "x", "description": "nul \0"}, "body.description"),
        ({"name": "x", "price": 1}, "body.price"),
        ([], "body"),
    ],
)
async def test_a_bad_item_is_refused(client: httpx2.AsyncClient, body: Any, names: str) -> None:
    assert_problem(await client.post("/items", json=body), 422, names=names)
    assert (await client.get("/items")).json()["items"] == []


async def test_what_the_bounds_allow_is_stored(client: httpx2.AsyncClient) -> None:
    name = "ü" * 255
    item = await create(client, name, description="🂡" * 1000)
    assert (await client.get(f"/items/{item['id']}")).json() == item
    assert item["name"] == name


@pytest.mark.parametrize("body", [{}, {"name": None}, {"name": ""}, {"id": str(uuid4())}])
async def test_a_bad_change_is_refused(client: httpx2.AsyncClient, body: Any) -> None:
    item = await create(client)
    assert_problem(await client.patch(f"/items/{item['id']}", json=body), 422, names="body")
    assert (await client.get(f"/items/{item['id']}")).json() == item


@pytest.mark.parametrize("body", [b"{", b'{"name": "\xff"}', b'{"name": "\\ud800"}'])
async def test_what_is_no_json_is_refused(client: httpx2.AsyncClient, body: bytes) -> None:
    response = await client.post("/items", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert_problem(response, response.status_code)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
async def test_json_in_another_encoding_is_refused(client: httpx2.AsyncClient, encoding: str) -> None:
    body = '{"name": "x"}'.encode(encoding)
    for kind in ("application/json", "application/json; charset=utf-16"):
        answer = await client.post("/items", content=body, headers={"content-type": kind})
        assert_problem(answer, 400, names="UTF-8")
    headers = {"content-type": "application/merge-patch+json"}
    answer = await client.patch(f"/items/{uuid4()}", content=body, headers=headers)
    assert_problem(answer, 400, names="UTF-8")
    assert (await client.get("/items")).json()["items"] == []


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "application/json-patch+json", None]
)
async def test_a_body_of_another_type_is_refused(client: httpx2.AsyncClient, kind: str | None) -> None:
    item = await create(client)
    headers = {"content-type": kind} if kind else {}
    for method, address in {"POST": "/items", "PATCH": f"/items/{item['id']}"}.items():
        answer = await client.request(method, address, content=b'{"name":"x"}', headers=headers)
        assert_problem(answer, 415, names="Content-Type")
        assert ("accept-patch" in answer.headers) == (method == "PATCH")


async def test_a_merge_patch_changes_an_item(client: httpx2.AsyncClient) -> None:
    item = await create(client)
    headers = {"content-type": "application/merge-patch+json"}
    answer = await client.patch(f"/items/{item['id']}", content=b'{"name":"y"}', headers=headers)
    assert (answer.status_code, answer.json()["name"]) == (200, "y")


async def test_who_has_not_seen_the_last_change_of_an_item_changes_nothing(client: httpx2.AsyncClient) -> None:
    created = await client.post("/items", json=NEW)
    address = created.headers["location"]
    tag = created.headers["etag"]
    assert (await client.get(address)).headers["etag"] == tag
    changed = await client.patch(address, json={"name": "y"}, headers={"If-Match": tag})
    assert changed.status_code == 200
    fetched = await client.get(address)
    assert fetched.headers["etag"] == changed.headers["etag"] != tag
    assert_problem(await client.patch(address, json={"name": "z"}, headers={"If-Match": tag}), 412)
    assert_problem(await client.delete(address, headers={"If-Match": tag}), 412)
    assert (await client.get(address)).content == fetched.content
    assert (await client.delete(address, headers={"If-Match": changed.headers["etag"]})).status_code == 204


async def test_the_header_leads_from_page_to_page(client: httpx2.AsyncClient) -> None:
    names = [(await create(client, f"item {number}"))["name"] for number in range(3)]
    url = client.base_url.join("/items?limit=2")
    seen: list[str] = []
    for more in (True, False):
        page = await client.get(url)
        seen += [item["name"] for item in page.json()["items"]]
        assert ("next" in page.links) == more
        url = url.join(page.links["next"]["url"]) if more else url
    assert seen == names[::-1]


async def test_head_is_get_without_the_body(client: httpx2.AsyncClient) -> None:
    item = await create(client)
    of_items = ["/items", f"/items/{item['id']}", "/items?limit=0"]
    for path in [*of_items, "/livez", "/readyz", "/openapi.json", "/nowhere"]:
        got, answer = await client.get(path), await client.head(path)
        assert (answer.status_code, answer.content) == (got.status_code, b"")
        varying = ("date", "x-cache", "x-request-id")
        headers = [{name: value for name, value in one.headers.items() if name not in varying} for one in (got, answer)]
        assert headers[0] == headers[1]
    not_modified = {"If-None-Match": (await client.get("/items")).headers["etag"]}
    assert (await client.head("/items", headers=not_modified)).status_code == 304
    assert (await client.delete("/items")).headers["allow"] == "GET, HEAD, POST"


async def test_errors_of_the_framework_are_problems_too(client: httpx2.AsyncClient) -> None:
    assert_problem(await client.get("/nowhere"), 404)
    assert_problem(await client.get("/items/not-a-uuid"), 422, names="path.item_id")
    assert_problem(await client.put("/items"), 405)


async def test_a_repeated_request_with_an_idempotency_key_stores_one_item(
    client: httpx2.AsyncClient, database_url: str
) -> None:
    keys = [{"Idempotency-Key": key} for key in ("order-1", '"order-1"')]
    answers = await asyncio.gather(*(client.post("/items", json=NEW, headers=key) for key in keys * 5))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1, "all get the item that was stored"

    counting = select(func.count()).select_from(Item)
    count = await in_database(database_url, lambda connection: connection.scalar(counting))
    assert count == 1
    assert UUID(answers[0].json()["id"]).version == 5


async def test_an_idempotency_key_with_another_body_is_refused(client: httpx2.AsyncClient) -> None:
    key = {"Idempotency-Key": "order-2"}
    first = await client.post("/items", json=NEW, headers=key)
    second = await client.post("/items", json={"name": "another"}, headers=key)
    assert first.status_code == 201
    assert_problem(second, 422, names="Idempotency-Key")
    items = (await client.get("/items")).json()["items"]
    assert [item["name"] for item in items] == ["x"]


async def test_a_change_does_not_break_the_repetition_of_a_request(client: httpx2.AsyncClient) -> None:
    key = {"Idempotency-Key": "order-3"}
    first = await client.post("/items", json=NEW, headers=key)
    await client.patch(first.headers["location"], json={"name": "changed"})
    second = await client.post("/items", json=NEW, headers=key)
    assert (second.status_code, second.json()["id"]) == (201, first.json()["id"])


@pytest.mark.parametrize("key", ["", "k" * 256, '"k'])
async def test_a_bad_idempotency_key_is_refused(client: httpx2.AsyncClient, key: str) -> None:
    response = await client.post("/items", json=NEW, headers={"Idempotency-Key": key})
    assert_problem(response, 422, names="header.idempotency-key")


async def test_a_huge_body_is_refused(serve: Serve) -> None:
    async with serve(max_body_bytes=100) as client:
        assert_problem(await client.post("/items", json={"name": "x" * 100}), 413, names="100 bytes")

        async def chunks() -> Any:
            for _ in range(20):
                yield b" " * 10

        chunked = await client.post("/items", content=chunks(), headers={"content-type": "application/json"})
        assert_problem(chunked, 413, names="100 bytes")
        assert (await client.post("/items", json=NEW)).status_code == 201


async def test_the_service_documents_itself(client: httpx2.AsyncClient) -> None:
    page = await client.get("/docs")
    assert (page.status_code, "://" in page.text) == (200, False)
    assert (await client.get("/redoc")).status_code == 404
    document = (await client.get("/openapi.json")).json()
    answers = document["paths"]["/items"]["post"]["responses"]
    assert {"201", "413", "422", "503"} <= set(answers)
    assert {"Location", "ETag"} == set(answers["201"]["headers"])
    changing = document["paths"]["/items/{item_id}"]["patch"]["responses"]
    assert {"400", "404", "412", "413", "415", "422", "503"} <= set(changing)
    assert "application/problem+json" in answers["422"]["content"]
