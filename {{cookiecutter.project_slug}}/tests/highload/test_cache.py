import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx2
import hypothesis
import pytest
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.responses import Response

from app.highload.batching import Overloaded
from app.highload.generations import ANYTHING
from app.highload.pagination import EPOCH, Position, decode_cursor, encode_cursor
from app.highload.reads.answers import Answer
from app.highload.reads.cache import MAX_KEPT_BYTES, NOT_ASKED, ResponseCache, Wanted, open_cache, prefix_of
from app.highload.reads.sharing import LookUp, Outcome
from app.highload.service import Service
from tests.conftest import Serve, stack_url
from tests.highload import notes
from tests.highload.counting import Runs, counting_service, get, request, started
from tests.highload.test_access import try_tenants
from tests.proxy import proxied
from tests.waiting import PATIENCE, eventually, settle

NAME = "highload-cache"
GENERATION = f"{prefix_of(NAME)}generation:{ANYTHING}"
ANSWER = Answer(200, [(b"etag", b'"1"'), (b"content-length", b"4")], b"body")
# Seconds without an answer after which a cache cools down, where that is what a test is about.
IMPATIENT = 0.5


def cache_at(url: str, *, name: str = NAME, timeout: float = PATIENCE) -> AbstractAsyncContextManager[ResponseCache]:
    return open_cache(url, name=name, ttl=60, timeout=timeout, max_waiting=1000)


async def forget(redis: Redis, name: str) -> None:
    keys = [key async for key in redis.scan_iter(match=f"{prefix_of(name)}*", count=1000)]
    if keys:
        await redis.delete(*keys)


@pytest.fixture
async def redis() -> AsyncGenerator[Redis]:
    """A Redis that has forgotten what these tests have kept there."""
    async with Redis.from_url(stack_url("REDIS_URL")) as redis:
        await forget(redis, NAME)
        await forget(redis, notes.NAME)
        yield redis


@pytest.fixture
def redis_url(redis: Redis) -> str:
    assert redis
    return stack_url("REDIS_URL")


@pytest.fixture
async def cache(redis_url: str) -> AsyncGenerator[ResponseCache]:
    async with cache_at(redis_url) as cache:
        yield cache


@asynccontextmanager
async def service(runs: Runs, cache: ResponseCache) -> AsyncGenerator[Service]:
    """Start a service that counts its runs and keeps its answers in a cache."""
    async with started(counting_service(runs)) as app:
        app.reads.cache = cache
        yield app


def wanted(key: str, *places: str) -> Wanted:
    return key, places or (ANYTHING,)


async def generation_of(cache: ResponseCache) -> bytes:
    found = await cache.find(wanted("any"))
    assert found.generation is not None
    return found.generation


async def become_asked(cache: ResponseCache) -> None:
    """Wait until a cache asks its Redis, which it leaves alone for a while after it had to wait for an answer."""

    async def is_asked() -> bool:
        return await cache.find(wanted("page")) != NOT_ASKED

    await eventually(is_asked)


async def test_what_is_kept_is_found(cache: ResponseCache) -> None:
    await cache.keep("page", ANSWER, await generation_of(cache))
    assert (await cache.find(wanted("page"))).answer == ANSWER
    assert (await cache.find(wanted("other"))).answer is None


