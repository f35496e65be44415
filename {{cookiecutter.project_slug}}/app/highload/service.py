"""The application of a service: FastAPI with admission, bounded bodies and shared reads."""

import inspect
from collections.abc import Collection, MutableMapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.highload.http.access import Access, AccessLayer
from app.highload.http.admission import Admission
from app.highload.http.body_limit import BodyLimit
from app.highload.http.documentation import complete
from app.highload.http.expectations import Expectations
from app.highload.http.finishing import send_finished
from app.highload.http.head import HeadAsGet
from app.highload.http.heads import Heads
from app.highload.http.hosts import AllowedHosts, HostsLayer
from app.highload.http.problems import add_problem_handlers, overloaded
from app.highload.http.request_id import identified
from app.highload.http.requests import ACTIVE, LIMIT, Requests
from app.highload.http.root_path import RootPathTaken, place, refuse_routes_below
from app.highload.http.security_headers import SecurityHeaders
from app.highload.lean import LeanRoute, warn_of_other_release
from app.highload.lean_layer import LeanLayer
from app.highload.metrics.process import looked_at, observed_process
from app.highload.metrics.slots import memory
from app.highload.outside import ANY
from app.highload.reads.shared import CannotShare
from app.highload.reads.sharing import SharedReads, SharedReadsLayer

# {%- if cookiecutter.observability +%}
from app.highload.tracing.sampling import Sampling

# {%- endif +%}

NOT_STARTED = (
    "The service has not started, so nothing is open: let the server run its lifespan; in a test, write "
    "`with TestClient(app) as client:`."
)


# A request with one of these is for the layers.
LOOKED_AT = frozenset([b"expect", b"if-match", b"transfer-encoding"])


