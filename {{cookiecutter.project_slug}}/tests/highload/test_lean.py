"""A route on the lean way and one on FastAPI's own answer the same, and both ways are taken when they should be."""

import asyncio
import json
import logging
import pkgutil
import re
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from enum import Enum
from functools import partial, wraps
from typing import Annotated, Any, Literal, NamedTuple, cast
from urllib.parse import quote, urlencode
from uuid import UUID

import fastapi
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    Path,
    Query,
    Request,
    Response,
    Security,
    routing,
)
from fastapi.dependencies.utils import get_parameterless_sub_dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, SecurityScopes
from fastapi.telemetry import TelemetryData
from fastapi.testclient import TestClient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Json
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.routing import Host, Mount, Route

from app.highload.etags import OnlyIf
from app.highload.lean import Lean, LeanRoute, why_not_lean
from app.highload.lean_layer import LeanLayer
from app.highload.pagination import Cursor, Limit
from app.highload.reads.dependencies import Granted, Guard, Opened
from app.highload.service import Service
from tests.conftest import lines_of

ROW = "7b5f7a1e-4a3c-4d0e-9d5e-6a7b8c9d0e1f"
JSON = b"application/json"
VALID = {"name": "a", "shade": "dark", "inner": {"at": "2026-01-02T03:04:05Z", "numbers": [1, "2"]}}
# The ways on which endpoints were called.
WAYS: list[str] = []


class Shade(Enum):
    DARK = "dark"
    LIGHT = "light"


class Inner(BaseModel):
    at: datetime
    numbers: list[int] = []


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(str.strip)]
    shade: Shade = Shade.LIGHT
    inner: Inner | None = None


def no_odd(number: int) -> int:
    if number == 7:
        raise HTTPException(418, "Seven is not a mistake of the client.")
    if number % 2:
        raise ValueError("take an even one")
    return number


def answer(request: Request, *values: object) -> Response:
    """Answer with all that an endpoint was given, and note the way on which it was called."""
    frame, names = sys._getframe(), set()
    while frame.f_back:
        frame = frame.f_back
        names.add(frame.f_code.co_name)
    way = "lean" if "wrapped_app" in names else "past its layers"
    WAYS.append("FastAPI's" if "run_endpoint_function" in names else way)
    called = getattr(request.state, "called", [])
    return JSONResponse([*map(repr, values), *called], headers={"X-Path": quote(request.url.path)})


def note(request: Request, name: str) -> None:
    request.state.called = [*getattr(request.state, "called", []), name]


async def once(request: Request) -> str:
    note(request, "once")
    return "once"


async def each_time(request: HTTPConnection, first: Annotated[str, Depends(once)], level: int = 1) -> str:
    note(request, f"each time {level}")  # type: ignore[arg-type]
    if level == 3:
        raise HTTPException(403, "Not on this level.")
    return first


type Add = Callable[[APIRouter], None]
guard = Guard(APIKeyHeader(name="X-Key", auto_error=False), lambda _: Granted(1))


def declare(router: APIRouter) -> None:
    @router.get("/things")
    async def many(  # noqa: PLR0917 - so is this
        request: Request,
        opened: Annotated[object, Depends(Opened("things"))],
        limit: Limit = 100,
        cursor: Cursor | None = None,
        shade: Shade = Shade.DARK,
        flag: Annotated[bool | None, Query(alias="is-flag")] = None,
        even: Annotated[int, AfterValidator(no_odd)] = 2,
        kind: Literal["a", "b"] | None = None,
        x_level: Annotated[int | None, Header(ge=1)] = None,
    ) -> Response:
        return answer(request, opened, limit, cursor, shade, flag, even, kind, x_level)

    @router.post("/things", status_code=201, response_model=Thing, dependencies=[Depends(guard)])
    async def create(
        request: Request,
        one: Annotated[str, Depends(each_time, use_cache=False)],
        two: Annotated[str, Depends(each_time)],
        three: Annotated[str, Depends(each_time, use_cache=False)],
        body: Thing,
    ) -> Response:
        return answer(request, one, two, three, body, await request.json())

    @router.get("/things/{thing_id}")
    async def get(request: Request, thing_id: UUID, when: datetime | None = None) -> JSONResponse:
        return answer(request, thing_id, when)  # type: ignore[return-value]

    @router.patch("/things/{thing_id}/{number:int}")
    async def change(
        request: Request,
        thing_id: Annotated[str, Path(max_length=36)],
        number: Annotated[int, Path(le=5, alias="number")],
        only_if: OnlyIf,
        body: Annotated[Thing, Body(description="A thing")],
    ) -> Response:
        if body.name == "missing":
            raise HTTPException(404, "There is none.", {"X-Why": "missing"})
        if body.name == "wrong":
            raise RequestValidationError([{"loc": ("body",), "msg": "wrong", "type": "wrong"}])
        if body.name == "error":
            raise RuntimeError(body.name)
        return answer(request, thing_id, number, only_if, body)

    @router.delete("/things/{thing_id}", status_code=204)
    async def delete(request: Request, thing_id: UUID, only_if: OnlyIf, wrong: bool = False) -> None:
        answer(request)
        return {"id": thing_id} if wrong else None  # type: ignore[return-value]

    @router.put("/things", response_model=Inner, status_code=203)
    async def put(request: Request, body: Thing) -> Response:
        answer(request)
        return body.inner  # type: ignore[return-value]


