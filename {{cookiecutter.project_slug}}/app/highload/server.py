"""The HTTP server of a worker: a short way for shared reads, and an end that loses no request.

It is Uvicorn's, with three methods of a connection and one of the server replaced. What they rely on was tested with
the release of Uvicorn that `TESTED_WITH` names; under another one Uvicorn's own protocol gives the same answers.
"""

import asyncio
import logging
import re
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cache, partial
from socket import socket
from types import FunctionType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Scope
from uvicorn import Server
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.highload.batching import Overloaded
from app.highload.reads.answers import Answer, RawHeader
from app.highload.reads.sharing import ALONE, Outcome, Read, heed_conditions
from app.highload.service import Service

logger = logging.getLogger(__name__)

TESTED_WITH = "0.54."
# Seconds in which a stopping worker still answers on connections that carry no request at the moment.
LINGER = 1.0
CONNECTION_CLOSE = (b"connection", b"close")
USUAL_METHODS = frozenset([b"GET", b"POST", b"PUT", b"PATCH", b"DELETE"])
# Other targets may not be what they seem, or may not be any.
USUAL_TARGET = re.compile(rb"/(?:[\w.~-][\w./~-]*)?(?:\?[\w.~=&-]*)?", re.ASCII)


class Connection(HttpToolsProtocol):
    """A connection on which the server itself begins shared reads and sends their answers, head and body as one piece.

    The task, the messages of ASGI, the layers that they pass and the checks of each header field cost more than such
    an answer, and more than a refusal. All else is Uvicorn's: parsing, timers, pipelines, and what follows an answer.

    A stopping worker ends a connection after an answer, because a request may be on its way already. Every answer says
    from then on that it is the last one (RFC 9112, section 9.6), so that no client sends another request into a
    connection that is about to close.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._service = service_of_the_short_way(cast(ASGIApp, self.app), access_log=self.access_log)
        self._behind_proxy = isinstance(self.app, ProxyHeadersMiddleware)

    def shutdown(self) -> None:
        """Give the client time for a last request."""
        last_answer_headers = self.server_state.default_headers
        if CONNECTION_CLOSE not in last_answer_headers:
            last_answer_headers.append(CONNECTION_CLOSE)
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False
        self.loop.call_later(LINGER, super().shutdown)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Uvicorn has an application of its own for what exceeds its own limit.
        if app is not self.app or self._service is None or not self._share(cycle, self._service):
            super()._start_asgi_task(cycle, app)

    def run_alone(self, cycle: RequestResponseCycle) -> None:
        """Leave a read to the application after all."""
        cast(Scope, cycle.scope)[ALONE] = True
        super()._start_asgi_task(cycle, cast(Any, self.app))

    def on_headers_complete(self) -> None:
        """Refuse what is too much as soon as it is seen: under overload a worker does little else."""
        service = self._service
        if service is None or not service.admission.full or not self._may_refuse(service.admission.always):
            super().on_headers_complete()
            return
        self.send(service.reads.refusal)

    def send(self, answer: Answer, *, keep_alive: bool = True) -> None:
        """Send a whole answer, and let Uvicorn go on."""
        self.transport.write(to_bytes(answer, self.server_state.default_headers))
        if not keep_alive or CONNECTION_CLOSE in self.server_state.default_headers:
            self.transport.close()
        self.on_response_complete()

    def _share(self, cycle: RequestResponseCycle, service: Service) -> bool:
        """Begin with a read that may be shared, or leave the request to the application."""
        if not cycle.keep_alive or self.flow.write_paused or service.admission.full:
            return False
        scope = cast(Scope, cycle.scope)
        read = service.reads.read_at_once(scope)
        if read is None or (read.route.guards and self._behind_proxy and is_forwarded(scope)):
            return False
        waiter = SharedRead(self, cycle, read, service)
        try:
            service.reads.submit(read, waiter)
        except Overloaded:
            # The application says so. To answer from here would go on to the next one of a pipeline from within.
            return False
        waiter.begin()
        return True

    def _may_refuse(self, always: Collection[str]) -> bool:
        """Tell whether the bytes of the refusal are all that the application would send.

        A request that was answered before on the connection makes Uvicorn skip the body of this one, too.
        """
        return (
            self.cycle is not None
            and self.cycle.response_complete
            and self.parser.get_http_version() == "1.1"
            and self.parser.get_method() in USUAL_METHODS
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
            and USUAL_TARGET.fullmatch(self.url) is not None
            and self.url.partition(b"?")[0].decode() not in always
            and not self.flow.write_paused
        )


class SharedRead:
    """The waiter for a shared answer on a connection.

    It holds a place in `Admission`, and counts as a task of the server, which waits for it when it stops.
    """

    def __init__(self, connection: Connection, cycle: RequestResponseCycle, read: Read, service: Service) -> None:
        self._connection = connection
        self._cycle = cycle
        self._read = read
        self._service = service
        self._tasks = cast(set[Any], connection.tasks)
        self._ended = False

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
        else:
            self._send(outcome and heed_conditions(self._read.scope, outcome))

    def set_exception(self, exception: Exception) -> None:
        """Tell the client that too many wait. To anything else there is no answer, so hang up."""
        if isinstance(exception, Overloaded):
            self._end()
            self._tasks.discard(self)
            self._send(self._service.reads.refusal)
            return
        self._connection.logger.error("Exception in ASGI application", exc_info=exception)
        self.cancel()

    def cancel(self, **_: object) -> None:
        """Hang up, whatever the server says to its tasks."""
        if not self._ended:
            self._end()
            self._send(None)
        self._connection.transport.close()
        # Later, because the server walks through its tasks to cancel them.
        self._connection.loop.call_soon(self._tasks.discard, self)

    def _send(self, answer: Answer | None) -> None:
        # So that Uvicorn takes the request for answered.
        self._cycle.response_started = self._cycle.response_complete = True
        # It refers to the connection, which refers to the cycle.
        self._cycle.on_response = nothing
        if answer is not None and not self._connection.transport.is_closing():
            self._connection.send(answer, keep_alive=self._cycle.keep_alive)

    def _end(self) -> None:
        self._ended = True
        self._service.admission.leave()


def nothing() -> None:
    """Do nothing."""


def to_bytes(answer: Answer, server_headers: Sequence[RawHeader]) -> bytes:
    """Return what goes over the wire (RFC 9112, section 2.1)."""
    fields = [b"%s: %s\r\n" % field for field in (*server_headers, *answer.headers)]
    return b"".join([STATUS_LINE[answer.status], *fields, b"\r\n", answer.body])


def is_forwarded(scope: Scope) -> bool:
    """Whether a proxy tells of the client, which a guard may look at."""
    return any(name.startswith(b"x-forwarded-") for name, _ in scope["headers"])


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
    served = cast(ASGIApp, app.app) if isinstance(app, ProxyHeadersMiddleware) else app
    reason = "the access log is on" if access_log else why_not_the_short_way(served)
    if reason is None:
        return cast(Service, served)
    say_once(reason)
    return None


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
        # Not `isinstance`: the wrappers of some agents pass for the function that they wrap.
        culprit = call.__code__.co_filename if type(call) is FunctionType else type(call).__module__
        if culprit != sys.modules[owner.__module__].__file__:
            return f"{culprit} has replaced a method of {owner.__name__}"
    return None


def writes_telemetry(app: FastAPI) -> bool:
    """Whether FastAPI's own telemetry looks at each request; an unknown release is taken for one that does."""
    telemetry = getattr(app, "_native_telemetry", None)
    return telemetry is None or telemetry.enabled()


class GracefulServer(Server):
    """A server that accepts what waits in the queue of a listening socket before it closes that."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop accepting, answer what was accepted, and end."""
        loop = asyncio.get_running_loop()
        # The loop closes its sockets in its next turn; these still listen then, and are closed at the moment when
        # nobody waits any more.
        listeners = [listener.dup() for listener in sockets or ()]
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        await asyncio.sleep(0)
        accepted: list[socket] = []
        for listener in listeners:
            listener.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    accepted.append(listener.accept()[0])
            listener.close()
        protocol = cast(Any, self.config.http_protocol_class)
        connection = partial(protocol, self.config, self.server_state, self.lifespan.state)
        for client in accepted:
            await loop.connect_accepted_socket(connection, client)
        await super().shutdown(sockets)
