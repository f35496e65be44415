"""The response cache in Redis, shared by all processes and containers.

Nothing is ever deleted. A stored response carries the generation of its places (`generations`) that was current before
the database was asked, and counts only while that generation is current. A write gives its places new random tokens:
one command, however much is cached. A reader that is overtaken by a write therefore stores what nobody accepts.

A counter would not do: after Redis evicts it, it starts again and makes old responses count.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from typing import Any, NamedTuple, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import MovedError, RedisError

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


# A key, and the places on which the answer under it depends.
type Wanted = tuple[str, tuple[str, ...]]


class Found(NamedTuple):
    """The outcome of a look-up. Without a generation the cache was not asked, and nothing may be kept in it."""

    answer: Answer | None
    generation: bytes | None


NOT_ASKED = Found(None, None)


class Clients(NamedTuple):
    """The clients of a node: one for commands that may overlap, and one with a connection for those that never do."""

    pooled: Redis
    single: Redis


class Node:
    """The node of a Redis Cluster that has the keys of a service, or a Redis that is alone.

    `url` may name any node. It tells which one is right, and that one is asked until there is an error.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._options = options
        self._pool = BlockingConnectionPool.from_url(url, **options)
        self._any = self.clients = clients_of(self._pool)
        self._others: dict[tuple[str, int], Clients] = {}

    async def ask[T](self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Run a command, again where a node sends it on.

        Raises RedisError.
        """
        return await self._ask(lambda clients: command(clients.pooled))

    async def ask_in_turn[T](self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Do the same for commands of which one begins when the one before has ended.

        To take a connection from the pool and to give it back costs a third of such a command.
        """
        return await self._ask(lambda clients: command(clients.single))

    async def _ask[T](self, command: Callable[[Clients], Awaitable[T]]) -> T:
        try:
            try:
                return await command(self.clients)
            except MovedError as moved:
                self.clients = self._node_at(moved)
                return await command(self.clients)
        except RedisError:
            self.clients = self._any
            raise

    def _node_at(self, moved: MovedError) -> Clients:
        connection = self._pool.connection_kwargs
        if "host" not in connection:
            raise moved
        # A node that does not know its own name means the one that was asked.
        place = moved.host or connection["host"], moved.port
        if place not in self._others:
            options = self._options | connection | {"host": place[0], "port": place[1]}
            pool = BlockingConnectionPool(connection_class=self._pool.connection_class, **options)
            self._others[place] = clients_of(pool)
        return self._others[place]

    async def close(self) -> None:
        """Close all connections."""
        for clients in (self._any, *self._others.values()):
            await clients.single.aclose()
            await clients.pooled.connection_pool.aclose()


def clients_of(pool: BlockingConnectionPool) -> Clients:
    """Return the clients for a pool."""
    pooled = Redis(connection_pool=pool)
    return Clients(pooled, pooled.client())


class ResponseCache:
    """Keeps finished responses; while Redis is away it keeps nothing, and no caller waits for it.

    After an error reads leave Redis alone for a second. An invalidation is still tried, several times, so that one late
    reply does not let other processes serve what is old. One that was missed is owed: until it is made up for, this
    process asks the cache nothing, and `ttl` bounds what other processes may see.
    """

    def __init__(self, node: Node, *, name: str, ttl: int, max_waiting: int) -> None:
        self._node = node
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
        # All that wait for a key depend on the same places.
        places_of = dict(batch)
        places = list(dict.fromkeys(place for places in places_of.values() for place in places))
        asked = [*map(self._key_of, places), *(self._prefix + key for key in places_of)]
        try:
            replies = cast(list[bytes | None], await self._node.ask_in_turn(lambda redis: redis.mget(*asked)))
            tokens = dict(zip(places, replies[: len(places)], strict=True))
            known = {place: token for place, token in tokens.items() if token is not None}
            if len(known) < len(places):
                known |= await self._begin([place for place, token in tokens.items() if token is None])
        except RedisError as error:
            LOOK_UPS.failures.add()
            self._cool_down(error)
            return [NOT_ASKED] * len(batch)
        values = zip(places_of.items(), replies[len(places) :], strict=True)
        found = {key: found_in(value, generation_of(places, known)) for (key, places), value in values}
        return [found[key] for key, _ in batch]

    async def keep(self, key: str, answer: Answer, generation: bytes) -> None:
        """Keep an answer that was made of data read after `generation` was; all that wait share one round trip."""
        if len(answer.body) > MAX_KEPT_BYTES:
            return
        # What does not get kept costs a query later, and no client an error now.
        with suppress(Overloaded):
            await self._store((self._prefix + key, generation + answer.dump()))

    async def _store_batch(self, entries: Sequence[tuple[str, bytes]]) -> Sequence[None]:
        def keep(redis: Redis) -> Awaitable[object]:
            pipeline = redis.pipeline(transaction=False)
            for key, value in entries:
                pipeline.set(key, value, ex=self._ttl)
            return pipeline.execute()

        if not self._cooling_down():
            try:
                await self._node.ask(keep)
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
        await self._node.ask(lambda redis: redis.get(self._key_of(ANYTHING)))

    async def close(self) -> None:
        """Stop making up for missed invalidations."""
        if self._making_up is not None:
            self._making_up.cancel()

    def _key_of(self, place: str) -> str:
        return f"{self._prefix}generation:{place}"

    async def _begin(self, places: Sequence[str]) -> dict[str, bytes]:
        """Set a token for each place that has none, and return those that are there then."""
        new = {place: new_token() for place in places}

        def begin(redis: Redis) -> Awaitable[list[bytes | None]]:
            pipeline = redis.pipeline(transaction=False)
            for place, token in new.items():
                pipeline.set(self._key_of(place), token, nx=True, get=True)
            return pipeline.execute()

        there = await self._node.ask(begin)
        return {place: found or new[place] for place, found in zip(places, there, strict=True)}

    async def _renew(self, places: Collection[str]) -> None:
        tokens = {self._key_of(place): new_token() for place in places}
        await self._node.ask(lambda redis: redis.mset(tokens))

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


def generation_of(places: Collection[str], tokens: Mapping[str, bytes]) -> bytes:
    """Return the generation of an answer: a digest of the tokens of its places."""
    return blake2b(b"".join([tokens[place] for place in places]), digest_size=TOKEN_BYTES).digest()


def found_in(value: bytes | None, generation: bytes) -> Found:
    """Return the answer in a stored value if it is of this generation."""
    if value is None or not value.startswith(generation):
        return Found(None, generation)
    return Found(Answer.load(value, len(generation)), generation)


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
    slower than the database, so a command is repeated only where the other side has closed the connection.
    """
    node = Node(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(LostConnection,)),
    )
    cache = ResponseCache(node, name=name, ttl=ttl, max_waiting=max_waiting)
    try:
        with looked_at(lambda: OWED.set(cache.owed)):
            yield cache
    finally:
        await cache.close()
        await node.close()
