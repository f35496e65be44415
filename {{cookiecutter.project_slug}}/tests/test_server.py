"""The server shares and refuses in the words of the application, and knows which connection is idle."""

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from app.admission import Admission
from app.reads import Render, Shared
from app.server import Connection
from tests.conftest import Serve, lines_of
from tests.waiting import eventually

GET = b"GET /items HTTP/1.1\r\nHost: x\r\n\r\n"
POST_HEAD = b"POST /items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
POST_BODY = b'{"name":"x"}'
CLIENTS = 30


class Client:
    """A connection on which a test writes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a request and return the head, without its date, and the body of the next answer."""
        self.writer.write(request)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        (length,) = [int(line.split(b": ")[1]) for line in lines if line.startswith(b"content-length: ")]
        body = b"" if request.startswith(b"HEAD") else await self.reader.readexactly(length)
        return b"\r\n".join(line for line in lines if not line.startswith(b"date: ")), body


@asynccontextmanager
async def connected(to: httpx2.AsyncClient) -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_connection(to.base_url.host, to.base_url.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def full_service(serve: Serve) -> AsyncGenerator[tuple[Client, Client]]:
    """Yield a connection whose request waits for its body in the only place there is, and another one."""
    async with serve(limit_concurrency=1) as client, connected(client) as inside, connected(client) as outside:
        inside.writer.write(POST_HEAD)
        # Otherwise a read that arrives at the same moment may have the place first.
        assert b" 200 " in (await outside.send(get("/livez")))[0]

        async def full() -> bool:
            head, _ = await outside.send(GET)
            return b" 503 " in head

        await eventually(full)
        yield inside, outside


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    """The requests that reach the application."""
    scopes: list[Scope] = []
    serve = Admission.__call__

    async def call(self: Admission, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scopes.append(scope)
        await serve(self, scope, receive, send)

    monkeypatch.setattr(Admission, "__call__", call)
    return scopes


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """An event that shared reads wait for."""
    event = asyncio.Event()
    answer = Render.send

    async def send(self: Render, scopes: Sequence[Scope]) -> Sequence[Shared]:
        await event.wait()
        return await answer(self, scopes)

    monkeypatch.setattr(Render, "send", send)
    return event


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def without_end(head: bytes) -> bytes:
    return head.replace(b"connection: close\r\n", b"")


@pytest.mark.parametrize("path", ["/items", "/items?limit=1", f"/items/{UUID(int=0)}", "/items?cursor=x", "/items/%00"])
async def test_an_answer_of_the_server_is_that_of_the_application(serve: Serve, asked: list[Scope], path: str) -> None:
    async with serve() as client, connected(client) as connection, connected(client) as last:
        by_server = await connection.send(get(path))
        assert not asked
        head, body = await last.send(get(path, "Connection: close"))
        assert (without_end(head), body) == by_server
        assert len(asked) == 1
        assert await connection.send(get(path)) == by_server


async def test_the_server_says_when_nothing_has_changed(serve: Serve, asked: list[Scope]) -> None:
    async with serve() as client, connected(client) as connection:
        etag = (await client.get("/items")).headers["etag"]
        asked.clear()
        connection.writer.write(get("/items", 'If-None-Match: "other"', f"If-None-Match: {etag}"))
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 304 ")
        assert b"content-length" not in head
        assert b" 200 " in (await connection.send(get("/items")))[0]
        assert not asked


async def test_what_may_be_personal_is_left_to_the_application(serve: Serve, asked: list[Scope]) -> None:
    async with serve() as client, connected(client) as connection:
        for field in ("Authorization: x", "Content-Length: 0"):
            head, _ = await connection.send(get("/items", field))
            assert b"x-cache: bypass" in head
        assert len(asked) == 2


async def test_shared_answers_keep_the_order_of_the_requests(serve: Serve) -> None:
    async with serve() as client, connected(client) as connection:
        await connection.send(POST_HEAD + POST_BODY)
        paths = ["/items?limit=1", "/livez", "/items", "/items?limit=0", "/items?limit=1"]
        connection.writer.writelines(map(get, paths))
        answers = [await connection.send(b"") for _ in paths]
        assert answers == [await connection.send(get(path)) for path in paths]


async def test_a_shared_read_takes_a_place_while_it_waits(serve: Serve, gate: asyncio.Event) -> None:
    async with serve(limit_concurrency=2) as client, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(client)) for _ in range(5)]
        answering = [asyncio.create_task(connection.send(GET)) for connection in clients]
        refused, _ = await asyncio.wait(answering, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        assert refused
        gate.set()
        heads = [head for head, _ in await asyncio.gather(*answering)]
        assert sum(b" 503 " in head for head in heads) == 3
        assert b" 200 " in (await clients[0].send(GET))[0]


async def test_a_client_that_goes_away_takes_nothing_with_it(serve: Serve, gate: asyncio.Event, log: list[str]) -> None:
    async with serve(limit_concurrency=2) as client, connected(client) as patient:
        async with connected(client) as hasty:
            hasty.writer.write(GET)
            answering = asyncio.create_task(patient.send(GET))
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)
        gate.set()
        assert b" 200 " in (await answering)[0]
        assert b" 200 " in (await patient.send(GET))[0]
    assert not log


