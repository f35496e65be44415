import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from app.answers import Answer
from app.batching import Overloaded
from app.cache import GENERATION, MAX_KEPT_BYTES, NOT_ASKED, TAG, ResponseCache, open_cache
from app.config import Settings
from app.reads import LookUp, Shared, SharedReads
from tests.conftest import Serve, stack_url
from tests.proxy import proxied
from tests.test_reads import ROUTES, Application, get
from tests.waiting import eventually, settle

ANSWER = Answer(200, [(b"etag", b'"1"')], b"body")


@pytest.fixture
async def redis() -> AsyncGenerator[Redis]:
    async with Redis.from_url(stack_url("REDIS_URL")) as redis:
        keys = [key async for key in redis.scan_iter(match=f"{TAG}*")]
        if keys:
            await redis.delete(*keys)
        yield redis


@pytest.fixture
def settings(redis: Redis) -> Settings:
    assert redis
    return Settings(_env_file=None, redis_url=stack_url("REDIS_URL"), cache_ttl=60)


@pytest.fixture
async def cache(settings: Settings) -> AsyncGenerator[ResponseCache]:
    async with open_cache(stack_url("REDIS_URL"), settings) as cache:
        yield cache


async def generation_of(cache: ResponseCache) -> bytes:
    found = await cache.find("any")
    assert found.generation is not None
    return found.generation


async def test_what_is_kept_is_found(cache: ResponseCache) -> None:
    await cache.keep("page", ANSWER, await generation_of(cache))
    assert (await cache.find("page")).answer == ANSWER
    assert (await cache.find("other")).answer is None


async def test_one_round_trip_serves_all_that_wait(cache: ResponseCache, redis: Redis) -> None:
    await cache.keep("page", ANSWER, await generation_of(cache))
    before = await redis.info("commandstats")
    found = await asyncio.gather(*(cache.find(f"page{number or ''}") for number in (0, 0, 1, 2)))
    after = await redis.info("commandstats")
    assert [one.answer for one in found] == [ANSWER, ANSWER, None, None]
    assert after["cmdstat_mget"]["calls"] == before["cmdstat_mget"]["calls"] + 1


async def test_one_round_trip_keeps_all_that_wait(cache: ResponseCache, redis: Redis) -> None:
    """A connection for each would use up the pool, and a cache whose pool is empty leaves Redis alone for a while."""
    generation = await generation_of(cache)
    before = await redis.info("stats")
    await asyncio.gather(*(cache.keep(f"page{number}", ANSWER, generation) for number in range(200)))
    after = await redis.info("stats")
    assert after["total_connections_received"] == before["total_connections_received"]
    assert all([(await cache.find(f"page{number}")).answer == ANSWER for number in range(200)])


async def test_an_invalidation_ends_everything_kept(cache: ResponseCache) -> None:
    generation = await generation_of(cache)
    await cache.keep("page", ANSWER, generation)
    await cache.invalidate()
    found = await cache.find("page")
    assert found.answer is None
    assert found.generation not in (None, generation)


async def test_a_slow_reader_cannot_resurrect_an_old_list(cache: ResponseCache) -> None:
    application = Application()
    reads = SharedReads(application, ROUTES, max_waiting=10)
    state = {"cache": cache}

    application.gate.clear()
    slow = asyncio.create_task(get(reads, "/items", state=state))
    await application.called.wait()
    await cache.invalidate()
    application.gate.set()
    assert (await slow).body == b"1"

    fresh = await get(reads, "/items", state=state)
    assert (fresh.body, fresh["x-cache"]) == (b"2", "miss")
    assert (await get(reads, "/items", state=state))["x-cache"] == "hit"


async def test_a_lost_generation_ends_everything_kept(cache: ResponseCache, redis: Redis) -> None:
    await cache.keep("page", ANSWER, await generation_of(cache))
    await redis.delete(GENERATION)
    assert (await cache.find("page")).answer is None
    assert await redis.get(GENERATION) == await generation_of(cache)


async def test_two_processes_begin_with_the_same_generation(cache: ResponseCache, settings: Settings) -> None:
    async with open_cache(stack_url("REDIS_URL"), settings) as other:
        one, another = await asyncio.gather(generation_of(cache), generation_of(other))
    assert one == another


async def test_what_is_kept_expires(cache: ResponseCache, redis: Redis) -> None:
    await cache.keep("page", ANSWER, await generation_of(cache))
    assert 0 < await redis.ttl(f"{TAG}page") <= 60


async def test_a_huge_answer_is_not_kept(cache: ResponseCache) -> None:
    await cache.keep("page", ANSWER._replace(body=b"x" * (MAX_KEPT_BYTES + 1)), await generation_of(cache))
    assert (await cache.find("page")).answer is None


