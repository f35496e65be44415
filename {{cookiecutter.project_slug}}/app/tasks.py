"""Celery tasks: a worker stores the rows that the API queued. As a command: the rows that no worker could store."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from celery import Celery
from celery.signals import setup_logging

from app import crud, db
from app.config import NAME, configure_log, load_settings
from app.highload import worker
from app.highload.repository import Storage
from app.highload.resource import Message
from app.highload.schema import Schema

# {%- if cookiecutter.observability +%}
from app.highload.tracing.tasks import trace_tasks

# {%- endif +%}
from app.highload.writes import dead_letters

# {%- if cookiecutter.observability +%}
from app.tracing import open_traces

# {%- endif +%}

settings = load_settings()

# Celery's command puts BROKER_URL there, as it is written: without the password that is set apart.
os.environ.pop("CELERY_BROKER_URL", None)
celery = Celery(NAME, broker=settings.broker_url)
celery.conf.update(worker.reliable(db.QUEUE), worker_concurrency=settings.worker_concurrency)


@setup_logging.connect
def set_up_logging(**_: object) -> None:
    """Log as the API does; Celery then sets up nothing of its own."""
    configure_log(settings)


@asynccontextmanager
async def open_storage() -> AsyncGenerator[Storage]:
    """Open what a worker process needs, and close it."""
    async with AsyncExitStack() as stack:
        # {% if cookiecutter.observability %}
        await stack.enter_async_context(open_traces(settings))
        trace_tasks()
        # {% endif %}
        database = await stack.enter_async_context(db.open_database(settings, pool_size=1))
        await Schema(database, db.ALEMBIC).warn()
        # A message bounds how many rows wait here.
        storage = Storage(database, name=NAME, max_waiting=sys.maxsize)
        # {% if cookiecutter.caching %}
        if settings.redis_url:
            storage.cache = await stack.enter_async_context(db.open_response_cache(settings.redis_url, settings))
        # {% endif %}
        yield storage


process = worker.WorkerProcess(open_storage, crud.RESOURCES, metrics_port=settings.metrics_port)


@celery.task(name=db.QUEUE.task)
def store_rows(message: Message) -> None:
    """Store the rows of a message."""
    worker.store_message(store_rows, db.QUEUE, process, message)


if __name__ == "__main__":
    sys.exit(dead_letters.main(settings.broker_url, db.QUEUE))
