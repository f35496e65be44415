"""No client, however slow, silent or greedy, holds a connection, a place, memory or the end of the server."""

import asyncio
import gc
import resource
import socket
import tracemalloc
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response

from app.highload.http.deadlines import BYTES_PER_SECOND, LOOKS, Awaited, Deadlines
from app.highload.reads.shared import shared
from app.highload.server import LONGEST_HEAD, PIECE, Connection, Flow
from app.highload.service import Service
from tests.conftest import Serve, in_database, running
from tests.highload.notes import insert_notes, new_note, notes_service
from tests.highload.test_server import GET, POST_BODY, POST_HEAD, Client, are_open, connected, connections, get
from tests.waiting import eventually, said, settle

SOON = 0.5
LARGE_ANSWER = b"x" * 4_000_000
JSON = "Content-Type: application/json"


def post(*fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join(["POST /notes HTTP/1.1", "Host: x", *fields, "", ""]).encode() + body


def service(database_url: str, limit_concurrency: int = 1000) -> Service:
    app = notes_service(database_url=database_url, limit_concurrency=limit_concurrency)

    @app.get("/large")
    @shared
    async def get_large() -> Response:
        return Response(LARGE_ANSWER)

    @app.get("/large/alone")
    async def get_large_alone() -> Response:
        return Response(LARGE_ANSWER)

    return app


def add_held(app: Service) -> asyncio.Event:
    """Add a route that answers when the event has come."""
    event = asyncio.Event()

    @app.get("/held")
    async def get_held() -> str:
        await event.wait()
        return "held"

    return event


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def read_nothing(client: Client) -> None:
    """Let what comes stay in buffers, which are as small as may be."""
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]


async def are_paused(some: Sequence[Connection]) -> None:
    """Wait until each of some connections has an answer that nobody reads."""

    async def is_so() -> bool:
        return all(one.flow.write_paused for one in some)

    await eventually(is_so)


STALLS = {
    "nothing": [b""],
    "an empty line": [b"\r\n"],
    "half a head": [b"GET /notes HTTP/1.1\r\nHost:"],
    "half a head after an answer": [GET, b"GET /notes HTTP/1.1\r\nHost:"],
    "an empty line after an answer": [GET, b"\r\n"],
    "half a body": [post("Content-Length: 100", body=b"x")],
    "half a chunk": [post("Transfer-Encoding: chunked", body=b"5\r\nx")],
    "half a body after its refusal": [post("Content-Length: 100000"), b"x"],
    "nothing after the body of what was refused": [post("Content-Length: 70000"), b"x" * 70_000],
    "half a body that nobody reads": [post("Content-Length: 5").replace(b"/notes", b"/livez"), b"x"],
}


@pytest.mark.parametrize("sent", STALLS.values(), ids=STALLS)
async def test_a_client_that_stalls_is_hung_up_on(database_url: str, sent: Sequence[bytes]) -> None:
    app = service(database_url)
    async with running(app, client_timeout=SOON, keep_alive=60) as client, connected(client) as stalling:
        for data in sent:
            if data == GET:
                await stalling.send(data)
            else:
                stalling.writer.write(data)
                await settle()
        await stalling.end()
        assert app.admission._inside == 0


@pytest.mark.parametrize("path", ["/large", "/large/alone"])
async def test_a_client_that_does_not_read_is_hung_up_on(database_url: str, path: str) -> None:
    app = service(database_url)
    async with running(app, client_timeout=SOON, keep_alive=60) as client:
        gc.collect()
        before = len(connections())
        async with connected(client) as stalling:
            read_nothing(stalling)
            stalling.writer.write(get(path))

            async def is_there() -> bool:
                return len(connections()) > before

            async def is_gone() -> bool:
                return len(connections()) <= before

            await eventually(is_there)
            await eventually(is_gone)
        assert app.admission._inside == 0


async def test_a_head_behind_an_answer_that_is_awaited_has_a_deadline(database_url: str) -> None:
    app = service(database_url)
    go_on = add_held(app)
    async with running(app, client_timeout=SOON, keep_alive=60) as client, connected(client) as stalling:
        stalling.writer.write(get("/held") + b"GET /notes HTTP/1.1\r\nHost:")
        await client.get("/livez")
        go_on.set()
        assert b" 200 " in (await stalling.send(b""))[0]
        assert await stalling.end() == b""


async def test_who_reads_on_has_time_again() -> None:
    """Each time that the client has read most of what was sent, another wait begins."""
    flow = Flow(asyncio.Transport(), [])
    flow.pause_writing()
    first = flow.pause
    flow.resume_writing()
    assert flow.pause is first
    flow.pause_writing()
    assert flow.pause is not first


