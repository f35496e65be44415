"""No answer of a service ever differs from the one that the same request gets alone on plain FastAPI.

Random routes ask for random things, and random requests arrive at the same time, first at the server of production and
then at Uvicorn's own protocol. Where the engine cannot prove that sharing is safe, the service does not start.
"""

import asyncio
import inspect
import os
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import hypothesis
import pytest
import uvicorn
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.security import APIKeyHeader
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.highload.http.problems import add_problem_handlers

# {%- if cookiecutter.caching +%}
from app.highload.reads.cache import open_cache

# {%- endif +%}
from app.highload.reads.dependencies import Granted, Guard, Opened, Partition
from app.highload.reads.shared import shared
from app.highload.server import Connection, GracefulServer
from app.highload.service import Service
from tests.conftest import stack_url
from tests.waiting import eventually

EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
# The variables that hold their addresses.
CACHES = [""]
# {% if cookiecutter.caching %}
CACHES.append("REDIS_URL")
# {% endif %}

type Headers = Sequence[tuple[str, str]]


def tenant_of(connection: HTTPConnection) -> Granted:
    tenant = connection.headers.get("x-tenant")
    if tenant is None:
        raise HTTPException(403, "Send an X-Tenant.")
    return Granted(principal=connection.headers.get("x-key"), partition=tenant)


async def owner_of_key(connection: HTTPConnection) -> Granted:
    if connection.headers.get("x-key") != "right":
        raise HTTPException(401, "Send a valid X-Key.", headers={"WWW-Authenticate": "ApiKey"})
    return Granted(principal="owner")


class Filter(BaseModel):
    q: str = ""
    n: int = 0


KEY = APIKeyHeader(name="X-Key", auto_error=False)
TENANT = Guard(APIKeyHeader(name="X-Tenant", scheme_name="Tenant"), tenant_of)
OWNER = Guard(KEY, owner_of_key)
# What a function may ask for: the names are those of its parameters.
ASKS: dict[str, tuple[Any, Any]] = {
    "q": (str | None, None),
    "n": (int, 0),
    "tags": (Annotated[list[str], Query()], []),
    "aliased": (Annotated[str, Query(alias="other")], ""),
    "filter_by": (Annotated[Filter, Query()], inspect.Parameter.empty),
    "x_lang": (Annotated[str, Header()], "none"),
    "x_many": (Annotated[list[str], Header()], []),
    "tenant": (Annotated[str, Depends(Partition(TENANT))], inspect.Parameter.empty),
    "opened": (Annotated[str, Depends(Opened("greeting"))], inspect.Parameter.empty),
    "session": (Annotated[str, Cookie()], ""),
    "request": (Request, inspect.Parameter.empty),
    "connection": (HTTPConnection, inspect.Parameter.empty),
    "key": (Annotated[str | None, Depends(KEY)], inspect.Parameter.empty),
    "granted": (Annotated[Granted, Depends(TENANT)], inspect.Parameter.empty),
}
PERSONAL = ("session", "request", "connection", "key", "granted")
PATHS = ("/a", "/a/s", "/a/{x:int}", "/a/{x}/b", "/a/{x}", "/{x}/b", "/{x}", "/a/{rest:path}")
TARGETS = ("/a", "/a/s", "/a/1", "/a/x", "/1/b", "/b/b", "/a/1/b", "/a/", "/a%2Fs", "/a%20s", "/b", "//a")
QUERIES = ("q=a", "q=b", "q=", "n=1", "n=x", "tags=a", "tags=b", "other=a", "unknown=1", "q=%61", "other=b&q=b")
HEADERS = (
    *(("X-Lang", "a"), ("X-Lang", "b"), ("X-Lang", "deny"), ("X-Many", "a"), ("X-Many", "b"), ("X-Tenant", "a")),
    *(("X-Tenant", "b"), ("X-Tenant", "a,b c"), ("X-Key", "right"), ("X-Key", "wrong"), ("Cookie", "session=a")),
    *(("Authorization", "Basic YTpi"), ("Range", "bytes=0-1"), ("Origin", "https://a.example"), ("Host", "evil")),
)


