"""The response cache in Redis, shared by all processes and containers.

Nothing is ever deleted. A stored response carries the generation of its places (`generations`) that was current before
the database was asked, and counts only while that generation is current. A write gives its places new random tokens:
one command, however much is cached. A reader that is overtaken by a write therefore stores what nobody accepts.

A counter would not do: after Redis evicts it, it starts again and makes old responses count.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from typing import NamedTuple, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.highload.batching import Batcher, Flushes, Overloaded, Waiter
from app.highload.generations import ANYTHING
from app.highload.metrics.instruments import gauge
from app.highload.metrics.process import looked_at
from app.highload.reads.answers import Answer

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 8
MAX_KEYS = 500
# So little that a round trip for many keys is over within the timeout.
MAX_KEPT_BYTES = 131_072
MAX_KEPT_AT_ONCE = 50
COOL_DOWN = 1.0
TOKEN_BYTES = 16
INVALIDATION_ATTEMPTS = 3

LOOK_UPS = Flushes("cache_get")
STORES = Flushes("cache_set")
OWED = gauge("highload_owed_invalidations", "Places whose invalidation the cache has missed, until it is made up for.")


class Wanted(NamedTuple):
    """A key, and the places on which the answer under it depends."""

    key: str
    places: tuple[str, ...]


class Found(NamedTuple):
    """The outcome of a look-up. Without a generation the cache was not asked, and nothing may be kept in it."""

    answer: Answer | None
    generation: bytes | None


NOT_ASKED = Found(None, None)


class ResponseCache:
    """Keeps finished responses; while Redis is away it keeps nothing, and no caller waits for it.

    After an error reads leave Redis alone for a second. An invalidation is still tried, several times, so that one late
    reply does not let other processes serve what is old. One that was missed is owed: until it is made up for, this
    process asks the cache nothing, and `ttl` bounds what other processes may see.
    """

    def __init__(self, redis: Redis, *, name: str, ttl: int, max_waiting: int) -> None:
        self._redis = redis
        self._prefix = prefix_of(name)
        self._ttl = ttl
        self._look_up = Batcher(self._look_up_batch, max_batch=MAX_KEYS, max_waiting=max_waiting, flushes=LOOK_UPS)
        self._store = Batcher(
            self._store_batch,
            max_batch=MAX_KEPT_AT_ONCE,
            max_waiting=max_waiting,
            flushes=STORES,
        )
        self._cool_until = 0.0
        # The places of invalidations that were missed, with the number of the last one.
        self._missed: dict[str, int] = {}
        self._misses = 0
        self._making_up: asyncio.Task[None] | None = None

    @property
    def owed(self) -> int:
        """How many places wait for an invalidation that was missed."""
        return len(self._missed)

    async def find(self, wanted: Wanted) -> Found:
        """Return what is kept under a key; all keys that wait share one round trip."""
        return await self._look_up(wanted)

    def submit(self, wanted: Wanted, waiter: Waiter[Found]) -> None:
        """Let the next round trip give what is kept under a key to a waiter.

        Raises Overloaded at once when too many wait already.
        """
        self._look_up.submit(wanted, waiter)

    async def _look_up_batch(self, batch: Sequence[Wanted]) -> Sequence[Found]:
        if self._missed or self._cooling_down():
            return [NOT_ASKED] * len(batch)
        places = list(dict.fromkeys(place for wanted in batch for place in wanted.places))
        keys = list(dict.fromkeys(wanted.key for wanted in batch))
        try:
            replies = cast(
                list[bytes | None],
                await self._redis.mget(*map(self._key_of, places), *(self._prefix + key for key in keys)),
            )
            tokens = dict(zip(places, replies[: len(places)], strict=True))
            known = {place: token for place, token in tokens.items() if token is not None}
            if len(known) < len(places):
                known |= await self._begin([place for place, token in tokens.items() if token is None])
        except RedisError as error:
            LOOK_UPS.failures.add()
            self._cool_down(error)
            return [NOT_ASKED] * len(batch)
        values = dict(zip(keys, replies[len(places) :], strict=True))
        # All that wait for a key depend on the same places.
        found = {wanted.key: found_in(values[wanted.key], generation_of(wanted, known)) for wanted in set(batch)}
        return [found[wanted.key] for wanted in batch]

    async def keep(self, key: str, answer: Answer, generation: bytes) -> None:
        """Keep an answer that was made of data read after `generation` was; all that wait share one round trip."""
        if len(answer.body) > MAX_KEPT_BYTES:
            return
        # What does not get kept costs a query later, and no client an error now.
        with suppress(Overloaded):
            await self._store((self._prefix + key, generation + answer.dump()))

    async def _store_batch(self, entries: Sequence[tuple[str, bytes]]) -> Sequence[None]:
        if not self._cooling_down():
            pipeline = self._redis.pipeline(transaction=False)
            for key, value in entries:
                pipeline.set(key, value, ex=self._ttl)
            try:
                await pipeline.execute()
            except RedisError as error:
                STORES.failures.add()
                self._cool_down(error)
        return [None] * len(entries)

    async def invalidate(self, places: Collection[str]) -> None:
        """Let nothing count that depends on one of these places and was read before this call."""
        if not self._missed:
            for _ in range(INVALIDATION_ATTEMPTS):
                try:
                    await self._renew(places)
                except RedisError as error:
                    self._cool_down(error)
                else:
                    return
        self._misses += 1
        self._missed |= dict.fromkeys(places, self._misses)
        if self._making_up is None:
            self._making_up = asyncio.create_task(self._make_up())

    async def ping(self) -> None:
        """Ask Redis for something and get it.

        Raises RedisError.
        """
        await self._redis.get(self._key_of(ANYTHING))

    async def close(self) -> None:
        """Stop making up for missed invalidations."""
        if self._making_up is not None:
            self._making_up.cancel()

    def _key_of(self, place: str) -> str:
        return f"{self._prefix}generation:{place}"

    async def _begin(self, places: Sequence[str]) -> dict[str, bytes]:
        """Set a token for each place that has none, and return those that are there then."""
        new = {place: new_token() for place in places}
        pipeline = self._redis.pipeline(transaction=False)
        for place, token in new.items():
            pipeline.set(self._key_of(place), token, nx=True, get=True)
        there = cast(list[bytes | None], await pipeline.execute())
        return {place: found or new[place] for place, found in zip(places, there, strict=True)}

    async def _renew(self, places: Collection[str]) -> None:
        await self._redis.mset({self._key_of(place): new_token() for place in places})

    async def _make_up(self) -> None:
        while self._missed:
            await asyncio.sleep(COOL_DOWN)
            try:
                await self._renew_until_nothing_is_owed()
            except RedisError as error:
                self._cool_down(error)
        self._making_up = None

    async def _renew_until_nothing_is_owed(self) -> None:
        while missed := self._missed.copy():
            await self._renew(missed)
            # A write that was missed while the tokens were on their way may be younger than they are.
            self._missed = {place: number for place, number in self._missed.items() if missed.get(place) != number}

    def _cooling_down(self) -> bool:
        return asyncio.get_running_loop().time() < self._cool_until

    def _cool_down(self, error: RedisError) -> None:
        if not self._cooling_down():
            logger.warning("Redis does not answer, reads go to the database: %s", error)
        self._cool_until = asyncio.get_running_loop().time() + COOL_DOWN


def prefix_of(name: str) -> str:
    """Return how the keys of a service begin; services with names of their own may share a Redis.

    The hash tag keeps all keys on one node of a Redis Cluster, so that one MGET may ask for them together.
    """
    return "{" + name + "}:"


def new_token() -> bytes:
    """Return a token that no other write ever made."""
    return secrets.token_bytes(TOKEN_BYTES)


def generation_of(wanted: Wanted, tokens: Mapping[str, bytes]) -> bytes:
    """Return the generation of an answer: a digest of the tokens of its places."""
    return blake2b(b"".join([tokens[place] for place in wanted.places]), digest_size=TOKEN_BYTES).digest()


def found_in(value: bytes | None, generation: bytes) -> Found:
    """Return the answer in a stored value if it is of this generation."""
    if value is None or not value.startswith(generation):
        return Found(None, generation)
    return Found(Answer.load(value[len(generation) :]), generation)


@asynccontextmanager
async def open_cache(
    url: str,
    *,
    name: str,
    ttl: int,
    timeout: float,
    max_waiting: int,
) -> AsyncGenerator[ResponseCache]:
    """Open the connections to Redis and close them; they are made when they are first used.

    A service keeps its answers under its name, for `ttl` seconds. A cache that needs longer than `timeout` seconds is
    slower than the database, so a command is not retried by the client.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )
    cache = ResponseCache(Redis(connection_pool=pool), name=name, ttl=ttl, max_waiting=max_waiting)
    try:
        with looked_at(lambda: OWED.set(cache.owed)):
            yield cache
    finally:
        await cache.close()
        await pool.aclose()
