"""The HTTP server of a worker: a short way for shared reads, and an end that loses no request.

It is Uvicorn's, with some methods of a connection and two of the server replaced. What they rely on was tested with
the release of Uvicorn that `TESTED_WITH` names; under another one Uvicorn's own protocol gives the same answers.
"""

import asyncio
import logging
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence, Sized
from contextlib import suppress
from copy import copy
from functools import cache, partial
from socket import socket
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

import httptools
import uvicorn
from fastapi import FastAPI, Request
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Server
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.highload.batching import Overloaded
from app.highload.http.access import count_refusal
from app.highload.http.admission import BEGUN
from app.highload.http.deadlines import Awaited, Deadlines
from app.highload.http.finishing import NO_STORE, finish
from app.highload.http.heads import Heads
from app.highload.http.joined_writes import JoinedWrites
from app.highload.http.problems import problem
from app.highload.http.request_id import KEY, request_id_of
from app.highload.lean import LEFT, Lean
from app.highload.lean_layer import Received, answer_to
from app.highload.logs import REQUEST_ID
from app.highload.metrics.instruments import SECONDS
from app.highload.metrics.refusals import WAITING
from app.highload.reads.answers import Answer, RawHeader, whole_answer
from app.highload.reads.shared import MARK, NOT_SHARED
from app.highload.reads.sharing import ALONE, Outcome, Read, heed_conditions
from app.highload.replaced import replaced_by
from app.highload.service import Service

# {%- if cookiecutter.observability +%}
from app.highload.tracing.sampling import traced_by_client

# {%- endif +%}

logger = logging.getLogger(__name__)

TESTED_WITH = "0.54."
# Seconds in which a stopping worker still answers on connections that carry no request at the moment.
LINGER = 1.0
# Seconds that a client has for a head, a body, or to read an answer, before what moves is counted.
CLIENT_TIMEOUT = 10.0
CONNECTION_CLOSE = (b"connection", b"close")
USUAL_METHODS = frozenset([b"GET", b"POST", b"PUT", b"PATCH", b"DELETE"])
# Bytes that are parsed at once, so that few requests of a pipeline wait as objects.
PIECE = 16_384
# Bytes of a head, of trailers or of anything else that is no body, as h11 takes them.
LONGEST_HEAD = 65_536
# Other targets may not be what they seem, or may not be any; the parser refuses those that are too long.
USUAL_TARGET = re.compile(rb"(/(?:[\w.~-][\w./~-]{0,1000})?)(?:\?[\w.~=&-]{0,1000})?", re.ASCII)
# What a connection takes for its last request until it has one, so that the first one is like the others.
BEFORE_THE_FIRST = SimpleNamespace(
    response_started=True, response_complete=True, more_body=False, body=b"", message_event=asyncio.Event()
)


