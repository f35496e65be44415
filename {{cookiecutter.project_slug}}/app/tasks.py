"""The Celery worker: stores the items that the API queued."""

import asyncio
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from billiard import pool
from celery import Celery
from celery.exceptions import Reject
from celery.signals import heartbeat_sent, worker_process_init, worker_process_shutdown
from kombu import Exchange, Queue

from app.broker import (
    DEAD_LETTER_QUEUE,
    DEAD_LETTER_QUEUE_ARGUMENTS,
    NEW_ITEMS,
    PATIENCE,
    QUEUE,
    QUEUE_ARGUMENTS,
    STORE_ITEMS,
)

# {%- if cookiecutter.caching +%}
from app.cache import open_cache

# {%- endif +%}
from app.config import load_settings
from app.crud import IdempotencyKeyReused
from app.db import ContentRefused, DatabaseUnavailable, open_database
from app.schemas import NewItem
from app.writes import DirectWriter

logger = logging.getLogger(__name__)

HEARTBEAT_FILE = Path(tempfile.gettempdir()) / "worker-heartbeat"
LONGEST_DELAY = 2.0
# Tenths of a second.
WAIT_FOR_PARENT = 20

settings = load_settings()
dead_letter_queue = Queue(DEAD_LETTER_QUEUE, queue_arguments=DEAD_LETTER_QUEUE_ARGUMENTS)

celery = Celery("items", broker=settings.broker_url)
celery.conf.update(
    broker_connection_max_retries=None,
    broker_transport_options={"confirm_publish": True},
    task_default_queue=QUEUE,
    task_queues=[Queue(QUEUE, Exchange(QUEUE, type="topic"), QUEUE, queue_arguments=QUEUE_ARGUMENTS)],
    task_ignore_result=True,
    task_acks_late=True,
    task_acks_on_failure_or_timeout=False,
    task_reject_on_worker_lost=True,
    worker_concurrency=settings.worker_concurrency,
    worker_prefetch_multiplier=2,
)


class WorkerProcess:
    """The event loop of one worker process, in a thread of its own, with the connections that outlive a task."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread: threading.Thread
        self.writer: DirectWriter

    def start(self) -> None:
        """Start the loop; call it after the fork, never before."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve(ready)], daemon=True)
        self._thread.start()
        ready.result()

    def stop(self) -> None:
        """Close the connections and end the loop."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def run[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _serve(self, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(settings, pool_size=1))
            on_change: list[Callable[[], Awaitable[None]]] = []
            # {% if cookiecutter.caching %}
            if settings.redis_url:
                cache = await stack.enter_async_context(open_cache(settings.redis_url, settings))
                on_change.append(cache.invalidate)
            # {% endif %}
            # A message bounds how many items wait here.
            self.writer = DirectWriter(database, on_change, max_waiting=sys.maxsize)
            ready.set_result(None)
            await self._stop.wait()


process = WorkerProcess()


@worker_process_init.connect
def start_process(**_: object) -> None:
    """Open the connections of a worker process."""
    # At its end it waits until the parent has read all results, which the parent of a stopping worker may have dropped:
    # by default for half a minute. What is not read is not acknowledged, comes again, and is stored already.
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = WAIT_FOR_PARENT
    process.start()


@worker_process_shutdown.connect
def stop_process(**_: object) -> None:
    """Close the connections of a worker process."""
    process.stop()


@heartbeat_sent.connect
def touch_heartbeat_file(**_: object) -> None:
    """Show the container's health check that the worker talks to the broker."""
    HEARTBEAT_FILE.touch()


@celery.task(name=STORE_ITEMS)
def store_items(rows: list[dict[str, Any]]) -> None:
    """Store items. What the database refuses goes to the dead-letter queue, one by one and with the reason.

    The message is acknowledged when this returns. It comes again when the process dies or the database stays away.
    """
    try:
        refused = process.run(store(process.writer, NEW_ITEMS.validate_python(rows), patience=PATIENCE))
    except DatabaseUnavailable as error:
        raise Reject(error, requeue=True) from error
    for item, reason in refused:
        logger.error("item %s goes to the dead-letter queue: %s", item.id, reason)
        store_items.apply_async(
            (NEW_ITEMS.dump_python([item], mode="json"),), queue=dead_letter_queue, headers={"x-reason": reason}
        )


async def store(writer: DirectWriter, items: Sequence[NewItem], *, patience: float) -> list[tuple[NewItem, str]]:
    """Store items, waiting out an absence of the database, and return those that it refused with the reasons.

    Raises DatabaseUnavailable after about `patience` seconds without a database.
    """
    refused: list[tuple[NewItem, str]] = []
    deadline = time.monotonic() + patience
    delay = 0.1
    while True:
        outcomes = await asyncio.gather(*map(writer.create, items), return_exceptions=True)
        absences: list[tuple[NewItem, DatabaseUnavailable]] = []
        for item, outcome in zip(items, outcomes, strict=True):
            match outcome:
                case DatabaseUnavailable():
                    absences.append((item, outcome))
                case ContentRefused():
                    refused.append((item, str(outcome)))
                case IdempotencyKeyReused():
                    refused.append((item, "its idempotency key came before with another body"))
                case BaseException():
                    raise outcome
                case _:
                    pass
        if not absences:
            return refused
        if time.monotonic() >= deadline:
            raise absences[0][1]
        logger.warning("the database does not answer, %d items wait for it", len(absences))
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
        items = [item for item, _ in absences]
