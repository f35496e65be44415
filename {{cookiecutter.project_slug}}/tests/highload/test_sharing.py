"""What a user adds to a service is never shared between clients who must not see the same."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any

import httpx2
import pytest
import uvicorn
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, APIKeyQuery, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.highload.http import health
from app.highload.http.admission import Admission

# {%- if cookiecutter.caching +%}
from app.highload.reads.cache import open_cache

# {%- endif +%}
from app.highload.reads.dependencies import Granted, Guard, Opened, Partition
from app.highload.reads.shared import CannotShare, shared
from app.highload.reads.sharing import LONGEST_KEY
from app.highload.service import Service
from tests.conftest import running, stack_url
from tests.waiting import eventually, settle

NAME = "highload-sharing"
# The variables that hold their addresses.
CACHES = [""]
# {% if cookiecutter.caching %}
CACHES.append("REDIS_URL")
# {% endif %}


def service(*routers: APIRouter, redis_url: str | None = None, **options: Any) -> Service:
    """Return a service of these routers, with a cache where it has an address."""

    @asynccontextmanager
    async def lifespan(app: Service) -> AsyncGenerator[dict[str, Any]]:
        state = {"checks": {}, "greeting": "hello"}
        # {% if cookiecutter.caching %}
        if redis_url:
            async with open_cache(redis_url, name=NAME, ttl=60, timeout=60, max_waiting=100) as cache:
                await cache.invalidate(["*"])
                app.reads.cache = cache
                yield state
            return
        # {% endif %}
        yield state

    limits = {"limit_concurrency": 1000, "max_body_bytes": 1000, "max_waiting": 1000}
    app = Service(lifespan=lifespan, **(limits | options))
    for router in routers:
        app.include_flat(router)
    return app


@pytest.fixture(params=CACHES, ids=lambda cache: "Redis" if cache else "no Redis")
def redis_url(request: pytest.FixtureRequest) -> str | None:
    return stack_url(request.param) if request.param else None


class Serve:
    """Starts a service in this process, on the server of production or on Uvicorn's own protocol."""

    def __init__(self, http: type[HttpToolsProtocol] | None, redis_url: str | None) -> None:
        self._http = http
        self._redis_url = redis_url
        self._admission: Admission

    def __call__(
        self, *routers: APIRouter, wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app, **options: Any
    ) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        app = service(*routers, redis_url=self._redis_url, **options)
        self._admission = app.admission
        return running(wrap(app), http=self._http)

    async def get_together(
        self, client: httpx2.AsyncClient, gate: asyncio.Event, *requests: tuple[str, dict[str, str]]
    ) -> list[httpx2.Response]:
        """Send GETs, and open the gate of their handler when each is inside the service or answered."""
        gate.clear()
        asking = [asyncio.create_task(client.get(path, headers=headers)) for path, headers in requests]

        async def all_arrived() -> bool:
            return self._admission._inside + sum(task.done() for task in asking) >= len(asking)

        await eventually(all_arrived)
        gate.set()
        return await asyncio.gather(*asking)


@pytest.fixture(params=["short way", "long way"])
def serve(request: pytest.FixtureRequest, redis_url: str | None) -> Serve:
    return Serve(HttpToolsProtocol if request.param == "long way" else None, redis_url)


class Notes:
    """Handlers that answer with what they are asked when the gate is open, and count how often."""

    def __init__(self) -> None:
        self.runs = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, **parameters: Any) -> dict[str, Any]:
        self.runs += 1
        await self.gate.wait()
        return parameters


def routed(function: Callable[..., Any], path: str = "/notes", **options: Any) -> APIRouter:
    """Return a router with one shared route."""
    router = APIRouter()
    router.get(path, **options)(shared(function))
    return router


def key_of_owner(connection: HTTPConnection) -> Granted:
    key = connection.headers.get("x-api-key", "")
    if not key.startswith("key of "):
        raise HTTPException(401, "Send a valid X-API-Key.", headers={"WWW-Authenticate": "ApiKey"})
    return Granted(principal=key)