async def test_readers_of_one_generation_share_a_finished_answer(cache: ResponseCache) -> None:
    application = Application()
    application.gate.clear()
    reads = SharedReads(application, ROUTES, max_waiting=10)
    early = asyncio.create_task(get(reads, "/items", state={"cache": cache}))
    await application.called.wait()
    late = [asyncio.create_task(get(reads, "/items", state={"cache": cache})) for _ in range(3)]
    await asyncio.sleep(0.05)
    application.gate.set()
    bodies = {reply.body for reply in await asyncio.gather(early, *late)}
    assert bodies == {b"1"}
    assert len(application.calls) == 1


async def test_an_error_is_not_kept(cache: ResponseCache) -> None:
    application = Application(status=404)
    reads = SharedReads(application, ROUTES, max_waiting=10)
    for body in (b"1", b"2"):
        assert (await get(reads, "/items/a", state={"cache": cache})).body == body


async def test_a_stopped_redis_costs_little_and_a_missed_invalidation_is_made_up_for(settings: Settings) -> None:
    async with (
        open_cache(stack_url("REDIS_URL"), settings) as elsewhere,
        proxied(stack_url("REDIS_URL")) as (url, proxy),
        open_cache(url, settings) as cache,
    ):
        generation = await generation_of(cache)
        await elsewhere.keep("page", ANSWER, generation)
        await proxy.stop()
        assert await cache.find("page") == NOT_ASKED
        started = time.monotonic()
        for _ in range(100):
            assert await cache.find("page") == NOT_ASKED
            await cache.invalidate()
            await cache.keep("page", ANSWER, generation)
        assert time.monotonic() - started < 0.1, "a Redis that is away is not asked"

        await proxy.start()
        cache._asleep_until = 0
        assert await cache.find("page") == NOT_ASKED, "the invalidation is still owed"

        async def asked_again() -> bool:
            return await cache.find("page") != NOT_ASKED

        await eventually(asked_again, within=5)
        assert (await cache.find("page")).answer is None
        assert (await elsewhere.find("page")).answer is None


async def test_a_write_during_the_making_up_is_made_up_for_too(cache: ResponseCache) -> None:
    original = cache._redis.set
    tokens: list[object] = []

    async def set_and_miss_a_write(*arguments: Any, **options: Any) -> Any:
        tokens.append(arguments[1])
        if len(tokens) == 1:
            await cache.invalidate()
        return await original(*arguments, **options)

    cache._redis.set = set_and_miss_a_write  # type: ignore[method-assign]
    cache._missed_invalidations = 1
    await cache._make_up()
    assert len(set(tokens)) == 2, "one token for each of the two writes"


async def test_what_is_owed_is_paid_while_writes_go_on(settings: Settings) -> None:
    async with (
        open_cache(stack_url("REDIS_URL"), settings) as elsewhere,
        proxied(stack_url("REDIS_URL")) as (url, proxy),
        open_cache(url, settings) as cache,
    ):
        await generation_of(cache)
        proxy.freeze()
        await cache.invalidate()
        proxy.thaw()
        started = time.monotonic()
        while await cache.find("page") == NOT_ASKED:
            assert time.monotonic() - started < 5, "each write puts the payment off"
            await cache.invalidate()
            await asyncio.sleep(0.05)
        await elsewhere.keep("page", ANSWER, await generation_of(elsewhere))
        await cache.invalidate()
        assert (await elsewhere.find("page")).answer is None


async def test_one_late_reply_does_not_make_an_invalidation_missed(settings: Settings) -> None:
    async with (
        open_cache(stack_url("REDIS_URL"), settings) as elsewhere,
        proxied(stack_url("REDIS_URL")) as (url, proxy),
        open_cache(url, settings) as cache,
    ):
        generation = await generation_of(cache)
        await elsewhere.keep("page", ANSWER, generation)
        proxy.freeze()
        invalidating = asyncio.create_task(cache.invalidate())

        async def timed_out() -> bool:
            return cache._asleep()

        await eventually(timed_out)
        proxy.thaw()
        await invalidating
        assert not cache._missed_invalidations
        assert (await elsewhere.find("page")).answer is None


async def test_reads_that_leave_redis_alone_do_not_keep_a_write_from_it(cache: ResponseCache) -> None:
    generation = await generation_of(cache)
    cache._fall_asleep(RedisError("late"))
    await cache.invalidate()
    assert not cache._missed_invalidations
    cache._asleep_until = 0
    assert await generation_of(cache) != generation


