"""The Celery worker of the notes; its settings come from the environment, as those of the service do."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery

from app.highload.database import open_database
from app.highload.writes import worker
from app.highload.writes.group_commit import DirectWriter
from tests.highload.notes import NAME, NOTE_QUEUE, NewNote, note_writer

celery = Celery(NAME, broker=os.environ.get("BROKER_URL"))
celery.conf.update(worker.reliable(NOTE_QUEUE), worker_concurrency=int(os.environ.get("WORKER_CONCURRENCY", "2")))


@asynccontextmanager
async def open_writer() -> AsyncGenerator[DirectWriter[NewNote]]:
    url = os.environ["DATABASE_URL"]
    async with open_database(url, name=NAME, pool_size=1, timeout=0.9) as database:
        yield note_writer(database, max_waiting=sys.maxsize)


process = worker.WorkerProcess(open_writer)


@celery.task(name=NOTE_QUEUE.task)
def store_notes(message: list[dict[str, Any]]) -> None:
    worker.store_message(store_notes, NOTE_QUEUE, process, message)