class Connection(HttpToolsProtocol):
    """A connection on which the server itself begins shared reads and sends their answers, head and body as one piece.

    The task, the messages of ASGI, the layers that they pass and the checks of each header field cost more than such
    an answer, and more than a refusal. All else is Uvicorn's: parsing, timers, pipelines, and what follows an answer.

    What a client sends takes little memory until it is served: a pipeline is read as it is answered, and a head has a
    bound. An offer of another protocol is left aside (RFC 9110, section 7.8), and so are trailers.

    A stopping worker ends a connection after an answer, because a request may be on its way already. Every answer says
    from then on that it is the last one (RFC 9112, section 9.6), so that no client sends another request into a
    connection that is about to close.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.application = cast(ASGIApp, self.app)
        self._service = service_of_the_short_way(self.application, access_log=self.access_log)
        self._heads = heads_of(self.application)
        self._see_client = see_client_behind(self.application)
        self._trusted = False
        self._received = 0
        self._without_result = 0
        self._piece = b""
        self._keeps_alive = True
        self.cycle = cast(RequestResponseCycle, BEFORE_THE_FIRST)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to read."""
        super().connection_made(transport)
        self._joined = JoinedWrites(transport, self.loop)
        self.transport = cast(asyncio.Transport, self._joined)
        self._trusted = is_trusted_proxy(self.application, self.client)
        self.flow: Flow = Flow(transport, self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the requests that wait, so that nothing is left to the collector."""
        super().connection_lost(exc)
        for cycle, _ in self.pipeline:
            cycle.on_response = nothing
        self.pipeline.clear()
        self.flow.unparsed = self._piece = b""

    def data_received(self, data: bytes) -> None:
        """Parse what comes, unless requests wait that came before."""
        self._received += len(data)
        flow = self.flow
        if flow.unparsed or self.pipeline or len(data) > PIECE or self.transport.is_closing():
            flow.unparsed += data
            self._parse()
            return
        self._parse_piece(data)
        if flow.unparsed:
            self._parse()

    def _parse(self) -> None:
        while self.flow.unparsed and not self.pipeline and not self.transport.is_closing():
            piece, self.flow.unparsed = self.flow.unparsed[:PIECE], self.flow.unparsed[PIECE:]
            self._parse_piece(piece)
        if self.flow.unparsed:
            self.flow.pause_reading()

    def _parse_piece(self, piece: bytes) -> None:
        self._piece = piece
        self._without_result += len(piece)
        super().data_received(piece)
        if self._without_result > LONGEST_HEAD:
            self._refuse_head()

    def _go_on(self) -> None:
        """Parse what waited until a pipeline was answered, and read on unless the application is behind."""
        self._parse()
        if len(self.cycle.body) <= HIGH_WATER_LIMIT:
            self.flow.resume_reading()

    def _refuse_head(self) -> None:
        """Hang up on a head that does not end; nobody waits for an answer that is on its way when the client floods."""
        if self.cycle.response_complete:
            sentence = f"The head of the request is too large: send at most {LONGEST_HEAD} bytes."
            answer = Answer.of(problem(431, sentence))
            answer = answer._replace(headers=[*answer.headers, NO_STORE, CONNECTION_CLOSE])
            self.send(answer, request_id_of([], trusted=False), keep_alive=False)
        self.transport.close()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._without_result = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        super().on_message_complete()
        if self.expect_100_continue and not self.cycle.response_started:
            self.cycle.keep_alive = self._keeps_alive

    def on_response_complete(self) -> None:
        """Go on with the next request of a pipeline."""
        super().on_response_complete()
        if self.flow.unparsed and not self.pipeline and not self.transport.is_closing():
            self.loop.call_soon(self._go_on)

    def _should_upgrade(self) -> bool:
        # Uvicorn then leaves the request to the next method. What follows CONNECT is no body.
        return self.parser.get_method() != b"CONNECT"

    def handle_websocket_upgrade(self) -> None:
        """Read a request again without its offer of another protocol, unless Uvicorn takes that.

        The parser takes what follows the head for the other protocol.
        """
        if super()._should_upgrade():
            super().handle_websocket_upgrade()
            return
        offset = cast(httptools.HttpParserUpgrade, sys.exception()).args[0]
        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%s: %s" % field for field in self.headers if field[0] != b"upgrade"]
        self.flow.unparsed = b"\r\n".join([line, *fields, b"", self._piece[offset:]]) + self.flow.unparsed
        self.parser = httptools.HttpRequestParser(self)
        # As Uvicorn's, so that a request behind the last one does not spoil the answer to that.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def awaited(self) -> Awaited | None:
        """Return what the client has to do next: read an answer, or send the rest of a head or of a body."""
        if self.flow.write_paused or self.transport.is_closing():
            return Awaited(self.flow.pause, -self.transport.get_write_buffer_size())
        # A head may begin before the answer to the request before it is complete, and the time of idleness with that.
        has_begun = self.scope is not None and "method" not in self.scope
        is_idle = self.timeout_keep_alive_task is not None and not has_begun
        is_served = not self.cycle.response_complete and not self.cycle.more_body
        if is_idle or is_served or self.flow.read_paused:
            return None
        return Awaited(self.cycle, self._received)

    def hang_up(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Give the client time for a last request."""
        last_answer_headers = self.server_state.default_headers
        if CONNECTION_CLOSE not in last_answer_headers:
            last_answer_headers.append(CONNECTION_CLOSE)
        if not self.cycle.response_started:
            self.cycle.keep_alive = False
        self.loop.call_later(LINGER, super().shutdown)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope = cast(Scope, cycle.scope)
        scope[KEY] = request_id_of(scope["headers"], trusted=self._trusted)
        service = self._service
        # Uvicorn has an application of its own for what exceeds its own limit.
        if app is self.app and service is not None:
            app = self._begin(cycle, scope, service)
            if app is None:
                return
            service.admission.expect()
        super()._start_asgi_task(cycle, app)

    def run_alone(self, cycle: RequestResponseCycle) -> None:
        """Leave a read to the application after all."""
        cast(Scope, cycle.scope)[ALONE] = True
        super()._start_asgi_task(cycle, cast(Any, self.app))

    def on_headers_complete(self) -> None:
        """Refuse what is too much as soon as it is seen: under overload a worker does little else."""
        self._without_result = 0
        service = self._service
        if service is not None and service.admission.full_soon and self._may_refuse(service.admission.always):
            refusal = service.reads.refusal
            service.requests.refuse(self.parser.get_method().decode(), refusal.status)
            self.send(refusal, request_id_of(self.headers, trusted=self._trusted))
            return
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            # Trailers come to this list, and are no fields of the request (RFC 9110, section 6.5.1).
            self.headers = []
        if self.expect_100_continue and not self.cycle.response_started:
            # A client that is answered before it was told to send the body may send it or not.
            self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def send(
        self, answer: Answer, request_id: bytes, *, more: Sequence[RawHeader] = (), keep_alive: bool = True
    ) -> None:
        """Send a whole answer with more header fields, and let Uvicorn go on."""
        head = self._heads.of(answer.status, answer.headers, more, self.server_state.default_headers, request_id)
        self._joined.write_whole(head, answer.body)
        if not keep_alive or CONNECTION_CLOSE in self.server_state.default_headers:
            self.transport.close()
        self.on_response_complete()

    def _begin(self, cycle: RequestResponseCycle, scope: Scope, service: Service) -> ASGIApp | None:
        """Begin with a read that may be shared, or return what serves the request."""
        service.place(scope)
        if (
            not cycle.keep_alive
            or self.flow.write_paused
            or service.admission.full_soon
            or service.hosts.refusal(scope)
        ):
            return self.application
        access = service.access
        if access is not None:
            if access.asks_for_addresses:
                self._see_client(scope)
            refusal = access.ask(scope)
            if refusal is not None:
                return None if self._refuse(cycle, scope, service, refusal) else self.application
        # {% if cookiecutter.observability %}
        if service.sampling is not None and traced_by_client(scope):
            return self.application
        # {% endif %}
        read = service.reads.read_at_once(scope, self._see_client)
        if read is None:
            return self._lean_way(cycle, scope, service) or self.application
        waiter = SharedRead(self, cycle, read, service)
        try:
            service.reads.submit(read, waiter)
        except Overloaded:
            # The application says so. To answer from here would go on to the next one of a pipeline from within.
            return self.application
        waiter.begin()
        return None

    def _lean_way(self, cycle: RequestResponseCycle, scope: Scope, service: Service) -> ASGIApp | None:
        """Return what serves a request past the layers of the application, where none of them has anything to do."""
        # {% if cookiecutter.observability %}
        if service.sampling is not None:
            return None
        # {% endif %}
        layer = service.reads.lean
        always = scope["path"] in service.admission.always
        if layer is None or always or not service.passes_its_layers(scope):
            return None
        lean = layer.find(scope)
        if lean is None:
            return None
        if hasattr(scope["endpoint"], MARK):
            del scope["endpoint"]
            return None
        if self._trusted:
            self._see_client(scope)
        return LeanRequest(self, cycle, service, lean)

    def _refuse(self, cycle: RequestResponseCycle, scope: Scope, service: Service, refusal: Response) -> bool:
        """Refuse what looks like a read, or leave it to the application, which asks again."""
        if scope["method"] != "GET" or not NOT_SHARED.isdisjoint([name for name, _ in scope["headers"]]):
            return False
        # Later, because an answer begins the next request of a pipeline, which may be refused, too.
        self.loop.call_soon(self._send_refusal, cycle, service, Answer.of(refusal).with_default(*NO_STORE))
        return True

    def _send_refusal(self, cycle: RequestResponseCycle, service: Service, refusal: Answer) -> None:
        end(cycle)
        scope = cast(Scope, cycle.scope)
        count_refusal(refusal.status)
        service.requests.observe(scope, refusal.status, 0)
        if not self.transport.is_closing():
            self.send(refusal, scope[KEY], keep_alive=cycle.keep_alive)

    def _may_refuse(self, always: Collection[str]) -> bool:
        """Tell whether the bytes of the refusal are all that the application would send.

        As the request before was answered, Uvicorn skips the body of this one, too.
        """
        parser = self.parser
        return (
            self.cycle.response_complete
            and parser.get_http_version() == "1.1"
            and parser.get_method() in USUAL_METHODS
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and (target := USUAL_TARGET.fullmatch(self.url)) is not None
            and target[1].decode() not in always
            and not self.flow.write_paused
        )


class SharedRead:
    """The waiter for a shared answer on a connection.

    It holds a place in `Admission`, and counts as a task of the server, which waits for it when it stops.
    """

    __slots__ = ("_begun", "_connection", "_cycle", "_ended", "_read", "_service", "_tasks")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle, read: Read, service: Service) -> None:
        self._connection = connection
        self._cycle = cycle
        self._read = read
        self._service = service
        self._tasks = cast(set[Any], connection.tasks)
        self._ended = False
        self._begun = perf_counter()

    def begin(self) -> None:
        """Take the place."""
        self._tasks.add(self)
        self._service.admission.enter()

    def done(self) -> bool:
        """Tell whether it was cancelled; without its client it still waits, and ends with the result."""
        return self._ended

    def set_result(self, outcome: Outcome) -> None:
        """Send the answer, or run the application for this request alone."""
        self._end()
        self._tasks.discard(self)
        # Not `cycle.disconnected`: that is told to the newest request of a connection only.
        if outcome is None and not self._connection.transport.is_closing():
            self._connection.run_alone(self._cycle)
        elif outcome is None:
            self._send(None)
        else:
            answer, cache_status = outcome
            counter = self._read.route.seen.outcomes[cache_status]
            # This is `add`, and `_send` has `observe`, without calls, which would be much of what they cost.
            counter.values[counter.base] += 1
            self._send(heed_conditions(self._read.scope, answer), cache_status)

    def set_exception(self, exception: Exception) -> None:
        """Tell the client that too many wait. To anything else there is no answer, so hang up."""
        if isinstance(exception, Overloaded):
            self._end()
            self._tasks.discard(self)
            WAITING.add()
            self._send(self._service.reads.refusal)
            return
        # Here the log names the run that others share.
        before = REQUEST_ID.set(self._read.scope[KEY].decode())
        self._connection.logger.error("Exception in ASGI application", exc_info=exception)
        REQUEST_ID.reset(before)
        self.cancel()

    def cancel(self, **_: object) -> None:
        """Hang up, whatever the server says to its tasks."""
        if not self._ended:
            self._end()
            self._send(None)
        self._connection.transport.close()
        # Later, because the server walks through its tasks to cancel them.
        self._connection.loop.call_soon(self._tasks.discard, self)

    def _send(self, answer: Answer | None, more: Sequence[RawHeader] = ()) -> None:
        end(self._cycle)
        if answer is None:
            return
        durations = self._read.route.seen.durations
        row = durations.row_of.get(answer.status) or durations.take_row(answer.status)
        seconds = perf_counter() - self._begun
        values = durations.values
        values[row] += seconds
        values[row + 1 + bisect_left(SECONDS, seconds)] += 1
        if not self._connection.transport.is_closing():
            request_id = self._read.scope[KEY]
            self._connection.send(answer, request_id, more=more, keep_alive=self._cycle.keep_alive)

    def _end(self) -> None:
        self._ended = True
        self._service.admission.leave()


