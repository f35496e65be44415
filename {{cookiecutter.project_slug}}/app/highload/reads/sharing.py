"""Shared reads: identical concurrent GETs share one run of the application, and one cached answer."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from weakref import WeakValueDictionary

from fastapi import FastAPI
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from app.highload.batching import Batcher, Flushes, Overloaded, Waiter

# {%- if cookiecutter.caching +%}
from app.highload.generations import NO_KEY, Announced, listen, unnamed

# {%- endif +%}
from app.highload.lean_layer import LeanLayer, answer_to
from app.highload.logs import REQUEST_ID
from app.highload.metrics.instruments import Counter, counter
from app.highload.metrics.refusals import WAITING
from app.highload.pagination import CURSOR, link_to_next, listen_for_pages
from app.highload.reads.answers import LINK, OK, Answer, RawHeader, answer_of, finished

# {%- if cookiecutter.caching +%}
from app.highload.reads.cache import Found, ResponseCache

# {%- endif +%}
from app.highload.reads.dependencies import GRANTED, Granted, Guard
from app.highload.reads.shared import CREDENTIALS, SharedRoute, SharedRoutes

# {%- if cookiecutter.observability +%}
from app.highload.tracing.spans import follow, serve_route

# {%- endif +%}

logger = logging.getLogger(__name__)

# Bytes; longer ones are nobody's page, and would fill the memory.
LONGEST_REMEMBERED_QUERY = 256
# In the scope of a request that must not be shared, because its answer turned out to be for one client only.
ALONE = "highload.alone"
# Characters; what has a longer key is not shared, so that no client can make a round trip to the cache large.
LONGEST_KEY = 1024
NOT_MODIFIED = 304
FIRST_ERROR = 400

# Where an answer comes from, as the header field that says so.
MISS = ((b"x-cache", b"miss"),)
SHARED = ((b"x-cache", b"shared"),)
BYPASS = ((b"x-cache", b"bypass"),)
# {% if cookiecutter.caching %}
HIT = ((b"x-cache", b"hit"),)
# {% endif %}

CACHE_CONTROL = b"cache-control"
# What others may do with an answer (RFC 9111, section 5.2.2): keep it and ask before each use, as its tag allows; the
# same, but for the client that asked alone; nothing.
ASK_BEFORE_USE = b"no-cache"
PRIVATE = b"private, no-cache"
NO_STORE = b"no-store"
# What a 304 says of the answer that it stands for (RFC 9110, section 15.4.5).
OF_NOT_MODIFIED = frozenset([b"etag", CACHE_CONTROL, b"content-location", b"expires", b"vary"])

# Ways in which a request may come by its answer.
OUTCOMES = (
    # {% if cookiecutter.caching %}
    HIT,
    # {% endif %}
    MISS,
    SHARED,
    BYPASS,
)
RUNS = Flushes("run")

# Their exception handlers answer all clients alike.
KNOWN_PACKAGES = ("fastapi.", __name__.partition(".reads.")[0])

type Grants = Mapping[Guard, Granted]
NO_GRANTS: Grants = {}


def leave(_: Scope) -> None:
    """Leave a scope as it is."""


# What a waiter gets: an answer, and how its request came by that. None means that the application has to run for its
# request alone.
type Outcome = tuple[Answer, Sequence[RawHeader]] | None


class Read(NamedTuple):
    """A request that may share an answer with all that have the same key."""

    route: SharedRoute
    key: str
    grants: Grants
    scope: Scope


class SharedReads:
    """Runs the application once for all identical GETs that wait at the same time.

    Which routes are shared, and what makes their keys, the routes themselves say (`shared`). The application runs for
    a canonical request, made of the key and nothing else: no other header, no cookie, no client address, the host of
    `public_url`. So an answer cannot depend on what is not in its key.

    Answers get an `ETag` and heed `If-None-Match` (RFC 9110, section 13). `Cache-Control` says what others may do with
    them, `X-Cache` where they come from, and `Link` which page follows.
    """

    def __init__(
        self,
        service: FastAPI,
        *,
        public_url: str,
        max_waiting: int,
        refusal: Response,
        checks_credentials: bool = False,
    ) -> None:
        self._service = service
        # Whether whoever is let in may read, whatever its credentials are.
        self._checks_credentials = checks_credentials
        self._max_waiting = max_waiting
        # The answer to a read behind which too many wait already.
        self.refusal = Answer.of(refusal).with_default(CACHE_CONTROL, NO_STORE)
        url = urlsplit(public_url)
        self._scheme = url.scheme
        self._host = url.netloc.encode()
        self._app: ASGIApp
        self.lean: LeanLayer | None
        self._routes: SharedRoutes
        self._errors_may_be_personal: bool
        # What the lifespan yields.
        self.state: dict[str, Any] = {}
        # {% if cookiecutter.caching %}
        self.cache: ResponseCache | None = None
        self._kept_never = set[SharedRoute]()
        # {% endif %}
        # A batcher lives as long as its flushes.
        self._renders = WeakValueDictionary[tuple[str, bytes | None], Batcher[Read, Outcome]]()

    def bind(self, app: ASGIApp) -> None:
        """Share the runs of an application, which is the rest of the service.

        Raises CannotShare.
        """
        self._app = app
        self.lean = app if isinstance(app, LeanLayer) else None
        self._routes = SharedRoutes(self._service.router.routes, checks_credentials=self._checks_credentials)
        for route, path in self._routes.paths.items():
            route.seen.outcomes = counters_of(path)
        handlers = self._service.exception_handlers.values()
        # A handler of a user's sees the request, and may answer each client in another way.
        self._errors_may_be_personal = any(not handler.__module__.startswith(KNOWN_PACKAGES) for handler in handlers)

    @property
    def shared_paths(self) -> Mapping[SharedRoute, str]:
        """The routes that are shared, with their paths."""
        return self._routes.paths

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a GET."""
        route = self._route_of(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        # As the router does, for those who look at it from outside.
        scope.update(endpoint=route.endpoint, route=route.route)
        # {% if cookiecutter.observability %}
        serve_route(self._routes.paths[route])
        # {% endif %}
        read = None if ALONE in scope else await self._read_of(route, scope)
        if read is None or (answer := await self._answer_to(read)) is None:
            route.seen.outcomes[BYPASS].add()
            await self._app(scope, receive, alone(send, scope, route))
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer_to(self, read: Read) -> Answer | None:
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            self.submit(read, waiter)
            outcome = await waiter
        except Overloaded:
            WAITING.add()
            return self.refusal
        if outcome is None:
            return None
        shared, cache_status = outcome
        read.route.seen.outcomes[cache_status].add()
        answer = heed_conditions(read.scope, shared)
        return answer._replace(headers=[*answer.headers, *cache_status])

    def read_at_once(self, scope: Scope, see_client: Callable[[Scope], None] = leave) -> Read | None:
        """Return the read that a request is, or None where it is none or that cannot be told without waiting.

        Guards are asked when `see_client` has put the client into the scope.
        """
        route = self._route_of(scope)
        if route is None:
            return None
        if not route.guards:
            return self._read(route, NO_GRANTS, scope)
        if any(guard.waits for guard in route.guards):
            return None
        scope["app"] = self._service
        see_client(scope)
        try:
            grants = {guard: guard.ask_at_once(HTTPConnection(scope)) for guard in route.guards}
        except Exception:  # noqa: BLE001 - the application asks again, and answers
            return None
        return self._read(route, grants, scope)

    def submit(self, read: Read, waiter: Waiter[Outcome]) -> None:
        """Let the next look-up or run for a read give its answer to a waiter.

        Raises Overloaded at once when too many wait already.
        """
        # {% if cookiecutter.observability %}
        # A look-up in between belongs to nobody.
        waiter = follow(waiter)
        # {% endif %}
        # {% if cookiecutter.caching %}
        if self.cache is not None:
            self.cache.submit((read.key, read.route.places(read.scope)), LookUp(self, read, waiter))
            return
        # {% endif %}
        self.render(read, None, waiter)

    def render(self, read: Read, generation: bytes | None, waiter: Waiter[Outcome]) -> None:
        """Let the next run of the application for a read and a generation give its answer to a waiter.

        Raises Overloaded at once when too many wait already.
        """
        flight = self._renders.get((read.key, generation))
        if flight is None:
            render = Render(self, generation)
            flight = Batcher(
                render.send,
                max_batch=self._max_waiting,
                max_waiting=self._max_waiting,
                flushes=RUNS,
            )
            self._renders[read.key, generation] = flight
        flight.submit(read, waiter)

    # {% if cookiecutter.caching %}
    def may_keep(self, read: Read, reads: set[Announced]) -> bool:
        """Tell whether a run has read only what its route names; the log says once of a route that it has not."""
        if NO_KEY in reads:
            return False
        table = unnamed(reads, read.route.places(read.scope))
        if table is not None and read.route not in self._kept_never:
            self._kept_never.add(read.route)
            logger.error(
                "GET %s reads %s and does not say so, so its answers are not kept: add it to reads=[...] of @shared.",
                read.route.route.path,
                table,
            )
        return table is None

    # {% endif %}
    async def run(self, read: Read) -> Answer | None:
        """Return the answer of the application to the canonical request of a read.

        Return None when it may differ from what the application answers to one of the requests themselves.
        """
        scope = self._canonical_scope(read)
        # It belongs to no client, so it has an id of its own, which the answer to an error names.
        REQUEST_ID.set(uuid7().hex)
        pages = listen_for_pages()
        try:
            answer = await self._answer_of(scope)
        except Exception as error:  # noqa: BLE001 - it is logged with its answer
            answer = await self._answer_to_error(error, scope)
        # A route that was added later may have taken the place of the one that the key was made for.
        foreseen = scope.get("endpoint") is read.route.endpoint
        if not foreseen or answer.is_personal(read.route.headers):
            return None
        if answer.status >= FIRST_ERROR and self._errors_may_be_personal:
            return None
        if answer.status == OK and (link := next_page(read.route, pages, scope["query_string"])):
            answer = answer.with_default(LINK, link)
        return answer.with_default(CACHE_CONTROL, cache_control(read.route, answer.status))

    async def _answer_of(self, scope: Scope) -> Answer:
        lean = self.lean and self.lean.find(scope)
        if lean and (response := await answer_to(Request(scope), lean)):
            return finished(response.status_code, response.raw_headers, bytes(response.body))
        return await answer_of(self._app, scope)

    async def _answer_to_error(self, error: Exception, scope: Scope) -> Answer:
        async def fail(*_: object) -> None:
            raise error

        handlers = self._service.exception_handlers
        handler = handlers.get(500) or handlers.get(Exception)
        # It sends what the service answers to an error, and raises again, for the log.
        return await answer_of(ServerErrorMiddleware(fail, handler, debug=self._service.debug), scope)

    def _route_of(self, scope: Scope) -> SharedRoute | None:
        # A dependency that a test has replaced may ask for anything.
        if scope["method"] != "GET" or self._service.dependency_overrides:
            return None
        path: str = scope["path"]
        root_path: str = scope.get("root_path", "")
        if root_path:
            if not path.startswith(root_path + "/"):
                return None
            path = path[len(root_path) :]
        return self._routes.find(path)

    async def _read_of(self, route: SharedRoute, scope: Scope) -> Read | None:
        if not route.guards:
            return self._read(route, NO_GRANTS, scope)
        try:
            grants = {guard: await guard(HTTPConnection(scope)) for guard in route.guards}
        except Exception:  # noqa: BLE001 - the application asks again, and answers
            return None
        return self._read(route, grants, scope)

    def _read(self, route: SharedRoute, grants: Grants, scope: Scope) -> Read | None:
        """Return a read with its key: what is the same in all requests that may share an answer."""
        headers: list[RawHeader] = scope["headers"]
        if not route.not_shared.isdisjoint(dict(headers)):
            return None
        path: str = scope["path"]
        query = declared_query(route, scope["query_string"])
        if grants or route.headers or scope.get("root_path"):
            partitions = ",".join(quote(grants[guard].partition) for guard in route.guards)
            fields = urlencode([(name, value) for name, value in headers if name in route.headers])
            # The path is decoded and may hold any character, the encoded parts before it hold no space.
            key = f"{quote(scope.get('root_path', ''))} {partitions} {fields} {query} {path}"
        else:
            key = f"{query} {path}" if query else path
        return Read(route, key, grants, scope) if len(key) <= LONGEST_KEY else None

    def _canonical_scope(self, read: Read) -> Scope:
        scope = read.scope
        path: str = scope["path"]
        fields = [(name, value) for name, value in scope["headers"] if name in read.route.headers]
        if b"host" not in read.route.headers:
            fields.insert(0, (b"host", self._host))
        return {
            "type": "http",
            "asgi": scope.get("asgi", {}),
            "http_version": "1.1",
            "method": "GET",
            "scheme": self._scheme,
            "server": None,
            "client": None,
            "root_path": scope.get("root_path", ""),
            "path": path,
            "raw_path": quote(path).encode(),
            "query_string": declared_query(read.route, scope["query_string"]).encode(),
            "headers": fields,
            "state": self.state.copy(),
            "app": self._service,
            GRANTED: {guard: Granted(partition=granted.partition) for guard, granted in read.grants.items()},
        }


class SharedReadsLayer:
    """ASGI middleware: the innermost layer but for FastAPI's own, so that what a user adds runs for each client."""

    def __init__(self, app: ASGIApp, reads: SharedReads) -> None:
        self._app = app
        self._reads = reads
        reads.bind(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http" and scope["method"] == "GET":
            await self._reads.serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)


# {% if cookiecutter.caching %}
class LookUp:
    """The waiter for a look-up: what is not kept is rendered."""

    __slots__ = ("_read", "_reads", "_waiter", "done")

    def __init__(self, reads: SharedReads, read: Read, waiter: Waiter[Outcome]) -> None:
        self._reads = reads
        self._read = read
        self._waiter = waiter
        self.done = waiter.done

    def set_result(self, found: Found) -> None:
        """Pass the kept answer on, or get one."""
        if found.answer is not None:
            self._waiter.set_result((found.answer, HIT))
            return
        try:
            self._reads.render(self._read, found.generation, self._waiter)
        except Overloaded as error:
            self.set_exception(error)

    def set_exception(self, exception: Exception) -> None:
        """Pass the reason on."""
        self._waiter.set_exception(exception)

    def cancel(self) -> None:
        """Pass it on that there will be no answer."""
        self._waiter.cancel()


# {% endif %}
class Render:
    """Runs the application for one key.

    Callers with the same generation may share an answer that is finished already: no write was acknowledged between
    the reading of that generation, which came before the database was asked, and their own look-up.
    """

    def __init__(self, reads: SharedReads, generation: bytes | None) -> None:
        self._reads = reads
        self._generation = generation
        self._finished: Answer | None = None

    async def send(self, reads: Sequence[Read]) -> Sequence[Outcome]:
        """Return an answer for each request, or None for each when they have to run alone."""
        if self._finished is not None:
            return [(self._finished, SHARED)] * len(reads)
        # {% if cookiecutter.caching %}
        read_places = listen()
        # {% endif %}
        answer = await self._reads.run(reads[0])
        if answer is None:
            return [None] * len(reads)
        # {% if cookiecutter.caching %}
        if (
            self._generation is not None
            and self._reads.cache is not None
            and answer.status == OK
            and self._reads.may_keep(reads[0], read_places)
        ):
            await self._reads.cache.keep(reads[0].key, answer, self._generation)
            self._finished = answer
        # {% endif %}
        return [(answer, MISS), *[(answer, SHARED)] * (len(reads) - 1)]


def counters_of(path: str) -> dict[Sequence[RawHeader], Counter]:
    """Return the counters of the answers of a shared route, by how requests came by them."""
    name, meaning = "highload_reads_total", "Answers of shared routes, by X-Cache."
    return {
        outcome: counter(name, meaning, http_route=path, outcome=value.decode())
        for outcome in OUTCOMES
        for _, value in outcome
    }


def heed_conditions(scope: Scope, answer: Answer) -> Answer:
    """Return what a request gets of a shared answer, which may be that it has not changed."""
    if answer.status == OK:
        for name, value in scope["headers"]:
            if name == b"if-none-match" and matches(value, answer.headers[0][1]):
                kept = [field for field in answer.headers if field[0] in OF_NOT_MODIFIED]
                return Answer(NOT_MODIFIED, kept, b"")
    return answer


def declared_query(route: SharedRoute, query: bytes) -> str:
    """Return the declared parameters of a query in canonical form and order."""
    if not query or route.parameters == ():
        return ""
    select = declared_parameters if len(query) > LONGEST_REMEMBERED_QUERY else remembered_parameters
    return select(query, route.parameters)


def declared_parameters(query: bytes, names: tuple[str, ...] | None) -> str:
    """Return the parameters with these names, ordered by name; those of one name keep their order. None means all."""
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    if names is None:
        return urlencode(given)
    return urlencode([(name, value) for name in names for given_name, value in given if given_name == name])


remembered_parameters = lru_cache(maxsize=1024)(declared_parameters)


def cache_control(route: SharedRoute, status: int) -> bytes:
    """Return what others may do with an answer that all who may see it share."""
    if status >= FIRST_ERROR:
        return NO_STORE
    return ASK_BEFORE_USE if route.not_shared >= CREDENTIALS else PRIVATE


def next_page(route: SharedRoute, pages: list[str | None], query: bytes) -> bytes | None:
    """Return the link to the page that follows, for a route with a parameter for it."""
    if not pages or (route.parameters is not None and CURSOR not in route.parameters):
        return None
    link = link_to_next(pages, query.decode("latin-1"))
    return None if link is None else link.encode()


def alone(send: Send, scope: Scope, route: SharedRoute) -> Send:
    """Return what sends an answer that one client gets alone, with what is said of such an answer."""
    pages = listen_for_pages()
    not_modified = False

    async def send_alone(message: Message) -> None:
        nonlocal not_modified
        if message["type"] == "http.response.start":
            status: int = message["status"]
            answer = Answer(status, [(name.lower(), value) for name, value in message["headers"]], b"")
            if status == OK and (link := next_page(route, pages, scope["query_string"])):
                answer = answer.with_default(LINK, link)
            answer = answer.with_default(CACHE_CONTROL, NO_STORE if status >= FIRST_ERROR else PRIVATE)
            not_modified = status == OK and names_tag_of(answer, scope)
            if not_modified:
                fields = [field for field in answer.headers if not field[0].startswith(b"content-")]
                answer = Answer(NOT_MODIFIED, fields, b"")
            message = {**message, "status": answer.status, "headers": [*answer.headers, *BYPASS]}
        elif not_modified:
            message = {**message, "body": b""}
        await send(message)

    return send_alone


def names_tag_of(answer: Answer, scope: Scope) -> bool:
    """Whether a request says that it has this answer, where the application has given it an entity tag."""
    tag = next((value for name, value in answer.headers if name == b"etag"), None)
    return tag is not None and any(name == b"if-none-match" and matches(value, tag) for name, value in scope["headers"])


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match header names this entity tag (weak comparison, RFC 9110, section 13.1.2)."""
    if if_none_match.strip() == b"*":
        return True
    return any(tag.strip().removeprefix(b"W/") == etag for tag in if_none_match.split(b","))
