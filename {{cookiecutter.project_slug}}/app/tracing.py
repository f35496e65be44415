"""Traces: off until OTEL_EXPORTER_OTLP_ENDPOINT names a collector."""

from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager

from app.config import NAME, Settings
from app.highload import logs
from app.highload.tracing.sampling import Sampling
from app.highload.tracing.spans import ids_of_trace


def sampling(settings: Settings, *, never: Collection[str]) -> Sampling | None:
    """Return what decides which requests are traced, none to the paths in `never`; None where no collector is named."""
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    return Sampling(settings.otel_traces_sampler_arg, never=never)


@asynccontextmanager
async def open_traces(settings: Settings) -> AsyncGenerator[None]:
    """Send spans to the collector that is named, if one is, and let lines of the log tell where they belong."""
    if settings.otel_exporter_otlp_endpoint is None:
        yield
        return
    # Without a collector, a process does not load what sends to one.
    from app.highload.tracing.collector import send_traces  # noqa: PLC0415

    logs.FIELDS.append(ids_of_trace)
    try:
        async with send_traces(settings.otel_exporter_otlp_endpoint, service=NAME, environment=settings.environment):
            yield
    finally:
        logs.FIELDS.remove(ids_of_trace)