class LeanRequest:
    """The application for a request that needs nothing of the layers: it calls the route, and its connection answers.

    What it does itself is what the layers do for such a request: it names it for the log, holds a place in `Admission`,
    and counts it. Whatever turns out to need more is left to the application.
    """

    __slots__ = ("_connection", "_cycle", "_lean", "_service")

    def __init__(self, connection: Connection, cycle: RequestResponseCycle, service: Service, lean: Lean) -> None:
        self._connection = connection
        self._cycle = cycle
        self._service = service
        self._lean = lean

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        application = self._connection.application
        admission = self._service.admission
        received = Received(receive)
        # Most bodies come with their heads. Nobody holds a place while a client sends.
        is_whole = not self._cycle.more_body or await received.whole()
        # JSON in UTF-8 has no NUL.
        if not is_whole or admission.full or b"\0" in self._cycle.body or received.holds(b"\0"):
            del scope["endpoint"]
            await application(scope, received.again, send)
            return
        REQUEST_ID.set(scope[KEY].decode())
        scope["app"] = self._service
        scope[BEGUN] = perf_counter()
        received = Received(received.again)
        admission.enter()
        try:
            response = await answer_to(Request(scope, received, send), self._lean)
        finally:
            admission.leave()
        answer = response and whole_answer(response)
        if not answer:
            scope.setdefault(LEFT, response)
            await application(scope, received.again, send)
            return
        if self._connection.flow.write_paused:
            await self._connection.flow.drain()
        answer = answer._replace(headers=finish(scope["method"], answer.status, answer.headers))
        end(self._cycle)
        self._service.requests.observe(scope, answer.status, perf_counter() - scope[BEGUN])
        if not self._connection.transport.is_closing():
            self._connection.send(answer, scope[KEY], keep_alive=self._cycle.keep_alive)


