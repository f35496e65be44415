"""A queue of new rows in RabbitMQ, with the queue for those that nobody could store."""

from dataclasses import dataclass

from aio_pika.abc import FieldValue

# A task waits for the database a third of the consumer timeout, because its message may have waited behind another one
# before, and as often as the delivery limit allows: with these numbers for a day. Then its message is kept in the
# dead-letter queue.
CONSUMER_TIMEOUT = 3600
PATIENCE = CONSUMER_TIMEOUT / 3
DELIVERY_LIMIT = 72
# To look at a message counts as a delivery, and by default a quorum queue drops a message after twenty of them.
DEAD_LETTER_ARGUMENTS: dict[str, FieldValue] = {"x-queue-type": "quorum", "x-delivery-limit": -1}


@dataclass(frozen=True, slots=True)
class RowQueue:
    """Rows on their way to the task that stores them."""

    name: str
    task: str

    @property
    def dead_letters(self) -> str:
        """The name of the queue for what no worker could store."""
        return f"{self.name}.dead"

    @property
    def arguments(self) -> dict[str, FieldValue]:
        """What the queue is declared with."""
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-consumer-timeout": CONSUMER_TIMEOUT * 1000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead_letters,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
