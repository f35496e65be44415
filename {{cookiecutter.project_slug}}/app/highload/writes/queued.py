"""How a row gets stored through the queue, and what happens when there is none."""

from collections.abc import Awaitable, Callable, Sequence

from app.highload.batching import Batcher, Flushes
from app.highload.database import DatabaseUnavailable
from app.highload.metrics.instruments import counter
from app.highload.resource import Row
from app.highload.writes.group_commit import MAX_BATCH, DirectWriter, Receipt
from app.highload.writes.publisher import BrokerUnavailable

PUBLISHES = Flushes("publish")
FALLBACKS = counter("highload_fallbacks_total", "Rows stored directly, because the broker had not confirmed them.")


class QueuedWriter:
    """Hands rows to the broker: all that wait share one message and one publisher confirm.

    `publish` returns when the broker has confirmed and raises BrokerUnavailable. What the broker does not take is
    stored directly. A row with an idempotency key is stored directly as long as the database answers, because only
    the database can tell at once whether the key was used for something else.
    """

    def __init__(
        self,
        publish: Callable[[Sequence[Row]], Awaitable[Sequence[None]]],
        direct: DirectWriter,
        *,
        max_waiting: int,
    ) -> None:
        self._direct = direct
        self._publish = Batcher(
            publish,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting,
            outages=(BrokerUnavailable,),
            flushes=PUBLISHES,
        )

    async def create(self, row: Row) -> Receipt[Row]:
        """Queue a row, or store it where that is the safer or the only way."""
        if row["fingerprint"] is not None:
            return await self._create_keyed(row)
        try:
            await self._publish(row)
        except BrokerUnavailable:
            receipt = await self._direct.create(row)
            FALLBACKS.add()
            return receipt
        return Receipt(row, stored=False)

    async def _create_keyed(self, row: Row) -> Receipt[Row]:
        try:
            return await self._direct.create(row)
        except DatabaseUnavailable as database_unavailable:
            try:
                await self._publish(row)
            except BrokerUnavailable:
                raise database_unavailable from None
        return Receipt(row, stored=False)

    async def drain(self) -> None:
        """Return when everything that was accepted is confirmed or stored."""
        await self._publish.drain()
        await self._direct.drain()
