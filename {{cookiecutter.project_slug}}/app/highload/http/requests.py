"""What is counted of requests, by OpenTelemetry's semantic conventions for HTTP servers.

Each request that gets an answer is counted once, before the answer is sent, wherever that is made: by the application,
by `Admission`, or on the connection. Those to paths that are always let in are not counted: they ask for health and for
the numbers themselves.
"""

from collections.abc import Mapping, Sequence
from re import Pattern

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.types import Scope

from app.highload.metrics.instruments import KeyedHistograms, gauge, keyed_histograms
from app.highload.metrics.refusals import OVERLOAD
from app.highload.reads.shared import SharedRoute

# What no route serves, and what is refused before a route is looked for. A path begins with a slash.
UNMATCHED = "unmatched"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
OTHER_METHOD = "_OTHER"

ACTIVE = gauge("http_server_active_requests", "Requests that have a place now; not while they wait for their client.")
LIMIT = gauge("highload_concurrency_limit", "Places for requests: LIMIT_CONCURRENCY of all workers.")


class Requests:
    """Counts the requests of a service, by method, route and status."""

    def __init__(self) -> None:
        self._unmatched = {method: durations(UNMATCHED, method) for method in (*METHODS, OTHER_METHOD)}
        # By the identity of a function; one that serves several routes has several paths.
        self._of_endpoint: dict[tuple[int, str], list[tuple[Pattern[str], KeyedHistograms]]] = {}
        self._of_mount: dict[tuple[str, str], KeyedHistograms] = {}

    def bind(self, routes: Sequence[BaseRoute], shared: Mapping[SharedRoute, str]) -> None:
        """Tell the routes of the service apart; one that is added later counts as no route.

        `shared` are those that the server answers itself, with their paths.
        """
        for shared_route, its_path in shared.items():
            shared_route.seen.durations = durations(its_path, "GET")
        for context in iter_route_contexts(routes):
            route, path = context.original_route, context.path
            if path is None or isinstance(route, WebSocketRoute):
                continue
            if isinstance(route, Mount):
                self._of_mount |= {(path, method): durations(path, method) for method in METHODS}
                continue
            methods = set(context.methods or METHODS)
            for method in methods | {"HEAD"} if "GET" in methods else methods:
                known = self._of_endpoint.setdefault((id(context.endpoint), method), [])
                known.append((context.path_regex, durations(path, method)))

    def _of(self, endpoint: object, method: str, path: str) -> KeyedHistograms | None:
        known = self._of_endpoint.get((id(endpoint), method), ())
        for pattern, histograms in known:
            if len(known) == 1 or pattern.match(path):
                return histograms
        return None

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that the application has answered."""
        method: str = scope["method"]
        root_path: str = scope.get("root_path", "")
        histograms = self._of(scope.get("endpoint"), method, scope["path"].removeprefix(root_path))
        if histograms is None:
            histograms = self._of_mount.get((root_path.removeprefix(scope.get("app_root_path", "")), method))
        if histograms is None:
            histograms = self._unmatched.get(method) or self._unmatched[OTHER_METHOD]
        histograms.observe(status, seconds)

    def refuse(self, method: str, status: int) -> None:
        """Count a request that is refused for want of places."""
        # These are `add` and `observe` without calls: under overload a worker does little else.
        OVERLOAD.values[OVERLOAD.base] += 1
        histograms = self._unmatched.get(method) or self._unmatched[OTHER_METHOD]
        histograms.values[(histograms.row_of.get(status) or histograms.take_row(status)) + 1] += 1


def durations(route: str, method: str) -> KeyedHistograms:
    """Return the histograms of the seconds from the begin of a request to its answer, for each status."""
    return keyed_histograms(
        "http_server_request_duration_seconds",
        "Seconds from the begin of a request to its whole answer; not of /livez and /metrics.",
        by="http_response_status_code",
        http_request_method=method,
        http_route=route,
    )
