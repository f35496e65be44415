"""The Celery worker: it stores the rows of a queue, and loses none."""

import asyncio
import logging
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple, Self

from billiard import current_process, pool
from celery import Task
from celery.exceptions import Reject
from celery.signals import (
    heartbeat_sent,
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from kombu import Exchange, Queue
from pydantic import ValidationError

from app.highload.database import ContentRefused, DatabaseUnavailable, MissingReference
from app.highload.idempotency import IdempotencyKeyReused
from app.highload.metrics.instruments import Counter, counter
from app.highload.metrics.port import serve_exposition
from app.highload.metrics.process import observed_process
from app.highload.metrics.slots import memory
from app.highload.repository import Repository, Storage
from app.highload.resource import Message, Resource, Row, id_in
from app.highload.writes.group_commit import DirectWriter
from app.highload.writes.queue import DEAD_LETTER_ARGUMENTS, PATIENCE, RowQueue

logger = logging.getLogger(__name__)

HEARTBEAT_FILE = Path(tempfile.gettempdir()) / "worker-heartbeat"
LONGEST_DELAY = 2.0
# The code of a message that no release could read in time.
UNREADABLE = "unreadable"
# Seconds: how long a message waits for a newer release or for another row, and how long a worker rests before it looks
# at it again.
COMES_LATER = 600
PAUSE = 0.2
# Seconds that a process has to open its connections. Celery kills it after four, and on a busy machine again and again.
LONGEST_START = 60.0
# Tenths of a second.
WAIT_FOR_PARENT = 20
# For more processes than a worker has. What is not written takes no memory.
SLOTS = 128
SLOT_BYTES = 262_144
# The name of a resource that this release does not know.
UNKNOWN = "unknown"


class Counters(NamedTuple):
    """What is counted of the messages of a resource."""

    stored: Counter
    dead_letters: Counter
    returned: Counter

    @classmethod
    def of(cls, resource: str) -> Self:
        """Return the counters of a resource."""
        return cls(
            counter("highload_stored_total", "Rows that are stored now, or were before.", resource=resource),
            counter("highload_dead_letters_total", "Messages sent to the dead letters by workers.", resource=resource),
            counter("highload_returned_total", "Messages sent to the end of the queue again.", resource=resource),
        )


def reliable(queue: RowQueue) -> dict[str, Any]:
    """Return the Celery settings under which a message of a queue is acknowledged when its task has ended well."""
    name = queue.name
    return {
        "broker_connection_max_retries": None,
        "broker_transport_options": {"confirm_publish": True},
        "task_default_queue": name,
        "task_queues": [Queue(name, Exchange(name, type="topic"), name, queue_arguments=queue.arguments)],
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": False,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 2,
        "worker_proc_alive_timeout": LONGEST_START,
        # Its queue belongs to one connection. A worker that comes back before the broker has noticed that the old one
        # is gone would be refused and end.
        "worker_enable_remote_control": False,
    }


class WorkerProcess:
    """The event loop of one worker process, in a thread of its own, with the connections that outlive a task.

    `open_storage` opens them. They open after Celery has forked the process, and close before it ends.

    The parent serves what all processes count on `metrics_port`; 0 is for nowhere.
    """

    def __init__(
        self,
        open_storage: Callable[[], AbstractAsyncContextManager[Storage]],
        resources: Sequence[Resource[Any, Any, Any]],
        *,
        metrics_port: int = 0,
    ) -> None:
        self._open_storage = open_storage
        self._resources = resources
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread: threading.Thread
        self.repositories: dict[str, Repository[Any, Any, Any]]
        self._metrics_port = metrics_port
        self._counters = {name: Counters.of(name) for name in [UNKNOWN, *(resource.name for resource in resources)]}
        self._counted: mmap | None = None
        worker_init.connect(self.prepare, weak=False)
        worker_ready.connect(self.serve_metrics, weak=False)
        worker_process_init.connect(self.start, weak=False)
        worker_process_shutdown.connect(self.stop, weak=False)

    def prepare(self, **_: object) -> None:
        """Make the memory in which the processes count, before there are any."""
        self._counted = mmap(-1, SLOTS * SLOT_BYTES)
        memory.watch(self._counted, SLOT_BYTES)

    def serve_metrics(self, **_: object) -> None:
        """Serve what all processes have counted, from the parent."""
        if self._metrics_port:
            serve_exposition(self._metrics_port)

    def counters(self, resource: str | None) -> Counters:
        """Return what is counted of the messages of a resource."""
        return self._counters.get(resource or UNKNOWN, self._counters[UNKNOWN])

    def start(self, **_: object) -> None:
        """Start the loop; call it after the fork, never before."""
        if self._counted is not None:
            # A successor of a process has its number.
            memory.lend(self._counted, getattr(current_process(), "index", 0), SLOT_BYTES)
            memory.join()
        # At its end it waits until the parent has read all results, which the parent of a stopping worker may have
        # dropped: by default for half a minute. What is not read is not acknowledged, comes again, and is stored.
        pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = WAIT_FOR_PARENT
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve(ready)], daemon=True)
        self._thread.start()
        ready.result()

    def stop(self, **_: object) -> None:
        """Close the connections and end the loop."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def run[T](self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def run_task[T](self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work of a task and return its result; while the database is away, it begins again.

        Raises Celery's Reject when the database stays away, so that the message returns to the queue.
        """
        try:
            return self.run(patiently(work, PATIENCE))
        except DatabaseUnavailable as error:
            raise Reject(error, requeue=True) from error

    async def _serve(self, ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            async with self._open_storage() as storage, observed_process():
                self.repositories = {resource.name: storage.open(resource) for resource in self._resources}
                ready.set_result(None)
                await self._stop.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)


