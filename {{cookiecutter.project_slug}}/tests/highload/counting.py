"""A service that counts the runs of its shared routes and can hold them back, for tests that need no server."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import APIRouter, Depends, Header, Query
from fastapi.security import HTTPBearer
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.lifespan.on import LifespanOn

from app.highload.reads.dependencies import Granted, Guard
from app.highload.reads.shared import shared
from app.highload.service import Service


class Runs:
    """Remembers with what the routes were called. Each call answers with its number, or fails with `error`."""

    def __init__(
        self, *, status: int = 200, headers: Mapping[str, str] | None = None, error: Exception | None = None
    ) -> None:
        self.calls: list[dict[str, Any]] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self._status = status
        self._headers = headers
        self._error = error

    async def answer(self, **arguments: Any) -> Response:
        self.calls.append(arguments)
        self.called.set()
        call = len(self.calls)
        await self.gate.wait()
        if self._error is not None:
            raise self._error
        return Response(str(call), self._status, self._headers)


ANYBODY = Guard(HTTPBearer(), lambda _: Granted())


def counting_service(
    runs: Runs, *, limit_concurrency: int = 1000, max_body_bytes: int = 65_536, max_waiting: int = 100
) -> Service:
    """Return a service whose routes are all shared, but for `/alone`."""
    router = APIRouter()

    @router.get("/notes")
    @shared
    async def list_notes(limit: Annotated[list[str] | None, Query()] = None, cursor: str | None = None) -> Response:
        return await runs.answer(limit=limit, cursor=cursor)

    @router.get("/notes/{note_id}")
    @shared
    async def get_note(note_id: str) -> Response:
        return await runs.answer(note_id=note_id)

    @router.get("/pages/{name}")
    @shared
    async def get_page(name: str, q: str | None = None) -> Response:
        return await runs.answer(name=name, q=q)

    @router.get("/translated")
    @shared
    async def get_translated(accept_language: Annotated[str | None, Header()] = None) -> Response:
        return await runs.answer(accept_language=accept_language)

    @router.get("/guarded", dependencies=[Depends(ANYBODY)])
    @shared
    async def get_guarded() -> Response:
        return await runs.answer()

    @router.get("/alone")
    async def get_alone() -> Response:
        return await runs.answer()

    app = Service(limit_concurrency=limit_concurrency, max_body_bytes=max_body_bytes, max_waiting=max_waiting)
    app.include_flat(router)
    return app


@asynccontextmanager
async def started(app: Service) -> AsyncGenerator[Service]:
    """Run the lifespan of a service as the server does."""
    lifespan = LifespanOn(uvicorn.Config(app, log_config=None))
    await lifespan.startup()
    assert not lifespan.should_exit
    try:
        yield app
    finally:
        await lifespan.shutdown()


class Reply(dict[str, str]):
    """The headers of an answer, with its status and body."""

    status: int
    body: bytes


def request(app: Service, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> Scope:
    """Return a GET as the server gives it to a service that has started."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50_000),
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in ({"host": "x"} | dict(headers or {})).items()],
        "state": app.reads.state.copy(),
    }


async def get(app: Service, path: str, query: str = "", *, headers: Mapping[str, str] | None = None) -> Reply:
    """Send a GET to a service that has started, without a server."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(request(app, path, query, headers), receive, send)
    start, body = messages
    reply = Reply((name.decode(), value.decode()) for name, value in start["headers"])
    reply.status, reply.body = start["status"], body["body"]
    return reply


def seen_by_the_routes(app: Service) -> list[Scope]:
    """Return a list that gets every request as the routes of a service see it."""
    scopes: list[Scope] = []
    routes = app.router.middleware_stack

    async def remember(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scopes.append(scope)
        await routes(scope, receive, send)

    app.router.middleware_stack = remember
    return scopes
