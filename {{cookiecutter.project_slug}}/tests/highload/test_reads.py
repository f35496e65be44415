import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2
import pytest
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.highload.reads.answers import Answer, answer_of
from app.highload.reads.sharing import LONGEST_KEY, LONGEST_REMEMBERED_QUERY, remembered_parameters
from app.highload.service import Service
from tests.conftest import Serve
from tests.highload.counting import Runs, counting_service, get, seen_by_the_routes, started
from tests.waiting import PATIENCE, settle


def service(runs: Runs, **options: Any) -> AbstractAsyncContextManager[Service]:
    return started(counting_service(runs, **options))


async def test_identical_reads_share_one_run() -> None:
    runs = Runs()
    async with service(runs) as app:
        replies = await asyncio.gather(*(get(app, "/notes") for _ in range(50)))

    assert runs.calls == [{"limit": None, "cursor": None}]
    assert {reply.body for reply in replies} == {b"1"}
    assert sorted(reply["x-cache"] for reply in replies) == ["miss", *["shared"] * 49]


async def test_a_read_joins_only_a_run_that_has_not_begun() -> None:
    runs = Runs()
    runs.gate.clear()
    async with service(runs) as app:
        early = asyncio.create_task(get(app, "/notes"))
        await runs.called.wait()
        late = [asyncio.create_task(get(app, "/notes")) for _ in range(3)]
        await settle()
        runs.gate.set()

        assert (await early).body == b"1"
        assert {reply.body for reply in await asyncio.gather(*late)} == {b"2"}


async def test_different_pages_do_not_wait_for_each_other() -> None:
    runs = Runs()
    runs.gate.clear()
    async with service(runs) as app:
        reading = [asyncio.create_task(get(app, "/notes", f"limit={limit}")) for limit in (1, 2)]
        await settle()
        assert runs.calls == [{"limit": ["1"], "cursor": None}, {"limit": ["2"], "cursor": None}]
        runs.gate.set()
        await asyncio.gather(*reading)
        assert not app.reads._renders, "nothing is kept for a page that nobody reads"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("limit=5&cursor=a", "cursor=a&limit=5", True),
        ("limit=5", "limit=5&utm_source=x", True),
        ("limit=%35", "limit=5", True),
        ("limit=1&cursor=a&limit=5", "cursor=a&limit=1&limit=5", True),
        ("limit=1&limit=5", "limit=5", False),
        ("limit=1&limit=5", "limit=1", False),
        ("limit=1&limit=5", "limit=5&limit=1", False),
        ("limit=5", "limit=6", False),
        ("limit=", "", False),
        ("cursor=a%26limit%3D5", "cursor=a&limit=5", False),
    ],
)
async def test_the_declared_parameters_make_the_key(one: str, other: str, same: bool) -> None:
    runs = Runs()
    async with service(runs) as app:
        await asyncio.gather(get(app, "/notes", one), get(app, "/notes", other))
    assert (len(runs.calls) == 1) is same


async def test_the_routes_see_the_declared_parameters_ordered_by_name() -> None:
    runs = Runs()
    app = counting_service(runs)
    seen = seen_by_the_routes(app)
    async with started(app):
        await get(app, "/notes", "limit=5&utm_source=x&cursor=a%20b&limit=1")
    assert [scope["query_string"] for scope in seen] == [b"cursor=a+b&limit=5&limit=1"]
    assert runs.calls == [{"limit": ["5", "1"], "cursor": "a b"}]


async def test_only_short_queries_are_remembered() -> None:
    async with service(Runs()) as app:
        remembered_parameters.cache_clear()
        await get(app, "/notes", "limit=5")
        assert remembered_parameters.cache_info().currsize == 1
        await get(app, "/notes", f"limit=5&utm_source={'x' * LONGEST_REMEMBERED_QUERY}")
        assert remembered_parameters.cache_info().currsize == 1


async def test_an_encoded_question_mark_is_no_query() -> None:
    runs = Runs()
    async with service(runs) as app:
        await asyncio.gather(get(app, "/pages/a", "q=1"), get(app, "/pages/a?q=1"), get(app, "/pages/a q=1"))
    assert len(runs.calls) == 3


async def test_notes_are_shared_by_id() -> None:
    runs = Runs()
    async with service(runs) as app:
        await asyncio.gather(*(get(app, f"/notes/{name}") for name in "aab"))
    assert runs.calls == [{"note_id": "a"}, {"note_id": "b"}]


