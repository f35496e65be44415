"""The server refuses in the words of the application without asking it, and knows which connection is idle."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from app.admission import Admission
from tests.conftest import Serve
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
        scopes.append(scope)
        await serve(self, scope, receive, send)

    monkeypatch.setattr(Admission, "__call__", call)
    return scopes


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
