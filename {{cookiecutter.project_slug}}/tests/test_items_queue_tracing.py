"""One trace from a client through the queue to the row that it has created."""

from pathlib import Path

import pytest

from app.db import QUEUE
from tests.collector import collecting
from tests.conftest import stack_url
from tests.queues import renew_queues, run_worker
from tests.test_items_tracing import NEW, SAMPLED, caller, names_to, serving
from tests.waiting import PATIENCE, eventually


async def test_a_trace_leads_through_the_queue_to_the_row(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker_url = stack_url("BROKER_URL")
    await renew_queues(broker_url, QUEUE)
    monkeypatch.setenv("BROKER_URL", broker_url)
    monkeypatch.setenv("BROKER_DEADLINE", str(PATIENCE))
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with run_worker("app.tasks", tmp_path / "worker.log", DATABASE_URL=postgresql_url, WEB_CONCURRENCY="1"):
            async with serving(postgresql_url, tmp_path / "log") as client:
                answer = await client.post("/items", json=NEW, headers=caller(SAMPLED[0]))
                assert answer.status_code == 202

                async def stored() -> bool:
                    return (await client.get(answer.headers["location"])).status_code == 200

                await eventually(stored)
    way = ["POST /items", "flush publish", "process app.tasks.store_rows", "flush insert", "INSERT"]
    assert names_to("INSERT", collector, SAMPLED[0]) == way
    assert {span.trace_id.hex() for span in collector.spans} == set(SAMPLED[:1])