@pytest.mark.parametrize(
    ("length", "cache_statuses"), [(LONGEST_KEY - 100, ["miss", "shared"]), (LONGEST_KEY, ["bypass", "bypass"])]
)
@pytest.mark.parametrize(("path", "query"), [("/notes/{}", ""), ("/notes", "cursor={}")])
async def test_what_has_a_long_key_is_not_shared(path: str, query: str, length: int, cache_statuses: list[str]) -> None:
    runs = Runs()
    text = "x" * length
    async with service(runs) as app:
        replies = await asyncio.gather(*(get(app, path.format(text), query.format(text)) for _ in range(2)))
    assert [reply.status for reply in replies] == [200, 200]
    assert sorted(reply["x-cache"] for reply in replies) == cache_statuses
    assert len(runs.calls) == len({reply.body for reply in replies})


@pytest.mark.parametrize(
    "header",
    [
        ("authorization", "Bearer x"),
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("range", "bytes=0-0"),
    ],
)
async def test_a_request_with_credentials_or_a_body_is_not_shared(header: tuple[str, str]) -> None:
    runs = Runs()
    async with service(runs) as app:
        replies = await asyncio.gather(*(get(app, "/notes", headers=dict([header])) for _ in range(2)))
    assert {reply.body for reply in replies} == {b"1", b"2"}
    assert {reply["x-cache"] for reply in replies} == {"bypass"}


async def test_with_a_guard_a_request_with_credentials_is_shared() -> None:
    runs = Runs()
    async with service(runs) as app:
        replies = await asyncio.gather(
            *(get(app, "/guarded", headers={"authorization": f"Bearer {name}"}) for name in "ab")
        )
    assert len(runs.calls) == 1
    assert sorted(reply["x-cache"] for reply in replies) == ["miss", "shared"]


@pytest.mark.parametrize("header", ["cookie", "origin", "accept-language", "x-forwarded-for", "host"])
async def test_the_routes_do_not_see_what_is_not_declared(header: str) -> None:
    runs = Runs()
    app = counting_service(runs)
    seen = seen_by_the_routes(app)
    async with started(app):
        replies = await asyncio.gather(*(get(app, "/notes", headers={header: value}) for value in "ab"))
    assert sorted(reply["x-cache"] for reply in replies) == ["miss", "shared"]
    assert [(scope["headers"], scope["client"]) for scope in seen] == [([(b"host", b"localhost:8000")], None)]


PERSONAL = [
    {"set-cookie": "a=b"},
    {"vary": "accept-language"},
    {"vary": "*"},
    {"cache-control": "private"},
    {"cache-control": "max-age=60, no-store"},
    {"www-authenticate": "Basic"},
]


@pytest.mark.parametrize("headers", PERSONAL)
async def test_a_personal_answer_is_not_shared(headers: dict[str, str]) -> None:
    runs = Runs(headers=headers)
    async with service(runs) as app:
        replies = await asyncio.gather(*(get(app, "/notes") for _ in range(3)))
    # The first run showed that the answer is personal, so nobody gets it.
    assert {reply.body for reply in replies} == {b"2", b"3", b"4"}
    assert {reply["x-cache"] for reply in replies} == {"bypass"}
    assert len(runs.calls) == 4


async def test_personal_answers_do_not_wait_for_each_other() -> None:
    runs = Runs(headers={"set-cookie": "a=b"})
    runs.gate.clear()
    async with service(runs) as app:
        reading = [asyncio.create_task(get(app, "/notes")) for _ in range(3)]
        await settle()
        assert len(runs.calls) == 1
        # Only who waits at this moment gets through.
        runs.gate.set()
        runs.gate.clear()
        await settle()
        assert len(runs.calls) == 4, "all three at once"
        runs.gate.set()
        assert {reply.body for reply in await asyncio.gather(*reading)} == {b"2", b"3", b"4"}


async def test_the_own_run_of_a_personal_answer_sees_the_request_itself() -> None:
    app = counting_service(Runs(headers={"set-cookie": "a=b"}))
    seen = seen_by_the_routes(app)
    async with started(app):
        await asyncio.gather(*(get(app, "/notes", headers={"cookie": name}) for name in "ab"))
    shared, *own = [scope["headers"] for scope in seen]
    assert shared == [(b"host", b"localhost:8000")]
    assert sorted(own) == [[(b"host", b"x"), (b"cookie", name)] for name in (b"a", b"b")]


async def test_an_answer_that_varies_with_a_declared_header_is_shared() -> None:
    runs = Runs(headers={"vary": "Accept-Language"})
    async with service(runs) as app:
        replies = await asyncio.gather(
            *(get(app, "/translated", headers={"accept-language": language}) for language in ("de", "de", "fr"))
        )
    assert runs.calls == [{"accept_language": "de"}, {"accept_language": "fr"}]
    assert [reply.body for reply in replies] == [b"1", b"1", b"2"]
    assert sorted(reply["x-cache"] for reply in replies) == ["miss", "miss", "shared"]


