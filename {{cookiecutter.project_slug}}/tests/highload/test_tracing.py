"""Spans of flushes and statements, which requests are traced, and a collector that is away."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import override

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, Tracer
from sqlalchemy import text
from starlette.types import Scope

from app.highload.batching import Batcher, Flushes
from app.highload.database import ContentRefused, open_database
from app.highload.tracing import collector, spans
from app.highload.tracing.collector import RequestsOnly, ToldOnce, send_traces
from app.highload.tracing.sampling import Sampling
from tests.conftest import Serve, lines_of

CALLER = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-0"


class Made:
    """The spans that a test makes."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(ParentBased(RequestsOnly()), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer: Tracer = self.provider.get_tracer("tests")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    made = Made()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: made.provider)
    monkeypatch.setattr(spans, "tracer", lambda: made.tracer)
    return made


async def call(batcher: Batcher[str, None], made: Made, entry: str) -> SpanContext:
    """Call from a request of its own."""
    with made.tracer.start_as_current_span(entry, kind=SpanKind.SERVER) as span:
        await batcher(entry)
        return span.get_span_context()


async def test_a_flush_is_a_child_of_its_first_caller_and_linked_to_the_others(made: Made) -> None:
    sent: list[Sequence[str]] = []

    async def send(entries: Sequence[str]) -> Sequence[None]:
        sent.append(entries)
        return [None] * len(entries)

    batcher = Batcher(send, max_batch=10, max_waiting=10, flushes=Flushes("tested"))
    alone = await call(batcher, made, "alone")
    traced = asyncio.gather(*(call(batcher, made, name) for name in ("first", "second", "third")))
    await asyncio.gather(traced, batcher("untraced"))
    first, second, third = traced.result()
    assert sent == [["alone"], ["first", "second", "third", "untraced"]]
    lonely, together = made.named("flush tested")
    assert lonely.parent is not None
    assert (lonely.parent.span_id, list(lonely.links)) == (alone.span_id, [])
    assert together.parent is not None
    assert together.parent.span_id == first.span_id
    assert [link.context for link in together.links] == [second, third]
    assert together.attributes == {"highload.flush.size": 4}


async def test_a_flush_of_callers_that_are_not_traced_has_no_span(made: Made) -> None:
    async def send(entries: Sequence[str]) -> Sequence[None]:
        return [None] * len(entries)

    await Batcher(send, max_batch=10, max_waiting=10, flushes=Flushes("tested"))("untraced")
    assert made.exporter.get_finished_spans() == ()


async def test_a_statement_is_a_span_without_what_a_client_has_sent(made: Made, database_url: str) -> None:
    refusal = text("INSERT INTO highload_notes (id, created_at, text) VALUES (NULL, NULL, :text)")
    async with open_database(database_url, name="tests", pool_size=1, timeout=60) as database:
        with spans.traced_statements():
            await database.ping()
            with made.tracer.start_as_current_span("request", kind=SpanKind.SERVER) as request:
                await database.ping()
                with pytest.raises(ContentRefused):
                    await database.write(lambda connection: connection.execute(refusal, {"text": "secret"}))
        with made.tracer.start_as_current_span("request", kind=SpanKind.SERVER):
            await database.ping()
    (asked,) = made.named("SELECT")
    assert asked.parent == request.get_span_context()
    assert asked.attributes is not None
    assert asked.attributes["db.query.text"] == "SELECT 1"
    (refused,) = made.named("INSERT")
    assert refused.status.status_code is StatusCode.ERROR
    assert "secret" not in refused.to_json()
    assert refused.events == ()


async def test_the_words_of_an_error_are_in_no_span(made: Made) -> None:
    async def send(_: Sequence[str]) -> Sequence[None]:
        raise ValueError("secret")

    with pytest.raises(ValueError, match="secret"):
        await call(Batcher(send, max_batch=10, max_waiting=10, flushes=Flushes("tested")), made, "request")
    (flush,) = made.named("flush tested")
    assert (flush.status.status_code, flush.status.description) == (StatusCode.ERROR, None)
    assert flush.events == ()
    assert flush.attributes is not None
    assert flush.attributes["error.type"] == "ValueError"


