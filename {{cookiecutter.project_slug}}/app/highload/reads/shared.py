"""Which reads are shared: what `@shared` asks of a route, and what makes the key of its answers.

Everything is read at the start, from the routes as FastAPI has understood them. What cannot be proven to be the same
for all clients is refused with a sentence.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import unwrap
from re import Pattern
from typing import Any, NoReturn, cast, get_args, overload

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from starlette.convertors import PathConvertor, StringConvertor
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.types import Scope

from app.highload.generations import ANYTHING, Source
from app.highload.lean import LeanRoute
from app.highload.lean_layer import MATCHES
from app.highload.metrics.instruments import Counter, KeyedHistograms
from app.highload.reads.dependencies import Guard, Opened, Partition

MARK = "shared_read"
# Routes that are served by one of these take of a request what they declare.
HANDLERS = (APIRoute.get_route_handler, LeanRoute.get_route_handler)

# A request with one of these passes by: it may get an answer of its own, or a part of one, or it announces a body.
NOT_SHARED = frozenset([b"content-length", b"transfer-encoding", b"range"])
# And one with this, unless a guard looks at it, or whoever lets requests in.
CREDENTIALS = frozenset([b"authorization"])


class CannotShare(Exception):
    """A shared route is not proven to answer all clients alike; the message says what to write instead."""


@overload
def shared[F: Callable[..., Any]](function: F, /) -> F: ...


@overload
def shared[F: Callable[..., Any]](*, reads: Collection[Source]) -> Callable[[F], F]: ...


def shared[F: Callable[..., Any]](
    function: F | None = None, /, *, reads: Collection[Source] = (Source(ANYTHING),)
) -> F | Callable[[F], F]:
    """Let equal concurrent GETs of a route share one run of it and, with the cache, its kept answer.

    The answer may depend on the path, on the declared query parameters and headers, on what the lifespan opened
    (`Opened`) and on the partition of a `Guard`. The service does not start when it may depend on anything else.

    A kept answer ends with the next write to what the route `reads`: rows of a resource (`NOTES.rows`), or the one
    whose id is a path parameter (`NOTES.row("note_id")`). Without `reads` it ends with every write.
    """

    def mark(function: F) -> F:
        setattr(function, MARK, tuple(reads))
        return function

    return mark if function is None else mark(function)


class Seen:
    """What is counted of a shared route: answers by where they come from, and the seconds until they are sent."""

    __slots__ = ("durations", "outcomes")

    durations: KeyedHistograms
    outcomes: Mapping[Sequence[tuple[bytes, bytes]], Counter]


@dataclass(frozen=True, slots=True, eq=False)
class SharedRoute:
    """A route whose answers are shared, and what they depend on.

    `parameters` are names in the query, or None for all of it; `headers` are names in lower case. With a header field
    of `not_shared` a request passes by. `sources` are what the route reads, and `fixed_places` the places of that where
    they are the same for all paths.
    """

    route: APIRoute
    endpoint: Callable[..., Any]
    parameters: tuple[str, ...] | None
    headers: tuple[bytes, ...]
    guards: tuple[Guard, ...]
    not_shared: frozenset[bytes]
    pattern: Pattern[str]
    sources: tuple[Source, ...]
    fixed_places: tuple[str, ...] | None
    seen: Seen

    def places(self, scope: Scope) -> tuple[str, ...]:
        """Return what the answer to a request of the route depends on."""
        if self.fixed_places is not None:
            return self.fixed_places
        path: str = scope["path"]
        return places_of_path(self, path.removeprefix(scope.get("root_path", "")))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A route that may answer a GET, in the order in which the router tries them."""

    path: str
    pattern: Pattern[str]
    sample: str
    shared: SharedRoute | None


