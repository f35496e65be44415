"""The lean way past FastAPI's own layers, for a valid request to a `LeanRoute`."""

from collections.abc import Callable, Collection
from operator import is_
from typing import Any, NamedTuple, cast

from fastapi import APIRouter, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.highload.lean import LEFT, Handler, Lean, LeanRoute
from app.highload.replaced import is_own

# Routes whose `matches` is one of these are chosen by their path and method alone.
MATCHES = (APIRoute.matches, Route.matches, Mount.matches)
# A response of these is sent at once, and nothing of a user's runs meanwhile.
PLAIN = (Response, JSONResponse)
# What a request to a route passes otherwise.
PASSED = (
    (ExceptionMiddleware, "__call__"),
    (AsyncExitStackMiddleware, "__call__"),
    (APIRouter, "__call__"),
    (APIRouter, "app"),
    (LeanRoute, "handle"),
)


class Candidate(NamedTuple):
    """A route that may answer a request; it takes any method if `methods` is empty."""

    match: Callable[[str], object]
    methods: Collection[str]
    route: BaseRoute
    lean: Lean | None


class LeanLayer:
    """ASGI middleware right before FastAPI's own layers, which answers a valid request to a `LeanRoute` without them.

    Those prepare for exceptions, for dependencies with `yield` and for uploads, of which such a request has none. Each
    refusal, each error and all other requests pass them. So does everything if somebody has put himself into them.
    """

    def __init__(self, app: ASGIApp, router: APIRouter) -> None:
        self._app = app
        self._router = router
        self._known: list[BaseRoute] = []
        self._candidates: list[Candidate] = []
        self._fixed: dict[tuple[str, str], Candidate | None] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        lean = self.find(scope) if scope["type"] == "http" and LEFT not in scope else None
        if lean is None:
            await self._app(scope, receive, send)
            return
        received = Received(receive)
        response = await answer_to(Request(scope, received, send), lean)
        if response is not None:
            await response(scope, receive, send)
        else:
            await self._app(scope, received.again, send)

    def find(self, scope: Scope) -> Lean | None:
        """Return what serves the route of a request the lean way, and put that into the scope as the router does."""
        routes = self._router.routes
        if len(routes) != len(self._known) or not all(map(is_, routes, self._known)):
            self._look_at([*routes])
        method: str = scope["method"]
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        found = self._fixed[method, path] if (method, path) in self._fixed else self._first(method, path)
        if found is None or found.lean is None:
            return None
        match, child_scope = found.route.matches(scope)
        if match is not Match.FULL:
            return None
        scope.setdefault("router", self._router)
        scope.update(child_scope)
        return found.lean

    def _first(self, method: str, path: str) -> Candidate | None:
        for candidate in self._candidates:
            if candidate.match(path) and (not candidate.methods or method in candidate.methods):
                return candidate
        return None

    def _look_at(self, routes: list[BaseRoute]) -> None:
        self._known = routes
        self._candidates = candidates_among(routes) if is_usual(self._router) else []
        self._fixed = {
            (method, candidate.route.path): self._first(method, candidate.route.path)
            for candidate in self._candidates
            if isinstance(candidate.route, Route) and "{" not in candidate.route.path
            for method in candidate.methods
        }


class Received:
    """A `receive` that FastAPI can ask again for what was received already."""

    __slots__ = ("_messages", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def __call__(self) -> Message:
        """Receive a message."""
        message = await self._receive()
        self._messages.append(message)
        return message

    async def whole(self) -> bool:
        """Receive a body to its end, and tell whether the client has sent all of it."""
        message = await self()
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await self()
        return bool(message["type"] == "http.request")

    def holds(self, byte: bytes) -> bool:
        """Whether a byte is in what was received."""
        return any(byte in message["body"] for message in self._messages if "body" in message)

    async def again(self) -> Message:
        """Receive a message that was received before, or else the next one."""
        return self._messages.pop(0) if self._messages else await self._receive()


async def answer_to(request: Request, lean: Lean) -> Response | None:
    """Return the answer to a request, or None where FastAPI has to give it, which goes on from there."""
    result: Response | Handler
    try:
        result = await lean.answer(request)
    except Exception as error:  # noqa: BLE001 - FastAPI's layers handle it
        result = raising(error)
    if type(result) in PLAIN and cast(Response, result).background is None:
        return cast(Response, result)
    request.scope[LEFT] = result
    return None


def raising(error: Exception) -> Handler:
    """Return what raises an error where FastAPI handles it."""

    async def fail(_: Request) -> Response:
        raise error

    return fail


def is_usual(router: APIRouter) -> bool:
    """Whether a request that comes to a router passes nothing but FastAPI's own layers."""
    return (
        type(router) is APIRouter
        and router.middleware_stack == router.app
        and router.form_limits == APIRouter().form_limits
        and all(is_own(kind, name) for kind, name in PASSED)
    )


def candidates_among(routes: Collection[BaseRoute]) -> list[Candidate]:
    """Return the routes that may answer a request, in their order; none behind one that nobody can predict."""
    candidates: list[Candidate] = []
    for route in routes:
        if isinstance(route, WebSocketRoute):
            continue
        if type(route).matches not in MATCHES or not isinstance(route, Route | Mount):
            break
        methods = (route.methods or ()) if isinstance(route, Route) else ()
        candidates.append(Candidate(route.path_regex.match, methods, route, lean_of(route)))
    return candidates


def lean_of(route: BaseRoute) -> Lean | None:
    """Return what serves a route the lean way, unless something else is around that."""
    if type(route) is not LeanRoute or route.app is not route.app_as_made or route.max_body_size is not None:
        return None
    changed: Any = vars(route)
    return None if "handle" in changed or "matches" in changed else route.lean