def end(cycle: RequestResponseCycle) -> None:
    """Let Uvicorn take a request for answered."""
    cycle.response_started = cycle.response_complete = True
    # It refers to the connection, which refers to the cycle.
    cycle.on_response = nothing


def nothing(*_: object) -> None:
    """Do nothing."""


class Flow(FlowControl):
    """Control of the flow that reads on only when all that was read is parsed and begun."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting
        self.unparsed = b""
        self.pause = object()

    def pause_writing(self) -> None:
        """Wait until the client has read most of what is sent: that ends this pause, and not that it has read all."""
        super().pause_writing()
        self.pause = object()

    def resume_reading(self) -> None:
        """Read on, unless something waits that came before."""
        if self.read_paused and not self._waiting and not self.unparsed:
            super().resume_reading()


def is_trusted_proxy(app: ASGIApp, client: tuple[str, int] | None) -> bool:
    """Whether Uvicorn believes a peer what it says of its clients."""
    return isinstance(app, ProxyHeadersMiddleware) and client is not None and client[0] in app.trusted_hosts


class Proxies(ProxyHeadersMiddleware):
    """Uvicorn's middleware, for its own protocols: it takes over the id that a trusted proxy gave to a request, too."""

    def __init__(self, middleware: ProxyHeadersMiddleware) -> None:
        self.app = middleware.app
        self.trusted_hosts = middleware.trusted_hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        if scope["type"] == "http" and is_trusted_proxy(cast(ASGIApp, self), scope["client"]):
            scope[KEY] = request_id_of(scope["headers"], trusted=True)
        await super().__call__(scope, receive, send)


