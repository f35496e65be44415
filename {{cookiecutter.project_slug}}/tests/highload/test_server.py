"""The server answers shared reads in the words of the application, and hangs up on nobody whom it can answer."""

import asyncio
import gc
import logging
import math
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.types import Scope

from app.highload import server
from app.highload.batching import Overloaded, Waiter
from app.highload.http.requests import Requests
from app.highload.lean import LeanRoute
from app.highload.reads.sharing import Outcome, Read, Render, SharedReads
from app.highload.repository import Repository
from app.highload.server import Connection, GracefulServer
from tests.conftest import Serve, in_database, lines_of, running
from tests.highload import lean_routes
from tests.highload.notes import creation_held, insert_notes, new_note, notes_service
from tests.waiting import PATIENCE, eventually, said, settle

GET = b"GET /notes HTTP/1.1\r\nHost: x\r\n\r\n"
POST_HEAD = b"POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
POST_BODY = b"x"
CLIENTS = 30


class Client:
    """A connection on which a test writes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a request and return the head, without its date, and the body of the next answer."""
        self.writer.write(request)
        async with asyncio.timeout(PATIENCE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            (length,) = [int(line.split(b": ")[1]) for line in lines if line.startswith(b"content-length: ")]
            body = b"" if request.startswith(b"HEAD") else await self.reader.readexactly(length)
        return b"\r\n".join(line for line in lines if not line.startswith((b"date: ", b"x-request-id: "))), body

    async def end(self) -> bytes:
        """Return what comes before the server hangs up."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


@asynccontextmanager
async def connected(to: httpx2.AsyncClient) -> AsyncGenerator[Client]:
    reader, writer = await asyncio.open_connection(to.base_url.host, to.base_url.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def full_service(serve: Serve) -> AsyncGenerator[tuple[Client, Client, asyncio.Event]]:
    """Yield a connection whose request has the only place until an event, another connection, and the event."""
    async with serve(limit_concurrency=1) as client, connected(client) as inside, connected(client) as outside:
        with creation_held() as held:
            inside.writer.write(POST_HEAD + POST_BODY)
            # Otherwise a read that arrives at the same moment may have the place first.
            assert b" 200 " in (await outside.send(get("/livez")))[0]

            async def full() -> bool:
                head, _ = await outside.send(GET)
                return b" 503 " in head

            await eventually(full)
            yield inside, outside, held
            held.set()


class Gate(asyncio.Event):
    """An event that shared reads wait for, and another one that comes when the first of them does."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    answer = Render.send

    async def send(self: Render, reads: Sequence[Read]) -> Sequence[Outcome]:
        gate.reached.set()
        await gate.wait()
        return await answer(self, reads)

    monkeypatch.setattr(Render, "send", send)
    return gate


def connections() -> list[Connection]:
    """Return the connections that are not forgotten yet."""
    return [thing for thing in gc.get_objects() if isinstance(thing, Connection)]


async def are_open(number: int) -> list[Connection]:
    """Wait until the server has noticed who came and who is gone, and return the connections that it has."""

    def those() -> list[Connection]:
        return [one for one in connections() if not one.transport.is_closing()]

    async def is_so() -> bool:
        return len(those()) == number

    await eventually(is_so)
    return those()


def get(path: str, *fields: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def without_end(head: bytes) -> bytes:
    return head.replace(b"connection: close\r\n", b"")


@pytest.mark.parametrize("path", ["/notes", "/notes?limit=1", f"/notes/{UUID(int=0)}", "/notes?cursor=x", "/notes/%00"])
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
        etag = (await client.get("/notes")).headers["etag"]
        asked.clear()
        connection.writer.write(get("/notes", 'If-None-Match: "other"', f"If-None-Match: {etag}"))
        async with asyncio.timeout(PATIENCE):
            head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 304 ")
        assert b"content-length" not in head
        assert b" 200 " in (await connection.send(get("/notes")))[0]
        assert not asked


async def test_what_may_be_personal_is_left_to_the_application(serve: Serve, asked: list[Scope]) -> None:
    async with serve() as client, connected(client) as connection:
        for field in ("Authorization: x", "Content-Length: 0"):
            head, _ = await connection.send(get("/notes", field))
            assert b"x-cache: bypass" in head
        assert len(asked) == 2


async def test_shared_answers_keep_the_order_of_the_requests(serve: Serve) -> None:
    async with serve() as client, connected(client) as connection:
        await connection.send(POST_HEAD + POST_BODY)
        paths = ["/notes?limit=1", "/livez", "/notes", "/notes?limit=x", "/notes?limit=1"]
        connection.writer.writelines(map(get, paths))
        answers = [await connection.send(b"") for _ in paths]
        assert answers == [await connection.send(get(path)) for path in paths]


async def test_a_shared_read_takes_a_place_while_it_waits(serve: Serve, gate: Gate) -> None:
    async with serve(limit_concurrency=2) as client, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(client)) for _ in range(5)]
        answering = [asyncio.create_task(connection.send(GET)) for connection in clients]
        refused, _ = await asyncio.wait(answering, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE)
        assert refused
        gate.set()
        heads = [head for head, _ in await asyncio.gather(*answering)]
        assert sum(b" 503 " in head for head in heads) == 3
        assert b" 200 " in (await clients[0].send(GET))[0]