@pytest.mark.parametrize("end", [b"\0garbage", b""])
async def test_a_pipeline_that_breaks_off_takes_nothing_with_it(
    serve: Serve, gate: asyncio.Event, log: list[str], end: bytes
) -> None:
    """The answer of its first request comes when its connection is closed already."""
    async with serve(limit_concurrency=2) as client, connected(client) as patient:
        async with connected(client) as broken:
            broken.writer.write(GET + GET + end)
            await asyncio.sleep(0.05)
        answering = asyncio.create_task(patient.send(GET))
        await asyncio.sleep(0.05)
        gate.set()
        for _ in range(3):
            assert b" 200 " in (await answering)[0]
            answering = asyncio.create_task(patient.send(GET))
        assert b" 200 " in (await answering)[0]
    assert [line for line in log if line != "Invalid HTTP request received."] == []


async def test_a_connection_leaves_no_garbage(serve: Serve) -> None:
    """What refers to itself lives until the collector comes by, which is not often."""

    def connections() -> int:
        return sum(isinstance(thing, Connection) for thing in gc.get_objects())

    async with serve() as client:
        gc.collect()
        before = connections()
        gc.disable()
        try:
            for _ in range(20):
                async with connected(client) as connection:
                    assert b" 200 " in (await connection.send(GET))[0]

            async def gone() -> bool:
                return connections() <= before

            await eventually(gone, within=5)
        finally:
            gc.enable()