async def key_of_owner_later(connection: HTTPConnection) -> Granted:
    await asyncio.sleep(0)
    return key_of_owner(connection)


def tenant_of(connection: HTTPConnection) -> Granted:
    tenant = connection.headers.get("x-tenant")
    if tenant is None:
        raise HTTPException(400, "Send an X-Tenant.")
    return Granted(partition=tenant)


API_KEY = APIKeyHeader(name="X-API-Key")
TENANT = Guard(APIKeyHeader(name="X-Tenant", scheme_name="Tenant"), tenant_of)


async def get_all(client: httpx2.AsyncClient, *requests: tuple[str, dict[str, str]]) -> list[httpx2.Response]:
    """Send GETs at the same time."""
    return list(await asyncio.gather(*(client.get(path, headers=headers) for path, headers in requests)))


@pytest.mark.parametrize("check", [key_of_owner, key_of_owner_later])
async def test_a_guarded_read_is_shared(serve: Serve, check: Any) -> None:
    notes = Notes()
    guarded = APIRouter(dependencies=[Depends(Guard(API_KEY, check))])
    guarded.get("/notes")(shared(notes_of(notes)))
    async with serve(guarded) as client:
        for _ in range(2):
            assert (await client.get("/notes")).status_code == 401
            runs = notes.runs
            keys = [{"X-API-Key": f"key of {owner}"} for owner in "abcde"]
            asked = [*(("/notes", key) for key in keys), ("/notes", {"X-API-Key": "wrong"})]
            answers = await serve.get_together(client, notes.gate, *asked)
            assert [answer.status_code for answer in answers] == [200] * 5 + [401]
            assert notes.runs - runs <= 2
        refused = await client.get("/notes")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "ApiKey"
        assert refused.headers["content-type"] == "application/problem+json"


def notes_of(notes: Notes) -> Callable[[], Any]:
    async def list_notes() -> dict[str, Any]:
        return await notes.answer()

    return list_notes


async def test_tenants_see_their_own(serve: Serve) -> None:
    notes = Notes()

    async def list_notes(tenant: Annotated[str, Depends(Partition(TENANT))]) -> dict[str, Any]:
        return await notes.answer(tenant=tenant)

    async with serve(routed(list_notes)) as client:
        for _ in range(2):
            tenants = ["a", "b", "c d", "c,d", ""] * 4
            asked = [("/notes", {"X-Tenant": tenant}) for tenant in tenants]
            answers = await serve.get_together(client, notes.gate, *asked)
            assert [answer.json()["tenant"] for answer in answers] == tenants
        assert (await client.get("/notes")).status_code == 400
    assert notes.runs <= 20, "each tenant shares its runs"


async def test_a_declared_header_is_part_of_the_key(serve: Serve) -> None:
    notes = Notes()

    async def list_notes(x_tenant: Annotated[list[str], Header()], response: Response) -> dict[str, Any]:
        response.headers["Vary"] = "X-Tenant"
        return await notes.answer(tenant=x_tenant)

    async with serve(routed(list_notes)) as client:
        for _ in range(2):
            asked = [("/notes", {"X-Tenant": tenant}) for tenant in "ab" * 5]
            answers = await serve.get_together(client, notes.gate, *asked)
            assert [answer.json()["tenant"] for answer in answers] == [["a"], ["b"]] * 5
        assert {answer.headers["x-cache"] for answer in answers} <= {"hit", "miss", "shared"}
    assert notes.runs <= 8, "each tenant shares its runs"