@dataclass(frozen=True)
class Route:
    """A route, and what it and its dependency ask for."""

    path: str
    shared: bool
    asks: tuple[str, ...]
    of_dependency: tuple[str, ...]
    of_route: str | None
    behaviour: str


@dataclass(frozen=True)
class Plan:
    """A service."""

    routes: tuple[Route, ...]
    of_application: str | None
    middleware: bool
    error_handler: bool
    flat: bool


@dataclass(frozen=True)
class Ask:
    """A request."""

    target: str
    headers: Headers


def mostly(safe: Sequence[str], unsafe: Sequence[str]) -> st.SearchStrategy[str]:
    """Return a strategy that seldom asks for what a shared route may not: else hardly any service would start."""
    return st.integers(0, 25).flatmap(lambda number: st.sampled_from(unsafe if number == 0 else safe))


def specific_first(route: Route) -> int:
    """Return the place of a route in the usual order: else a route of three would hide another one."""
    return PATHS.index(route.path)


NAMES = mostly([name for name in ASKS if name not in PERSONAL], PERSONAL)
DEPENDENCIES = st.sampled_from([None, None, "tenant guard", "owner guard", "deny", "header"])
ROUTES = st.builds(
    Route,
    path=st.sampled_from(PATHS),
    shared=st.integers(0, 3).map(bool),
    asks=st.lists(NAMES, unique=True, max_size=4).map(tuple),
    of_dependency=st.lists(NAMES, unique=True, max_size=2).map(tuple),
    of_route=DEPENDENCIES,
    behaviour=st.sampled_from(["plain", "plain", "cookie", "vary", "private", "missing", "broken"]),
)
PLANS = st.builds(
    Plan,
    routes=st.tuples(
        st.lists(ROUTES, min_size=1, max_size=3, unique_by=lambda route: route.path), st.integers(0, 9)
    ).map(lambda drawn: tuple(drawn[0] if drawn[1] == 0 else sorted(drawn[0], key=specific_first))),
    of_application=st.none() | st.none() | DEPENDENCIES,
    middleware=st.booleans(),
    error_handler=st.booleans(),
    flat=st.booleans(),
)
QUERY = st.lists(st.sampled_from(QUERIES), max_size=3).map(lambda parts: "?" + "&".join(parts) if parts else "")
REQUESTS = st.lists(
    st.builds(
        Ask,
        target=st.tuples(st.sampled_from(TARGETS), QUERY).map("".join),
        headers=st.lists(st.sampled_from(HEADERS), unique_by=str, max_size=4).map(tuple),
    ),
    min_size=2,
    max_size=8,
    # So that some are equal, or nearly.
).flatmap(lambda asks: st.lists(st.sampled_from(asks), min_size=4, max_size=12))