def see_client_behind(app: ASGIApp) -> Callable[[Scope], None]:
    """Return what puts the client of which a trusted proxy tells into a scope, as Uvicorn does around an application.

    It may be done twice.
    """
    if not isinstance(app, ProxyHeadersMiddleware):
        return nothing
    middleware = copy(app)
    middleware.app = arrive

    def see_client(scope: Scope) -> None:
        if any(name.startswith(b"x-forwarded-") for name, _ in scope["headers"]):
            with suppress(StopIteration):
                cast(Any, middleware)(scope, None, None).send(None)

    return see_client


async def arrive(*_: object) -> None:
    """Take the place of an application, and do nothing."""


def http_protocol() -> type[asyncio.Protocol]:
    """Return the protocol for Uvicorn: this one under the release that it was tested with, else Uvicorn's own."""
    if uvicorn.__version__.startswith(TESTED_WITH):
        return Connection
    logger.warning(
        "Shared reads take the long way, because their short way was tested with Uvicorn %s*, and this is %s.",
        *(TESTED_WITH, uvicorn.__version__),
    )
    return HttpToolsProtocol


def service_of_the_short_way(app: ASGIApp, *, access_log: bool) -> Service | None:
    """Return the service if the short way leads to the same answers as the way through a served application.

    Where it does not, the log says once why.
    """
    served = served_by(app)
    reason = "the access log is on" if access_log else why_not_the_short_way(served)
    if reason is None:
        return cast(Service, served)
    say_once(reason)
    return None


