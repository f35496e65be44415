"""Whatever the client library raises when the broker goes away, the publisher says that the broker is away."""

import asyncio
from typing import Any

import pytest
from aio_pika.exceptions import AMQPConnectionError, ChannelInvalidStateError

from app.highload.writes import publisher
from app.highload.writes.publisher import BrokerUnavailable, Publisher
from tests.highload.notes import NOTES, QUEUE
from tests.waiting import PATIENCE


class Exchange:
    """An exchange whose publishes end in an error, or wait without one."""

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    async def publish(self, *_: Any, **__: Any) -> None:
        if self._error is None:
            await asyncio.Event().wait()
        else:
            raise self._error


def publisher_on(exchange: Any, *, deadline: float) -> Publisher:
    publish = Publisher("amqp://127.0.0.1:1/", QUEUE, deadline=deadline)
    publish._exchange = exchange
    return publish


ERRORS = [AMQPConnectionError(), ChannelInvalidStateError(), asyncio.InvalidStateError(), asyncio.CancelledError()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_a_lost_channel_means_that_the_broker_is_away(error: BaseException) -> None:
    with pytest.raises(BrokerUnavailable):
        await publisher_on(Exchange(error), deadline=PATIENCE)(NOTES, [])


async def test_no_confirm_in_time_means_that_the_broker_is_away() -> None:
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(publisher_on(Exchange(None), deadline=0.01)(NOTES, []), PATIENCE)


async def test_a_cancelled_publish_is_cancelled() -> None:
    publishing = asyncio.ensure_future(publisher_on(Exchange(None), deadline=PATIENCE)(NOTES, []))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_a_connection_that_fails_in_any_way_is_tried_again(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "RECONNECT_DELAY", 0)
    tried_again = asyncio.Event()
    attempts = 0

    async def fail() -> asyncio.Future[object]:
        nonlocal attempts
        attempts += 1
        if attempts == 2:
            tried_again.set()
            return asyncio.get_running_loop().create_future()
        raise error

    publish = publisher_on(None, deadline=PATIENCE)
    monkeypatch.setattr(publish, "_connect", fail)
    connecting = asyncio.create_task(publish.stay_connected(asyncio.Event()))
    await asyncio.wait_for(tried_again.wait(), PATIENCE)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