async def test_an_idle_client_and_one_whose_answer_takes_long_stay(database_url: str) -> None:
    app = service(database_url)
    go_on = add_held(app)
    async with (
        running(app, client_timeout=SOON, keep_alive=60) as client,
        connected(client) as idle,
        connected(client) as waiting,
        connected(client) as waiting_alone,
        connected(client) as stalling,
    ):
        await idle.send(GET)
        waiting_alone.writer.write(get("/held"))
        waiting.writer.write(get("/held") + GET)
        await stalling.end()
        await asyncio.sleep(SOON)
        go_on.set()
        assert b" 200 " in (await waiting.send(b""))[0]
        assert b" 200 " in (await waiting.send(b""))[0]
        assert b" 200 " in (await waiting_alone.send(b""))[0]
        assert b" 200 " in (await idle.send(GET))[0]


class Moving:
    """A connection that waits for its client, of whom so many bytes come between two looks."""

    def __init__(self, bytes_each_look: float, *, changes: bool = False) -> None:
        self._each = bytes_each_look
        self._changes = changes
        self._what: object = object()
        self.moved = 0.0
        self.hung_up = False

    def awaited(self) -> Awaited | None:
        self.moved += self._each
        if self._changes:
            self._what = object()
        return Awaited(self._what, int(self.moved))

    def hang_up(self) -> None:
        self.hung_up = True


def looks_until_hung_up(connection: Moving, most: int = 1000) -> int:
    deadlines = Deadlines([connection], patience=10)
    for look in range(most):
        deadlines.look()
        if connection.hung_up:
            return look
    return most


def test_who_moves_has_more_time() -> None:
    # A look each second.
    assert looks_until_hung_up(Moving(0)) == LOOKS + 1
    assert LOOKS + 1 < looks_until_hung_up(Moving(BYTES_PER_SECOND / 2)) < 2 * LOOKS + 2
    assert looks_until_hung_up(Moving(BYTES_PER_SECOND)) == 1000
    assert looks_until_hung_up(Moving(0, changes=True)) == 1000


async def test_who_waits_for_its_client_takes_no_place(database_url: str) -> None:
    app = service(database_url, limit_concurrency=2)
    async with running(app) as client, AsyncExitStack() as stack, connected(client) as good:
        slow = [await stack.enter_async_context(connected(client)) for _ in range(5)]
        for one in slow:
            one.writer.write(POST_HEAD)
        deaf = [await stack.enter_async_context(connected(client)) for _ in range(5)]
        for one in deaf:
            read_nothing(one)
            one.writer.write(get("/large/alone") * 5)
        await settle()
        for _ in range(3):
            assert b" 200 " in (await good.send(GET))[0]
            assert b" 201 " in (await good.send(POST_HEAD + POST_BODY))[0]
        assert b" 201 " in (await slow[0].send(POST_BODY))[0]
    assert app.admission._inside == 0


async def test_who_comes_back_with_its_body_may_find_the_place_taken(database_url: str) -> None:
    app = service(database_url, limit_concurrency=1)
    go_on = add_held(app)
    async with running(app) as client, connected(client) as late, connected(client) as other:
        late.writer.write(POST_HEAD)
        # What came before is read by then.
        await client.get("/livez")
        other.writer.write(get("/held"))

        async def is_full() -> bool:
            return app.admission.full

        await eventually(is_full)
        head, body = await late.send(POST_BODY)
        assert b" 503 " in head
        assert b"\r\nretry-after: 1\r\n" in head
        assert b"repeat" in body
        go_on.set()
        assert b" 200 " in (await other.send(b""))[0]
        assert b" 201 " in (await late.send(POST_HEAD + POST_BODY))[0]


HEADS = {
    "fields": (GET[:-2], b"X: " + b"y" * 95 + b"\r\n"),
    "one field": (GET[:-2] + b"X: ", b"y" * 100),
    "one path": (b"GET /", b"y" * 100),
    "empty lines": (b"", b"\r\n" * 50),
}


@pytest.mark.parametrize(("beginning", "line"), HEADS.values(), ids=HEADS)
async def test_a_head_without_end_is_refused(database_url: str, beginning: bytes, line: bytes) -> None:
    async with running(service(database_url)) as client, connected(client) as greedy:
        await greedy.send(GET)
        # What the server has not read when it hangs up would take the answer away.
        greedy.writer.write((beginning + line * 1000)[: LONGEST_HEAD + PIECE])
        answer = await greedy.end()
        assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert b"\r\nconnection: close\r\n" in answer
        assert b"send at most 65536 bytes" in answer