async def test_who_is_refused_while_it_waits_is_told_so(
    serve: Serve, asked: list[Scope], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up in the cache may find out that too many wait for the database."""

    def refuse_later(_: SharedReads, __: Read, waiter: Waiter[Outcome]) -> None:
        asyncio.get_running_loop().call_soon(waiter.set_exception, Overloaded())

    monkeypatch.setattr(SharedReads, "submit", refuse_later)
    async with serve(limit_concurrency=1) as client, connected(client) as connection:
        for _ in range(3):
            by_server = await connection.send(GET)
            assert b" 503 " in by_server[0]
            assert b"\r\nretry-after: 1\r\n" in by_server[0]
        assert not asked
        head, body = await connection.send(get("/notes", "Connection: close"))
        assert (without_end(head), body) == by_server


async def test_a_client_that_goes_away_takes_nothing_with_it(serve: Serve, gate: Gate, log: list[str]) -> None:
    async with serve(limit_concurrency=2) as client, connected(client) as patient:
        async with connected(client) as hasty:
            hasty.writer.write(GET)
            answering = asyncio.create_task(patient.send(GET))
            await gate.reached.wait()
        await are_open(1)
        gate.set()
        assert b" 200 " in (await answering)[0]
        assert b" 200 " in (await patient.send(GET))[0]
    assert not log


async def test_nothing_is_run_alone_for_a_client_that_went_away(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, asked: list[Scope]
) -> None:
    begun, personal = asyncio.Event(), asyncio.Event()

    async def send(_: Render, reads: Sequence[Read]) -> Sequence[Outcome]:
        begun.set()
        await personal.wait()
        return [None] * len(reads)

    monkeypatch.setattr(Render, "send", send)
    async with serve(limit_concurrency=2) as client, connected(client) as patient:
        async with connected(client) as hasty:
            hasty.writer.write(GET)
            await begun.wait()
        answering = asyncio.create_task(patient.send(GET))
        await are_open(1)
        personal.set()
        assert b"x-cache: bypass" in (await answering)[0]
        assert len(asked) == 1


async def test_a_client_that_goes_away_before_its_body_is_there_gives_its_place_back(database_url: str) -> None:
    app = notes_service(database_url=database_url, limit_concurrency=1)
    begun, heard = asyncio.Event(), asyncio.Event()

    @app.post("/heard")
    async def post_heard(request: Request) -> None:
        begun.set()
        try:
            await request.body()
        finally:
            heard.set()

    async with running(app) as client:
        async with connected(client) as inside:
            inside.writer.write(POST_HEAD.replace(b"/notes", b"/heard"))
            await begun.wait()
        async with asyncio.timeout(PATIENCE):
            await heard.wait()
        async with connected(client) as outside:
            for _ in range(3):
                assert b" 200 " in (await outside.send(GET))[0]
        assert app.admission._inside == 0


@pytest.mark.parametrize("end", [b"\0garbage", b""])
async def test_a_pipeline_that_breaks_off_takes_nothing_with_it(
    serve: Serve, gate: Gate, log: list[str], end: bytes
) -> None:
    """The answer of its first request comes when its connection is closed already."""
    async with serve(limit_concurrency=2) as client, connected(client) as patient:
        async with connected(client) as broken:
            broken.writer.write(GET + GET + end)
            await gate.reached.wait()
        answering = asyncio.create_task(patient.send(GET))
        # What came before is read by then.
        await client.get("/livez")
        gate.set()
        for _ in range(3):
            assert b" 200 " in (await answering)[0]
            answering = asyncio.create_task(patient.send(GET))
        assert b" 200 " in (await answering)[0]
    assert [line for line in log if line != "Invalid HTTP request received."] == []


async def test_a_connection_leaves_no_garbage(serve: Serve) -> None:
    """What refers to itself lives until the collector comes by, which is not often."""

    async with serve() as client:
        gc.collect()
        before = len(connections())
        gc.disable()
        try:
            for _ in range(20):
                async with connected(client) as connection:
                    assert b" 200 " in (await connection.send(GET))[0]

            async def gone() -> bool:
                return len(connections()) <= before

            await eventually(gone)
        finally:
            gc.enable()


async def test_a_long_pipeline_is_refused_request_by_request(serve: Serve, gate: Gate) -> None:
    """Its second request finds the only seat of the next flush taken, and so do all that follow."""
    async with (
        serve(max_waiting=1, limit_concurrency=5) as client,
        connected(client) as pipeline,
        connected(client) as other,
    ):
        pipeline.writer.write(GET * 500)
        await gate.reached.wait()
        other.writer.write(GET)
        # What came before is read by then.
        await client.get("/livez")
        gate.set()
        assert b" 200 " in (await pipeline.send(b""))[0]
        heads = [(await pipeline.send(b""))[0] for _ in range(499)]
        assert all(head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 ")) for head in heads)
        assert b" 200 " in (await other.send(b""))[0]


async def test_answers_that_nobody_reads_do_not_pile_up(serve: Serve, asked: list[Scope], database_url: str) -> None:
    notes = [new_note("y" * 250) for _ in range(100)]
    await in_database(database_url, lambda connection: insert_notes(connection, notes))
    async with serve() as client, connected(client) as connection:
        connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        # Their answers are more than the buffers of the system hold.
        connection.writer.write(GET * 500)

        async def application_is_asked() -> bool:
            return bool(asked)

        await eventually(application_is_asked)


async def test_a_shared_read_is_in_the_access_log(
    serve: Serve, asked: list[Scope], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "isEnabledFor", lambda _: True)
    async with serve() as client:
        with lines_of("uvicorn.access", level=logging.INFO) as lines:
            async with connected(client) as connection:
                assert b" 200 " in (await connection.send(GET))[0]
    assert [line.partition(" - ")[2] for line in lines] == ['"GET /notes HTTP/1.1" 200']
    assert len(asked) == 1


@pytest.mark.parametrize("fields", [[], ["Connection: close"]], ids=["by the server", "by the application"])
async def test_a_stopping_server_waits_for_a_shared_read_without_a_client(
    serve: Serve, gate: Gate, told: list[str], fields: Sequence[str]
) -> None:
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(serve())
        async with connected(client) as connection:
            connection.writer.write(get("/notes", *fields))
            await gate.reached.wait()
        stopping = asyncio.create_task(serving.aclose())

        async def waits() -> bool:
            return stopping.done() or any("Waiting for background tasks" in line for line in told)

        await eventually(waits)
        assert not stopping.done()
        gate.set()
        await stopping


async def test_a_server_that_may_not_wait_longer_hangs_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    too_late = asyncio.Event()

    async def send(_: Render, reads: Sequence[Read]) -> Sequence[Outcome]:
        await too_late.wait()
        return [None] * len(reads)

    monkeypatch.setattr(Render, "send", send)
    app = notes_service(database_url=database_url, limit_concurrency=3)
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(running(app, graceful=1))
        async with AsyncExitStack() as clients:
            waiting = [await clients.enter_async_context(connected(client)) for _ in range(3)]
            for connection in waiting:
                connection.writer.write(GET)

            async def is_full() -> bool:
                return app.admission.full

            await eventually(is_full)
            await asyncio.wait_for(serving.aclose(), PATIENCE)
            for connection in waiting:
                assert await connection.end() == b""
    # The answer comes after all, when nobody is there any more: each place is given back once.
    too_late.set()
    await settle()
    assert app.admission._inside == 0
    assert log == ["Cancel 3 running task(s), timeout graceful shutdown exceeded"]


async def test_a_stopping_server_begins_no_request_behind_its_last_answer(
    serve: Serve, gate: Gate, told: list[str], asked: list[Scope], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that no connection ends because it is idle.
    monkeypatch.setattr(server, "LINGER", math.inf)
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(serve())
        async with connected(client) as connection, connected(client) as late:
            connection.writer.write(GET + POST_HEAD + POST_BODY)
            await gate.reached.wait()
            stopping = asyncio.create_task(serving.aclose())
            await said(told, "Shutting down")
            gate.set()
            for reader in (connection, late):
                head, _ = await reader.send(b"" if reader is connection else GET)
                assert b" 200 " in head
                assert head.count(b"\r\nconnection: close") == 1
                assert await reader.end() == b""
        await stopping
    assert not asked


async def test_a_stopping_server_says_so_in_a_refusal(
    database_url: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LINGER", math.inf)
    app = notes_service(database_url=database_url, limit_concurrency=1)
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(running(app))
        async with connected(client) as connection:
            app.admission.enter()
            head, _ = await connection.send(GET)
            assert b" 503 " in head
            assert b"\r\nconnection: close" not in head
            stopping = asyncio.create_task(serving.aclose())
            await said(told, "Shutting down")
            head, _ = await connection.send(GET)
            assert b" 503 " in head
            assert b"\r\nconnection: close" in head
            assert await connection.end() == b""
        await stopping


async def test_a_stopping_server_answers_who_waits_to_be_accepted(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[socket.socket] = []
    tick = GracefulServer.on_tick

    async def connect_late(self: GracefulServer, counter: int) -> bool:
        if self.should_exit:
            # Without a pause, so that the loop does not accept it before the server stops.
            waiting.append(socket.create_connection(address))
        return await tick(self, counter)

    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(serve())
        address = (client.base_url.host, client.base_url.port)
        monkeypatch.setattr(GracefulServer, "on_tick", connect_late)
        stopping = asyncio.create_task(serving.aclose())

        async def is_connected() -> bool:
            return bool(waiting)

        await eventually(is_connected)
        reader, writer = await asyncio.open_connection(sock=waiting[0])
        head, _ = await Client(reader, writer).send(GET)
        writer.transport.abort()
        assert b" 200 " in head
        assert b"\r\nconnection: close\r\n" in head
        await stopping


async def test_a_stopping_server_answers_what_it_has_begun(serve: Serve) -> None:
    """The connection stays open until its body is there and its answer is sent, which says that it is the last one."""
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(serve())
        async with connected(client) as busy, connected(client) as idle:
            busy.writer.write(POST_HEAD)
            assert b" 200 " in (await idle.send(GET))[0]
            stopping = asyncio.create_task(serving.aclose())
            # Idle connections have time for a last request until now.
            assert await idle.end() == b""
            await settle()
            head, _ = await busy.send(POST_BODY)
            assert b" 201 " in head
            assert b"\r\nconnection: close\r\n" in head
            assert await busy.end() == b""
        await stopping


async def test_a_stopping_server_tells_also_who_began_before_the_last_tick(
    serve: Serve, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uvicorn gives the header fields of an answer to its request when that begins, and makes new ones each second."""
    # So that no connection ends because it is idle.
    monkeypatch.setattr(server, "LINGER", math.inf)
    async with AsyncExitStack() as serving:
        client = await serving.enter_async_context(serve())
        async with connected(client) as connection, connected(client) as other:
            connection.writer.write(POST_HEAD)
            assert b" 200 " in (await other.send(GET))[0]
            state = (await are_open(2))[0].server_state
            begun_with = state.default_headers

            async def has_new_ones() -> bool:
                return state.default_headers is not begun_with

            await eventually(has_new_ones)
            stopping = asyncio.create_task(serving.aclose())
            await said(told, "Shutting down")
            head, _ = await connection.send(POST_BODY)
            assert b" 201 " in head
            assert head.count(b"\r\nconnection: close") == 1
            assert await connection.end() == b""
            assert b"\r\nconnection: close\r\n" in (await other.send(GET))[0]
        await stopping


async def test_a_bug_in_a_shared_read_is_told_and_logged(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, log: list[str], asked: list[Scope]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Repository, "page", broken)
    async with serve() as client, connected(client) as connection:
        head, _ = await connection.send(GET)
        assert b" 500 " in head
        assert b"application/problem+json" in head
        assert not asked
        assert b" 200 " in (await connection.send(get("/livez")))[0]
    assert "RuntimeError: broken" in "".join(log)


async def test_who_sends_a_body_slowly_holds_no_place(database_url: str) -> None:
    service = notes_service(database_url=database_url, routers=[lean_routes.router], limit_concurrency=1)
    body = b'{"text": "x"}'
    head = b"POST /lean HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"

    async def is_sending() -> bool:
        return any(one.cycle.more_body for one in connections())

    async with running(service) as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(head + body[:5])
        await eventually(is_sending)
        await settle()
        assert service.admission.inside == 0
        assert (await client.post("/lean", json={"text": "y"})).status_code == 201
        writer.write(body[5:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
        writer.close()


async def test_an_error_of_the_lean_way_counts_from_its_begin(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: list[float] = []
    lean = APIRouter(route_class=LeanRoute)

    @lean.delete("/late", status_code=204)
    async def delete_late() -> None:
        await asyncio.sleep(0.05)
        raise HTTPException(409)

    monkeypatch.setattr(Requests, "observe", lambda *arguments: seconds.append(arguments[-1]))
    async with running(notes_service(database_url=database_url, routers=[lean])) as client:
        assert (await client.delete("/late")).status_code == 409
    assert [one >= 0.05 for one in seconds] == [True]


@pytest.mark.parametrize("place", ["app.highload.reads.sharing.Render.send", "app.highload.server.heed_conditions"])
async def test_a_bug_of_the_sharing_itself_is_logged_and_ends_the_connection(
    database_url: str, monkeypatch: pytest.MonkeyPatch, log: list[str], place: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    app = notes_service(database_url=database_url, limit_concurrency=1)
    async with running(app) as client:
        with monkeypatch.context() as patch:
            patch.setattr(place, broken)
            for _ in range(2):
                async with connected(client) as connection:
                    connection.writer.write(GET)
                    assert await connection.end() == b""
        async with connected(client) as connection:
            assert b" 200 " in (await connection.send(get("/notes?limit=1")))[0]
        assert app.admission._inside == 0
    assert "".join(log).count("RuntimeError: broken") == 2


async def test_a_refusal_of_the_server_is_that_of_the_application(serve: Serve, asked: list[Scope]) -> None:
    async with full_service(serve) as (_, outside, _):
        asked.clear()
        by_server = await outside.send(GET)
        assert await outside.send(POST_HEAD + POST_BODY) == by_server
        assert await outside.send(GET) == by_server
        assert not asked
        by_application = await outside.send(GET.replace(b"GET", b"HEAD"))
        assert by_application == (by_server[0], b"")
        assert len(asked) == 1


async def test_those_who_come_at_once_are_refused_by_the_server(serve: Serve, asked: list[Scope]) -> None:
    """It reads from all of them before it runs the task of any, and takes as many as there are places."""
    async with serve(limit_concurrency=2) as client, AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(connected(client)) for _ in range(CLIENTS)]
        await are_open(CLIENTS)
        with creation_held() as held:
            for connection in connections:
                connection.writer.write(POST_HEAD + POST_BODY)

            async def all_but_two_are_answered() -> bool:
                return sum(bool(connection.reader._buffer) for connection in connections) == CLIENTS - 2  # type: ignore[attr-defined]

            await eventually(all_but_two_are_answered)
            assert len(asked) == 2
            held.set()
            statuses = [(await connection.send(b""))[0].split()[1] for connection in connections]
        assert sorted(statuses) == [b"201"] * 2 + [b"503"] * (CLIENTS - 2)
        # Nobody is expected any more.
        assert b" 201 " in (await connections[0].send(POST_HEAD + POST_BODY))[0]


async def test_what_is_refused_leaves_the_connection_as_it_was(serve: Serve) -> None:
    async with full_service(serve) as (inside, outside, held):
        outside.writer.write(POST_HEAD)
        assert b" 503 " in (await outside.send(POST_BODY))[0]
        assert b" 200 " in (await outside.send(GET.replace(b"/notes", b"/livez")))[0]
        held.set()
        assert b" 201 " in (await inside.send(b""))[0]
        assert b" 200 " in (await outside.send(GET))[0]


@pytest.mark.parametrize(
    "line", [b"GET /notes HTTP/1.1\r\nConnection: close", b"GET /notes HTTP/1.0\r\nConnection: keep-alive"]
)
async def test_the_last_request_of_a_connection_ends_it(serve: Serve, line: bytes) -> None:
    async with full_service(serve) as (_, outside, _):
        head, _ = await outside.send(line + b"\r\nHost: x\r\n\r\n")
        assert b" 503 " in head
        assert b"\r\nconnection: close\r\n" in head
        assert await outside.end() == b""


async def test_as_many_clients_as_there_are_places_are_never_refused(serve: Serve) -> None:
    async with serve(limit_concurrency=CLIENTS) as client, AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(client)) for _ in range(CLIENTS)]

        async def repeat(connection: Client) -> None:
            for _ in range(20):
                assert b" 200 " in (await connection.send(GET))[0]

        await asyncio.gather(*map(repeat, connections))


async def test_answers_keep_the_order_of_the_requests(serve: Serve) -> None:
    async with full_service(serve) as (inside, _, held):
        inside.writer.write(GET)
        held.set()
        assert b" 201 " in (await inside.send(b""))[0]
        assert b" 200 " in (await inside.send(b""))[0]


async def test_a_client_that_does_not_read_waits_for_the_application(serve: Serve, asked: list[Scope]) -> None:
    async with full_service(serve) as (_, outside, _):
        outside.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked.clear()
        # Their answers are more than the buffers of the system hold.
        for _ in range(40_000):
            outside.writer.write(GET)

        async def application_is_asked() -> bool:
            return bool(asked)

        await eventually(application_is_asked)


async def test_a_connection_ends_when_it_was_idle_and_not_before(database_url: str) -> None:
    app = notes_service(database_url=database_url)
    async with running(app, keep_alive=2) as client, connected(client) as idle, connected(client) as used:
        for connection in (used, idle):
            assert b" 200 " in (await connection.send(GET))[0]
        await asyncio.sleep(1.5)
        assert b" 200 " in (await used.send(GET))[0]
        assert await idle.end() == b""
        assert b" 200 " in (await used.send(GET))[0]
        assert await used.end() == b""


async def test_a_request_may_take_longer_than_a_connection_may_be_idle(serve: Serve) -> None:
    async with serve(keep_alive=1) as client, connected(client) as connection:
        assert b" 200 " in (await connection.send(GET))[0]
        connection.writer.write(POST_HEAD)
        await asyncio.sleep(1.5)
        assert b" 201 " in (await connection.send(POST_BODY))[0]
        assert await connection.end() == b""


async def test_a_shared_read_may_take_longer_than_a_connection_may_be_idle(serve: Serve, gate: Gate) -> None:
    async with serve(keep_alive=1) as client, connected(client) as connection:
        assert b" 200 " in (await connection.send(get("/livez")))[0]
        connection.writer.write(GET)
        await asyncio.sleep(1.5)
        gate.set()
        assert b" 200 " in (await connection.send(b""))[0]
        assert await connection.end() == b""