def without_body(record: logging.LogRecord) -> bool:
    """Leave of what Celery says of a message that it cannot use only what that is called."""
    template = str(record.msg)
    if "body" in template:
        first = record.args[0] if isinstance(record.args, tuple) and record.args else None
        # The name of a task that nobody knows.
        name = f" {first}" if isinstance(first, KeyError) else ""
        sentence = template.strip().partition("\n")[0].partition("%")[0].rstrip(": ")
        record.msg, record.args, record.exc_info = f"{sentence}{name} (it is not shown)", None, None
    return True


logging.getLogger("celery.worker.consumer.consumer").addFilter(without_body)


@worker_init.connect
def print_nothing(**_: object) -> None:
    """Keep Celery from printing what it does, beside the log, when a signal comes."""
    sys.__stdout__ = None  # type: ignore[misc]


@worker_shutdown.connect
def tell_the_end(**_: object) -> None:
    """Log that the worker was asked to stop."""
    logger.info("the worker stops")


@heartbeat_sent.connect
def touch_heartbeat_file(**_: object) -> None:
    """Show the container's health check that the worker talks to the broker."""
    HEARTBEAT_FILE.touch()


def store_message(task: Task[..., None], queue: RowQueue, process: WorkerProcess, message: Message) -> None:
    """Store the rows of a message. What the database refuses goes to the dead letters, one by one, with the reason.

    The message is acknowledged when this returns. It comes again when the process dies or the database stays away. A
    message of a newer release goes back to the end of the queue, where a worker of that release finds it, and so does
    a row that refers to one which is not stored yet; after `COMES_LATER` seconds they are dead letters.
    """
    try:
        repository = process.repositories[message["resource"]]
        rows = repository.resource.rows_of(message)
    except (LookupError, ValueError) as error:
        sentence = f"this release cannot read it: {without_values(error)}"
        put_off(task, queue, process, message, sentence, code=UNREADABLE)
        return
    resource = repository.resource
    refused = process.run_task(lambda: store(repository.direct, rows))
    process.counters(resource.name).stored.add(len(rows) - len(refused))
    later = [row for row, reason in refused if isinstance(reason, MissingReference)]
    if later:
        sentence = "a row that these refer to is not stored"
        put_off(task, queue, process, resource.message(later), sentence, code=MissingReference.reason)
    for row, reason in refused:
        if not isinstance(reason, MissingReference):
            what = f"row {id_in(row)} of {resource.name}"
            words = reason.words if isinstance(reason, ContentRefused) else ""
            single = resource.message([row])
            give_up(task, queue, process, single, reason=str(reason), code=reason.reason, what=what, words=words)


def put_off(
    task: Task[..., None], queue: RowQueue, process: WorkerProcess, message: Message, reason: str, *, code: str
) -> None:
    """Send a message to the end of the queue, or to the dead letters when it came first long ago."""
    first = float((task.request.headers or {}).get("x-first", time.time()))
    if time.time() - first > COMES_LATER:
        give_up(task, queue, process, message, reason=reason, code=code, what=f"a message for {message['resource']}")
        return
    logger.info("a message comes later: %s", reason)
    time.sleep(PAUSE)
    task.apply_async((message,), queue=queue.name, headers={"x-first": str(first)})
    process.counters(message.get("resource")).returned.add()


def without_values(error: Exception) -> str:
    """Return what is wrong with a message, without a value of a client."""
    if isinstance(error, ValidationError):
        return f"wrong values at {', '.join('.'.join(map(str, part['loc'])) for part in error.errors())}"
    return repr(error)


def give_up(
    task: Task[..., None],
    queue: RowQueue,
    process: WorkerProcess,
    message: Message,
    *,
    reason: str,
    code: str,
    what: str,
    words: str = "",
) -> None:
    """Send a message to the dead letters, with the reason for a person and its code for a program.

    The log says of what it is, and shows no value of a client. `words` may quote one: the queue, which has the message
    itself, gets them in place of the reason.
    """
    logger.error("%s goes to the dead-letter queue: %s", what, reason)
    dead = Queue(queue.dead_letters, queue_arguments=DEAD_LETTER_ARGUMENTS)
    task.apply_async((message,), queue=dead, headers={"x-reason": words or reason, "x-reason-code": code})
    process.counters(message.get("resource")).dead_letters.add()


async def store(writer: DirectWriter, rows: Sequence[Row]) -> list[tuple[Row, ContentRefused | IdempotencyKeyReused]]:
    """Store rows, and return those that the database refused with the reasons.

    Raises DatabaseUnavailable; to store the same rows again is safe.
    """
    refused: list[tuple[Row, ContentRefused | IdempotencyKeyReused]] = []
    outcomes = await asyncio.gather(*map(writer.create, rows), return_exceptions=True)
    for row, outcome in zip(rows, outcomes, strict=True):
        match outcome:
            case ContentRefused() | IdempotencyKeyReused():
                refused.append((row, outcome))
            case BaseException():
                raise outcome
            case _:
                pass
    return refused


async def patiently[T](work: Callable[[], Awaitable[T]], patience: float) -> T:
    """Do work, from its beginning again while the database is away, and return its result.

    Raises DatabaseUnavailable after about `patience` seconds without a database.
    """
    deadline = time.monotonic() + patience
    delay = 0.1
    while True:
        try:
            return await work()
        except DatabaseUnavailable as error:
            if time.monotonic() >= deadline:
                raise
            logger.warning("the database does not answer, a task waits for it: %s", error)
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
