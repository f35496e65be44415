import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from app.highload.batching import Batcher, Overloaded
from tests.waiting import PATIENCE, settle


class Recorder:
    """A `send` that can be held back, and remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, entries: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(entries))
        await self.gate.wait()
        return [entry * 10 for entry in entries]


async def test_a_lone_call_is_sent_at_once() -> None:
    send = Recorder()
    batcher = Batcher(send, max_batch=10, max_waiting=10)

    assert await batcher(1) == 10
    assert send.batches == [[1]]
    assert batcher._flushing is None


async def test_calls_during_a_flush_share_the_next_one() -> None:
    send = Recorder()
    send.gate.clear()
    batcher = Batcher(send, max_batch=10, max_waiting=10)

    first = asyncio.create_task(batcher(1))
    await settle()
    others = [asyncio.create_task(batcher(entry)) for entry in (2, 3, 4)]
    await settle()
    assert send.batches == [[1]], "one flush at a time"
    send.gate.set()

    assert await asyncio.gather(first, *others) == [10, 20, 30, 40]
    assert send.batches == [[1], [2, 3, 4]]


async def test_a_caller_joins_only_a_flush_that_has_not_begun() -> None:
    state = "old"
    begun = asyncio.Event()
    finish = asyncio.Event()

    async def read(entries: Sequence[int]) -> Sequence[str]:
        seen = state
        begun.set()
        await finish.wait()
        return [seen] * len(entries)

    batcher = Batcher(read, max_batch=10, max_waiting=10)
    early = asyncio.create_task(batcher(1))
    await begun.wait()
    state = "new"
    late = asyncio.create_task(batcher(1))
    await settle()
    finish.set()

    assert (await early, await late) == ("old", "new")


async def test_a_batch_is_bounded() -> None:
    send = Recorder()
    batcher = Batcher(send, max_batch=2, max_waiting=10)

    assert await asyncio.gather(*map(batcher, range(5))) == [0, 10, 20, 30, 40]
    assert send.batches == [[0, 1], [2, 3], [4]]


async def test_one_bad_entry_fails_alone() -> None:
    batches: list[list[int]] = []

    async def send(entries: Sequence[int]) -> Sequence[int]:
        batches.append(list(entries))
        if 13 in entries:
            raise ValueError(entries)
        return entries

    batcher = Batcher(send, max_batch=10, max_waiting=10, content_errors=(ValueError,))
    outcomes = await asyncio.gather(*map(batcher, [1, 13, 2]), return_exceptions=True)

    assert outcomes[0] == 1
    assert isinstance(outcomes[1], ValueError)
    assert outcomes[2] == 2
    assert batches == [[1, 13, 2], [1], [13], [2]]


async def test_a_failed_connection_fails_every_caller_of_the_flush() -> None:
    batches = 0

    async def send(_: Sequence[int]) -> Sequence[int]:
        nonlocal batches
        batches += 1
        raise ConnectionError("gone")

    batcher = Batcher(send, max_batch=10, max_waiting=10, content_errors=(ValueError,))
    outcomes = await asyncio.gather(*map(batcher, [1, 2, 3]), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [ConnectionError] * 3
    assert batches == 1
    assert batcher._flushing is None


async def test_an_outage_fails_those_who_wait_too() -> None:
    sent: list[Sequence[int]] = []
    gate = asyncio.Event()

    async def send(entries: Sequence[int]) -> Sequence[int]:
        sent.append(entries)
        await gate.wait()
        if len(sent) == 1:
            raise ConnectionError("gone")
        return entries

    batcher = Batcher(send, max_batch=1, max_waiting=10, outages=(ConnectionError,))
    calls = [asyncio.create_task(batcher(number)) for number in range(3)]
    await settle()
    gate.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionError] * 3
    assert sent == [[0]]
    assert await batcher(4) == 4


async def test_a_result_that_is_an_exception_is_raised_to_its_caller() -> None:
    async def send(entries: Sequence[int]) -> Sequence[int | Exception]:
        return [KeyError(entry) if entry == 2 else entry for entry in entries]

    batcher = Batcher(send, max_batch=10, max_waiting=10)
    outcomes = await asyncio.gather(*map(batcher, [1, 2, 3]), return_exceptions=True)

    assert isinstance(outcomes[1], KeyError)
    assert [outcomes[0], outcomes[2]] == [1, 3]


async def test_a_caller_that_goes_away_disturbs_nobody() -> None:
    send = Recorder()
    send.gate.clear()
    batcher = Batcher(send, max_batch=10, max_waiting=10)

    flushing = [asyncio.create_task(batcher(entry)) for entry in (1, 2)]
    await settle()
    waiting = [asyncio.create_task(batcher(entry)) for entry in (3, 4)]
    await settle()
    flushing[0].cancel()
    waiting[0].cancel()
    await settle()
    send.gate.set()

    async with asyncio.timeout(PATIENCE):
        assert await flushing[1] == 20
        assert await waiting[1] == 40
    assert send.batches == [[1, 2], [4]], "who left before the flush is not sent"


async def test_too_many_waiting_callers_are_refused_at_once() -> None:
    send = Recorder()
    send.gate.clear()
    batcher = Batcher(send, max_batch=10, max_waiting=2)
    calls = [asyncio.create_task(batcher(0))]
    await settle()
    calls += [asyncio.create_task(batcher(entry)) for entry in (1, 2)]
    await settle()

    with pytest.raises(Overloaded):
        await asyncio.wait_for(batcher(3), PATIENCE)
    send.gate.set()

    assert await asyncio.gather(*calls) == [0, 10, 20]


async def test_drain_waits_for_everything_that_was_accepted() -> None:
    send = Recorder()
    send.gate.clear()
    batcher = Batcher(send, max_batch=1, max_waiting=10)
    calls = [asyncio.create_task(batcher(entry)) for entry in range(3)]
    await settle()

    drained = asyncio.create_task(batcher.drain())
    await settle()
    assert not drained.done()
    send.gate.set()
    await drained

    assert send.batches == [[0], [1], [2]]
    assert await asyncio.gather(*calls) == [0, 10, 20]


async def test_drain_of_an_idle_batcher_returns() -> None:
    await asyncio.wait_for(Batcher(Recorder(), max_batch=1, max_waiting=1).drain(), PATIENCE)


async def test_a_cancelled_flush_releases_its_callers() -> None:
    send = Recorder()
    send.gate.clear()
    batcher = Batcher(send, max_batch=10, max_waiting=10)
    call = asyncio.create_task(batcher(1))
    await settle()
    assert batcher._flushing is not None
    batcher._flushing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert batcher._flushing is None


class Broken(asyncio.Future[int]):
    """A waiter that cannot use its result."""

    def set_result(self, _: int, /) -> None:
        raise RuntimeError


async def test_a_waiter_that_fails_takes_no_other_with_it(log: list[str]) -> None:
    batcher = Batcher(Recorder(), max_batch=10, max_waiting=10)
    broken = Broken()
    batcher.submit(1, broken)
    assert await asyncio.wait_for(batcher(2), PATIENCE) == 20
    assert broken.cancelled()
    assert "a result could not be used" in log[0]


async def test_a_flush_sees_no_context_of_a_caller() -> None:
    client: ContextVar[str] = ContextVar("client", default="nobody")

    async def send(entries: Sequence[int]) -> Sequence[str]:
        return [client.get()] * len(entries)

    async def call_as(name: str, entry: int) -> str:
        client.set(name)
        return await batcher(entry)

    batcher = Batcher(send, max_batch=1, max_waiting=10)
    client.set("test")
    assert set(await asyncio.gather(call_as("one", 1), call_as("other", 2))) == {"nobody"}


async def test_the_end_of_the_loop_ends_all_who_wait() -> None:
    send = Recorder()
    send.gate.clear()
    batcher = Batcher(send, max_batch=10, max_waiting=10)
    flushing = asyncio.create_task(batcher(1))
    await settle()
    waiting = asyncio.create_task(batcher(2))
    await settle()
    assert batcher._flushing is not None
    batcher._flushing.cancel()
    done, _ = await asyncio.wait([flushing, waiting], timeout=PATIENCE)
    assert [task.cancelled() for task in done] == [True, True]