ENDS = {
    "trailers": (b"0\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
    "one trailer": (b"0\r\nX: ", b"y" * 1000),
    "an extension": (b"1;", b"y" * 1000),
}


@pytest.mark.parametrize(("beginning", "line"), ENDS.values(), ids=ENDS)
async def test_an_end_of_a_body_without_end_is_not_read(database_url: str, beginning: bytes, line: bytes) -> None:
    app = service(database_url)
    async with running(app) as client, connected(client) as greedy:
        greedy.writer.write(post("Transfer-Encoding: chunked", body=b"1\r\nx\r\n" + beginning))
        greedy.writer.write(line * (2 * LONGEST_HEAD // 1000))
        with suppress(ConnectionResetError):
            assert await greedy.end() == b""
        await settle()
        assert app.admission._inside == 0


async def test_a_head_that_is_nearly_too_large_is_served(database_url: str) -> None:
    fields = [f"X-{number}: {'y' * 1000}" for number in range(60)]
    async with running(service(database_url)) as client, connected(client) as connection:
        for _ in range(3):
            assert b" 200 " in (await connection.send(get("/notes", *fields)))[0]


async def test_a_pipeline_is_read_as_it_is_answered(database_url: str) -> None:
    """Of a megabyte that comes at once, few requests are objects at the same time, and all are answered."""
    requests = 30_000
    held = asyncio.Event()
    app = service(database_url)

    @app.post("/held")
    async def post_held(request: Request) -> str:
        await request.body()
        await held.wait()
        return "held"

    async with running(app) as client, connected(client) as greedy:
        greedy.writer.write(get("/livez") * 200 + post().replace(b"/notes", b"/held") + get("/livez") * requests)

        def pipelines() -> list[Connection]:
            return [one for one in gc.get_objects() if isinstance(one, Connection) and one.pipeline]

        async def waits() -> bool:
            return bool(pipelines())

        await eventually(waits)
        for _ in range(200):
            assert b" 200 " in (await greedy.send(b""))[0]
        await eventually(waits)
        # Time to read more than it should.
        for _ in range(10):
            await client.get("/livez")
        (connection,) = pipelines()
        assert len(connection.pipeline) <= PIECE / len(get("/livez")) + 1
        # What the loop reads at once.
        assert len(connection.flow.unparsed) < 300_000
        held.set()
        assert b" 200 " in (await greedy.send(b""))[0]
        for _ in range(requests):
            assert b" 200 " in (await greedy.send(b""))[0]


async def test_a_head_behind_a_large_pipeline_is_read(database_url: str) -> None:
    """What is parsed at last, when all before it is answered, begins no request that could end."""
    head = get("/livez")
    second = get("/livez", f"X-Long: {'y' * (PIECE - 2 * len(head) - len('X-Long: ') - 2)}")
    assert len(head + second) == PIECE
    async with running(service(database_url)) as client, connected(client) as connection:
        connection.writer.write(head + second + head[:20])
        for _ in range(2):
            assert b" 200 " in (await connection.send(b""))[0]
        assert b" 200 " in (await connection.send(head[20:]))[0]


async def test_a_pipeline_that_is_left_is_forgotten(database_url: str) -> None:
    """What refers to itself lives until the collector comes by, which is not often."""
    app = service(database_url)
    held = add_held(app)
    async with running(app) as client:
        await client.get("/livez")
        gc.collect()
        before = len(connections())
        gc.disable()
        try:
            for _ in range(5):
                async with connected(client) as connection:
                    connection.writer.write(get("/held") + GET * 1000)
                    # What came before is read by then.
                    await client.get("/livez")
            held.set()

            async def gone() -> bool:
                return len(connections()) <= before

            await eventually(gone)
        finally:
            gc.enable()


async def test_answers_that_nobody_reads_are_kept_once(database_url: str) -> None:
    app = service(database_url)
    async with running(app) as client, AsyncExitStack() as stack:
        deaf = [await stack.enter_async_context(connected(client)) for _ in range(30)]
        for one in deaf:
            read_nothing(one)
        served = await are_open(len(deaf))
        tracemalloc.start()
        try:
            for one in deaf:
                one.writer.write(get("/large"))
            await are_paused(served)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 3 * len(LARGE_ANSWER)


async def test_a_stop_does_not_wait_for_who_reads_nothing(database_url: str, log: list[str]) -> None:
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(running(service(database_url), client_timeout=SOON))
        async with connected(client) as deaf:
            read_nothing(deaf)
            deaf.writer.write(get("/large"))
            await are_paused(await are_open(1))
            await serving.aclose()
    assert not log


async def test_a_stop_without_free_files_answers_what_was_begun(
    database_url: str, log: list[str], told: list[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    app = service(database_url)
    begun = asyncio.Event()

    @app.put("/echo")
    async def echo(request: Request) -> Response:
        begun.set()
        return Response(await request.body())

    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(running(app))
        async with connected(client) as inside:
            inside.writer.write(POST_HEAD.replace(b"POST /notes", b"PUT /echo"))
            await begun.wait()
            used = open_files()
            resource.setrlimit(resource.RLIMIT_NOFILE, (used - 1, hard))
            try:
                stopping = asyncio.create_task(serving.aclose())
                await said(told, "Shutting down")
                assert b" 200 " in (await inside.send(POST_BODY))[0]
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await stopping
    assert not [line for line in log if "OSError" in line]


UPGRADE = (
    "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"
)


@pytest.mark.parametrize("cut", [0, 1, 30, 230, 10_000])
async def test_an_offer_of_another_protocol_takes_no_body_away(database_url: str, cut: int) -> None:
    """As the HTTP client of the JDK sends it by default."""
    length_known = post("Content-Length: 5", UPGRADE, JSON, body=b"GET /")
    chunked = post(UPGRADE, "Transfer-Encoding: chunked", body=b"2\r\nGE\r\n3\r\nT /\r\n0\r\n\r\n")
    async with running(service(database_url)) as client, connected(client) as java:
        for data in (length_known, chunked, get("/notes", UPGRADE), length_known):
            java.writer.write(data[:-cut] if cut < len(data) and cut else data)
            await settle()
            head, body = await java.send(data[-cut:] if cut < len(data) and cut else b"")
            assert b" 200 " in head or b" 201 " in head
            assert b"GET /" in body
        data = length_known + get("/notes", UPGRADE) + chunked + GET
        java.writer.write(data)
        heads = [(await java.send(b""))[0] for _ in range(4)]
        assert [head.split()[1] for head in heads] == [b"201", b"200", b"201", b"200"]


async def test_an_offer_of_another_protocol_in_a_large_pipeline(database_url: str) -> None:
    requests = [post("Content-Length: 9", UPGRADE, body=b"GET / HTT"), get("/notes", UPGRADE)] * 200
    async with running(service(database_url)) as client, connected(client) as java:
        java.writer.write(b"".join(requests))
        statuses = [(await java.send(b""))[0].split()[1] for _ in requests]
        assert statuses == [b"201", b"200"] * 200


@pytest.mark.parametrize("length", [1, 100_000], ids=["refused when full", "too large"])
async def test_a_refusal_before_the_body_was_asked_for_ends_the_connection(database_url: str, length: int) -> None:
    """The client may send the body or not, so what it sends next may be anything (RFC 9110, section 10.1.1)."""
    app = service(database_url, limit_concurrency=1)
    async with running(app) as client, connected(client) as connection:
        assert b" 200 " in (await connection.send(GET))[0]
        if length == 1:
            app.admission.enter()
        head, _ = await connection.send(post(f"Content-Length: {length}", "Expect: 100-continue"))
        assert b" 503 " in head or b" 413 " in head
        assert b"\r\nconnection: close\r\n" in head
        assert await connection.end() == b""


async def test_a_body_that_was_asked_for_leaves_the_connection_open(database_url: str) -> None:
    async with running(service(database_url)) as client, connected(client) as connection:
        connection.writer.write(post("Content-Length: 1", "Expect: 100-continue"))
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        head, _ = await connection.send(b"x")
        assert b" 201 " in head
        assert b"\r\nconnection: close\r\n" not in head
        assert b" 200 " in (await connection.send(GET))[0]


async def test_who_reads_on_gets_all(serve: Serve, database_url: str) -> None:
    """A large pipeline of large answers, read slowly at first."""
    notes = [new_note("y" * 250) for _ in range(100)]
    await in_database(database_url, lambda connection: insert_notes(connection, notes))
    async with serve() as client, connected(client) as connection:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection.writer.write(GET * 1000)
        await asyncio.sleep(0.3)
        connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
        bodies = {(await connection.send(b""))[1] for _ in range(1000)}
        assert len(bodies) == 1


async def test_space_around_an_idempotency_key_does_not_count(database_url: str) -> None:
    async with running(service(database_url)) as client, connected(client) as connection:
        keys = ("Idempotency-Key: k", "Idempotency-Key: k \t", "Idempotency-Key:  k")
        bodies = {(await connection.send(post(key, "Content-Length: 1", body=b"x")))[1] for key in keys}
        assert len(bodies) == 1
        assert b" 422 " in (await connection.send(post("Idempotency-Key:  ", "Content-Length: 1", body=b"x")))[0]
