"""The HTTP server of a worker: it sends shared and refused answers itself, and ends without losing a request."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from socket import socket
from typing import Any, cast

from starlette.types import Scope
from uvicorn import Server
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.admission import ADMISSION, Admission
from app.answers import Answer, RawHeader
from app.batching import Overloaded
from app.problems import overloaded, unexpected_error
from app.reads import READS, Shared, SharedReads, heed_conditions

# Seconds in which a stopping worker still answers on connections that carry no request at the moment.
LINGER = 1.0
CONNECTION_CLOSE = (b"connection", b"close")


class Connection(HttpToolsProtocol):
    """A connection on which the server itself sends what the outer layers of the application answer most.

    It asks `SharedReads` for the answer to a read that may be shared, and writes head and body as one piece. The
    messages of ASGI, the layers that they pass and the checks of each header field cost more than such an answer.

    While `Admission` is full, a request gets the answer that it would give, without the scope, the task and the
    messages that it needs for it: under overload the worker spends its time on refusals, and here they cost less than
    half. What is not the usual case, such as the first request of a connection, is left to the application.

    The timeout of an idle connection is one timer that looks, when it ends, at what happened meanwhile. A timer for
    each answer, which the next request cancels, costs a quarter of a refusal.

    A stopping worker ends a connection after an answer, because a request may be on its way already. Every answer says
    from then on that it is the last one (RFC 9112, section 9.6), so that no client sends another request into a
    connection that is about to close.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._admission: Admission | None = self.app_state.get(ADMISSION)
        self._reads: SharedReads | None = self.app_state.get(READS)
        self._idle_since = math.inf

    def on_headers_complete(self) -> None:
        """Refuse a request, or serve it."""
        if self._admission is None or not self._admission.full or not self._may_refuse(self._admission):
            super().on_headers_complete()
            return
        self.send(refusal())

    def on_response_complete(self) -> None:
        """Go on with the next request that is here already, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again_after(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """End the connection if it was idle all the time."""
        self.timeout_keep_alive_task = None
        idle = self.loop.time() - self._idle_since
        if idle >= self.timeout_keep_alive:
            super().timeout_keep_alive_handler()
        elif idle >= 0:
            self._look_again_after(self.timeout_keep_alive - idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Give the client time for a last request."""
        last_answer_headers = self.server_state.default_headers
        if CONNECTION_CLOSE not in last_answer_headers:
            last_answer_headers.append(CONNECTION_CLOSE)
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False
        self.loop.call_later(LINGER, super().shutdown)

    def send(self, answer: Answer) -> None:
        """Send a whole answer, and go on unless it says that it is the last one of the connection."""
        self.transport.write(to_bytes(answer, self.server_state.default_headers))
        if CONNECTION_CLOSE in self.server_state.default_headers:
            self.transport.close()
        self.on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if not self._share(cycle):
            super()._start_asgi_task(cycle, app)

    def _share(self, cycle: RequestResponseCycle) -> bool:
        """Begin with a read that may be shared, or leave the request to the application."""
        reads, admission = self._reads, self._admission
        if reads is None or admission is None or admission.full:
            return False
        if not cycle.keep_alive or self.flow.write_paused or self.access_log:
            return False
        scope = cast(Scope, cycle.scope)
        key = reads.key_of(scope)
        if key is None:
            return False
        read = SharedRead(self, cycle, scope, admission)
        try:
            reads.board(key, scope, read)
        except Overloaded:
            # The application says so. To answer from here would go on to the next one of a pipeline from within.
            return False
        read.begin()
        return True

    def _unset_keepalive_if_required(self) -> None:
        # Something arrived: the connection is not idle, and the timer will see that when it ends.
        self._idle_since = math.inf

    def _look_again_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _may_refuse(self, admission: Admission) -> bool:
        """Tell whether the bytes of the refusal are all there is to do.

        A request that was answered before on the connection makes the server skip the body of this one, too.
        """
        return (
            self.cycle is not None
            and self.cycle.response_complete
            and self.parser.get_http_version() == "1.1"
            and self.parser.get_method() != b"HEAD"
            and self.parser.should_keep_alive()
            and self.url.partition(b"?")[0].decode("latin-1") not in admission.always
            and not self.flow.write_paused
            and not self.access_log
        )


class SharedRead:
    """The ticket of a read that waits for a shared answer on a connection.

    It holds a place in `Admission`, and counts as a task of the server, which waits for it when it stops.
    """

    def __init__(self, connection: Connection, cycle: RequestResponseCycle, scope: Scope, admission: Admission) -> None:
        self._connection = connection
        self._cycle = cycle
        self._scope = scope
        self._admission = admission
        self._tasks = cast(set[Any], connection.tasks)

    def begin(self) -> None:
        """Take the place."""
        self._tasks.add(self)
        self._admission.enter()

    def done(self) -> bool:
        """Tell whether it was cancelled; without its client it still waits, and ends with the result."""
        return self._cycle.response_complete

    def set_result(self, shared: Shared) -> None:
        """Send the answer."""
        self._send(heed_conditions(self._scope, shared))

    def set_exception(self, exception: Exception) -> None:
        """Tell the client, and the log, unless there are only too many who wait."""
        if isinstance(exception, Overloaded):
            self._send(refusal())
            return
        self._connection.logger.error("Exception in ASGI application", exc_info=exception)
        self._send(Answer.of(unexpected_error()))

    def cancel(self, **_: object) -> None:
        """Hang up, whatever the server says to its tasks."""
        if not self.done():
            self._end()
        self._connection.transport.close()
        # Later, because the server walks through its tasks to cancel them.
        self._connection.loop.call_soon(self._tasks.discard, self)

    def _send(self, answer: Answer) -> None:
        self._end()
        self._tasks.discard(self)
        # Not `cycle.disconnected`: that is told to the newest request of a connection only.
        if not self._connection.transport.is_closing():
            self._connection.send(answer)

    def _end(self) -> None:
        self._admission.leave()
        self._cycle.response_started = self._cycle.response_complete = True
        # It refers to the connection, which refers to the cycle.
        self._cycle.on_response = nothing


def nothing() -> None:
    """Do nothing."""


def to_bytes(answer: Answer, server_headers: Sequence[RawHeader]) -> bytes:
    """Return what goes over the wire (RFC 9112, section 2.1)."""
    fields = [b"%s: %s\r\n" % field for field in (*server_headers, *answer.headers)]
    return b"".join([STATUS_LINE[answer.status], *fields, b"\r\n", answer.body])


@cache
def refusal() -> Answer:
    """Return the answer of a full service."""
    return Answer.of(overloaded())


class GracefulServer(Server):
    """A server that accepts what waits in the queue of a listening socket before it closes that."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop accepting, answer what was accepted, and end."""
        loop = asyncio.get_running_loop()
        connection = partial(Connection, self.config, self.server_state, self.lifespan.state)
        for listener in sockets or ():
            with suppress(BlockingIOError):
                while True:
                    accepted, _ = listener.accept()
                    await loop.connect_accepted_socket(connection, accepted)
        await super().shutdown(sockets)