@pytest.mark.parametrize(
    ("path", "traceparent", "share", "sampled"),
    [
        ("/notes", None, 0.0, False),
        ("/notes", None, 1.0, True),
        ("/notes", CALLER + "0", 1.0, False),
        ("/notes", CALLER + "1", 0.0, True),
        ("/notes", "nonsense", 1.0, True),
        ("/notes", "nonsense", 0.0, False),
        ("/livez", CALLER + "1", 1.0, False),
    ],
)
def test_a_request_is_traced_as_its_caller_or_by_chance(
    path: str, traceparent: str | None, share: float, sampled: bool
) -> None:
    headers = [(b"host", b"x"), *([(b"traceparent", traceparent.encode())] if traceparent else [])]
    assert Sampling(share, never=["/livez"]).leaves_out({"path": path, "headers": headers}) is not sampled


def test_a_share_of_the_requests_is_traced() -> None:
    sampling = Sampling(0.1, never=[])
    traced = sum(not sampling.leaves_out({"path": "/notes", "headers": []}) for _ in range(10_000))
    # Ten standard deviations.
    assert 700 < traced < 1300


async def test_a_read_takes_the_short_way_unless_its_client_traces_it(
    serve: Serve, asked: list[Scope], made: Made
) -> None:
    async with serve(sampling=Sampling(1.0, never=[])) as client:
        for headers in ({}, {"traceparent": CALLER + "0"}, {"traceparent": CALLER + "1"}):
            assert (await client.get("/notes", headers=headers)).status_code == 200
    long_way = [dict(scope["headers"]).get(b"traceparent") for scope in asked]
    assert long_way == [f"{CALLER}1".encode()]
    assert [span.name for span in made.exporter.get_finished_spans()] == ["flush run", "GET /notes"]


def test_a_line_of_the_log_tells_where_it_belongs(made: Made) -> None:
    assert spans.ids_of_trace() == {}
    with made.tracer.start_as_current_span("request", kind=SpanKind.SERVER) as request:
        context = request.get_span_context()
        assert spans.ids_of_trace() == {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def test_only_a_request_begins_a_trace(made: Made) -> None:
    with made.tracer.start_as_current_span("work in the background"):
        pass
    with made.tracer.start_as_current_span("request", kind=SpanKind.SERVER), made.tracer.start_as_current_span("part"):
        pass
    assert [span.name for span in made.exporter.get_finished_spans()] == ["part", "request"]


class Unreachable(SpanExporter):
    """An exporter that tries on and on."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.tries = threading.Event()
        self.ended = threading.Event()
        self.ended_by: threading.Thread | None = None

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.tries.set()
        self.ended.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.ended_by = self.ended_by or threading.current_thread()
        self.ended.set()


async def test_the_last_spans_do_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    exporters: list[Unreachable] = []
    providers: list[TracerProvider] = []

    def exporter_to(endpoint: str) -> Unreachable:
        exporters.append(Unreachable(endpoint))
        return exporters[0]

    monkeypatch.setattr(collector, "OTLPSpanExporter", exporter_to)
    monkeypatch.setattr(trace, "set_tracer_provider", providers.append)
    monkeypatch.setattr(collector, "FLUSH_DEADLINE", 0.01)
    async with send_traces("http://collector:4318/", service="tests", environment="production"):
        with providers[0].get_tracer("tests").start_as_current_span("request", kind=SpanKind.SERVER):
            pass
    assert exporters[0].endpoint == "http://collector:4318/v1/traces"
    assert exporters[0].ended_by is threading.current_thread()
    assert await asyncio.to_thread(exporters[0].tries.wait, 60)


def test_a_collector_that_is_away_is_told_once(log: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    results = [SpanExportResult.FAILURE] * 3 + [SpanExportResult.SUCCESS] * 2 + [SpanExportResult.FAILURE]

    class Flaky(InMemorySpanExporter):
        @override
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return results.pop(0)

    exporter = ToldOnce(Flaky())
    while results:
        exporter.export([])
    assert log == ["the collector of traces takes no spans: they are lost until it does"] * 2
    with lines_of("opentelemetry", level=0) as lines:
        real = ToldOnce(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces", timeout=0.01))
        assert real.export([]) is SpanExportResult.FAILURE
    assert lines == []