async def test_a_new_filter_is_part_of_the_key(serve: Serve) -> None:
    notes = Notes()

    async def page(limit: int = 100, name: str | None = None) -> dict[str, Any]:
        return await notes.answer(limit=limit, name=name)

    async def list_notes(page: Annotated[dict[str, Any], Depends(page)], tag: Annotated[list[str], Query()]) -> Any:
        return {**page, "tag": tag}

    async with serve(routed(list_notes)) as client:
        for _ in range(2):
            queries = ["tag=x&name=A1", "name=A2&tag=x", "name=B1&tag=x", "tag=y&name=A1", "tag=x&tag=y&name=A1"]
            answers = await get_all(client, *((f"/notes?{query}", {}) for query in queries))
            seen = [(answer.json()["name"], answer.json()["tag"]) for answer in answers]
            assert seen == [("A1", ["x"]), ("A2", ["x"]), ("B1", ["x"]), ("A1", ["y"]), ("A1", ["x", "y"])]


class Filter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = ""


async def test_all_of_the_query_is_the_key_of_a_model_of_parameters(serve: Serve) -> None:
    async def list_notes(query: Annotated[Filter, Query()]) -> dict[str, str]:
        return {"name": query.name}

    async with serve(routed(list_notes)) as client:
        queries = ["name=a", "name=b", "name=a&other=1"]
        answers = await get_all(client, *((f"/notes?{query}", {}) for query in queries))
    assert [answer.status_code for answer in answers] == [200, 200, 422]


async def test_a_route_before_a_shared_one_keeps_its_requests(serve: Serve) -> None:
    router = APIRouter(prefix="/notes")

    @router.get("/search")
    async def search(q: str) -> dict[str, str]:
        await asyncio.sleep(0.02)
        return {"found": q}

    @router.get("/{name}")
    @shared
    async def get_note(name: str) -> dict[str, str]:
        return {"name": name}

    async with serve(router) as client:
        for _ in range(2):
            answers = await get_all(client, *((f"/notes/search?q={word}", {}) for word in ("one", "two", "two")))
            assert [answer.json() for answer in answers] == [{"found": "one"}, {"found": "two"}, {"found": "two"}]
            assert "x-cache" not in answers[0].headers
            assert (await client.get("/notes/other")).json() == {"name": "other"}


class Deny:
    """ASGI middleware that lets no request in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await PlainTextResponse("denied", 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def test_middleware_around_the_application_runs_for_shared_reads(serve: Serve) -> None:
    async with serve(routed(notes_of(Notes())), wrap=Deny) as client:
        assert (await client.get("/notes")).status_code == 403


async def test_added_middleware_runs_for_shared_reads(serve: Serve) -> None:
    def add(app: ASGIApp) -> ASGIApp:
        assert isinstance(app, Service)
        app.add_middleware(Deny)
        return app

    async with serve(routed(notes_of(Notes())), wrap=add) as client:
        assert (await client.get("/notes")).status_code == 403


async def deny() -> None:
    raise HTTPException(403, "denied")


@pytest.mark.parametrize("place", ["application", "router", "route"])
async def test_a_dependency_denies_a_shared_read(serve: Serve, place: str) -> None:
    denied = [Depends(deny)]
    router = APIRouter(dependencies=denied if place == "router" else [])
    router.get("/notes", dependencies=denied if place == "route" else [])(shared(notes_of(Notes())))
    async with serve(router, dependencies=denied if place == "application" else []) as client:
        answers = await get_all(client, *[("/notes", {})] * 3)
    assert {answer.status_code for answer in answers} == {403}


async def test_cors_headers_are_those_of_each_client(serve: Serve) -> None:
    notes = Notes()

    def add(app: ASGIApp) -> ASGIApp:
        assert isinstance(app, Service)
        app.add_middleware(CORSMiddleware, allow_origins=["https://a.example", "https://b.example"])
        app.add_middleware(GZipMiddleware, minimum_size=1)
        return app

    async with serve(routed(notes_of(notes)), wrap=add) as client:
        origins = ["https://a.example", "https://b.example", "https://c.example"] * 13
        asked = [("/notes", {"Origin": origin}) for origin in origins]
        answers = await serve.get_together(client, notes.gate, *asked)
        allowed = [answer.headers.get("access-control-allow-origin") for answer in answers]
        assert allowed == [origin if origin[8] in "ab" else None for origin in origins]
        assert {answer.headers["x-cache"] for answer in answers} <= {"hit", "miss", "shared"}
    assert notes.runs <= 2, "they share their runs"


class RequestId:
    """ASGI middleware that names each request, in its answer and in a context variable."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = dict(scope["headers"]).get(b"x-client", b"")
        scope["state"]["client"] = name.decode()
        client_name.set(name.decode())

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-request-id", name)]}
            await send(message)

        await self._app(scope, receive, named)