class SharedRoutes:
    """Finds the shared route that answers a path, as the router would."""

    def __init__(self, routes: Sequence[BaseRoute], *, checks_credentials: bool = False) -> None:
        candidates = list(candidates_among(routes, checks_credentials=checks_credentials))
        refuse_hidden(candidates)
        self._patterns = [(candidate.pattern.match, candidate.shared) for candidate in candidates]
        self.paths = {candidate.shared: candidate.path for candidate in candidates if candidate.shared}
        fixed = [candidate.path for candidate in candidates if candidate.shared and "{" not in candidate.path]
        self._by_path = {path: self._match(path) for path in fixed}

    def find(self, path: str) -> SharedRoute | None:
        """Return the shared route that answers a GET of a path, if one does."""
        return self._by_path[path] if path in self._by_path else self._match(path)

    def _match(self, path: str) -> SharedRoute | None:
        for match, route in self._patterns:
            if match(path):
                return route
        return None


def candidates_among(routes: Sequence[BaseRoute], *, checks_credentials: bool) -> Iterator[Candidate]:
    """Yield the routes that may answer a GET.

    Raises CannotShare for a shared route that is not proven, and for one behind a route that nobody can predict.
    """
    unpredictable: str | None = None
    for context in iter_route_contexts(routes):
        route = context.original_route
        is_shared = hasattr(context.endpoint, MARK)
        if is_shared and unpredictable:
            refuse(context, f"a {unpredictable} before it may answer in its place", "declare the route before that one")
        if is_shared and "GET" not in (context.methods or ()):
            refuse(context, "does not answer GET")
        if isinstance(route, WebSocketRoute):
            continue
        if type(route).matches not in MATCHES:
            unpredictable = type(route).__name__
            continue
        if not isinstance(route, Mount) and context.methods and "GET" not in context.methods:
            continue
        shared_one = shared_route(context, checks_credentials=checks_credentials) if is_shared else None
        yield Candidate(str(context.path), context.path_regex, sample_of(context), shared_one)


def refuse_hidden(candidates: Sequence[Candidate]) -> None:
    """Refuse a shared route that never answers, and a route that never answers because of a shared one."""
    for place, later in enumerate(candidates):
        for earlier in candidates[:place]:
            if (earlier.shared or later.shared) and earlier.pattern.match(later.sample):
                raise CannotShare(
                    f"GET {later.path} is never reached, because {earlier.path} before it also matches its path, and "
                    f"one of the two is shared: declare GET {later.path} first, or take one of them away."
                )


def sample_of(context: RouteContext) -> str:
    """Return a path that stands for all that a route matches: a parameter of text is a word, any other a number."""
    samples = {
        name: "~/~" if isinstance(convertor, PathConvertor) else "~" if isinstance(convertor, StringConvertor) else "1"
        for name, convertor in context.param_convertors.items()
    }
    return str(context.path_format).format(**samples)


def shared_route(context: RouteContext, *, checks_credentials: bool) -> SharedRoute:
    """Return what the answers of a shared route depend on; `checks_credentials` if something does before it is asked.

    Raises CannotShare when that may be more than can be part of a key.
    """
    route = context.original_route
    if not isinstance(route, APIRoute) or type(route).get_route_handler not in HANDLERS:
        refuse(context, f"is a {type(route).__name__}, which may read all of a request", "declare it with an APIRouter")
    if route.is_sse_stream or route.is_json_stream:
        refuse(context, "sends a stream, which has no end to share")
    sources = sources_of(context)
    names: set[str] | None = set()
    headers: set[str] = set()
    guards: dict[Guard, None] = {}
    for dependant in dependants_in(context.dependant):
        call = dependant.call
        if type(call) is Opened:
            continue
        if type(call) is Guard and dependant.name is not None:
            refuse(context, "asks a guard who the client is", "ask for its group with Depends(Partition(guard))")
        if type(call) is Guard or type(call) is Partition:
            guards[call.guard if isinstance(call, Partition) else call] = None
            continue
        refuse_what_is_personal(context, dependant)
        for field in dependant.query_params:
            aliases = aliases_of(field)
            names = None if names is None or aliases is None else names | aliases
        for field in dependant.header_params:
            aliases = aliases_of(field)
            if aliases is None:
                refuse(context, f"asks for headers through {field.name!r}", "declare each header as a parameter")
            headers |= {alias.lower() for alias in aliases}
    return SharedRoute(
        route=route,
        endpoint=route.endpoint,
        parameters=None if names is None else tuple(sorted(names)),
        headers=tuple(sorted(header.encode() for header in headers)),
        guards=tuple(guards),
        not_shared=NOT_SHARED if guards or checks_credentials else NOT_SHARED | CREDENTIALS,
        pattern=context.path_regex,
        sources=sources,
        fixed_places=None if any(source.parameter for source in sources) else places_of(sources, {}),
        seen=Seen(),
    )


