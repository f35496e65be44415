"""The broker: the queue of new items, and a publisher that returns when RabbitMQ has confirmed."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

from aio_pika import DeliveryMode, Message, connect
from aio_pika.abc import AbstractConnection, AbstractExchange, FieldValue
from aio_pika.exceptions import AMQPError
from pydantic import TypeAdapter

from app.schemas import NewItem

logger = logging.getLogger(__name__)
# It logs each lost connection with a traceback; this module says the same in a line.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

QUEUE = "items"
DEAD_LETTER_QUEUE = "items.dead"
STORE_ITEMS = "app.tasks.store_items"

# A task may wait for the database nearly as long as the consumer timeout allows, and as often as the delivery limit
# allows: with these numbers for a day. Then its message is kept in the dead-letter queue.
CONSUMER_TIMEOUT = 3600
DELIVERY_LIMIT = 30
QUEUE_ARGUMENTS: dict[str, FieldValue] = {
    "x-queue-type": "quorum",
    "x-delivery-limit": DELIVERY_LIMIT,
    "x-consumer-timeout": CONSUMER_TIMEOUT * 1000,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": DEAD_LETTER_QUEUE,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
# Whoever looks at a dead letter takes it and puts it back, and RabbitMQ drops what was put back too often.
DEAD_LETTER_QUEUE_ARGUMENTS: dict[str, FieldValue] = {"x-queue-type": "quorum", "x-delivery-limit": -1}

RECONNECT_DELAY = 1.0
COOL_DOWN = 2.0

NEW_ITEMS = TypeAdapter(list[NewItem])


class BrokerUnavailable(Exception):
    """The broker did not confirm in time, or is not there; the message may have arrived nevertheless."""


class Publisher:
    """Publishes `store_items` tasks, and keeps trying to reach the broker while it is away.

    A call never waits for a connection: without one it fails at once. After a failed call the broker is left alone for
    a while, so that not every call pays the deadline.
    """

    def __init__(self, url: str, *, deadline: float) -> None:
        self._url = url
        self._deadline = deadline
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None
        self._asleep_until = 0.0

    async def __call__(self, items: Sequence[NewItem]) -> Sequence[None]:
        """Publish one task for all items and wait for the broker's confirm.

        Raises BrokerUnavailable within the deadline.
        """
        exchange = self._exchange
        loop = asyncio.get_running_loop()
        if exchange is None or loop.time() < self._asleep_until:
            raise BrokerUnavailable
        try:
            async with asyncio.timeout(self._deadline):
                await exchange.publish(store_items_message(items), routing_key=QUEUE)
        except (AMQPError, OSError, asyncio.InvalidStateError) as error:
            logger.warning("the broker did not confirm, items are stored directly: %r", error)
            self._asleep_until = loop.time() + COOL_DOWN
            raise BrokerUnavailable from error
        return [None] * len(items)

    async def ping(self) -> None:
        """Return when the broker answers.

        Raises BrokerUnavailable.
        """
        if self._connection is None or self._connection.is_closed:
            raise BrokerUnavailable
        channel = await self._connection.channel()
        await channel.close()

    async def stay_connected(self, first_attempt: asyncio.Event) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._deadline):
                    closed = await self._connect()
            except (AMQPError, OSError) as error:
                logger.warning("the broker cannot be reached, items are stored directly: %r", error)
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
        await channel.declare_queue(DEAD_LETTER_QUEUE, durable=True, arguments=DEAD_LETTER_QUEUE_ARGUMENTS)
        await channel.declare_queue(QUEUE, durable=True, arguments=QUEUE_ARGUMENTS)
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
        except (AMQPError, OSError) as error:
            logger.info("the connection to the broker did not close cleanly: %r", error)


def store_items_message(items: Sequence[NewItem]) -> Message:
    """Return the Celery message that calls `store_items` with items (task protocol 2)."""
    task_id = str(uuid4())
    embed = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
    return Message(
        b"[[" + NEW_ITEMS.dump_json(list(items)) + b"],{}," + embed + b"]",
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=DeliveryMode.PERSISTENT,
        correlation_id=task_id,
        headers={
            "lang": "py",
            "task": STORE_ITEMS,
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
            "argsrepr": f"({len(items)} items)",
            "kwargsrepr": "{}",
            "origin": "api",
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        },
    )


@asynccontextmanager
async def open_publisher(url: str, *, deadline: float) -> AsyncGenerator[Publisher]:
    """Connect to the broker in the background and disconnect at the end."""
    publisher = Publisher(url, deadline=deadline)
    first_attempt = asyncio.Event()
    connecting = asyncio.create_task(publisher.stay_connected(first_attempt))
    await first_attempt.wait()
    try:
        yield publisher
    finally:
        connecting.cancel()
        await asyncio.wait([connecting])