def seen(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a function has seen of a request."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        match value:
            case HTTPConnection():
                client = value.client and value.client.host
                found[name] = [sorted(value.headers.items()), value.cookies, client, str(value.url)]
            case BaseModel():
                found[name] = value.model_dump()
            case _:
                found[name] = value
    return found


def asking(names: Sequence[str], function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function the parameters that it asks for."""
    order = sorted(names, key=lambda name: ASKS[name][1] is not inspect.Parameter.empty)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword, annotation=ASKS[name][0], default=ASKS[name][1]) for name in order]
    function.__dict__["__signature__"] = inspect.Signature(parameters)
    return function


async def deny_b(q: str = "") -> None:
    if q == "b":
        raise HTTPException(403, "denied")


async def deny_language(x_lang: Annotated[str, Header()] = "") -> None:
    if x_lang == "b":
        raise HTTPException(403, "denied")


def dependencies_of(name: str | None) -> list[Any]:
    chosen: dict[str, Any] = {"tenant guard": TENANT, "owner guard": OWNER, "deny": deny_b, "header": deny_language}
    return [] if name is None else [Depends(chosen[name])]


def endpoint_of(route: Route) -> Callable[..., Any]:
    """Return the function of a route."""

    async def dependency(**values: Any) -> dict[str, Any]:
        return seen(values)

    async def endpoint(*, response: Response, given: dict[str, Any], **values: Any) -> dict[str, Any]:
        await asyncio.sleep(0)
        if route.behaviour == "missing" and values.get("q") == "a":
            raise HTTPException(404, "missing")
        if route.behaviour == "broken" and values.get("q") == "a":
            raise LookupError
        personal = {
            "cookie": ("Set-Cookie", "a=b"),
            "vary": ("Vary", "X-Lang"),
            "private": ("Cache-Control", "private"),
        }
        if route.behaviour in personal:
            response.headers.append(*personal[route.behaviour])
        return {"route": route.path, "given": given, **seen(values)}

    asking(route.asks, endpoint)
    signature = inspect.signature(endpoint)
    keyword = inspect.Parameter.KEYWORD_ONLY
    given = Annotated[dict[str, Any], Depends(asking(route.of_dependency, dependency))]
    extra = [
        inspect.Parameter("response", keyword, annotation=Response),
        inspect.Parameter("given", keyword, annotation=given),
    ]
    endpoint.__dict__["__signature__"] = signature.replace(parameters=[*extra, *signature.parameters.values()])
    if route.shared:
        shared(endpoint)
    return endpoint


def router_of(plan: Plan) -> APIRouter:
    router = APIRouter()
    for route in plan.routes:
        router.get(route.path, dependencies=dependencies_of(route.of_route))(endpoint_of(route))
    return router


class OfTheClient:
    """ASGI middleware that denies some clients, and answers the others with what they have sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        language = dict(scope.get("headers", ())).get(b"x-lang", b"")
        if language == b"deny":
            await PlainTextResponse("denied", 403)(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-echo", language)]}
            await send(message)

        await self._app(scope, receive, named)


async def in_the_language_of_the_client(request: Request, _: Exception) -> Response:
    return PlainTextResponse(request.headers.get("x-lang", "none"), 418)


def complete(app: FastAPI, plan: Plan) -> None:
    """Add to an application what is the same in the service and in plain FastAPI."""
    if plan.middleware:
        app.add_middleware(OfTheClient)
    if plan.error_handler:
        app.add_exception_handler(LookupError, in_the_language_of_the_client)


def plain(plan: Plan) -> FastAPI:
    app = FastAPI(dependencies=dependencies_of(plan.of_application), redirect_slashes=False)
    add_problem_handlers(app)
    app.include_router(router_of(plan))
    complete(app, plan)
    return app


def service(plan: Plan, redis_url: str | None) -> Service:
    @asynccontextmanager
    async def lifespan(app: Service) -> AsyncGenerator[dict[str, Any]]:
        # {% if cookiecutter.caching %}
        if redis_url:
            async with open_cache(redis_url, name="highload-properties", ttl=60, timeout=60, max_waiting=100) as cache:
                await cache.invalidate(["*"])
                app.reads.cache = cache
                yield {"greeting": "hello"}
            return
        # {% endif %}
        yield {"greeting": "hello"}

    app = Service(
        lifespan=lifespan,
        dependencies=dependencies_of(plan.of_application),
        redirect_slashes=False,
        limit_concurrency=100,
        max_body_bytes=100,
        max_waiting=100,
    )
    if plan.flat:
        app.include_flat(router_of(plan))
    else:
        app.include_router(router_of(plan))
    complete(app, plan)
    return app


type Reply = tuple[int, list[str], bytes]
# What the engine adds to an answer.
ADDED = (
    *("etag", "x-cache", "content-length", "connection", "x-request-id"),
    *("x-content-type-options", "referrer-policy", "content-security-policy"),
)

CACHING = [("cache-control", value) for value in ("no-cache", "private, no-cache", "no-store")]


def reply(status: int, fields: Sequence[tuple[str, str]], body: bytes) -> Reply:
    own = [(name, value) for name, value in fields if name not in ADDED and (name, value) not in CACHING]
    return status, sorted(f"{name}: {value}" for name, value in own), body


class Servers:
    """One server that serves one application after the other."""

    def __init__(self, server: GracefulServer, address: tuple[str, int]) -> None:
        self._server = server
        self._address = address

    async def ask(self, ask: Ask) -> Reply:
        """Send a request on a connection of its own."""
        reader, writer = await asyncio.open_connection(*self._address)
        host = [] if any(name == "Host" for name, _ in ask.headers) else ["Host: a.example"]
        lines = [f"GET {ask.target} HTTP/1.1", *host, *(f"{name}: {value}" for name, value in ask.headers), "", ""]
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = [(name, value) for name, _, value in (line.partition(": ") for line in head[1:-2])]
        body = await reader.readexactly(int(dict(fields)["content-length"]))
        writer.close()
        return reply(int(head[0].split()[1]), fields, body)

    @asynccontextmanager
    async def serving(self, app: ASGIApp, http: type[asyncio.Protocol]) -> AsyncGenerator[bool]:
        """Serve an application during the block, and tell whether it has started."""
        config = self._server.config
        config.loaded_app, config.http_protocol_class = app, http
        first, lifespan = self._server.lifespan, LifespanOn(config)
        await lifespan.startup()
        self._server.lifespan = lifespan
        yield not lifespan.should_exit
        await lifespan.shutdown()
        self._server.lifespan = first


@pytest.fixture
async def servers() -> AsyncGenerator[Servers]:
    listener = socket.create_server(("127.0.0.1", 0))
    options: dict[str, Any] = {"lifespan": "on", "log_config": None, "access_log": False, "proxy_headers": False}
    options |= {"date_header": False, "server_header": False}
    server = GracefulServer(uvicorn.Config(FastAPI(), timeout_graceful_shutdown=60, **options))
    serving = asyncio.create_task(server.serve(sockets=[listener]))

    async def started() -> bool:
        return server.started

    await eventually(started)
    yield Servers(server, listener.getsockname())
    server.should_exit = True
    await serving


@pytest.fixture(params=CACHES, ids=lambda cache: "Redis" if cache else "no Redis")
def redis_url(request: pytest.FixtureRequest) -> str | None:
    return stack_url(request.param) if request.param else None


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """What was tried; the summary of the tests says it."""
    tried = Counter[str]()
    yield tried
    started = tried["services"] - tried["refused"]
    request.node.user_properties.append(
        (
            "tried",
            f"{tried['requests']} requests to {started} random services; "
            f"{tried['refused']} more refused to start, of {tried['routes']} routes in all",
        )
    )
    assert tried["refused"] < started


@hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(plan=PLANS, asks=REQUESTS)
async def test_no_answer_differs_from_that_of_plain_fastapi(
    servers: Servers, redis_url: str | None, tried: Counter[str], plan: Plan, asks: list[Ask]
) -> None:
    tried["services"] += 1
    tried["routes"] += len(plan.routes)
    async with servers.serving(service(plan, redis_url), Connection) as started:
        if started:
            answers = [await asyncio.gather(*map(servers.ask, asks)) for _ in range(2)]
    if not started:
        tried["refused"] += 1
        # Another one takes its place: so many services start as there are examples.
        hypothesis.reject()
    async with servers.serving(service(plan, redis_url), HttpToolsProtocol):
        answers += [await asyncio.gather(*map(servers.ask, asks)) for _ in range(2)]
    async with servers.serving(with_greeting(plain(plan)), HttpToolsProtocol):
        expected = [await servers.ask(ask) for ask in asks]
    tried["requests"] += 4 * len(asks)
    for way in answers:
        for ask, answer, right in zip(asks, way, expected, strict=True):
            assert answer == right, ask


def with_greeting(app: FastAPI) -> ASGIApp:
    """Give plain FastAPI the state that the lifespan of the service yields."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {**scope.get("state", {}), "greeting": "hello"}
        await app(scope, receive, send)

    return call
