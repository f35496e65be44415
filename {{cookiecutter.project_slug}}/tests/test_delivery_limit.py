"""The database stays away for longer than the broker delivers a message: its items wait in the dead-letter queue."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from aio_pika import connect
from sqlalchemy import select

from app import broker, dead_letters
from app.broker import open_publisher
from app.models import Item
from app.schemas import NewItem
from tests.conftest import in_database, stack_url
from tests.proxy import proxied
from tests.waiting import eventually

QUEUE = "items.impatient"
DEAD_LETTER_QUEUE = "items.impatient.dead"
DELIVERY_LIMIT = 2
# A worker whose day is over in a second.
IMPATIENT_WORKER = f"""
from app import broker

broker.QUEUE = {QUEUE!r}
broker.DEAD_LETTER_QUEUE = {DEAD_LETTER_QUEUE!r}
broker.QUEUE_ARGUMENTS["x-delivery-limit"] = {DELIVERY_LIMIT}
broker.QUEUE_ARGUMENTS["x-dead-letter-routing-key"] = {DEAD_LETTER_QUEUE!r}

from app import tasks

tasks.PATIENCE = 0.1
tasks.celery.worker_main(["worker", "--loglevel", "INFO", "--without-gossip", "--without-mingle"])
"""


@asynccontextmanager
async def impatient_worker(database_url: str, broker_url: str, log: Path) -> AsyncGenerator[None]:
    """Run a Celery worker that gives a message back soon; the proxy in this process serves it until it has ended."""
    settings = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "WORKER_CONCURRENCY": "3", "DB_TIMEOUT": "0.5"}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", IMPATIENT_WORKER),
            env=os.environ | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


@pytest.fixture
async def broker_url(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[str]:
    """The address of a broker on which this test has queues of its own, with a short delivery limit."""
    url = stack_url("BROKER_URL")
    arguments = {"x-delivery-limit": DELIVERY_LIMIT, "x-dead-letter-routing-key": DEAD_LETTER_QUEUE}
    monkeypatch.setattr(broker, "QUEUE_ARGUMENTS", broker.QUEUE_ARGUMENTS | arguments)
    for module in (broker, dead_letters):
        monkeypatch.setattr(module, "QUEUE", QUEUE)
        monkeypatch.setattr(module, "DEAD_LETTER_QUEUE", DEAD_LETTER_QUEUE)
    yield url
    async with await connect(url) as connection:
        channel = await connection.channel()
        for name in (QUEUE, DEAD_LETTER_QUEUE):
            await channel.queue_delete(name)


async def dead_messages(url: str) -> int:
    """Return how many messages wait in the dead-letter queue."""
    async with dead_letters.open_queue(url) as (_, queue):
        return queue.declaration_result.message_count or 0


async def test_what_no_worker_could_store_waits_in_the_dead_letter_queue(
    postgresql_url: str, broker_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = [NewItem(uuid4(), f"item {number}", None, datetime.now(UTC)) for number in range(3)]
    log = tmp_path / "worker.log"
    async with proxied(postgresql_url) as (url, proxy):
        await proxy.stop()
        async with open_publisher(broker_url, deadline=5) as publish:
            for item in items:
                await publish([item])
        async with impatient_worker(url, broker_url, log):

            async def all_dead() -> bool:
                return await dead_messages(broker_url) == len(items)

            await eventually(all_dead)
            assert log.read_text().count("reject requeue=True") >= len(items) * (DELIVERY_LIMIT + 1)
            assert await dead_letters.show(broker_url, dead_letters.in_short) == len(items)
            assert capsys.readouterr().out.count("the broker gave it up: delivery_limit") == len(items)

            await proxy.start()
            assert await dead_letters.replay(broker_url) == len(items)

            async def all_stored() -> bool:
                rows = await in_database(postgresql_url, lambda connection: connection.execute(select(Item.id)))
                return set(rows.scalars()) == {item.id for item in items}

            await eventually(all_stored)
    assert await asyncio.wait_for(dead_messages(broker_url), 5) == 0