def build(route_class: type[APIRoute], declare: Add = declare) -> FastAPI:
    app = FastAPI()
    router = APIRouter(route_class=route_class)
    declare(router)
    for route in router.routes:
        assert isinstance(route, APIRoute)
        app.router.routes.append(route)

    @app.exception_handler(RequestValidationError)
    async def tell(_: Request, error: RequestValidationError) -> Response:
        return Response(repr((error.errors(), error.body, str(error), error.__context__)), 422)

    return app


class Asked(NamedTuple):
    """A request; a body that ends with a word ends with a lost client, or with an error of a middleware."""

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: Sequence[bytes | str]


def ask(app: FastAPI, asked: Asked) -> list[Any]:
    """Return all messages that answer a request, or the exception."""
    messages: list[Any] = []
    chunks = [*(asked.body or [b""]), "lost"]

    async def receive() -> dict[str, Any]:
        chunk = chunks.pop(0) if chunks else "lost"
        if chunk == "lost":
            return {"type": "http.disconnect"}
        if chunk == "refused":
            raise HTTPException(413, "Too large.")
        if chunk == "broken":
            raise RuntimeError("broken")
        return {"type": "http.request", "body": chunk, "more_body": len(chunks) > 1}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": asked.method,
        "path": asked.path,
        "query_string": asked.query,
        "headers": asked.headers,
        "state": {"things": "opened"},
    }
    try:
        asyncio.run(app(scope, receive, send))
    except Exception as error:  # noqa: BLE001 - it is compared
        messages.append(repr(error))
    return messages


def layered(app: FastAPI) -> FastAPI:
    """Return an application with the lean way past its layers."""
    app.add_middleware(cast(Any, LeanLayer), router=app.router)
    return app


LEAN, LAYERED, FASTAPIS = build(LeanRoute), layered(build(LeanRoute)), build(APIRoute)
WORDS = st.sampled_from(["", "1", "2", "3", "7", "1001", "true", "off", "dark", "a", "2026-01-02", ROW, "\x00", "é"])
NAMES = ["limit", "cursor", "shade", "is-flag", "flag", "even", "kind", "level", "when", "wrong", "other"]
QUERIES = st.lists(st.tuples(st.sampled_from(NAMES), WORDS | st.text(max_size=3)), max_size=4)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | WORDS, st.lists, max_leaves=3)
THINGS = st.fixed_dictionaries(
    {"name": st.sampled_from([" a ", "missing", "wrong", "error"]) | VALUES},
    optional={
        "shade": st.sampled_from(["dark", "light", "grey"]),
        "inner": st.none() | st.fixed_dictionaries({"at": WORDS}, optional={"numbers": VALUES}),
        "extra": VALUES,
    },
)
TEXTS = (st.just(VALID) | THINGS | VALUES).map(json.dumps).map(str.encode)
BODIES = (
    TEXTS | st.binary(max_size=4) | st.sampled_from([b"", b"[" * 100_000, b'"\\ud800"', b'{"name":"a","name":"b"}'])
)
TYPES = [
    *(JSON, b"application/json; charset=utf-8", b"application/json;charset=utf-8"),
    *(b"application/json; charset=utf-16", b"Application/JSON", b"application/problem+json", b"text/plain", b""),
    *(b"application/x-www-form-urlencoded", b"multipart/form-data", b";", b"\xff"),
]
CONTENT_TYPES = st.just(JSON) | st.sampled_from(TYPES)
FIELDS = st.lists(
    st.tuples(st.just(b"content-type"), CONTENT_TYPES)
    | st.tuples(
        st.sampled_from([b"x-level", b"if-match", b"cookie", b"x-key"]), st.sampled_from([b"1", b'"a"', b"*", b"="])
    ),
    max_size=3,
)
PATHS = st.sampled_from(
    [
        "/things",
        "/things/",
        f"/things/{ROW}",
        "/things/x",
        f"/things/{ROW}/3",
        f"/things/{ROW}/9",
        "/things/é/3",
        "/none",
    ]
)
REQUESTS = st.builds(
    Asked,
    st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]),
    PATHS,
    QUERIES.map(urlencode).map(str.encode) | st.sampled_from([b"&&=", b"limit", b"limit=%ff", b"limit=5;a", b"\xff=%"]),
    st.just([(b"content-type", JSON)]) | FIELDS,
    st.tuples(BODIES) | st.tuples(TEXTS, TEXTS) | st.tuples(TEXTS, st.sampled_from(["lost", "refused", "broken"])),
)