client_name: ContextVar[str] = ContextVar("client_name", default="nobody")


async def test_each_client_gets_its_own_request_id(serve: Serve) -> None:
    async def list_notes() -> dict[str, str]:
        await asyncio.sleep(0.02)
        return {"client": client_name.get()}

    def add(app: ASGIApp) -> ASGIApp:
        assert isinstance(app, Service)
        app.add_middleware(RequestId)
        return app

    async with serve(routed(list_notes), wrap=add) as client:
        for _ in range(2):
            answers = await get_all(client, *(("/notes", {"X-Client": f"client {n}"}) for n in range(5)))
            assert [answer.headers["x-request-id"] for answer in answers] == [f"client {n}" for n in range(5)]
            assert {answer.json()["client"] for answer in answers} == {"nobody"}, "a shared run belongs to no client"


async def test_what_a_middleware_knows_of_a_client_is_not_what_the_lifespan_opened(serve: Serve) -> None:
    async def list_notes(
        greeting: Annotated[str, Depends(Opened("greeting"))], client: Annotated[str, Depends(Opened("client"))]
    ) -> dict[str, str]:
        return {"greeting": greeting, "client": client}

    def add(app: ASGIApp) -> ASGIApp:
        assert isinstance(app, Service)
        app.add_middleware(RequestId)
        return app

    async with serve(routed(list_notes), wrap=add) as client:
        assert (await client.get("/notes", headers={"X-Client": "a"})).status_code == 500


@pytest.mark.parametrize(
    "header",
    [
        ("Set-Cookie", "a=b"),
        ("Vary", "Accept-Language"),
        ("Cache-Control", "No-Store"),
        ("WWW-Authenticate", "Basic"),
    ],
)
async def test_personal_answers_run_at_the_same_time(serve: Serve, header: tuple[str, str]) -> None:
    running_now = most = 0
    gate = asyncio.Event()

    async def list_notes(response: Response) -> dict[str, int]:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await gate.wait()
        await settle()
        running_now -= 1
        response.headers[header[0]] = header[1]
        return {}

    async with serve(routed(list_notes)) as client:
        answers = await serve.get_together(client, gate, *[("/notes", {})] * 20)
    assert {answer.headers["x-cache"] for answer in answers} == {"bypass"}
    assert most >= 10


async def test_credentials_without_a_guard_are_not_shared(serve: Serve) -> None:
    async with serve(routed(notes_of(Notes()))) as client:
        answers = await get_all(client, *[("/notes", {"Authorization": "Basic YTpi"})] * 3)
        assert [answer.headers["x-cache"] for answer in answers] == ["bypass"] * 3
        assert (await client.get("/notes", headers={"Cookie": "a=b"})).headers["x-cache"] in ("miss", "hit")


async def test_a_guard_that_forgets_to_answer_lets_nobody_in(serve: Serve) -> None:
    forgetful = Guard(API_KEY, lambda _: None)  # type: ignore[arg-type, return-value]
    async with serve(routed(notes_of(Notes()), dependencies=[Depends(forgetful)])) as client:
        assert (await client.get("/notes")).status_code == 500


async def test_what_a_test_overrides_is_not_shared(serve: Serve) -> None:
    async def tenant() -> str:
        return "nobody"

    async def list_notes(tenant: Annotated[str, Depends(tenant)]) -> dict[str, str]:
        return {"tenant": tenant}

    async def of_header(x_tenant: Annotated[str, Header()]) -> str:
        return x_tenant

    def override(app: ASGIApp) -> ASGIApp:
        assert isinstance(app, Service)
        app.dependency_overrides[tenant] = of_header
        return app

    async with serve(routed(list_notes), wrap=override) as client:
        answers = await get_all(client, *(("/notes", {"X-Tenant": tenant}) for tenant in "ab"))
    assert [answer.json()["tenant"] for answer in answers] == ["a", "b"]


