import asyncio
import gc
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx2
import pytest
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.answers import Answer, answer_of
from app.reads import LONGEST_REMEMBERED_QUERY, SharedReads, remembered_parameters
from tests.conftest import Serve
from tests.waiting import settle

ROUTES = {"/items": ("limit", "cursor"), "/items/*": ()}


class Application:
    """An ASGI application that counts its calls and can be held back."""

    def __init__(self, *, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.calls: list[str] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._status = status
        self._headers = headers

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        self.calls.append(f"{scope['path']}?{scope['query_string'].decode()}")
        self.called.set()
        call = len(self.calls)
        await self.gate.wait()
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": f"{call}".encode()})


class Reply(dict[str, str]):
    """The headers of an answer, with its status and body."""

    status: int
    body: bytes


async def get(
    app: SharedReads,
    path: str,
    query: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    state: dict[str, Any] | None = None,
) -> Reply:
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "state": state or {"cache": None},
    }
    await app(scope, receive, send)
    start, body = messages
    reply = Reply((name.decode(), value.decode()) for name, value in start["headers"])
    reply.status, reply.body = start["status"], body["body"]
    return reply


async def test_identical_reads_share_one_run() -> None:
    application = Application()
    reads = SharedReads(application, ROUTES, max_waiting=100)
    replies = await asyncio.gather(*(get(reads, "/items") for _ in range(50)))

    assert application.calls == ["/items?"]
    assert {reply.body for reply in replies} == {b"1"}
    assert sorted(reply["x-cache"] for reply in replies) == ["miss", *["shared"] * 49]


async def test_a_read_joins_only_a_run_that_has_not_begun() -> None:
    application = Application()
    application.gate.clear()
    reads = SharedReads(application, ROUTES, max_waiting=100)
    early = asyncio.create_task(get(reads, "/items"))
    await settle()
    late = [asyncio.create_task(get(reads, "/items")) for _ in range(3)]
    await settle()
    application.gate.set()

    assert (await early).body == b"1"
    assert {reply.body for reply in await asyncio.gather(*late)} == {b"2"}


async def test_different_pages_do_not_wait_for_each_other() -> None:
    application = Application()
    application.gate.clear()
    reads = SharedReads(application, ROUTES, max_waiting=100)
    reading = [asyncio.create_task(get(reads, "/items", f"limit={limit}")) for limit in (1, 2)]
    await settle()
    assert application.calls == ["/items?limit=1", "/items?limit=2"]
    application.gate.set()
    await asyncio.gather(*reading)
    assert not reads._renders, "nothing is kept for a page that nobody reads"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("limit=5&cursor=a", "cursor=a&limit=5", True),
        ("limit=5", "limit=5&utm_source=x", True),
        ("limit=%35", "limit=5", True),
        ("limit=1&limit=5", "limit=5", True),
        ("limit=5", "limit=6", False),
        ("limit=", "", False),
        ("cursor=a%26limit%3D5", "cursor=a&limit=5", False),
    ],
)
async def test_the_declared_parameters_make_the_key(one: str, other: str, same: bool) -> None:
    application = Application()
    reads = SharedReads(application, ROUTES, max_waiting=100)
    await asyncio.gather(get(reads, "/items", one), get(reads, "/items", other))
    assert (len(application.calls) == 1) is same


async def test_only_short_queries_are_remembered() -> None:
    reads = SharedReads(Application(), ROUTES, max_waiting=100)
    remembered_parameters.cache_clear()
    await get(reads, "/items", "limit=5")
    await get(reads, "/items", f"limit=5&utm_source={'x' * LONGEST_REMEMBERED_QUERY}")
    assert remembered_parameters.cache_info().currsize == 1


async def test_an_encoded_question_mark_is_no_query() -> None:
    application = Application()
    reads = SharedReads(application, {"/pages/*": ("q",)}, max_waiting=100)
    await asyncio.gather(get(reads, "/pages/a", "q=1"), get(reads, "/pages/a?q=1"), get(reads, "/pages/a q=1"))
    assert len(application.calls) == 3


async def test_items_are_shared_by_id() -> None:
    application = Application()
    reads = SharedReads(application, ROUTES, max_waiting=100)
    await asyncio.gather(*(get(reads, f"/items/{name}") for name in "aab"))
    assert sorted(application.calls) == ["/items/a?", "/items/b?"]


@pytest.mark.parametrize("header", ["authorization", "cookie", "origin", "content-length", "transfer-encoding"])
async def test_a_request_with_credentials_or_a_body_is_not_shared(header: str) -> None:
    application = Application()
    reads = SharedReads(application, ROUTES, max_waiting=100)
    replies = await asyncio.gather(*(get(reads, "/items", headers={header: "x"}) for _ in range(2)))
    assert {reply.body for reply in replies} == {b"1", b"2"}
    assert {reply["x-cache"] for reply in replies} == {"bypass"}


@pytest.mark.parametrize(
    "header", [(b"set-cookie", b"a=b"), (b"vary", b"accept-language"), (b"cache-control", b"private")]
)
async def test_a_personal_answer_is_not_shared(header: tuple[bytes, bytes]) -> None:
    application = Application(headers=[header])
    reads = SharedReads(application, ROUTES, max_waiting=100)
    replies = await asyncio.gather(*(get(reads, "/items") for _ in range(3)))
    assert {reply.body for reply in replies} == {b"1", b"2", b"3"}
    assert {reply["x-cache"] for reply in replies} == {"bypass"}