def post(body: object, query: bytes = b"", path: str = "/things", method: str = "POST") -> Asked:
    return Asked(method, path, query, [(b"content-type", JSON)], [json.dumps(body).encode()])


def get(query: bytes = b"", path: str = "/things", method: str = "GET") -> Asked:
    return Asked(method, path, query, [], [])


SERVED = [
    get(),
    get(b"limit=5&limit=6&shade=light&is-flag=1&even=4&kind=b"),
    get(b"when=2026-01-02", f"/things/{ROW}"),
    post(VALID),
    post(VALID, b"level=2"),
    post(VALID, path=f"/things/{ROW}/3", method="PATCH"),
    post(VALID, method="PUT"),
    get(path=f"/things/{ROW}", method="DELETE"),
]


@settings(max_examples=400)
@given(REQUESTS)
@example(post({"name": 1}, b"level=x"))
@example(post(VALID, b"level=3"))
@example(get(b"even=7&limit=x"))
@example(get(b"wrong=1", f"/things/{ROW}", "DELETE"))
@example(post({"name": "a"}, method="PUT"))
@example(Asked("POST", "/things", b"", [(b"content-type", JSON)], [b"{", "lost"]))
@example(Asked("POST", "/things", b"", [(b"content-type", JSON)], [b"{", "refused"]))
def test_all_ways_answer_the_same(asked: Asked) -> None:
    assert ask(LEAN, asked) == ask(LAYERED, asked) == ask(FASTAPIS, asked)


@pytest.mark.parametrize("content_type", [*TYPES, None])
def test_both_ways_take_the_same_bodies_for_json(content_type: bytes | None) -> None:
    fields = [] if content_type is None else [(b"content-type", content_type)]
    asked = post(VALID)._replace(headers=fields)
    assert ask(LEAN, asked) == ask(FASTAPIS, asked)


@pytest.mark.parametrize("asked", SERVED, ids=str)
def test_a_valid_request_takes_the_lean_way(asked: Asked) -> None:
    WAYS.clear()
    assert ask(LEAN, asked) == ask(LAYERED, asked) == ask(FASTAPIS, asked)
    assert WAYS == ["lean", "past its layers", "FastAPI's"]


async def yielding() -> AsyncGenerator[str]:
    yield "x"


def not_async() -> str:
    return "x"


def scopes(scopes: SecurityScopes) -> str:
    return scopes.scope_str


async def awaited() -> str:
    return "x"


async def with_body(body: Thing) -> Thing:
    return body


class Method:
    async def call(self) -> str:
        return "x"


class Filters(BaseModel):
    limit: int = 1


async def returns_model(request: Request) -> Thing:
    return Thing(name=request.method)


async def returns_anything(request: Request):  # type: ignore[no-untyped-def] # noqa: ANN201
    return Response(request.method)


async def returns_nothing() -> None:
    return None


async def returns_one_of_two() -> Response | None:
    return Response()


async def streams() -> AsyncGenerator[str]:
    yield "x"


