"""How an item gets stored through the queue, and what happens when there is none."""

from collections.abc import Awaitable, Callable, Sequence

from app.batching import Batcher
from app.broker import BrokerUnavailable
from app.db import DatabaseUnavailable
from app.schemas import NewItem
from app.writes import MAX_BATCH, DirectWriter, Receipt


class QueuedWriter:
    """Hands items to the broker: all that wait share one message and one publisher confirm.

    `publish` returns when the broker has confirmed and raises BrokerUnavailable. What the broker does not take is
    stored directly. An item with an idempotency key is stored directly as long as the database answers, because only
    the database can tell at once whether the key was used for something else.
    """

    def __init__(
        self,
        publish: Callable[[Sequence[NewItem]], Awaitable[Sequence[None]]],
        direct: DirectWriter,
        *,
        max_waiting: int,
    ) -> None:
        self._direct = direct
        self._publish = Batcher(publish, max_batch=MAX_BATCH, max_waiting=max_waiting, outages=(BrokerUnavailable,))

    async def create(self, item: NewItem) -> Receipt:
        """Queue an item, or store it where that is the safer or the only way."""
        if item.fingerprint is not None:
            return await self._create_keyed(item)
        try:
            await self._publish(item)
        except BrokerUnavailable:
            return await self._direct.create(item)
        return Receipt(item, stored=False)

    async def _create_keyed(self, item: NewItem) -> Receipt:
        try:
            return await self._direct.create(item)
        except DatabaseUnavailable as database_unavailable:
            try:
                await self._publish(item)
            except BrokerUnavailable:
                raise database_unavailable from None
        return Receipt(item, stored=False)

    async def drain(self) -> None:
        """Return when everything that was accepted is confirmed or stored."""
        await self._publish.drain()
        await self._direct.drain()
