"""One trace from a client to the row that it has created, and nothing where no collector is named."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.collector import Collector, collecting, path_to
from tests.test_items_shutdown import gunicorn
from tests.waiting import PATIENCE, eventually

NEW = {"name": "x", "description": "y"}
PARENT = "0123456789abcdef"
SAMPLED = [f"{number:032x}" for number in range(1, 5)]
NOT_SAMPLED = "f" * 32


def caller(trace_id: str) -> dict[str, str]:
    """Return the header of a client that traces its request, or that does not."""
    return {"traceparent": f"00-{trace_id}-{PARENT}-0{int(trace_id in SAMPLED)}"}


@asynccontextmanager
async def serving(database_url: str, log: Path) -> AsyncGenerator[httpx2.AsyncClient]:
    """Serve as production does until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with gunicorn(port, database_url, log) as process:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:

            async def serves() -> bool:
                assert process.poll() is None, "it has ended"
                try:
                    return (await client.get("/readyz", headers=caller(SAMPLED[3]))).status_code == 200
                except httpx2.TransportError:
                    return False

            await eventually(serves)
            yield client


def names_to(span: str, collector: Collector, trace_id: str) -> list[str]:
    """Return the names of the spans on the way to one, in the trace of a client."""
    spans = collector.trace(trace_id)
    way = path_to(spans[span], spans)
    assert spans[way[0]].parent_span_id.hex() == PARENT
    return way


async def test_a_trace_leads_from_the_client_to_the_row(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with serving(database_url, tmp_path / "log") as client:
            assert (await client.post("/items", json=NEW, headers=caller(SAMPLED[0]))).status_code == 201
            assert (await client.get("/items", headers=caller(SAMPLED[1]))).status_code == 200
            for headers in ({}, caller(NOT_SAMPLED)):
                await client.get("/items", headers=headers)
                await client.post("/items", json=NEW, headers=headers)
    # The last spans were sent before the process ended.
    assert names_to("INSERT", collector, SAMPLED[0]) == ["POST /items", "flush insert", "INSERT"]
    assert names_to("SELECT", collector, SAMPLED[1]) == ["GET /items", "flush run", "SELECT"]
    assert {span.trace_id.hex() for span in collector.spans} == set(SAMPLED[:2])


PROGRAM = """
import sys, threading
from fastapi.testclient import TestClient
from app.highload import logs
from app.main import app
with TestClient(app) as client:
    for _ in range(3):
        made = client.post("/items", json={"name": "x"}, headers={"traceparent": sys.argv[1]})
        assert made.status_code == 201
    print([thread.name for thread in threading.enumerate() if thread.name.startswith("Otel")])
    print([source.__name__ for source in logs.FIELDS])
print({".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("opentelemetry.exporter.")})
"""


async def run_service(database_url: str, **variables: str) -> list[str]:
    """Start the service, send requests, stop it, and return what it printed."""
    variables |= {"DATABASE_URL": database_url, "WEB_CONCURRENCY": "1", "DB_TIMEOUT": str(PATIENCE)}
    command = [sys.executable, "-c", PROGRAM, caller(SAMPLED[0])["traceparent"]]
    project = Path(__file__).parent.parent
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=project, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def test_without_a_collector_nothing_is_loaded_and_nothing_runs(database_url: str) -> None:
    assert await run_service(database_url) == ["[]", "['request_fields']", "set()"]


async def test_a_collector_that_does_not_answer_holds_up_nobody(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # Without a deadline of its own, the end would wait for so long.
        patient = {"OTEL_EXPORTER_OTLP_TIMEOUT": str(10 * PATIENCE), "OTEL_BSP_SCHEDULE_DELAY": "1"}
        printed = await run_service(database_url, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **patient)
        assert printed == [
            "['OtelBatchSpanRecordProcessor']",
            "['request_fields', 'ids_of_trace']",
            "{'opentelemetry.exporter'}",
        ]
