"""The Celery worker of the notes; its settings come from the environment, as those of the service do."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from celery import Celery

from app.highload import worker
from app.highload.database import open_database
from app.highload.repository import Storage
from app.highload.resource import Message
from tests.highload.notes import NAME, NOTES, QUEUE, storage_of
from tests.waiting import PATIENCE

celery = Celery(NAME, broker=os.environ.get("BROKER_URL"))
celery.conf.update(worker.reliable(QUEUE), worker_concurrency=int(os.environ.get("WORKER_CONCURRENCY", "2")))


@asynccontextmanager
async def open_storage() -> AsyncGenerator[Storage]:
    await asyncio.sleep(float(os.environ.get("SECONDS_TO_START", "0")))
    url = os.environ["DATABASE_URL"]
    async with open_database(url, name=NAME, pool_size=1, timeout=PATIENCE) as database:
        yield storage_of(database, max_waiting=sys.maxsize)


process = worker.WorkerProcess(open_storage, [NOTES], metrics_port=int(os.environ.get("METRICS_PORT", "0")))


@celery.task(name=QUEUE.task)
def store_rows(message: Message) -> None:
    worker.store_message(store_rows, QUEUE, process, message)