def blocks() -> Response:
    return Response()


def taking(annotation: Any, default: Any = ...) -> Callable[..., Any]:
    """Return an endpoint with one parameter."""

    async def endpoint(x: Any = default) -> Response:
        return JSONResponse(re.sub("0x[0-9a-f]+", "", repr(x)))

    if default is ...:
        endpoint.__defaults__ = None
    endpoint.__annotations__["x"] = annotation
    return endpoint


GENERAL: dict[str, Callable[..., Any]] = {
    "a sync endpoint": blocks,
    "a stream": streams,
    "a model as the answer": returns_model,
    "no promise": returns_anything,
    "nothing, and not 204": returns_nothing,
    "perhaps nothing": returns_one_of_two,
    "an endpoint that is no function": partial(taking(int), x=1),
    "a dependency that yields": taking(Annotated[str, Depends(yielding)]),
    "a sync dependency": taking(Annotated[str, Depends(not_async)]),
    "a class": taking(Annotated[Method, Depends(Method)]),
    "a method": taking(Annotated[str, Depends(Method().call)]),
    "a partial": taking(Annotated[str, Depends(partial(awaited))]),
    "a dependency with a body": taking(Annotated[Thing, Depends(with_body)]),
    "a dependency with a scope": taking(Annotated[str, Depends(awaited, scope="request")]),
    "security scopes": taking(Annotated[str, Security(awaited, scopes=["a"])]),
    "scopes": taking(Annotated[None, Depends(scopes)]),
    "a response": taking(Response),
    "background tasks": taking(BackgroundTasks),
    "a cookie": taking(Annotated[str | None, Cookie()], None),
    "a list": taking(Annotated[list[int], Query()]),
    "perhaps a list": taking(Annotated[list[int] | None, Query()], None),
    "a model of the query": taking(Annotated[Filters, Query()]),
    "JSON in the query": taking(Annotated[Json[int], Query()]),
    "a header of several values": taking(Annotated[list[str], Header()]),
    "any type": taking(Annotated[Any, Query()], 1),
    "a default that is made": taking(Annotated[str, Query(default_factory=lambda: "x")]),
    "a default that is validated": taking(Annotated[int, Query(validate_default=True)], "1"),
    "a body that is no model": taking(dict[str, int]),
    "a list of models": taking(list[Thing]),
    "perhaps a model": taking(Thing | None, None),
    "an embedded model": taking(Annotated[Thing, Body(embed=True)]),
    "a part of a body": taking(Annotated[int, Body()]),
}
NOT_GENERAL: dict[str, Callable[..., Any]] = {
    "a request": taking(Request),
    "a UUID": taking(UUID),
    "perhaps a number": taking(int | None, None),
    "a choice": taking(Literal["a", "b"], "a"),
    "an enumeration": taking(Annotated[Shade, Query(alias="other")], Shade.DARK),
    "a header": taking(Annotated[str, Header(alias="X-A")], "x"),
    "a model": taking(Thing),
    "a body of another type": taking(Annotated[Thing, Body(media_type="application/x")]),
    "an async dependency": taking(Annotated[str, Depends(awaited)]),
    "what the lifespan opened": taking(Annotated[Any, Depends(Opened("things"))]),
    "a guard": taking(Annotated[Any, Depends(guard)]),
}
ODD = [
    get(path="/x"),
    get(b"x=1&x=2&limit=3", "/x"),
    post(VALID, path="/x"),
    post({"x": VALID}, path="/x"),
    post([VALID], path="/x"),
    post({"x": 1}, path="/x"),
]


def both_with(endpoint: Callable[..., Any]) -> list[FastAPI]:
    """Return applications with one route, of this class and of FastAPI's."""
    add = partial(APIRouter.add_api_route, path="/x", endpoint=endpoint, methods=["GET", "POST"], response_model=None)
    return [build(LeanRoute, add), build(APIRoute, add)]


@pytest.mark.parametrize("name", GENERAL)
def test_what_is_unusual_goes_the_way_of_fastapi(name: str) -> None:
    apps = both_with(GENERAL[name])
    route = apps[0].routes[-1]
    assert isinstance(route, LeanRoute)
    assert why_not_lean(route) is not None
    assert not isinstance(route.get_route_handler(), Lean)
    for asked in ODD:
        assert ask(apps[0], asked) == ask(apps[1], asked)


