"""The database stays away for longer than the broker delivers a message: its rows wait in the dead-letter queue."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from app.highload.writes import dead_letters, queue
from app.highload.writes.publisher import open_publisher
from app.highload.writes.queue import RowQueue
from tests.conftest import in_database, stack_url
from tests.highload.notes import NAME, NOTES, QUEUE, new_note
from tests.proxy import proxied
from tests.queues import delete_queues
from tests.waiting import PATIENCE, eventually

IMPATIENT_QUEUE = RowQueue(f"{NAME}.impatient", QUEUE.task)
DELIVERY_LIMIT = 2
# A worker whose day is over in a second.
IMPATIENT_WORKER = f"""
from app.highload import worker
from app.highload.writes import queue
from tests.highload import notes

queue.DELIVERY_LIMIT = {DELIVERY_LIMIT}
worker.PATIENCE = 0.1
notes.QUEUE = queue.RowQueue({IMPATIENT_QUEUE.name!r}, notes.QUEUE.task)

from tests.highload.worker import celery

celery.worker_main(["worker", "--loglevel", "INFO", "--without-gossip", "--without-mingle"])
"""


@asynccontextmanager
async def impatient_worker(database_url: str, broker_url: str, log: Path) -> AsyncGenerator[None]:
    """Run a Celery worker that gives a message back soon; the proxy in this process serves it until it has ended."""
    variables = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "WORKER_CONCURRENCY": "3"}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", IMPATIENT_WORKER),
            env=os.environ | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            await asyncio.wait_for(process.wait(), PATIENCE)


@pytest.fixture
async def broker_url(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[str]:
    """The address of a broker on which this test has queues of its own, with a short delivery limit."""
    url = stack_url("BROKER_URL")
    monkeypatch.setattr(queue, "DELIVERY_LIMIT", DELIVERY_LIMIT)
    await delete_queues(url, IMPATIENT_QUEUE)
    yield url
    await delete_queues(url, IMPATIENT_QUEUE)


async def dead_messages(url: str) -> int:
    """Return how many messages wait in the dead-letter queue."""
    async with dead_letters.open_queue(url, IMPATIENT_QUEUE) as (_, dead):
        return dead.declaration_result.message_count or 0


async def test_what_no_worker_could_store_waits_in_the_dead_letter_queue(
    postgresql_url: str, broker_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = [new_note(f"note {number}") for number in range(3)]
    log = tmp_path / "worker.log"
    async with proxied(postgresql_url) as (url, proxy):
        await proxy.stop()
        async with open_publisher(broker_url, IMPATIENT_QUEUE, deadline=PATIENCE) as publish:
            for note in notes:
                await publish(NOTES, [note])
        async with impatient_worker(url, broker_url, log):

            async def all_dead() -> bool:
                return await dead_messages(broker_url) == len(notes)

            await eventually(all_dead)
            assert log.read_text().count("reject requeue=True") >= len(notes) * (DELIVERY_LIMIT + 1)
            assert await dead_letters.show(broker_url, IMPATIENT_QUEUE, dead_letters.in_short) == len(notes)
            assert capsys.readouterr().out.count("the broker gave it up: delivery_limit") == len(notes)

            await proxy.start()
            assert await dead_letters.replay(broker_url, IMPATIENT_QUEUE) == len(notes)

            async def all_stored() -> bool:
                rows = await in_database(
                    postgresql_url, lambda connection: connection.execute(select(NOTES.table.c.id))
                )
                return set(rows.scalars()) == {note["id"] for note in notes}

            await eventually(all_stored)
    assert await asyncio.wait_for(dead_messages(broker_url), PATIENCE) == 0
