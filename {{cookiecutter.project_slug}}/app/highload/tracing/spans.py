"""Spans of what belongs to no single request: flushes, statements and messages.

Those of requests are FastAPI's own. Without a tracer provider, or for what is not traced, nothing here does anything.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

TRACEPARENT = "traceparent"
# Of a connection to the database: when its statement began, in nanoseconds since 1970.
BEGAN = "app.highload.began"

propagator = TraceContextTextMapPropagator()


class Followed:
    """A waiter, and the span in which it began to wait."""

    def __init__(self, waiter: Any, caller: SpanContext) -> None:
        self.caller = caller
        self.done = waiter.done
        self.set_result = waiter.set_result
        self.set_exception = waiter.set_exception
        self.cancel = waiter.cancel


def follow[W](waiter: W) -> W:
    """Return a waiter for a flush that knows its span, where it has one."""
    current = trace.get_current_span()
    if current is trace.INVALID_SPAN or isinstance(waiter, Followed):
        return waiter
    caller = current.get_span_context()
    if not caller.trace_flags.sampled:
        return waiter
    return cast(W, Followed(waiter, caller))


def in_span[K, R](
    name: str, send: Callable[[Sequence[K]], Awaitable[R]], waiters: Sequence[object]
) -> Callable[[Sequence[K]], Awaitable[R]]:
    """Return what sends a batch in a span: a child of the first waiter's, linked to those of the others."""
    callers = {waiter.caller.span_id: waiter.caller for waiter in waiters if isinstance(waiter, Followed)}
    if not callers:
        return send

    async def send_in_span(entries: Sequence[K]) -> R:
        with span(name, list(callers.values()), {"highload.flush.size": len(entries)}):
            return await send(entries)

    return send_in_span


@contextmanager
def span(
    name: str,
    callers: Sequence[SpanContext],
    attributes: dict[str, str | int],
    kind: SpanKind = SpanKind.INTERNAL,
) -> Iterator[None]:
    """Do something in a span that is a child of the first caller's, and linked to those of the others."""
    parent, *others = callers
    with tracer().start_as_current_span(
        name,
        trace.set_span_in_context(NonRecordingSpan(parent)),
        kind,
        attributes,
        [Link(other) for other in others],
        # The words of an error may hold values of a client.
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            fail(current, error)
            raise


def serve_route(path: str) -> None:
    """Say which route serves the current request, where the router is not asked."""
    current = trace.get_current_span()
    if current.is_recording():
        current.update_name(f"GET {path}")
        current.set_attribute("http.route", path)


def caller_in(traceparent: str) -> SpanContext:
    """Return the span that a `traceparent` names; it is not valid when the text is not."""
    return trace.get_current_span(propagator.extract({TRACEPARENT: traceparent})).get_span_context()


def ids_of_trace() -> dict[str, str]:
    """Return what a line of the log tells of the current span, where that is sampled."""
    caller = trace.get_current_span().get_span_context()
    if not caller.trace_flags.sampled:
        return {}
    return {"trace_id": trace.format_trace_id(caller.trace_id), "span_id": trace.format_span_id(caller.span_id)}


def headers_of_message() -> dict[str, str]:
    """Return the headers of a message that goes on in the current trace."""
    headers: dict[str, str] = {}
    if trace.get_current_span().is_recording():
        propagator.inject(headers)
    return headers


@contextmanager
def traced_statements() -> Iterator[None]:
    """Make a span of each statement that is part of a trace."""
    listeners: dict[str, Callable[..., None]] = {
        "before_cursor_execute": begin_statement,
        "after_cursor_execute": end_statement,
        "handle_error": fail_statement,
    }
    for name, listener in listeners.items():
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners.items():
            event.remove(Engine, name, listener)


def begin_statement(connection: Connection, *_: object) -> None:
    """Note when a statement begins."""
    if trace.get_current_span().is_recording():
        connection.info[BEGAN] = time.time_ns()


def end_statement(connection: Connection, _: object, statement: str, *__: object) -> None:
    """Make the span of a statement."""
    add_statement(connection, statement, None)


def fail_statement(context: ExceptionContext) -> None:
    """Make the span of a statement that failed."""
    if context.connection is not None:
        add_statement(context.connection, context.statement or "", context.original_exception)


def add_statement(connection: Connection, statement: str, error: BaseException | None) -> None:
    """Make the span of a statement that has ended. What clients send is in its parameters, and in no span."""
    began = connection.info.pop(BEGAN, None)
    if began is None:
        return
    operation = (statement.split(maxsplit=1) or ["SQL"])[0].upper()
    current = tracer().start_span(
        operation,
        kind=SpanKind.CLIENT,
        attributes={
            "db.system.name": connection.dialect.name,
            "db.operation.name": operation,
            "db.query.text": statement,
        },
        start_time=began,
    )
    if error is not None:
        fail(current, error)
    current.end()


def fail(current: Span, error: BaseException) -> None:
    """Say of a span that it failed."""
    current.set_attribute("error.type", type(error).__qualname__)
    current.set_status(StatusCode.ERROR)


def tracer() -> trace.Tracer:
    """Return what makes spans."""
    return trace.get_tracer("app.highload")