async def test_a_route_that_comes_later_is_noticed(serve: Serve) -> None:
    service_of: list[Service] = []

    def keep(app: ASGIApp) -> ASGIApp:
        assert isinstance(app, Service)
        service_of.append(app)
        return app

    async with serve(routed(notes_of(Notes()), "/notes/{name}"), wrap=keep) as client:

        @service_of[0].get("/notes/late")
        async def late(request: Request) -> dict[str, str]:
            return {"client": request.headers["x-client"]}

        service_of[0].router.routes.insert(0, service_of[0].router.routes.pop())
        answers = await get_all(client, *(("/notes/late", {"X-Client": name}) for name in "ab"))
    assert [answer.json() for answer in answers] == [{"client": "a"}, {"client": "b"}]


async def test_an_error_handler_of_the_user_sees_the_request_itself(serve: Serve) -> None:
    async def in_the_language_of_the_client(request: Request, _: Exception) -> Response:
        return PlainTextResponse(request.headers["accept-language"], 418)

    async def list_notes() -> None:
        raise LookupError

    handlers: Any = {LookupError: in_the_language_of_the_client}
    async with serve(routed(list_notes), exception_handlers=handlers) as client:
        answers = await get_all(client, *(("/notes", {"Accept-Language": language}) for language in ("de", "fr")))
    assert [answer.text for answer in answers] == ["de", "fr"]


async def test_an_error_handler_that_is_an_option_takes_the_place_of_the_one_of_the_engine(serve: Serve) -> None:
    async def teapot(_: Request, __: Exception) -> Response:
        return PlainTextResponse("teapot", 418)

    options: Any = {"exception_handlers": {StarletteHTTPException: teapot}}
    async with serve(routed(deny), **options) as client:
        assert (await client.get("/notes")).status_code == 418
        assert (await client.get("/nothing")).status_code == 418


async def test_an_error_of_a_shared_run_is_an_answer(serve: Serve, log: list[str]) -> None:
    notes = Notes()

    async def list_notes() -> None:
        await notes.answer()
        raise LookupError("broken")

    async with serve(routed(list_notes)) as client:
        answers = await serve.get_together(client, notes.gate, *[("/notes", {})] * 5)
    assert {answer.status_code for answer in answers} == {500}
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert 1 <= sum("LookupError: broken" in line for line in log) <= 2, "it is logged once for all"


async def test_a_long_key_is_not_shared(serve: Serve) -> None:
    async with serve(routed(notes_of(Notes()), "/notes/{name}")) as client:
        answer = await client.get("/notes/" + "x" * LONGEST_KEY)
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "bypass")


async def test_a_part_of_an_answer_is_not_shared(serve: Serve) -> None:
    async with serve(routed(notes_of(Notes()))) as client:
        assert (await client.get("/notes", headers={"Range": "bytes=0-1"})).headers["x-cache"] == "bypass"


async def test_the_answer_does_not_know_the_host_of_a_client(serve: Serve) -> None:
    async def list_notes() -> None:
        raise LookupError

    async def whose(request: Request, _: Exception) -> Response:
        return PlainTextResponse(str(request.url), 200)

    handlers = {LookupError: whose}
    options: dict[str, Any] = {"exception_handlers": handlers, "public_url": "https://notes.example"}
    async with serve(routed(list_notes), **options) as client:
        answer = await client.get("/notes?a=b", headers={"Host": "evil.example"})
    assert answer.text == "https://notes.example/notes"


# What a route may not ask for, and what the sentence says of it.


async def asks_for_a_cookie(session: Annotated[str, Cookie()]) -> str:
    return session


async def asks_for_the_request(request: Request) -> str:
    return request.headers.get("x-tenant", "")