async def test_other_paths_pass_by() -> None:
    application = Application()
    reads = SharedReads(application, ROUTES, max_waiting=100)
    replies = await asyncio.gather(get(reads, "/livez"), get(reads, "/items/a/b"), get(reads, "/items/"))
    assert len(application.calls) == 3
    assert not any("x-cache" in reply for reply in replies)


async def test_a_trailing_slash_leads_nowhere(client: httpx2.AsyncClient) -> None:
    """A redirection would be made of the Host of whoever asked first."""
    assert (await client.get("/items/")).status_code == 404


async def test_nothing_is_left_of_a_shared_run() -> None:
    application = Application()
    reads = SharedReads(application, ROUTES, max_waiting=100)
    application.gate.clear()
    runs = [asyncio.create_task(get(reads, path)) for path in ("/items", "/items", "/items/a")]
    await settle()
    assert len(reads._renders) == 2
    for run in runs:
        run.cancel()
    application.gate.set()
    await asyncio.gather(*runs, return_exceptions=True)
    await settle()
    # Their exceptions remember the frames in which they waited.
    del run, runs
    gc.collect()
    assert len(reads._renders) == 0


@pytest.mark.parametrize("tags", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
async def test_what_the_client_has_is_not_sent_again(tags: str) -> None:
    reads = SharedReads(Application(headers=[(b"content-type", b"text/plain")]), ROUTES, max_waiting=100)
    first = await get(reads, "/items/a")
    reads = SharedReads(Application(), ROUTES, max_waiting=100)
    second = await get(reads, "/items/a", headers={"if-none-match": tags.format(etag=first["etag"])})
    assert (second.status, second.body, second["etag"]) == (304, b"", first["etag"])
    assert "content-type" not in second


async def test_what_the_client_has_not_is_sent() -> None:
    reads = SharedReads(Application(), ROUTES, max_waiting=100)
    reply = await get(reads, "/items", headers={"if-none-match": '"other"'})
    assert (reply.status, reply.body) == (200, b"1")


async def test_an_error_has_no_entity_tag() -> None:
    reads = SharedReads(Application(status=404), ROUTES, max_waiting=100)
    reply = await get(reads, "/items", headers={"if-none-match": "*"})
    assert reply.status == 404
    assert "etag" not in reply


async def test_too_many_waiting_reads_are_refused_at_once() -> None:
    application = Application()
    application.gate.clear()
    reads = SharedReads(application, ROUTES, max_waiting=2)
    reading = [asyncio.create_task(get(reads, "/items"))]
    await settle()
    reading += [asyncio.create_task(get(reads, "/items")) for _ in range(2)]
    await settle()
    refused = await get(reads, "/items")
    application.gate.set()

    assert refused.status == 503
    assert refused["retry-after"] == "1"
    assert [reply.status for reply in await asyncio.gather(*reading)] == [200] * 3


def test_an_answer_survives_its_dump() -> None:
    answer = Answer(200, [(b"etag", b'"1"'), (b"link", b"<a>; rel=b"), (b"empty", b"")], b"\r\n\r\nbody")
    assert Answer.load(answer.dump()) == answer


async def test_conditional_requests_work_end_to_end(serve: Serve) -> None:
    async with serve() as client:
        first = await client.get("/items")
        again = await client.get("/items", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        await client.post("/items", json={"name": "x"})
        changed = await client.get("/items", headers={"If-None-Match": first.headers["etag"]})
        assert changed.status_code == 200


async def run(app: ASGIApp) -> Answer:
    return await asyncio.wait_for(answer_of(app, {"type": "http", "method": "GET", "path": "/items"}), 5)


async def test_a_streamed_answer_is_whole_when_it_is_shared() -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        yield b"a"
        # Whoever waits for the client to go away meanwhile must not keep the loop busy.
        await asyncio.sleep(0.01)
        yield b"b"

    answer = await run(StreamingResponse(chunks(), media_type="text/plain"))
    assert answer.body == b"ab"
    assert (b"content-length", b"2") in answer.headers


async def test_an_answer_is_framed_by_its_length() -> None:
    async def chunked(_: Scope, __: Receive, send: Send) -> None:
        headers = [(b"Transfer-Encoding", b"chunked"), (b"X-Other", b"1")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc"})

    assert await run(chunked) == Answer(404, [(b"content-length", b"3"), (b"x-other", b"1")], b"abc")
    assert await run(Response(b"a body", 204, {"X-Other": "2"})) == Answer(204, [(b"x-other", b"2")], b"")


async def test_what_would_break_the_wire_is_not_shared() -> None:
    async def silent(_: Scope, __: Receive, ___: Send) -> None:
        pass

    async def unfinished(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    split = Response(headers={"x-echo": "a\r\nset-cookie: b=c"})
    for app in (silent, unfinished, split, Response(status_code=999)):
        with pytest.raises(RuntimeError):
            await run(app)


async def test_an_exception_of_a_shared_run_reaches_every_caller() -> None:
    async def broken(_: Scope, __: Receive, ___: Send) -> None:
        raise RuntimeError("broken")

    reads = SharedReads(broken, ROUTES, max_waiting=100)
    outcomes = await asyncio.gather(*(get(reads, "/items") for _ in range(2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError] * 2


async def test_an_unexpected_error_is_a_problem(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("app.crud.list_items", broken)
    async with serve() as client:
        response: httpx2.Response = await client.get("/items")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "broken" not in response.text