@pytest.mark.parametrize("name", NOT_GENERAL)
def test_what_is_usual_does_not(name: str) -> None:
    apps = both_with(NOT_GENERAL[name])
    route = apps[0].routes[-1]
    assert isinstance(route, LeanRoute)
    assert why_not_lean(route) is None
    assert isinstance(route.get_route_handler(), Lean)
    for asked in ODD:
        if name != "a request":
            assert ask(apps[0], asked) == ask(apps[1], asked)


def test_a_wrapper_of_a_generator_is_left_to_fastapi() -> None:
    @wraps(yielding)
    async def wrapped() -> str:
        return "x"

    route = LeanRoute("/x", taking(Annotated[str, Depends(wrapped)]))
    assert why_not_lean(route) == "yielding is not async, or yields"


def included() -> tuple[FastAPI, APIRoute]:
    """Return an application that includes a router with a prefix and a dependency, and its route."""
    router = APIRouter(route_class=LeanRoute)

    @router.get("/word")
    async def word(request: Request, said: Annotated[str, Depends(awaited)]) -> Response:
        return answer(request, said)

    app = FastAPI()
    app.include_router(router, prefix="/a", dependencies=[Depends(once)])
    route = router.routes[0]
    assert isinstance(route, APIRoute)
    return app, route


def test_a_router_brings_its_dependencies() -> None:
    WAYS.clear()
    assert TestClient(included()[0]).get("/a/word").json() == ["'x'", "once"]
    assert WAYS == ["lean"]


def test_a_dependency_is_overridden_and_set_back() -> None:
    app, _ = included()
    WAYS.clear()
    client = TestClient(app)
    client.get("/a/word")
    app.dependency_overrides[awaited] = lambda: "y"
    assert client.get("/a/word").json() == ["'y'", "once"]
    app.dependency_overrides.clear()
    assert client.get("/a/word").json() == ["'x'", "once"]
    assert WAYS == ["lean", "FastAPI's", "lean"]


def test_a_dependency_that_is_added_later_is_called() -> None:
    async def refuse() -> None:
        raise HTTPException(403)

    app = build(LeanRoute)
    for route in app.routes:
        if isinstance(route, LeanRoute):
            added = get_parameterless_sub_dependant(depends=Depends(refuse), path=route.path)
            route.dependant.dependencies.append(added)
    for asked in SERVED:
        assert ask(app, asked)[0]["status"] == 403