async def test_other_paths_pass_by() -> None:
    runs = Runs()
    app = counting_service(runs)
    seen = seen_by_the_routes(app)
    async with started(app):
        paths = ["/alone", "/alone", "/notes/a/b", "/notes/"]
        replies = await asyncio.gather(*(get(app, path) for path in paths))
    assert [scope["path"] for scope in seen] == paths
    assert [reply.status for reply in replies] == [200, 200, 404, 307]
    assert len(runs.calls) == 2
    assert not any("x-cache" in reply for reply in replies)


async def test_a_redirection_leads_to_the_host_that_the_client_asked() -> None:
    async with service(Runs()) as app:
        hosts = ["a.example", "b.example"]
        replies = await asyncio.gather(*(get(app, "/notes/", headers={"host": host}) for host in hosts))
    assert [reply["location"] for reply in replies] == [f"http://{host}/notes" for host in hosts]


async def test_nothing_is_left_of_a_shared_run() -> None:
    runs = Runs()
    runs.gate.clear()
    async with service(runs) as app:
        reading = [asyncio.create_task(get(app, path)) for path in ("/notes", "/notes", "/notes/a")]
        await settle()
        assert len(app.reads._renders) == 2
        for task in reading:
            task.cancel()
        runs.gate.set()
        await asyncio.gather(*reading, return_exceptions=True)
        await settle()
        # Their exceptions remember the frames in which they waited.
        del task, reading
        gc.collect()
        assert len(app.reads._renders) == 0


@pytest.mark.parametrize("tags", ["{etag}", "W/{etag}", '"other", {etag}', "*"])
async def test_what_the_client_has_is_not_sent_again(tags: str) -> None:
    async with service(Runs(headers={"content-type": "text/plain"})) as app:
        first = await get(app, "/notes/a")
    async with service(Runs()) as app:
        second = await get(app, "/notes/a", headers={"if-none-match": tags.format(etag=first["etag"])})
    assert (second.status, second.body, second["etag"]) == (304, b"", first["etag"])
    assert "content-type" not in second


async def test_what_the_client_has_not_is_sent() -> None:
    async with service(Runs()) as app:
        reply = await get(app, "/notes", headers={"if-none-match": '"other"'})
    assert (reply.status, reply.body) == (200, b"1")


async def test_an_error_has_no_entity_tag() -> None:
    async with service(Runs(status=404)) as app:
        reply = await get(app, "/notes", headers={"if-none-match": "*"})
    assert reply.status == 404
    assert "etag" not in reply


async def test_too_many_waiting_reads_are_refused_at_once() -> None:
    runs = Runs()
    runs.gate.clear()
    async with service(runs, max_waiting=2) as app:
        reading = [asyncio.create_task(get(app, "/notes"))]
        await runs.called.wait()
        reading += [asyncio.create_task(get(app, "/notes")) for _ in range(2)]
        await settle()
        refused = await asyncio.wait_for(get(app, "/notes"), PATIENCE)
        runs.gate.set()

        assert refused.status == 503
        assert refused["retry-after"] == "1"
        assert [reply.status for reply in await asyncio.gather(*reading)] == [200] * 3


async def test_conditional_requests_work_end_to_end(serve: Serve) -> None:
    async with serve() as client:
        first = await client.get("/notes")
        again = await client.get("/notes", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        await client.post("/notes", content="x")
        changed = await client.get("/notes", headers={"If-None-Match": first.headers["etag"]})
        assert changed.status_code == 200


async def run(app: ASGIApp) -> Answer:
    return await asyncio.wait_for(answer_of(app, {"type": "http", "method": "GET", "path": "/notes"}), PATIENCE)


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


async def test_an_exception_of_a_shared_run_reaches_every_caller(log: list[str]) -> None:
    runs = Runs(error=LookupError("broken"))
    async with service(runs) as app:
        replies = await asyncio.gather(*(get(app, "/notes") for _ in range(2)))
    assert len(runs.calls) == 1
    assert [reply.status for reply in replies] == [500] * 2
    assert {reply["content-type"] for reply in replies} == {"application/problem+json"}
    assert sorted(reply["x-cache"] for reply in replies) == ["miss", "shared"]
    assert not any(b"broken" in reply.body for reply in replies)
    assert sum("LookupError: broken" in line for line in log) == 1, "it is logged once for all"


async def test_an_unexpected_error_is_a_problem(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("app.highload.statements.Statements.page", broken)
    async with serve() as client:
        response: httpx2.Response = await client.get("/notes")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "broken" not in response.text
