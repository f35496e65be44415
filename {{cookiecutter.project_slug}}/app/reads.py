"""Reads: identical concurrent GETs share one trip, and one cached answer."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode
from uuid import UUID
from weakref import WeakValueDictionary

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import crud
from app.answers import OK, Answer, RawHeader, answer_of
from app.batching import Batcher, Overloaded, Ticket

# {%- if cookiecutter.caching +%}
from app.cache import Found, ResponseCache

# {%- endif +%}
from app.db import Database, DatabaseUnavailable
from app.pagination import Position, encode_cursor
from app.problems import overloaded

MAX_IDS = 500
# Bytes; longer ones are nobody's page, and would fill the memory.
LONGEST_REMEMBERED_QUERY = 256
NOT_MODIFIED = 304
READS = "reads"

# Requests with one of these may get an answer of their own; the last two announce a body.
PERSONAL_REQUEST_HEADERS = frozenset([b"authorization", b"cookie", b"origin", b"content-length", b"transfer-encoding"])

MISS = (b"x-cache", b"miss")
SHARED = (b"x-cache", b"shared")
BYPASS = (b"x-cache", b"bypass")
# {% if cookiecutter.caching %}
HIT = (b"x-cache", b"hit")
# {% endif %}


class ItemReader:
    """Reads items from the database."""

    def __init__(self, database: Database, *, max_waiting: int) -> None:
        self._database = database
        self._by_id = Batcher(
            self._select_batch, max_batch=MAX_IDS, max_waiting=max_waiting, outages=(DatabaseUnavailable,)
        )

    async def one(self, item_id: UUID) -> crud.ItemRow | None:
        """Return an item, or None when there is none; all ids that wait share one SELECT."""
        return await self._by_id(item_id)

    async def page(self, *, limit: int, after: Position | None) -> tuple[Sequence[crud.ItemRow], str | None]:
        """Return up to `limit` items, newest first, and the cursor of the page that follows, if one does."""
        rows = await self._database.read(partial(crud.list_items, limit=limit + 1, after=after))
        if len(rows) <= limit:
            return rows, None
        last = rows[limit - 1]
        return rows[:limit], encode_cursor(Position(last.created_at, last.id))

    async def _select_batch(self, ids: Sequence[UUID]) -> Sequence[crud.ItemRow | None]:
        found = await self._database.read(partial(crud.get_items, ids=ids))
        return [found.get(item_id) for item_id in ids]


class Shared(NamedTuple):
    """An answer, and how this request came by it."""

    answer: Answer
    cache_status: RawHeader


class SharedReads:
    """ASGI middleware that runs the application once for all identical GETs that wait at the same time.

    `routes` maps the paths that may be shared to their query parameters; `/*` at the end stands for one segment.
    Other parameters do not reach the key, as they do not change the answer. Requests with credentials pass by.

    Answers get an `ETag` and heed `If-None-Match` (RFC 9110, section 13), and say in `X-Cache` where they come from.

    The server finds it in the state of the lifespan, so that it can get answers without a run of the application.
    """

    def __init__(self, app: ASGIApp, routes: Mapping[str, tuple[str, ...]], *, max_waiting: int) -> None:
        self._app = app
        self._routes = routes
        self._max_waiting = max_waiting
        # A batcher lives as long as its trips.
        self._renders = WeakValueDictionary[tuple[str, bytes | None], Batcher[Scope, Shared]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            scope["state"][READS] = self
        if scope["type"] != "http" or self._parameters_of(scope) is None:
            await self._app(scope, receive, send)
            return
        key = self.key_of(scope)
        if key is None:
            await self._app(scope, receive, partial(send_with_header, send, BYPASS))
            return
        answer = await self._answer(key, scope)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    def key_of(self, scope: Scope) -> str | None:
        """Return what is the same in all requests that may share an answer, or None where none may."""
        parameters = self._parameters_of(scope)
        if parameters is None or is_personal(scope):
            return None
        path: str = scope["path"]
        query: bytes = scope["query_string"]
        if not query or not parameters:
            return path
        select = declared_parameters if len(query) > LONGEST_REMEMBERED_QUERY else remembered_parameters
        declared = select(query, parameters)
        # The path is decoded and may hold any character, the encoded parameters hold no space.
        return f"{declared} {path}" if declared else path

    def _parameters_of(self, scope: Scope) -> tuple[str, ...] | None:
        """Return the declared parameters of a path whose answers may be shared."""
        if scope["method"] != "GET":
            return None
        path: str = scope["path"]
        parameters = self._routes.get(path)
        if parameters is None and not path.endswith("/"):
            return self._routes.get(path[: path.rfind("/")] + "/*")
        return parameters

    def board(self, key: str, scope: Scope, ticket: Ticket[Shared]) -> None:
        """Let the next trip for a key leave its answer in a ticket.

        Raises Overloaded at once when too many wait already.
        """
        # {% if cookiecutter.caching %}
        cache: ResponseCache | None = scope["state"]["cache"]
        if cache is not None:
            cache.board(key, LookUp(self, key, scope, ticket))
            return
        # {% endif %}
        self.render(key, None, scope, ticket)

    def render(self, key: str, generation: bytes | None, scope: Scope, ticket: Ticket[Shared]) -> None:
        """Let the next run of the application for a key and generation leave its answer in a ticket.

        Raises Overloaded at once when too many wait already.
        """
        flight = self._renders.get((key, generation))
        if flight is None:
            render = Render(self._app, key, generation)
            flight = Batcher(render.send, max_batch=self._max_waiting, max_waiting=self._max_waiting)
            self._renders[key, generation] = flight
        flight.board(scope, ticket)

    async def _answer(self, key: str, scope: Scope) -> Answer:
        shared: asyncio.Future[Shared] = asyncio.get_running_loop().create_future()
        try:
            self.board(key, scope, shared)
            return heed_conditions(scope, await shared)
        except Overloaded:
            return Answer.of(overloaded())


# {% if cookiecutter.caching %}
class LookUp:
    """The ticket of a look-up: what is not kept is rendered."""

    def __init__(self, reads: SharedReads, key: str, scope: Scope, ticket: Ticket[Shared]) -> None:
        self._reads = reads
        self._key = key
        self._scope = scope
        self._ticket = ticket

    def done(self) -> bool:
        """Tell whether nobody waits for the answer any more."""
        return self._ticket.done()

    def set_result(self, found: Found) -> None:
        """Pass the kept answer on, or get one."""
        if found.answer is not None:
            self._ticket.set_result(Shared(found.answer, HIT))
            return
        try:
            self._reads.render(self._key, found.generation, self._scope, self._ticket)
        except Overloaded as error:
            self.set_exception(error)

    def set_exception(self, exception: Exception) -> None:
        """Pass the reason on."""
        self._ticket.set_exception(exception)

    def cancel(self) -> None:
        """Pass it on that there will be no answer."""
        self._ticket.cancel()


# {% endif %}
class Render:
    """Runs the application for one key.

    Callers with the same generation may share an answer that is finished already: no write was acknowledged between
    the reading of that generation, which came before the database was asked, and their own look-up.
    """

    def __init__(self, app: ASGIApp, key: str, generation: bytes | None) -> None:
        self._app = app
        self._key = key
        self._generation = generation
        self._finished: Answer | None = None

    async def send(self, scopes: Sequence[Scope]) -> Sequence[Shared]:
        """Return an answer for each request."""
        if self._finished is not None:
            return [Shared(self._finished, SHARED)] * len(scopes)
        answer = await answer_of(self._app, scopes[0])
        if answer.personal:
            others = [await answer_of(self._app, scope) for scope in scopes[1:]]
            return [Shared(own, BYPASS) for own in [answer, *others]]
        # {% if cookiecutter.caching %}
        if self._generation is not None and answer.status == OK:
            await scopes[0]["state"]["cache"].keep(self._key, answer, self._generation)
            self._finished = answer
        # {% endif %}
        return [Shared(answer, MISS), *[Shared(answer, SHARED)] * (len(scopes) - 1)]


def heed_conditions(scope: Scope, shared: Shared) -> Answer:
    """Return what a request gets of a shared answer, which may be that it has not changed."""
    (status, headers, body), cache_status = shared
    if status == OK:
        for name, value in scope["headers"]:
            if name == b"if-none-match" and matches(value, headers[0][1]):
                return Answer(NOT_MODIFIED, [headers[0], cache_status], b"")
    return Answer(status, [*headers, cache_status], body)


def is_personal(scope: Scope) -> bool:
    """Whether the answer may be meant for this client only."""
    return not PERSONAL_REQUEST_HEADERS.isdisjoint([name for name, _ in scope["headers"]])


def declared_parameters(query: bytes, names: tuple[str, ...]) -> str:
    """Return the parameters with these names in canonical form and order; of several with one name the last counts."""
    given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    return urlencode([(name, given[name]) for name in names if name in given])


remembered_parameters = lru_cache(maxsize=1024)(declared_parameters)


async def send_with_header(send: Send, header: RawHeader, message: Message) -> None:
    """Send a message, with one more header if it starts a response."""
    if message["type"] == "http.response.start":
        message = {**message, "headers": [*message["headers"], header]}
    await send(message)


def matches(if_none_match: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match header names this entity tag (weak comparison, RFC 9110, section 13.1.2)."""
    if if_none_match.strip() == b"*":
        return True
    return any(tag.strip().removeprefix(b"W/") == etag for tag in if_none_match.split(b","))