@pytest.mark.parametrize("name", ["solve_dependencies", "run_endpoint_function"])
def test_an_agent_sees_each_request(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some agents replace a function of FastAPI, after the routes are made or before."""
    seen: list[str] = []
    original: Callable[..., Any] = vars(routing)[name]

    async def spy(**options: Any) -> Any:
        seen.append(name)
        return await original(**options)

    monkeypatch.setattr(routing, name, spy)
    assert ask(LEAN, SERVED[0]) == ask(FASTAPIS, SERVED[0])
    assert len(seen) == 2


@pytest.mark.parametrize(
    "target",
    [
        "starlette.middleware.exceptions.ExceptionMiddleware.__call__",
        "fastapi.middleware.asyncexitstack.AsyncExitStackMiddleware.__call__",
        "starlette.routing.Router.__call__",
        "fastapi.routing.APIRouter.app",
        "fastapi.routing.APIRoute.handle",
        "starlette.routing.Route.handle",
    ],
)
def test_an_agent_in_a_layer_sees_each_request(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, _, name = target.rpartition(".")
    original: Callable[..., Any] = getattr(pkgutil.resolve_name(owner), name)
    seen: list[object] = []

    async def spy(self: Any, scope: Any, receive: Any, send: Any) -> None:
        seen.append(self)
        await original(self, scope, receive, send)

    monkeypatch.setattr(target, spy)
    assert ask(layered(build(LeanRoute)), SERVED[0]) == ask(FASTAPIS, SERVED[0])
    assert seen


def wrap_the_application(route: LeanRoute) -> None:
    application = route.app

    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        WAYS.append("wrapped")
        await application(scope, receive, send)

    route.app = wrapper


def wrap_the_handler(route: LeanRoute) -> None:
    handle = route.handle

    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        WAYS.append("wrapped")
        await handle(scope, receive, send)

    route.handle = wrapper  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [wrap_the_application, wrap_the_handler])
def test_what_is_around_a_route_sees_each_request(change: Callable[[LeanRoute], None]) -> None:
    app = layered(build(LeanRoute))
    for route in app.routes:
        if isinstance(route, LeanRoute):
            change(route)
    WAYS.clear()
    ask(app, SERVED[0])
    assert WAYS == ["wrapped", "lean"]


def with_a_bound(app: FastAPI) -> None:
    for route in app.routes:
        if isinstance(route, LeanRoute):
            route.max_body_size = 1000


def with_limits_of_forms(app: FastAPI) -> None:
    app.router.form_limits = {"max_files": 1}


def with_a_layer(app: FastAPI) -> None:
    app.router.middleware_stack = partial(app.router.app)


def behind_what_nobody_predicts(app: FastAPI) -> None:
    app.router.routes.insert(0, Host("other", app=FastAPI()))


@pytest.mark.parametrize("change", [with_a_bound, with_limits_of_forms, with_a_layer, behind_what_nobody_predicts])
def test_what_fastapi_does_for_a_route_is_left_to_it(change: Callable[[FastAPI], None]) -> None:
    app = layered(build(LeanRoute))
    change(app)
    WAYS.clear()
    ask(app, SERVED[0])
    assert WAYS == ["lean"]


def test_the_first_route_that_matches_serves_a_request() -> None:
    """Also one that was added while requests came, or one that takes any method."""
    app = layered(build(LeanRoute))
    ask(app, SERVED[0])

    async def other(_: Request) -> Response:
        return Response("other")

    app.router.routes.insert(0, Route("/things", other))
    WAYS.clear()
    assert ask(app, SERVED[0])[1]["body"] == b"other"
    assert ask(app, SERVED[3]) == ask(LEAN, SERVED[3])
    app.router.routes.insert(0, Mount("/things", Response("mounted")))
    assert ask(app, SERVED[2])[1]["body"] == b"mounted"
    assert WAYS == ["past its layers", "lean"]


def test_an_error_is_handled_once_and_with_the_body() -> None:
    app = layered(build(LeanRoute, fails_after_reading))

    @app.exception_handler(KeyError)
    async def tell(request: Request, _: KeyError) -> Response:
        return Response(await request.body(), 409)

    CALLS.clear()
    assert [message.get("body", message.get("status")) for message in ask(app, post(VALID, path="/x"))] == [
        409,
        json.dumps(VALID).encode(),
    ]
    assert CALLS == ["x"]


CALLS: list[str] = []


def fails_after_reading(router: APIRouter) -> None:
    @router.post("/x")
    async def endpoint(body: Thing) -> Response:
        CALLS.append("x")
        raise KeyError(body.name)


def test_another_release_of_fastapi_serves_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(limit_concurrency=10, max_body_bytes=1000, max_waiting=10)
    service.include_router(APIRouter(route_class=LeanRoute))
    monkeypatch.setattr(fastapi, "__version__", "0.999.0")
    app, route = included()
    service.include_router(app.router)
    WAYS.clear()
    with lines_of("app.highload.lean", level=logging.WARNING) as lines, TestClient(service) as client:
        client.get("/a/word")
    assert WAYS == ["FastAPI's"]
    assert why_not_lean(route) == "it was tested with FastAPI 0.165.*, and this is 0.999.0"
    assert len(lines) == 1
    assert "0.999.0" in lines[0]


def test_a_dependency_is_not_called_twice() -> None:
    """Not even when the request turns out to be wrong."""
    calls: list[str] = []

    async def count() -> None:
        calls.append("x")

    def declare(router: APIRouter) -> None:
        @router.get("/x", dependencies=[Depends(count)])
        async def endpoint(x: Annotated[int, AfterValidator(no_odd)]) -> Response:
            return Response()

    app = build(LeanRoute, declare)
    for query in (b"x=2", b"x=3", b"x=7", b""):
        ask(app, get(query, "/x"))
        assert calls == ["x"]
        calls.clear()


def test_what_telemetry_looks_at_is_served_by_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.highload.lean.telemetry_of", TelemetryData)
    WAYS.clear()
    ask(LEAN, SERVED[0])
    assert WAYS == ["FastAPI's"]
