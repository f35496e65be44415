"""The way to the broker: a publisher that returns when RabbitMQ has confirmed."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from aio_pika import DeliveryMode, Message, connect
from aio_pika.abc import AbstractConnection, AbstractExchange
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError
from pydantic_core import to_json

from app.highload.metrics.instruments import Counter, counter
from app.highload.resource import Resource, Row

# {%- if cookiecutter.observability +%}
from app.highload.tracing.spans import headers_of_message

# {%- endif +%}
from app.highload.writes.queue import DEAD_LETTER_ARGUMENTS, RowQueue

logger = logging.getLogger(__name__)
# It logs each lost connection with a traceback; this module says the same in a line.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

RECONNECT_DELAY = 1.0
COOL_DOWN = 2.0

# All that the client library raises when the broker goes away. It also cancels what it waits for itself at that moment.
BROKER_ERRORS = (AMQPError, ChannelInvalidStateError, OSError, asyncio.InvalidStateError, asyncio.CancelledError)


def publishes(outcome: str) -> Counter:
    """Return the counter of the messages that were sent to the broker with an outcome."""
    meaning = "Messages by what became of them: unclear, no confirm in time, so it may be in the queue."
    return counter("highload_publishes_total", meaning, outcome=outcome)


CONFIRMED, REFUSED, UNCLEAR = publishes("confirmed"), publishes("refused"), publishes("unclear")


class BrokerUnavailable(Exception):
    """The broker did not confirm in time, or is not there; the message may have arrived nevertheless."""


class Publisher:
    """Publishes calls of tasks, and keeps trying to reach the broker while it is away.

    A call never waits for a connection: without one it fails at once. After a failed call the broker is left alone for
    a while, so that not every call pays the deadline.
    """

    def __init__(self, url: str, queue: RowQueue, *, deadline: float) -> None:
        self._url = url
        self._queue = queue
        self._deadline = deadline
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._cool_until = 0.0

    async def __call__(self, resource: Resource[Any, Any, Any], rows: Sequence[Row]) -> Sequence[None]:
        """Publish one task for rows of a resource and wait for the broker's confirm.

        Raises BrokerUnavailable within the deadline.
        """
        await self.send(self._queue.task, resource.message(rows))
        return [None] * len(rows)

    async def send(self, task: str, *arguments: object) -> None:
        """Publish a call of a task with what JSON can hold, and wait for the broker's confirm.

        Raises BrokerUnavailable within the deadline; the call may have arrived nevertheless.
        """
        message = task_message(task, *arguments)
        # {% if cookiecutter.observability %}
        message.headers.update(headers_of_message())
        # {% endif %}
        exchange = self._exchange
        loop = asyncio.get_running_loop()
        if exchange is None or loop.time() < self._cool_until:
            raise BrokerUnavailable
        try:
            async with asyncio.timeout(self._deadline):
                await exchange.publish(message, routing_key=self._queue.name)
        except BROKER_ERRORS as error:
            raise_if_cancelled(error)
            (REFUSED if isinstance(error, DeliveryError) else UNCLEAR).add()
            logger.warning("the broker did not confirm, the service does without it: %r", error)
            self._cool_until = loop.time() + COOL_DOWN
            raise BrokerUnavailable from error
        CONFIRMED.add()

    def of(self, resource: Resource[Any, Any, Any]) -> Callable[[Sequence[Row]], Awaitable[Sequence[None]]]:
        """Return what publishes rows of a resource."""
        return partial(self, resource)

    async def ping(self) -> None:
        """Return when the broker answers.

        Raises BrokerUnavailable.
        """
        if self._connection is None or self._connection.is_closed:
            raise BrokerUnavailable
        try:
            channel = await self._connection.channel()
            await channel.close()
        except BROKER_ERRORS as error:
            raise_if_cancelled(error)
            raise BrokerUnavailable from error

    async def stay_connected(self, first_attempt: asyncio.Event) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._deadline):
                    closed = await self._connect()
            except BROKER_ERRORS as error:
                raise_if_cancelled(error)
                logger.warning("the broker cannot be reached, rows are stored directly: %r", error)
            else:
                first_attempt.set()
                logger.info("connected to the broker")
                reason = await closed
                logger.warning("the connection to the broker was lost: %r", reason)
            finally:
                first_attempt.set()
                await self._forget()
            await asyncio.sleep(RECONNECT_DELAY)

    async def _connect(self) -> asyncio.Future[object]:
        closed: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def on_close(_: object, reason: object) -> None:
            if not closed.done():
                closed.set_result(reason)

        self._connection = await connect(self._url, timeout=self._deadline)
        self._connection.close_callbacks.add(on_close)
        channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        channel.close_callbacks.add(on_close)
        await channel.declare_queue(self._queue.dead_letters, durable=True, arguments=DEAD_LETTER_ARGUMENTS)
        await channel.declare_queue(self._queue.name, durable=True, arguments=self._queue.arguments)
        self._exchange = channel.default_exchange
        return closed

    async def _forget(self) -> None:
        self._exchange = None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            async with asyncio.timeout(self._deadline):
                await connection.close()
        except BROKER_ERRORS as error:
            raise_if_cancelled(error)
            logger.info("the connection to the broker did not close cleanly: %r", error)


def raise_if_cancelled(error: BaseException) -> None:
    """Raise the error if it comes from the cancellation of this task, and not from one inside the client library."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error


def task_message(task: str, *arguments: object) -> Message:
    """Return the Celery message that calls a task (task protocol 2)."""
    task_id = str(uuid4())
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return Message(
        to_json([arguments, {}, embed]),
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=DeliveryMode.PERSISTENT,
        correlation_id=task_id,
        headers={
            "lang": "py",
            "task": task,
            "id": task_id,
            "root_id": task_id,
            "parent_id": None,
            "group": None,
            "group_index": None,
            "shadow": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            # Celery logs it; the arguments are values of clients.
            "argsrepr": "(...)",
            "kwargsrepr": "{}",
            "origin": "api",
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
    )


@asynccontextmanager
async def open_publisher(url: str, queue: RowQueue, *, deadline: float) -> AsyncGenerator[Publisher]:
    """Connect to the broker in the background and disconnect at the end."""
    publisher = Publisher(url, queue, deadline=deadline)
    first_attempt = asyncio.Event()
    connecting = asyncio.create_task(publisher.stay_connected(first_attempt))
    await first_attempt.wait()
    try:
        yield publisher
    finally:
        connecting.cancel()
        await asyncio.wait([connecting])
