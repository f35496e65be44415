"""Print how many server spans OpenTelemetry's instrumentation has made, by name."""

from collections import Counter

from app.main import app
from entry_points.reads import send_reads
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
send_reads(app)
spans = [span.name for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
print(dict(Counter(spans)))