async def asks_for_the_client(connection: HTTPConnection) -> str:
    return str(connection.client)


async def asks_for_a_body(body: Annotated[dict[str, str], Body()]) -> str:
    return str(body)


async def asks_for_scopes(scopes: SecurityScopes) -> str:
    return scopes.scope_str


async def has_background_tasks(tasks: BackgroundTasks) -> str:
    return str(tasks)


async def asks_for_a_key(key: Annotated[str, Depends(APIKeyQuery(name="key"))]) -> str:
    return key


async def asks_for_a_bearer(token: Annotated[Any, Security(HTTPBearer())]) -> str:
    return str(token)


async def asks_for_a_user(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))]) -> str:
    return token


class Headers(BaseModel):
    x_tenant: str


async def asks_for_a_model_of_headers(headers: Annotated[Headers, Header()]) -> str:
    return headers.x_tenant


async def asks_who_is_there(granted: Annotated[Granted, Depends(TENANT)]) -> str:
    return granted.partition


ASKS = [
    (asks_for_a_cookie, "asks for the cookie 'session'"),
    (asks_for_the_request, "takes the whole request ('request' of asks_for_the_request)"),
    (asks_for_the_client, "takes the whole request ('connection' of asks_for_the_client)"),
    (asks_for_a_body, "asks for a body"),
    (asks_for_scopes, "asks for credentials"),
    (has_background_tasks, "has background tasks"),
    (asks_for_a_key, "asks for credentials (APIKeyQuery)"),
    (asks_for_a_bearer, "asks for credentials (HTTPBearer)"),
    (asks_for_a_user, "asks for credentials (OAuth2PasswordBearer)"),
    (asks_for_a_model_of_headers, "asks for headers through 'headers'"),
    (asks_who_is_there, "asks a guard who the client is"),
]


def refusal_of(app: Service) -> str:
    """Return the sentence with which a service refuses to start."""
    with pytest.raises(CannotShare) as raised, TestClient(app):
        pass
    return str(raised.value)


@pytest.mark.parametrize(("asking", "sentence"), ASKS, ids=[asking.__name__ for asking, _ in ASKS])
@pytest.mark.parametrize("place", ["handler", "dependency", "nested", "route", "router", "application", "included"])
def test_a_shared_route_that_may_be_personal_is_refused(asking: Any, sentence: str, place: str) -> None:
    async def nested(value: Annotated[str, Depends(asking)]) -> str:
        return value

    async def with_dependency(value: Annotated[str, Depends(asking)]) -> str:
        return value

    async def with_nested(value: Annotated[str, Depends(nested)]) -> str:
        return value

    async def alone() -> str:
        return ""

    handler = {"handler": asking, "dependency": with_dependency, "nested": with_nested}.get(place, alone)
    dependencies = [Depends(asking)]
    router = APIRouter(dependencies=dependencies if place == "router" else None)
    router.get("/notes", dependencies=dependencies if place == "route" else None)(shared(handler))
    app = service(dependencies=dependencies if place == "application" else None)
    if place == "included":
        app.include_router(router, dependencies=dependencies)
    else:
        app.include_flat(router)
    refusal = refusal_of(app)
    assert refusal.startswith(f"GET /notes is shared and {sentence}")
    assert "take @shared off" in refusal


class Nosy(APIRoute):
    def get_route_handler(self) -> Any:
        return super().get_route_handler()


def mounted() -> Service:
    app = service()
    app.router.routes.append(Host("a.example", Router()))
    app.include_flat(routed(notes_of(Notes())))
    return app


def nosy() -> Service:
    router = APIRouter(route_class=Nosy)
    router.get("/notes")(shared(notes_of(Notes())))
    return service(router)


def posting() -> Service:
    router = APIRouter()
    router.post("/notes")(shared(notes_of(Notes())))
    return service(router)


def streaming() -> Service:
    async def lines() -> AsyncGenerator[dict[str, str]]:
        yield {}

    return service(routed(lines))


