"""Traces: off until OTEL_EXPORTER_OTLP_ENDPOINT names a collector."""

from contextlib import AbstractAsyncContextManager, nullcontext

from app.config import NAME, Settings
from app.highload.http import health, metrics
from app.highload.tracing.sampling import Sampling


def sampling(settings: Settings) -> Sampling | None:
    """Return what decides which requests are traced, or None where no collector is named."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    return Sampling(settings.otel_traces_sampler_arg, never=[health.LIVEZ, health.READYZ, metrics.METRICS])


def open_traces(settings: Settings) -> AbstractAsyncContextManager[None]:
    """Begin to send spans to the collector that is named, if one is, and send the last ones at the end."""
    if settings.otel_exporter_otlp_endpoint is None:
        return nullcontext()
    # Without a collector, a process does not load what sends to one.
    from app.highload.tracing.collector import send_traces  # noqa: PLC0415

    return send_traces(settings.otel_exporter_otlp_endpoint, service=NAME, environment=settings.environment)