async def test_what_is_not_kept_and_cannot_wait_is_refused() -> None:
    application = Application()
    application.gate.clear()
    reads = SharedReads(application, ROUTES, max_waiting=1)
    scope: Scope = {"type": "http", "method": "GET", "path": "/items", "query_string": b"", "headers": []}
    tickets: list[asyncio.Future[Shared]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
    for ticket in tickets:
        LookUp(reads, "page", scope, ticket).set_result(NOT_ASKED)
    assert not tickets[0].done()
    assert isinstance(tickets[1].exception(), Overloaded)
    application.gate.set()
    assert (await tickets[0]).answer.body == b"1"


async def test_a_frozen_redis_does_not_freeze_reads(serve: Serve) -> None:
    async with proxied(stack_url("REDIS_URL")) as (url, proxy), serve(redis_url=url) as client:
        assert (await client.get("/items")).status_code == 200
        assert (await client.get("/items")).headers["x-cache"] == "hit"
        proxy.freeze()
        started = time.monotonic()
        response = await client.get("/items")
        assert (response.status_code, response.headers["x-cache"]) == (200, "miss")
        assert time.monotonic() - started < 0.5
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "cache" in ready.json()["detail"]


async def test_reads_stay_200_while_redis_is_stopped(serve: Serve) -> None:
    async with proxied(stack_url("REDIS_URL")) as (url, proxy), serve(redis_url=url) as client:
        await client.get("/items")
        await proxy.stop()
        for number in range(10):
            created = await client.post("/items", json={"name": f"item {number}"})
            assert created.status_code == 201
            listed = await client.get("/items")
            assert listed.status_code == 200
            assert listed.json()["items"][0] == created.json()
        await proxy.start()

        async def kept_again() -> bool:
            return (await client.get("/items")).headers["x-cache"] == "hit"

        await eventually(kept_again, within=5)
        assert len((await client.get("/items")).json()["items"]) == 10


async def test_every_write_ends_what_is_kept(serve: Serve, redis: Redis) -> None:
    assert redis
    async with serve(redis_url=stack_url("REDIS_URL")) as client:

        async def names() -> list[str]:
            assert (await client.get("/items")).status_code == 200
            kept = await client.get("/items")
            assert kept.headers["x-cache"] == "hit"
            return [item["name"] for item in kept.json()["items"]]

        assert await names() == []
        location = (await client.post("/items", json={"name": "new"})).headers["location"]
        assert await names() == ["new"]
        await client.patch(location, json={"name": "changed"})
        assert await names() == ["changed"]
        await client.delete(location)
        assert await names() == []


async def test_closing_forgets_what_is_owed(settings: Settings) -> None:
    async with open_cache("redis://127.0.0.1:1/0", settings) as cache:
        await cache.invalidate()
        making_up = cache._making_up
    await settle()
    assert making_up is not None
    assert making_up.cancelled()


class World:
    """A table that is a number, and what each reader must at least see."""

    def __init__(self, caches: list[ResponseCache], redis: Redis) -> None:
        self.redis = redis
        self.value = 0
        self.acknowledged = 0
        self.gates: list[asyncio.Event] = []
        self.readers: list[asyncio.Task[None]] = []
        self.processes = [(SharedReads(self.application, ROUTES, max_waiting=100), cache) for cache in caches]

    async def application(self, _: Scope, __: Receive, send: Send) -> None:
        seen = self.value
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % seen})

    async def step(self, action: str, process: int) -> None:
        reads, cache = self.processes[process]
        match action:
            case "read":
                self.readers.append(asyncio.create_task(self.read(reads, cache)))
            case "write":
                self.value += 1
                written = self.value
                await cache.invalidate()
                self.acknowledged = max(self.acknowledged, written)
            case "finish" if self.gates:
                self.gates.pop(0).set()
            case "finish last" if self.gates:
                self.gates.pop().set()
            case "evict":
                await self.redis.delete(GENERATION)
            case "restart":
                await self.redis.delete(GENERATION, f"{TAG}/items")
        # Long enough for a round trip or two, so that the steps interleave with the readers.
        await asyncio.sleep(0.002)

    async def read(self, reads: SharedReads, cache: ResponseCache) -> None:
        least = self.acknowledged
        reply = await get(reads, "/items", state={"cache": cache})
        assert int(reply.body) >= least, f"read {reply.body!r} after {least} was acknowledged"

    async def finish(self) -> None:
        async with asyncio.timeout(5):
            while not all(reader.done() for reader in self.readers):
                while self.gates:
                    self.gates.pop().set()
                await asyncio.sleep(0.001)
        for reader in self.readers:
            reader.result()


ACTIONS = st.sampled_from(["read", "read", "read", "write", "write", "finish", "finish last", "evict", "restart"])


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(steps=st.lists(st.tuples(ACTIONS, st.integers(0, 1)), min_size=5, max_size=40))
async def test_no_interleaving_makes_a_read_stale(
    redis: Redis, cache: ResponseCache, settings: Settings, steps: list[tuple[str, int]]
) -> None:
    async with open_cache(stack_url("REDIS_URL"), settings) as other:
        world = World([cache, other], redis)
        for action, process in steps:
            await world.step(action, process)
        await world.finish()