def sources_of(context: RouteContext) -> tuple[Source, ...]:
    """Return what a shared route says that it reads.

    Raises CannotShare when it names a parameter that its path does not have.
    """
    sources: tuple[Source, ...] = getattr(context.endpoint, MARK)
    for source in sources:
        if source.parameter is not None and source.parameter not in context.param_convertors:
            refuse(
                context,
                f"reads a row of {source.table} by {source.parameter!r}, which is no parameter of its path",
                "name the parameter as the path does",
            )
    return sources


# To make them anew would be a fifth of what a kept answer costs.
@lru_cache(maxsize=4096)
def places_of_path(route: SharedRoute, path: str) -> tuple[str, ...]:
    """Return what the answers for a path depend on, where a parameter of it says which row."""
    match = route.pattern.match(path)
    return places_of(route.sources, match.groupdict() if match else {})


def places_of(sources: Sequence[Source], parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Return what an answer made of some sources depends on, with the parameters of its path."""
    places: list[str] = []
    for source in sources:
        places += source.places(parameters.get(source.parameter, "") if source.parameter else None)
    return tuple(places)


def dependants_in(dependant: Dependant) -> Iterator[Dependant]:
    """Yield a route's own parameters and those of all its dependencies; what the engine's need is their own affair."""
    yield dependant
    if type(dependant.call) not in (Opened, Guard, Partition):
        for dependency in dependant.dependencies:
            yield from dependants_in(dependency)


def refuse_what_is_personal(context: RouteContext, dependant: Dependant) -> None:
    """Refuse parameters that differ from client to client without being in a key."""
    call = cast(Callable[..., Any], dependant.call)
    name = getattr(call, "__name__", type(call).__name__)
    if isinstance(unwrap(call), SecurityBase) or dependant.security_scopes_param_name:
        refuse(context, f"asks for credentials ({name})", "check them in a Guard (app/highload/README.md)")
    if dependant.cookie_params:
        cookie = dependant.cookie_params[0].alias
        refuse(context, f"asks for the cookie {cookie!r}", "check it in a Guard (app/highload/README.md)")
    if dependant.body_params:
        refuse(context, "asks for a body, which a GET does not have", "ask for query parameters")
    if whole_request := dependant.request_param_name or dependant.http_connection_param_name:
        refuse(
            context,
            f"takes the whole request ({whole_request!r} of {name})",
            "declare the headers and query parameters that it reads, "
            "and take what the lifespan opened with Depends(Opened(...))",
        )
    if dependant.background_tasks_param_name:
        refuse(context, "has background tasks, which would run once for many requests")


def refuse(context: RouteContext, what: str, instead: str | None = None) -> NoReturn:
    """Raise CannotShare."""
    remedies = [instead, "take @shared off"] if instead else ["take @shared off"]
    raise CannotShare(f"GET {context.path} is shared and {what}: {', or '.join(remedies)}.")


def aliases_of(field: Any) -> set[str] | None:
    """Return the names under which a request may give a parameter, or None where they cannot be told."""
    alias = field.field_info.validation_alias
    if has_model(field.field_info.annotation) or not isinstance(alias, str | None):
        return None
    return {field.name, field.alias, *([alias] if alias else [])}


def has_model(annotation: Any) -> bool:
    """Whether a type is a model, whose fields are parameters, or holds one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(has_model, [*get_args(annotation), *filter(None, [getattr(annotation, "__value__", None)])]))