def twice(first: str, second: str) -> Callable[[], Service]:
    def build() -> Service:
        router = APIRouter()
        router.get(first)(notes_of(Notes()))
        router.get(second)(shared(notes_of(Notes())))
        return service(router)

    return build


def hidden(first: str, second: str) -> Callable[[], Service]:
    def build() -> Service:
        router = routed(notes_of(Notes()), first)
        router.get(second)(notes_of(Notes()))
        return service(router)

    return build


def mount_behind() -> Service:
    app = service(routed(notes_of(Notes()), "/{name}"))
    app.mount("/notes", FastAPI())
    return app


def behind_mount() -> Service:
    app = service()
    app.mount("/", FastAPI())
    app.include_router(routed(notes_of(Notes())))
    return app


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (mounted, "GET /notes is shared and a Host before it may answer in its place"),
        (nosy, "GET /notes is shared and is a Nosy, which may read all of a request"),
        (posting, "GET /notes is shared and does not answer GET"),
        (streaming, "GET /notes is shared and sends a stream"),
        (twice("/notes", "/notes"), "GET /notes is never reached, because /notes before it also"),
        (twice("/{any}", "/notes"), "GET /notes is never reached, because /{any} before it also"),
        (twice("/{any:path}", "/notes/{name}"), "GET /notes/{name} is never reached"),
        (hidden("/notes/{name}", "/notes/search"), "GET /notes/search is never reached, because /notes/{name} before"),
        (hidden("/notes/{name}", "/notes/{number:int}"), "GET /notes/{number:int} is never reached"),
        (behind_mount, "GET /notes is never reached"),
    ],
)
def test_a_route_that_another_one_hides_is_refused(build: Callable[[], Service], sentence: str) -> None:
    assert refusal_of(build()).startswith(sentence)


@pytest.mark.parametrize(
    "build",
    [
        twice("/notes/search", "/notes/{name}"),
        twice("/notes/{number:int}", "/notes/{name}"),
        hidden("/notes/{number:int}", "/notes/{name}"),
        hidden("/notes/{name}", "/notes/{rest:path}"),
        hidden("/notes", "/notes/{name}"),
        mount_behind,
    ],
)
def test_routes_that_share_only_some_paths_are_told_apart(build: Callable[[], Service]) -> None:
    with TestClient(build()) as client:
        assert client.get("/notes/search").status_code in (200, 404)


async def test_the_server_says_in_one_sentence_why_it_does_not_start(log: list[str]) -> None:
    lifespan = LifespanOn(uvicorn.Config(service(routed(asks_for_the_request)), log_config=None))
    await lifespan.startup()
    assert lifespan.should_exit
    told, exits = log
    assert told.startswith("The service does not start. GET /notes is shared and takes the whole request")
    assert exits == "Application startup failed. Exiting."


def test_a_router_is_included_flat_as_fastapi_would_include_it() -> None:
    router = APIRouter(prefix="/notes", tags=["notes"], dependencies=[Depends(TENANT)], responses={418: {}})

    @router.get("/{name}", response_model=dict[str, str], summary="A note", deprecated=True)
    async def get_note(name: str) -> Any:
        return JSONResponse({"name": name})

    @router.post("", status_code=201, openapi_extra={"x-extra": 1})
    async def create_note(text: Annotated[str, Body()]) -> str:
        return text

    flat, usual = service(router, health.router), service()
    usual.include_router(router)
    usual.include_router(health.router)
    assert flat.openapi() == usual.openapi()
    assert "Tenant" in flat.openapi()["components"]["securitySchemes"]
    with pytest.raises(TypeError, match="Mount cannot be included flat"):
        service(APIRouter(routes=[Mount("/files", FastAPI())]))


def test_streams_and_files_of_a_route_that_is_not_shared_are_left_alone() -> None:
    router = APIRouter()

    @router.get("/stream")
    async def stream(request: Request) -> Response:
        return StreamingResponse(iter([request.headers["x-client"]]))

    with TestClient(service(router)) as client:
        assert client.get("/stream", headers={"X-Client": "a"}).text == "a"