async def test_a_long_pipeline_is_refused_request_by_request(serve: Serve, gate: asyncio.Event) -> None:
    """Its second request finds the only seat of the next trip taken, and so do all that follow."""
    async with (
        serve(max_waiting=1, limit_concurrency=5) as client,
        connected(client) as pipeline,
        connected(client) as other,
    ):
        pipeline.writer.write(GET * 500)
        await asyncio.sleep(0.1)
        other.writer.write(GET)
        await asyncio.sleep(0.1)
        gate.set()
        assert b" 200 " in (await pipeline.send(b""))[0]
        heads = [(await pipeline.send(b""))[0] for _ in range(499)]
        assert all(head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 ")) for head in heads)
        assert b" 200 " in (await other.send(b""))[0]


async def test_answers_that_nobody_reads_do_not_pile_up(serve: Serve, asked: list[Scope]) -> None:
    async with serve() as client, connected(client) as connection:
        await client.post("/items", json={"name": "x", "description": "y" * 60_000})
        connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        asked.clear()
        # Their answers are more than the buffers of the system hold.
        connection.writer.write(GET * 500)

        async def application_is_asked() -> bool:
            return bool(asked)

        await eventually(application_is_asked, within=10)


async def test_a_shared_read_is_in_the_access_log(serve: Serve) -> None:
    async with serve() as client:
        with lines_of("uvicorn.access", level=logging.INFO) as lines:
            async with connected(client) as connection:
                assert b" 200 " in (await connection.send(GET))[0]
    assert [line.partition(" - ")[2] for line in lines] == ['"GET /items HTTP/1.1" 200']


async def test_a_stopping_server_waits_for_a_shared_read_without_a_client(serve: Serve, gate: asyncio.Event) -> None:
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(serve())
        async with connected(client) as connection:
            connection.writer.write(GET)
            await asyncio.sleep(0.05)
        stopping = asyncio.create_task(serving.aclose())
        await asyncio.sleep(1.5)
        assert not stopping.done()
        gate.set()
        await asyncio.wait_for(stopping, 3)


@pytest.mark.usefixtures("gate")
async def test_a_server_that_may_not_wait_longer_hangs_up(serve: Serve) -> None:
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(serve(graceful=1))
        async with AsyncExitStack() as clients:
            waiting = [await clients.enter_async_context(connected(client)) for _ in range(3)]
            for connection in waiting:
                connection.writer.write(GET)
            await asyncio.sleep(0.05)
            await asyncio.wait_for(serving.aclose(), 5)
            for connection in waiting:
                assert await connection.reader.read() == b""


async def test_a_stopping_server_begins_no_request_behind_its_last_answer(
    serve: Serve, gate: asyncio.Event, asked: list[Scope]
) -> None:
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(serve())
        async with connected(client) as connection, connected(client) as late:
            connection.writer.write(GET + POST_HEAD + POST_BODY)
            await asyncio.sleep(0.05)
            stopping = asyncio.create_task(serving.aclose())
            await asyncio.sleep(0.3)
            gate.set()
            for reader in (connection, late):
                head, _ = await reader.send(b"" if reader is connection else GET)
                assert b" 200 " in head
                assert b"\r\nconnection: close\r\n" in head
                # Sooner than an idle connection ends.
                assert await asyncio.wait_for(reader.reader.read(), 0.4) == b""
        await stopping
    assert not asked


async def test_a_bug_in_a_shared_read_is_told_and_logged(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Render, "send", broken)
    async with serve() as client, connected(client) as connection:
        head, _ = await connection.send(GET)
        assert b" 500 " in head
        assert b"application/problem+json" in head
        assert b" 200 " in (await connection.send(get("/livez")))[0]
    assert "RuntimeError: broken" in "".join(log)


async def test_a_refusal_of_the_server_is_that_of_the_application(serve: Serve, asked: list[Scope]) -> None:
    async with full_service(serve) as (_, outside):
        by_server = await outside.send(GET)
        assert await outside.send(POST_HEAD + POST_BODY) == by_server
        asked.clear()
        assert await outside.send(GET) == by_server
        assert not asked
        by_application = await outside.send(GET.replace(b"GET", b"HEAD"))
        assert by_application == (by_server[0], b"")
        assert len(asked) == 1


async def test_what_is_refused_leaves_the_connection_as_it_was(serve: Serve) -> None:
    async with full_service(serve) as (inside, outside):
        outside.writer.write(POST_HEAD)
        assert b" 503 " in (await outside.send(POST_BODY))[0]
        assert b" 200 " in (await outside.send(GET.replace(b"/items", b"/livez")))[0]
        assert b" 201 " in (await inside.send(POST_BODY))[0]
        assert b" 200 " in (await outside.send(GET))[0]


@pytest.mark.parametrize(
    "line", [b"GET /items HTTP/1.1\r\nConnection: close", b"GET /items HTTP/1.0\r\nConnection: keep-alive"]
)
async def test_the_last_request_of_a_connection_ends_it(serve: Serve, line: bytes) -> None:
    async with full_service(serve) as (_, outside):
        head, _ = await outside.send(line + b"\r\nHost: x\r\n\r\n")
        assert b" 503 " in head
        assert b"\r\nconnection: close\r\n" in head
        assert await outside.reader.read() == b""


async def test_as_many_clients_as_there_are_places_are_never_refused(serve: Serve) -> None:
    async with serve(limit_concurrency=CLIENTS) as client, AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(client)) for _ in range(CLIENTS)]

        async def repeat(connection: Client) -> None:
            for _ in range(20):
                assert b" 200 " in (await connection.send(GET))[0]

        await asyncio.gather(*map(repeat, connections))


async def test_answers_keep_the_order_of_the_requests(serve: Serve) -> None:
    async with full_service(serve) as (inside, _):
        assert b" 201 " in (await inside.send(POST_BODY + GET))[0]
        assert b" 200 " in (await inside.send(b""))[0]


async def test_a_client_that_does_not_read_waits_for_the_application(serve: Serve, asked: list[Scope]) -> None:
    async with full_service(serve) as (_, outside):
        outside.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked.clear()
        # Their answers are more than the buffers of the system hold.
        outside.writer.write(GET * 40_000)

        async def application_is_asked() -> bool:
            return bool(asked)

        await eventually(application_is_asked)


async def test_a_connection_ends_when_it_was_idle_and_not_before(serve: Serve) -> None:
    async with serve(keep_alive=1) as client, connected(client) as connection:
        for _ in range(2):
            await asyncio.sleep(0.4)
            assert b" 200 " in (await connection.send(GET))[0]
        answered = time.monotonic()
        assert await asyncio.wait_for(connection.reader.read(), 2.5) == b""
        assert 0.9 < time.monotonic() - answered < 1.9


async def test_a_request_may_take_longer_than_a_connection_may_be_idle(serve: Serve) -> None:
    async with serve(keep_alive=1) as client, connected(client) as connection:
        assert b" 200 " in (await connection.send(GET))[0]
        connection.writer.write(POST_HEAD)
        await asyncio.sleep(1.5)
        assert b" 201 " in (await connection.send(POST_BODY))[0]
        assert await asyncio.wait_for(connection.reader.read(), 2.5) == b""