def served_by(app: ASGIApp) -> ASGIApp:
    """Return a served application without what Uvicorn has put around it."""
    return cast(ASGIApp, app.app) if isinstance(app, ProxyHeadersMiddleware) else app


def heads_of(app: ASGIApp) -> Heads:
    """Return what makes the heads of the answers of a served application."""
    served = served_by(app)
    return served.heads if isinstance(served, Service) else Heads(None)


@cache
def say_once(reason: str) -> None:
    """Tell the log why there is no short way."""
    logger.info("Shared reads take the long way, because %s.", reason)


def why_not_the_short_way(service: ASGIApp) -> str | None:
    """Return what stands between a client and the shared reads of a service, if anything does."""
    if not isinstance(service, Service):
        return f"the application that is served is no Service but a {type(service).__name__}"
    for layer in service.user_middleware:
        return f"the middleware {getattr(layer.cls, '__name__', layer.cls)} runs for each request"
    if not service.stack_is_its_own:
        return "something else has built the layers of the application"
    if changed := changed_call(type(service)):
        return changed
    if service.root_path:
        return "FastAPI was given a root_path; give it to the server"
    return "FastAPI writes telemetry" if writes_telemetry(service) else None


def changed_call(kind: type[Service]) -> str | None:
    """Return what has changed how a service takes requests, if anything has."""
    for owner in kind.__mro__:
        call = owner.__dict__.get("__call__")
        if call is None:
            continue
        if owner not in (Service, FastAPI, Starlette):
            return f"{owner.__name__} has a __call__ of its own"
        if culprit := replaced_by(call, owner.__module__):
            return f"{culprit} has replaced a method of {owner.__name__}"
    return None


def writes_telemetry(app: Service) -> bool:
    """Whether FastAPI's own telemetry looks at each request; an unknown release is taken for one that does."""
    # {% if cookiecutter.observability %}
    if app.sampling is not None:
        return False
    # {% endif %}
    telemetry = getattr(app, "_native_telemetry", None)
    return telemetry is None or telemetry.enabled()


class GracefulServer(Server):
    """A server with deadlines for its clients, which accepts what waits before it closes a listening socket.

    A client that lets it wait for `client_timeout` seconds loses its connection.
    """

    def __init__(self, config: uvicorn.Config, *, client_timeout: float = CLIENT_TIMEOUT) -> None:
        super().__init__(config)
        self._deadlines = Deadlines(cast(Any, self.server_state.connections), client_timeout)
        self._watching: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Begin to accept."""
        is_ours = issubclass(cast(Any, self.config.http_protocol_class), Connection)
        if not is_ours and isinstance(self.config.loaded_app, ProxyHeadersMiddleware):
            self.config.loaded_app = Proxies(self.config.loaded_app)
        await super().startup(sockets)
        if is_ours:
            self._watching = asyncio.create_task(self._deadlines.watch())

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop accepting, answer what was accepted, and end."""
        loop = asyncio.get_running_loop()
        # The loop closes its sockets in its next turn; these still listen then, and are closed at the moment when
        # nobody waits any more.
        listeners: list[socket] = []
        # Without a free file, those who wait are lost; those who are connected are not.
        with suppress(OSError):
            listeners += [listener.dup() for listener in sockets or ()]
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await asyncio.sleep(0)
        accepted: list[socket] = []
        for listener in listeners:
            listener.setblocking(False)
            with suppress(OSError):
                while True:
                    accepted.append(listener.accept()[0])
            listener.close()
        protocol = cast(Any, self.config.http_protocol_class)
        connection = partial(protocol, self.config, self.server_state, self.lifespan.state)
        for client in accepted:
            await loop.connect_accepted_socket(connection, client)
        await super().shutdown(sockets)
        if self._watching is not None:
            self._watching.cancel()
