"""Celery tasks: a worker stores the items that the API queued. As a command: the items that no worker could store."""

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from celery import Celery

from app import crud, db
from app.config import NAME, load_settings
from app.highload.writes import dead_letters, worker
from app.highload.writes.group_commit import DirectWriter
from app.schemas import NewItem

settings = load_settings()

celery = Celery(NAME, broker=settings.broker_url)
celery.conf.update(worker.reliable(db.ITEM_QUEUE), worker_concurrency=settings.worker_concurrency)


@asynccontextmanager
async def open_writer() -> AsyncGenerator[DirectWriter[NewItem]]:
    """Open what a worker process needs, and close it."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(db.open_database(settings, pool_size=1))
        on_change: list[Callable[[], Awaitable[None]]] = []
        # {% if cookiecutter.caching %}
        if settings.redis_url:
            cache = await stack.enter_async_context(db.open_response_cache(settings.redis_url, settings))
            on_change.append(cache.invalidate)
        # {% endif %}
        # A message bounds how many items wait here.
        yield crud.item_writer(database, on_change, max_waiting=sys.maxsize)


process = worker.WorkerProcess(open_writer)


@celery.task(name=db.ITEM_QUEUE.task)
def store_items(message: list[dict[str, Any]]) -> None:
    """Store the items of a message."""
    worker.store_message(store_items, db.ITEM_QUEUE, process, message)


if __name__ == "__main__":
    sys.exit(dead_letters.main(settings.broker_url, db.ITEM_QUEUE))