async def test_one_round_trip_serves_all_that_wait(cache: ResponseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    await cache.keep("page", ANSWER, await generation_of(cache))
    mget = cache._node.clients.single.mget
    round_trips = 0

    async def count_and_get(*keys: str) -> Any:
        nonlocal round_trips
        round_trips += 1
        return await mget(*keys)

    monkeypatch.setattr(cache._node.clients.single, "mget", count_and_get)
    found = await asyncio.gather(*(cache.find(wanted(f"page{number or ''}")) for number in (0, 0, 1, 2)))
    assert [one.answer for one in found] == [ANSWER, ANSWER, None, None]
    assert round_trips == 1


async def test_one_round_trip_keeps_all_that_wait(redis: Redis, redis_url: str) -> None:
    """A connection for each would use up the pool, and a cache whose pool is empty leaves Redis alone for a while."""
    name = f"{NAME}-{uuid4()}"
    async with cache_at(f"{redis_url}?client_name={name}") as cache:
        generation = await generation_of(cache)
        await asyncio.gather(*(cache.keep(f"page{number}", ANSWER, generation) for number in range(200)))
        connections = [client for client in await redis.client_list() if client["name"] == name]
        assert len(connections) == 2, "one for look-ups, one for all else"
        assert all([(await cache.find(wanted(f"page{number}"))).answer == ANSWER for number in range(200)])


async def test_a_connection_that_was_closed_meanwhile_costs_nothing(redis: Redis, redis_url: str) -> None:
    """A Redis closes idle connections, and so does a proxy; a restart closes all."""
    name = f"{NAME}-{uuid4()}"
    async with cache_at(f"{redis_url}?client_name={name}") as cache:
        await cache.keep("page", ANSWER, await generation_of(cache))
        for _ in range(2):
            for client in await redis.client_list():
                if client["name"] == name:
                    await redis.client_kill_filter(_id=client["id"])
            assert (await cache.find(wanted("page"))).answer == ANSWER
        await cache.invalidate([ANYTHING])
        assert (await cache.find(wanted("page"))).answer is None
        assert not cache._cooling_down()


async def test_an_invalidation_ends_everything_kept(cache: ResponseCache) -> None:
    generation = await generation_of(cache)
    await cache.keep("page", ANSWER, generation)
    await cache.invalidate([ANYTHING])
    found = await cache.find(wanted("page"))
    assert found.answer is None
    assert found.generation not in (None, generation)


async def test_services_with_other_names_see_nothing_of_each_other(cache: ResponseCache, redis_url: str) -> None:
    async with cache_at(redis_url, name=f"{NAME}-other") as other:
        generation = await generation_of(cache)
        assert await generation_of(other) != generation
        # Even an answer with the right generation is not found under another name.
        await cache.keep("page", ANSWER, await generation_of(other))
        assert (await other.find(wanted("page"))).answer is None

        await cache.keep("page", ANSWER, generation)
        await other.keep("page", ANSWER._replace(body=b"else"), await generation_of(other))
        assert (await cache.find(wanted("page"))).answer == ANSWER
        await other.invalidate([ANYTHING])
        assert (await cache.find(wanted("page"))).answer == ANSWER
        assert (await other.find(wanted("page"))).answer is None


async def test_a_slow_reader_cannot_resurrect_an_old_list(cache: ResponseCache) -> None:
    runs = Runs()
    async with service(runs, cache) as app:
        runs.gate.clear()
        slow = asyncio.create_task(get(app, "/notes"))
        await runs.called.wait()
        await cache.invalidate([ANYTHING])
        runs.gate.set()
        assert (await slow).body == b"1"

        fresh = await get(app, "/notes")
        assert (fresh.body, fresh["x-cache"]) == (b"2", "miss")
        assert (await get(app, "/notes"))["x-cache"] == "hit"


async def test_a_lost_generation_ends_everything_kept(cache: ResponseCache, redis: Redis) -> None:
    await cache.keep("page", ANSWER, await generation_of(cache))
    await redis.delete(GENERATION)
    assert (await cache.find(wanted("page"))).answer is None
    assert await redis.get(GENERATION), "the next reader has set one"


async def test_two_processes_begin_with_the_same_generation(
    cache: ResponseCache, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_have_looked, begin = asyncio.Barrier(2), ResponseCache._begin

    async def begin_together(self: ResponseCache, places: Sequence[str]) -> dict[str, bytes]:
        await both_have_looked.wait()
        return await begin(self, places)

    monkeypatch.setattr(ResponseCache, "_begin", begin_together)
    async with cache_at(redis_url) as other:
        one, another = await asyncio.gather(generation_of(cache), generation_of(other))
        assert one == another == await generation_of(cache)


async def test_what_is_kept_expires(cache: ResponseCache, redis: Redis) -> None:
    await cache.keep("page", ANSWER, await generation_of(cache))
    assert 0 < await redis.ttl(f"{prefix_of(NAME)}page") <= 60


async def test_a_huge_answer_is_not_kept(cache: ResponseCache) -> None:
    await cache.keep("page", ANSWER._replace(body=b"x" * (MAX_KEPT_BYTES + 1)), await generation_of(cache))
    assert (await cache.find(wanted("page"))).answer is None


async def test_readers_of_one_generation_share_a_finished_answer(cache: ResponseCache) -> None:
    runs = Runs()
    runs.gate.clear()
    async with service(runs, cache) as app:
        early = asyncio.create_task(get(app, "/notes"))
        await runs.called.wait()
        late = [asyncio.create_task(get(app, "/notes")) for _ in range(3)]
        await settle()
        # One round trip serves all that wait, so theirs was over before this one began.
        await cache.find(wanted("other"))
        runs.gate.set()
        bodies = {reply.body for reply in await asyncio.gather(early, *late)}
    assert bodies == {b"1"}
    assert len(runs.calls) == 1


async def test_an_error_is_not_kept(cache: ResponseCache) -> None:
    async with service(Runs(status=404), cache) as app:
        for body in (b"1", b"2"):
            assert (await get(app, "/notes/a")).body == body


async def test_a_personal_answer_is_not_kept(cache: ResponseCache) -> None:
    async with service(Runs(headers={"set-cookie": "a=b"}), cache) as app:
        for body in (b"2", b"4"):
            reply = await get(app, "/notes")
            assert (reply.body, reply["x-cache"]) == (body, "bypass")


async def test_a_stopped_redis_costs_little_and_a_missed_invalidation_is_made_up_for(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    async with (
        cache_at(redis_url) as elsewhere,
        proxied(redis_url) as (url, proxy),
        cache_at(url) as cache,
    ):
        generation = await generation_of(cache)
        await elsewhere.keep("page", ANSWER, generation)
        await proxy.stop()
        assert await cache.find(wanted("page")) == NOT_ASKED
        assert cache._cooling_down()
        await cache.invalidate([ANYTHING])
        cache._cool_until = math.inf
        with monkeypatch.context() as patch:
            for client in cache._node.clients:
                for command in ("execute_command", "pipeline"):
                    patch.setattr(client, command, asked.append)
            for _ in range(100):
                assert await cache.find(wanted("page")) == NOT_ASKED
                await cache.invalidate([ANYTHING])
                await cache.keep("page", ANSWER, generation)
        assert not asked, "a Redis that is away is not asked"

        await proxy.start()
        cache._cool_until = 0
        assert await cache.find(wanted("page")) == NOT_ASKED, "the invalidation is still owed"
        await become_asked(cache)
        assert (await cache.find(wanted("page"))).answer is None
        assert (await elsewhere.find(wanted("page"))).answer is None


async def test_a_ping_tells_whether_redis_answers(redis_url: str) -> None:
    async with proxied(redis_url) as (url, proxy), cache_at(url, timeout=IMPATIENT) as cache:

        async def answers() -> bool:
            with suppress(RedisError):
                await cache.ping()
                return True
            return False

        await eventually(answers)
        proxy.freeze()
        with pytest.raises(RedisError):
            await asyncio.wait_for(cache.ping(), PATIENCE)


@asynccontextmanager
async def node_without_the_keys(url: str) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """Yield the URL of a node of a cluster that sends whoever asks for keys on to a Redis, and what it was asked."""
    asked: list[bytes] = []
    target = urlsplit(url)

    async def send_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                parts = int((await reader.readuntil(b"\r\n"))[1:])
                command = []
                for _ in range(parts):
                    length = int((await reader.readuntil(b"\r\n"))[1:])
                    command.append((await reader.readexactly(length + 2))[:-2])
                if command[0] == b"HELLO":
                    writer.write(b"%1\r\n$5\r\nproto\r\n:3\r\n")
                elif command[0] in (b"GET", b"SET", b"MGET", b"MSET"):
                    asked.append(command[0])
                    writer.write(f"-MOVED 1 {target.hostname}:{target.port}\r\n".encode())
                else:
                    writer.write(b"+OK\r\n")
        writer.close()

    async with await asyncio.start_server(send_on, "127.0.0.1", 0) as server:
        credentials, at, _ = target.netloc.rpartition("@")
        port = server.sockets[0].getsockname()[1]
        yield target._replace(netloc=f"{credentials}{at}127.0.0.1:{port}").geturl(), asked


async def test_the_node_that_has_the_keys_is_found_and_kept(redis_url: str) -> None:
    async with node_without_the_keys(redis_url) as (url, asked), cache_at(url) as cache, cache_at(redis_url) as there:
        generation = await generation_of(cache)
        await cache.keep("page", ANSWER, generation)
        assert asked == [b"MGET"], "one answer names the node"
        assert (await there.find(wanted("page"))).answer == ANSWER
        await cache.invalidate([ANYTHING])
        assert (await there.find(wanted("page"))).answer is None
    assert asked == [b"MGET"]


async def test_each_command_is_sent_on(redis_url: str) -> None:
    places = [ANYTHING]
    asking: list[tuple[Callable[[ResponseCache], Awaitable[object]], bytes]] = [
        (lambda cache: cache.find(wanted("page")), b"MGET"),
        (lambda cache: cache.keep("page", ANSWER, b"0" * 16), b"SET"),
        (lambda cache: cache.invalidate(places), b"MSET"),
        (lambda cache: cache.ping(), b"GET"),
    ]
    for ask, command in asking:
        async with node_without_the_keys(redis_url) as (url, asked), cache_at(url) as cache:
            await ask(cache)
            assert asked == [command]
            assert not cache._cooling_down()
            assert not cache.owed


async def test_after_an_error_any_node_is_asked_again(redis_url: str) -> None:
    """The keys may have moved, and the node that had them may be away."""
    async with (
        proxied(redis_url) as (moved_to, proxy),
        node_without_the_keys(moved_to) as (url, asked),
        cache_at(url, timeout=IMPATIENT) as cache,
    ):
        await become_asked(cache)
        await proxy.stop()
        assert await cache.find(wanted("page")) == NOT_ASKED
        before = len(asked)
        await proxy.start()
        await become_asked(cache)
        assert len(asked) > before


async def test_a_write_during_the_making_up_is_made_up_for_too(cache: ResponseCache) -> None:
    original = cache._node.clients.pooled.mset
    renewed: list[set[str]] = []
    tokens: set[bytes] = set()

    async def renew_and_miss_a_write(new: dict[str, bytes]) -> Any:
        renewed.append({key.rpartition(":")[2] for key in new})
        tokens.update(new.values())
        if len(renewed) == 1:
            await cache.invalidate(["b", "c"])
        return await original(new)

    cache._node.clients.pooled.mset = renew_and_miss_a_write  # type: ignore[assignment, method-assign]
    cache._misses, cache._missed = 1, {"a": 1, "b": 1}
    await cache._make_up()
    assert renewed == [{"a", "b"}, {"b", "c"}], "of one place each write that was missed gets a token"
    assert len(tokens) == 4


async def test_what_is_owed_is_paid_while_writes_go_on(redis_url: str) -> None:
    async with (
        cache_at(redis_url) as elsewhere,
        proxied(redis_url) as (url, proxy),
        cache_at(url, timeout=IMPATIENT) as cache,
    ):
        await become_asked(cache)
        proxy.freeze()
        await cache.invalidate([ANYTHING])
        proxy.thaw()

        async def is_paid() -> bool:
            await cache.invalidate([ANYTHING])
            return await cache.find(wanted("page")) != NOT_ASKED

        await eventually(is_paid)
        await elsewhere.keep("page", ANSWER, await generation_of(elsewhere))
        await cache.invalidate([ANYTHING])
        assert (await elsewhere.find(wanted("page"))).answer is None


async def test_one_late_reply_does_not_make_an_invalidation_missed(redis_url: str) -> None:
    async with (
        cache_at(redis_url) as elsewhere,
        proxied(redis_url) as (url, proxy),
        cache_at(url, timeout=IMPATIENT) as cache,
    ):
        await become_asked(cache)
        await elsewhere.keep("page", ANSWER, await generation_of(elsewhere))
        proxy.freeze()
        invalidating = asyncio.create_task(cache.invalidate([ANYTHING]))

        async def timed_out() -> bool:
            return cache._cooling_down()

        await eventually(timed_out)
        proxy.thaw()
        await invalidating
        assert not cache._missed
        assert (await elsewhere.find(wanted("page"))).answer is None


async def test_reads_that_leave_redis_alone_do_not_keep_a_write_from_it(cache: ResponseCache) -> None:
    generation = await generation_of(cache)
    cache._cool_down(RedisError("late"))
    await cache.invalidate([ANYTHING])
    assert not cache._missed
    cache._cool_until = 0
    assert await generation_of(cache) != generation


async def test_what_is_not_kept_and_cannot_wait_is_refused() -> None:
    runs = Runs()
    runs.gate.clear()
    async with started(counting_service(runs, max_waiting=1)) as app:
        read = app.reads.read_at_once(request(app, "/notes"))
        assert read is not None
        waiters: list[asyncio.Future[Outcome]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
        for waiter in waiters:
            LookUp(app.reads, read, waiter).set_result(NOT_ASKED)
        assert not waiters[0].done()
        assert isinstance(waiters[1].exception(), Overloaded)
        runs.gate.set()
        outcome = await waiters[0]
    assert outcome is not None
    assert outcome[0].body == b"1"


async def is_kept(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/notes")).headers["x-cache"] == "hit"


async def test_a_frozen_redis_does_not_freeze_reads(serve: Serve, redis_url: str) -> None:
    async with (
        proxied(redis_url) as (url, proxy),
        serve(redis_url=url, cache_timeout=IMPATIENT) as client,
    ):
        await eventually(lambda: is_kept(client))
        proxy.freeze()
        response = await client.get("/notes")
        assert (response.status_code, response.headers["x-cache"]) == (200, "miss")


async def test_reads_stay_200_while_redis_is_stopped(serve: Serve, redis_url: str) -> None:
    async with proxied(redis_url) as (url, proxy), serve(redis_url=url) as client:
        await client.get("/notes")
        await proxy.stop()
        for number in range(10):
            created = await client.post("/notes", content=f"note {number}")
            assert created.status_code == 201
            listed = await client.get("/notes")
            assert listed.status_code == 200
            assert listed.json()["notes"][0] == created.json()
        await proxy.start()
        await eventually(lambda: is_kept(client))
        assert len((await client.get("/notes")).json()["notes"]) == 10


async def test_every_write_ends_what_is_kept(serve: Serve, redis_url: str) -> None:
    async with serve(redis_url=redis_url) as client:

        async def texts() -> list[str]:
            assert (await client.get("/notes")).status_code == 200
            kept = await client.get("/notes")
            assert kept.headers["x-cache"] == "hit"
            return [note["text"] for note in kept.json()["notes"]]

        assert await texts() == []
        created = (await client.post("/notes", content="new")).json()
        assert await texts() == ["new"]
        address = f"/notes/{created['id']}"
        for cache_status in ("miss", "hit"):
            fetched = await client.get(address)
            assert (fetched.json(), fetched.headers["x-cache"]) == (created, cache_status)
        await client.delete(address)
        assert await texts() == []
        assert (await client.get(address)).status_code == 404


async def test_a_cursor_that_no_page_gave_fills_no_cache(serve: Serve, redis: Redis, redis_url: str) -> None:
    async with serve(redis_url=redis_url) as client:

        async def page(cursor: str) -> tuple[str, list[str]]:
            response = await client.get("/notes", params={"limit": 1, "cursor": cursor})
            return response.headers["x-cache"], [note["text"] for note in response.json()["notes"]]

        async def keys() -> set[bytes]:
            return {key async for key in redis.scan_iter(match=f"{prefix_of(notes.NAME)}*", count=1000)}

        for text in ("oldest", "middle", "newest"):
            await client.post("/notes", content=text)
        given = (await client.get("/notes", params={"limit": 1})).json()["next_cursor"]
        assert await page(given) == ("miss", ["middle"])
        assert await page(given) == ("hit", ["middle"])
        before = await keys()
        newest = decode_cursor(given)
        for number in range(50):
            assert await page(encode_cursor(Position(newest.created_at, UUID(int=number)))) == ("miss", ["middle"])
            assert await page(encode_cursor(Position(EPOCH, UUID(int=number)))) == ("miss", [])
        assert await keys() == before


async def test_a_kept_answer_says_the_same(serve: Serve, redis_url: str) -> None:
    async with serve(redis_url=redis_url) as client:
        for _ in range(2):
            await client.post("/notes", content=b"x")
        miss, hit = [await client.get("/notes?limit=1") for _ in range(2)]
    assert [answer.headers["x-cache"] for answer in (miss, hit)] == ["miss", "hit"]
    assert [hit.headers[name] == miss.headers[name] for name in ("etag", "cache-control", "link")] == [True] * 3
    assert hit.headers["cache-control"] == "no-cache"


async def test_closing_forgets_what_is_owed() -> None:
    async with cache_at("redis://127.0.0.1:1/0") as cache:
        await cache.invalidate([ANYTHING])
        making_up = cache._making_up
    await settle()
    assert making_up is not None
    assert making_up.cancelled()


class Table(Runs):
    """A table that is a number; each run reads it and then waits for a gate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.value = 0
        self.gates: list[asyncio.Event] = []

    async def answer(self, **_: Any) -> Response:
        seen = self.value
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        return Response(str(seen))


class World:
    """Processes of one service on one table and one Redis, and what each reader must at least see."""

    def __init__(self, table: Table, processes: list[tuple[Service, ResponseCache]], redis: Redis) -> None:
        self.redis = redis
        self.table = table
        self.acknowledged = 0
        self.readers: list[asyncio.Task[None]] = []
        self.processes = processes

    async def step(self, action: str, process: int) -> None:
        app, cache = self.processes[process]
        gates = self.table.gates
        match action:
            case "read":
                self.readers.append(asyncio.create_task(self.read(app)))
            case "write":
                self.table.value += 1
                written = self.table.value
                await cache.invalidate([ANYTHING])
                self.acknowledged = max(self.acknowledged, written)
            case "finish" if gates:
                gates.pop(0).set()
            case "finish last" if gates:
                gates.pop().set()
            case "evict":
                await self.redis.delete(GENERATION)
            case "restart":
                await forget(self.redis, NAME)
        # Long enough for a round trip or two, so that the steps interleave with the readers.
        await asyncio.sleep(0.002)

    async def read(self, app: Service) -> None:
        least = self.acknowledged
        reply = await get(app, "/notes")
        assert int(reply.body) >= least, f"read {reply.body!r} after {least} was acknowledged"

    async def finish(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not all(reader.done() for reader in self.readers):
                while self.table.gates:
                    self.table.gates.pop().set()
                await asyncio.sleep(0.001)
        for reader in self.readers:
            reader.result()


ACTIONS = st.sampled_from(["read", "read", "read", "write", "write", "finish", "finish last", "evict", "restart"])


@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(steps=st.lists(st.tuples(ACTIONS, st.integers(0, 1)), min_size=5, max_size=40))
async def test_no_interleaving_makes_a_read_stale(redis: Redis, redis_url: str, steps: list[tuple[str, int]]) -> None:
    # The answers of the example before hold numbers that are too high to be stale.
    await forget(redis, NAME)
    table = Table()
    async with AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(cache_at(redis_url)) for _ in range(2)]
        apps = [await stack.enter_async_context(service(table, cache)) for cache in caches]
        world = World(table, list(zip(apps, caches, strict=True)), redis)
        for action, process in steps:
            await world.step(action, process)
        await world.finish()


async def test_a_tenant_never_gets_what_is_kept_for_another(redis_url: str, tmp_path: Path) -> None:
    database_url = f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
    assert "hit" in await try_tenants(database_url=database_url, redis_url=redis_url)
