"""A queue of new rows in RabbitMQ, with the queue for those that nobody could store."""

from collections.abc import Sequence

from aio_pika.abc import FieldValue
from pydantic import TypeAdapter

# A task waits for the database a third of the consumer timeout, because its message may have waited behind another one
# before, and as often as the delivery limit allows: with these numbers for a day. Then its message is kept in the
# dead-letter queue.
CONSUMER_TIMEOUT = 3600
PATIENCE = CONSUMER_TIMEOUT / 3
DELIVERY_LIMIT = 72
# To look at a message counts as a delivery, and by default a quorum queue drops a message after twenty of them.
DEAD_LETTER_ARGUMENTS: dict[str, FieldValue] = {"x-queue-type": "quorum", "x-delivery-limit": -1}


class RowQueue[R]:
    """Rows of one kind on their way to the task that stores them."""

    def __init__(self, name: str, task: str, row: type[R]) -> None:
        self.name = name
        self.task = task
        # It reads and writes a list of rows as JSON.
        self.rows: TypeAdapter[list[R]] = TypeAdapter(list[row])  # type: ignore[valid-type]

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

    def dump(self, rows: Sequence[R]) -> bytes:
        """Return the JSON text of rows."""
        return self.rows.dump_json(list(rows))
