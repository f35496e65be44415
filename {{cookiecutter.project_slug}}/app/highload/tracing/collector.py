"""How spans get to a collector: OTLP over HTTP, in a thread of their own."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import override

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from app.highload.tracing.spans import traced_statements

logger = logging.getLogger(__name__)
# They log each attempt and each span that is lost; this module says the same once.
for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
    logging.getLogger(name).setLevel(logging.CRITICAL)

# Seconds that the last spans of a process have to reach the collector.
FLUSH_DEADLINE = 2.0


class RequestsOnly(Sampler):
    """Lets a request begin a trace, for which another has decided already; whatever else continues one."""

    @override
    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide about a span without a parent."""
        return SamplingResult(Decision.RECORD_AND_SAMPLE if kind is SpanKind.SERVER else Decision.DROP)

    def get_description(self) -> str:
        """Return its name."""
        return type(self).__name__


class ToldOnce(SpanExporter):
    """Sends spans, and tells the log once when they no longer arrive, and once when they do again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._arrived = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        result = self._exporter.export(spans)
        arrived = result is SpanExportResult.SUCCESS
        if arrived != self._arrived:
            self._arrived = arrived
            if arrived:
                logger.info("the collector of traces takes spans again")
            else:
                logger.warning("the collector of traces takes no spans: they are lost until it does")
        return result

    def shutdown(self) -> None:
        """Send no more, and end an attempt that is under way."""
        self._exporter.shutdown()


@asynccontextmanager
async def send_traces(endpoint: str, *, service: str, environment: str) -> AsyncGenerator[None]:
    """Make spans, and send them to a collector; the last ones within a deadline. Begin after a fork: it has a thread.

    A collector that is away costs the spans and nothing else. OTEL_RESOURCE_ATTRIBUTES may add to what is told of the
    service, and OTEL_EXPORTER_OTLP_HEADERS to the headers.
    """
    exporter = ToldOnce(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces"))
    resource = Resource.create({"service.name": service, "deployment.environment.name": environment})
    provider = TracerProvider(ParentBased(RequestsOnly()), resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        with traced_statements():
            yield
    finally:
        # By itself, it waits for half a minute.
        flushing = threading.Thread(target=provider.shutdown, daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, FLUSH_DEADLINE)
        if flushing.is_alive():
            exporter.shutdown()