class Service(FastAPI):
    """A FastAPI application for high load.

    Its layers are, from the outside: request id, security headers, admission, allowed hosts, access, the bound on
    bodies, the middleware that is added to it, HEAD, what a write expects, shared reads, the lean way, and then
    FastAPI's own.

    At most `limit_concurrency` requests are in progress, but for those to the paths in `always`. `access` decides who
    may use the service, and how often. Bodies have at most `max_body_bytes`. `max_waiting` bounds those who wait for
    one shared read. `public_url` is the address of the service in shared answers.

    Requests name one of `allowed_hosts`, but for those to the paths in `any_host`. `root_path` is the path below which
    a proxy shows the service; it is in front of each path of a request, or the proxy has taken it off.

    All other options are FastAPI's.
    # {% if cookiecutter.observability %}
    `sampling` decides which requests FastAPI's telemetry traces; without it, the telemetry is as FastAPI sets it up.
    # {% endif %}
    """

    def __init__(
        self,
        *,
        limit_concurrency: int,
        max_body_bytes: int,
        max_waiting: int,
        public_url: str = "http://localhost:8000",
        always: Collection[str] = (),
        access: Access | None = None,
        allowed_hosts: Collection[str] = (ANY,),
        any_host: Collection[str] = (),
        root_path: str = "",
        # {% if cookiecutter.observability %}
        sampling: Sampling | None = None,
        # {% endif %}
        **options: Any,
    ) -> None:
        # {% if cookiecutter.observability %}
        if sampling is not None:
            exclude = sampling.leaves_out
            options["telemetry"] = {"operation_spans": False, "metrics": False, "logs": False, "exclude": exclude}
        # {% endif %}
        super().__init__(**options)
        self._below = root_path
        # {% if cookiecutter.observability %}
        self.sampling = sampling
        # {% endif %}
        self._max_body_bytes = max_body_bytes
        self._started = False
        self._own_stack: ASGIApp | None = None
        self.access = None if access is None or access.is_open else access
        self.security = SecurityHeaders(https=public_url.startswith("https:"))
        self.heads = Heads(self.security)
        self.hosts = AllowedHosts(allowed_hosts, any_host=[root_path + path for path in any_host])
        # The server compares what stands in the request, where the root path may have been taken off.
        always = {*always, *(root_path + path for path in always)}
        self.requests = Requests()
        self.admission = Admission(super().__call__, limit_concurrency, always=always, requests=self.requests)
        self.reads = SharedReads(
            self,
            public_url=public_url,
            max_waiting=max_waiting,
            refusal=overloaded(),
            checks_credentials=access is not None and access.keys is not None,
        )
        add_problem_handlers(self)
        # Those that a user gives as an option come before the engine's.
        self.exception_handlers.update(options.get("exception_handlers") or {})

    @property
    def stack_is_its_own(self) -> bool:
        """Whether the layers are those that this class puts together."""
        return self.middleware_stack is self._own_stack

    def include_flat(self, router: APIRouter) -> None:
        """Add the routes of a router as if they were declared on the application itself.

        `include_router` does the same; but then every request is matched twice, which takes a twelfth of a POST.

        Raises TypeError for a router that holds anything else than FastAPI's routes.
        """
        options = inspect.signature(self.router.add_api_route).parameters
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise TypeError(f"{type(route).__name__} cannot be included flat: use include_router.")
            given = {name: getattr(route, name) for name in options if hasattr(route, name)}
            self.router.add_api_route(**given, route_class_override=type(route))

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, with what the engine does for the routes, and what access demands."""
        is_new = self.openapi_schema is None
        document = super().openapi()
        if is_new:
            complete(document, self.router.routes)
        if is_new and self.access is not None:
            self.access.document(document)
        return document

    def build_middleware_stack(self) -> ASGIApp:
        """Put the layers together.

        Raises CannotShare or RootPathTaken.
        """
        refuse_routes_below(self._below, self)
        added = self.user_middleware
        self.user_middleware = [
            Middleware(HostsLayer, hosts=self.hosts),
            *([] if self.access is None else [Middleware(AccessLayer, access=self.access)]),
            Middleware(BodyLimit, limit=self._max_body_bytes),
            *added,
            Middleware(HeadAsGet, router=self.router),
            Middleware(Expectations, router=self.router),
            Middleware(SharedReadsLayer, reads=self.reads),
            Middleware(LeanLayer, router=self.router),
        ]
        try:
            self._own_stack = super().build_middleware_stack()
        finally:
            self.user_middleware = added
        self.requests.bind(self.router.routes, self.reads.shared_paths)
        return self._own_stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or open and close what the lifespan does.

        Raises RuntimeError for a request before the lifespan has begun.
        """
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        if not self._started:
            raise RuntimeError(NOT_STARTED)
        self.place(scope)
        send = self.security.add_to(identified(scope, send))
        await self.admission(scope, receive, partial(send_finished, send, scope.get("method", "GET")))

    def passes_its_layers(self, scope: Scope) -> bool:
        """Whether no layer has anything to do for a request, by its header fields."""
        fields: dict[bytes, bytes] = dict(scope["headers"])
        return (
            len(fields) == len(scope["headers"])
            and LOOKED_AT.isdisjoint(fields)
            and b"+" not in fields.get(b"content-type", b"")
            and int(fields.get(b"content-length", b"0")) <= self._max_body_bytes
        )

    def place(self, scope: Scope) -> None:
        """Put a request below the root path; it may be done twice."""
        place(scope, self._below)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: MutableMapping[str, Any] = scope.setdefault("state", {})

        async def tell(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                memory.join()
                observing.enter_context(looked_at(self._look))
                await observing.enter_async_context(observed_process())
                self.reads.state = dict(state)
                if any(isinstance(context.original_route, LeanRoute) for context in iter_route_contexts(self.routes)):
                    warn_of_other_release()
                self._started = True
            if message["type"].startswith("lifespan.shutdown"):
                self._started = False
            await send(message)

        try:
            async with AsyncExitStack() as observing:
                await super().__call__(scope, receive, tell)
        except (CannotShare, RootPathTaken) as error:
            await send({"type": "lifespan.startup.failed", "message": f"The service does not start. {error}"})
            raise

    def _look(self) -> None:
        ACTIVE.set(self.admission.inside)
        LIMIT.set(self.admission.limit)
