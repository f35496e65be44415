"""A write ends what it may have changed and nothing else, and no interleaving makes a read stale."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

import hypothesis
import pytest
from fastapi import APIRouter, Depends
from hypothesis import strategies as st
from redis.asyncio import Redis
from starlette.responses import Response

from app.highload.generations import (
    ANYTHING,
    SLOTS,
    Source,
    all_rows,
    announce,
    ended_by_change,
    ended_by_insert,
    lists,
    slot,
)
from app.highload.reads.answers import Answer
from app.highload.reads.cache import ResponseCache, open_cache, prefix_of
from app.highload.reads.dependencies import Opened
from app.highload.reads.shared import CannotShare, shared
from app.highload.service import Service
from tests.conftest import in_database, running, stack_url
from tests.highload.counting import get, started
from tests.highload.notes import NOTES, Base, NoteRead, NoteRepository, notes_service
from tests.waiting import PATIENCE

NAME = "highload-generations"
ANSWER = Answer(200, [(b"etag", b'"1"'), (b"content-length", b"4")], b"body")
ONE, TWO = UUID(int=1), UUID(int=2)
IN_THE_SLOT_OF_ONE = UUID(int=1 + SLOTS)


async def forget(redis: Redis) -> None:
    keys = [key async for key in redis.scan_iter(match=f"{prefix_of(NAME)}*", count=1000)]
    if keys:
        await redis.delete(*keys)


@pytest.fixture
async def redis() -> AsyncGenerator[Redis]:
    async with Redis.from_url(stack_url("REDIS_URL")) as redis:
        await forget(redis)
        yield redis


@asynccontextmanager
async def opened_cache() -> AsyncGenerator[ResponseCache]:
    async with open_cache(stack_url("REDIS_URL"), name=NAME, ttl=60, timeout=PATIENCE, max_waiting=1000) as cache:
        yield cache


@pytest.fixture
async def cache(redis: Redis) -> AsyncGenerator[ResponseCache]:
    assert redis
    async with opened_cache() as cache:
        yield cache


async def keep(cache: ResponseCache, key: str, places: tuple[str, ...]) -> None:
    found = await cache.find((key, places))
    assert found.generation is not None
    await cache.keep(key, ANSWER, found.generation)


async def kept_after(cache: ResponseCache, ended: Collection[str]) -> set[str]:
    """Return what is still kept when a write has ended some places."""
    wanted = {
        "list": Source("a").places(None),
        "row": Source("a", "id").places(str(ONE)),
        "slot": Source("a", "id").places(str(IN_THE_SLOT_OF_ONE)),
        "other row": Source("a", "id").places(str(TWO)),
        "other table": Source("b").places(None),
        "row of the other table": Source("b", "id").places(str(ONE)),
        "child": Source("b", "id", also=("a",)).places(str(TWO)),
        "anything": Source(ANYTHING).places(None),
        "nothing": (),
    }
    for key, places in wanted.items():
        await keep(cache, key, places)
    await cache.invalidate(ended)
    found = await asyncio.gather(*(cache.find((key, places)) for key, places in wanted.items()))
    return {key for key, one in zip(wanted, found, strict=True) if one.answer is not None}


async def test_a_write_ends_what_it_may_have_changed(cache: ResponseCache) -> None:
    other = {"other table", "row of the other table", "nothing"}
    assert await kept_after(cache, ended_by_insert("a")) == other | {"row", "slot", "other row"}
    assert await kept_after(cache, ended_by_insert("a", ONE)) == other | {"other row"}
    assert await kept_after(cache, ended_by_change("a", ONE)) == other | {"other row"}
    assert await kept_after(cache, ended_by_change("a", ONE, TWO)) == other
    assert await kept_after(cache, ended_by_change("a")) == other
    assert await kept_after(cache, ended_by_insert("b")) == {
        *("list", "row", "slot", "other row", "row of the other table", "child", "nothing"),
    }


async def test_an_invalidation_is_one_command(cache: ResponseCache, redis: Redis) -> None:
    before = (await redis.info("commandstats")).get("cmdstat_mset", {"calls": 0})["calls"]
    await cache.invalidate(ended_by_change("a", ONE))
    assert (await redis.info("commandstats"))["cmdstat_mset"]["calls"] == before + 1


async def test_a_look_up_asks_for_each_place_once(cache: ResponseCache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    mget = cache._node.clients.single.mget

    async def remember(*keys: str) -> Any:
        asked.append(keys)
        return await mget(*keys)

    monkeypatch.setattr(cache._node.clients.single, "mget", remember)
    wanted = [(key, ("a", "b")) for key in ("/1", "/2", "/1")]
    await asyncio.gather(*map(cache.find, wanted))
    assert len(asked) == 1
    prefix = prefix_of(NAME)
    assert asked[0] == (f"{prefix}generation:a", f"{prefix}generation:b", f"{prefix}/1", f"{prefix}/2")


@pytest.mark.parametrize(("earlier", "later"), [(("a", "b"), ("a",)), (("a",), ("b",))])
async def test_an_answer_of_other_places_is_not_accepted(
    cache: ResponseCache, earlier: tuple[str, ...], later: tuple[str, ...]
) -> None:
    """A later release may say that a route reads something else."""
    await keep(cache, "page", earlier)
    assert (await cache.find(("page", earlier))).answer == ANSWER
    assert (await cache.find(("page", later))).answer is None


async def test_a_lost_token_ends_what_depends_on_it(cache: ResponseCache, redis: Redis) -> None:
    places = Source("a", "id").places(str(ONE))
    for place in places:
        await keep(cache, "row", places)
        await redis.delete(f"{prefix_of(NAME)}generation:{place}")
        assert (await cache.find(("row", places))).answer is None, place


@pytest.mark.parametrize(("before", "after"), [("", ""), ("{", "}"), ("urn:uuid:", "")])
def test_every_spelling_of_an_id_has_the_same_places(before: str, after: str) -> None:
    for row_id in (uuid4() for _ in range(100)):
        for text in (str(row_id), row_id.hex, str(row_id).upper()):
            assert Source("a", "id").places(before + text + after) == (slot("a", row_id), all_rows("a"))


def test_what_is_no_id_depends_on_anything() -> None:
    assert Source("a", "id").places("1") == (ANYTHING,)


async def test_a_parameter_that_is_not_in_the_path_is_refused() -> None:
    router = APIRouter()

    @router.get("/a/{a_id}")
    @shared(reads=[Source("a", "id")])
    async def get_a(a_id: UUID) -> str:
        return str(a_id)

    app = service(router)
    with pytest.raises(
        CannotShare, match=r"GET /a/\{a_id\} is shared and reads a row of a by 'id', which is no parameter"
    ):
        app.build_middleware_stack()


def service(router: APIRouter) -> Service:
    app = Service(limit_concurrency=1000, max_body_bytes=1000, max_waiting=1000)
    app.include_flat(router)
    return app


async def test_an_answer_of_more_than_its_route_names_is_not_kept(cache: ResponseCache, log: list[str]) -> None:
    router = APIRouter()

    @router.get("/honest/{a_id}")
    @shared(reads=[Source("a", "a_id")])
    async def honest(a_id: UUID) -> str:
        announce("a", slot("a", a_id))
        return "honest"

    @router.get("/list")
    @shared(reads=[Source("a")])
    async def a_row_of_a_list() -> str:
        announce("a", slot("a", ONE))
        return "a list ends with each of its rows"

    @router.get("/anything")
    @shared
    async def anything() -> str:
        announce("b", lists("b"))
        return "anything"

    @router.get("/liar/{a_id}")
    @shared(reads=[Source("a", "a_id")])
    async def liar(a_id: UUID) -> str:
        announce("b", lists("b"))
        return str(a_id)

    @router.get("/list-by-row/{a_id}")
    @shared(reads=[Source("a", "a_id")])
    def list_by_row(a_id: UUID) -> str:
        announce("a", lists("a"))
        return str(a_id)

    async with started(service(router)) as app:
        app.reads.cache = cache
        for _ in range(2):
            paths = [f"/honest/{ONE}", "/list", "/anything", f"/liar/{ONE}", f"/list-by-row/{ONE}"]
            seen = [(await get(app, path))["x-cache"] for path in paths]
    assert seen == ["hit", "hit", "hit", "miss", "miss"]
    said = [line for line in log if "does not say so" in line]
    assert len(said) == 2, "once for each route"
    assert "GET /liar/{a_id} reads b and does not say so" in said[0]


async def test_a_row_that_comes_back_is_seen_before_its_deletion_is_told(redis: Redis) -> None:
    """Its version is 1 when it is kept, 2 when it is deleted, and 3 when the same id is inserted again."""
    tables = Tables()
    async with opened_cache() as cache, started(service(tables.router())) as app:
        app.reads.cache = cache

        async def version() -> int:
            reading = asyncio.create_task(get(app, f"/a/{ONE}"))
            while not reading.done():
                for gate in tables.gates:
                    gate.set()
                await asyncio.sleep(0.001)
            return int((await reading).body)

        await cache.invalidate(tables.write("change", "a", ONE))
        assert [await version(), await version()] == [1, 1]
        to_be_told = tables.write("delete", "a", ONE)
        await cache.invalidate(tables.write("insert", "a", ONE))
        assert await version() == 3
        await cache.invalidate(to_be_told)


async def test_an_answer_that_there_is_no_row_is_not_kept(redis: Redis, tmp_path: Path) -> None:
    """Not even where a route says so with 200."""
    assert redis
    router = APIRouter()

    @router.get("/maybe/{note_id}")
    @shared(reads=[NOTES.row("note_id")])
    async def maybe(notes: Annotated[NoteRepository, Depends(Opened("notes"))], note_id: UUID) -> NoteRead | None:
        return await notes.one(note_id)

    url = f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
    await in_database(url, lambda connection: connection.run_sync(Base.metadata.create_all))
    app = notes_service(database_url=url, redis_url=stack_url("REDIS_URL"), routers=[router])
    async with running(app) as client:
        for _ in range(2):
            answer = await client.get(f"/maybe/{uuid4()}")
            assert (answer.text, answer.headers["x-cache"]) == ("null", "miss")
        absent = f"/maybe/{uuid4()}"
        assert [(await client.get(absent)).headers["x-cache"] for _ in range(2)] == ["miss", "miss"]


class Tables:
    """Two tables whose rows are numbers that each write increases; a run reads them and then waits for a gate."""

    def __init__(self) -> None:
        self.versions: dict[tuple[str, UUID | None], int] = defaultdict(int)
        self.absent: set[tuple[str, UUID]] = set()
        self.gates: list[asyncio.Event] = []

    async def answer(self, table: str, row_id: UUID | None) -> Response:
        seen = self.versions[table, row_id]
        absent = row_id is not None and (table, row_id) in self.absent
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        return Response(str(seen), 404 if absent else 200)

    def router(self) -> APIRouter:
        router = APIRouter()

        @router.get("/a")
        @shared(reads=[Source("a")])
        async def list_a() -> Response:
            return await self.answer("a", None)

        @router.get("/b")
        @shared(reads=[Source("b")])
        async def list_b() -> Response:
            return await self.answer("b", None)

        @router.get("/a/{a_id}")
        @shared(reads=[Source("a", "a_id")])
        async def get_a(a_id: UUID) -> Response:
            return await self.answer("a", a_id)

        @router.get("/anything")
        @shared
        async def anything() -> Response:
            return await self.answer("anything", None)

        return router

    def write(self, action: str, table: str, row_id: UUID) -> Collection[str]:
        """Change a table, and return the places that end."""
        rows = [row_id]
        ended = ended_by_change(table, row_id)
        match action:
            case "insert":
                self.absent.discard((table, row_id))
                ended = ended_by_insert(table, row_id)
            case "delete":
                self.absent.add((table, row_id))
            case "change all":
                rows, ended = [ONE, TWO, IN_THE_SLOT_OF_ONE], ended_by_change(table)
            case _:
                pass
        for place in ((table, None), ("anything", None), *((table, row) for row in rows)):
            self.versions[place] += 1
        return ended


class World:
    """Processes of one service on two tables and one Redis, and what each reader must at least see."""

    def __init__(self, tables: Tables, processes: list[tuple[Service, ResponseCache]], redis: Redis) -> None:
        self.redis = redis
        self.tables = tables
        self.acknowledged: dict[tuple[str, UUID | None], int] = defaultdict(int)
        self.readers: list[asyncio.Task[None]] = []
        self.processes = processes

    async def step(self, action: str, process: int, table: str, row_id: UUID) -> None:
        app, cache = self.processes[process]
        gates = self.tables.gates
        read = {"read list": (table, None), "read row": ("a", row_id), "read anything": ("anything", None)}
        match action:
            case "read list" | "read row" | "read anything":
                self.readers.append(asyncio.create_task(self.read(app, *read[action])))
            case "insert" | "change" | "delete" | "change all":
                await self.write(cache, action, table, row_id)
            case "finish" if gates:
                gates.pop(0).set()
            case "finish last" if gates:
                gates.pop().set()
            case "evict":
                keys = [key async for key in self.redis.scan_iter(match=f"{prefix_of(NAME)}*", count=1000)]
                if keys:
                    await self.redis.delete(sorted(keys)[row_id.int * 7 % len(keys)])
            case "restart":
                await forget(self.redis)
        # Long enough for a round trip or two, so that the steps interleave with the readers.
        await asyncio.sleep(0.002)

    async def write(self, cache: ResponseCache, action: str, table: str, row_id: UUID) -> None:
        # A row that is there is not inserted, and one that is not there is not changed.
        if table == "a" and (action == "insert") != ((table, row_id) in self.tables.absent):
            return
        ended = self.tables.write(action, table, row_id)
        written = {place: version for place, version in self.tables.versions.items() if place[0] in (table, "anything")}
        await cache.invalidate(ended)
        for place, version in written.items():
            self.acknowledged[place] = max(self.acknowledged[place], version)

    async def read(self, app: Service, table: str, row_id: UUID | None) -> None:
        least = self.acknowledged[table, row_id]
        reply = await get(app, f"/{table}" if row_id is None else f"/{table}/{row_id}")
        assert int(reply.body) >= least, f"read {reply.body!r} of {table} {row_id} after {least} was acknowledged"

    async def finish(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not all(reader.done() for reader in self.readers):
                while self.tables.gates:
                    self.tables.gates.pop().set()
                await asyncio.sleep(0.001)
        for reader in self.readers:
            reader.result()


READS = ("read list", "read row", "read row", "read row", "read anything")
WRITES = ("insert", "change", "change", "delete", "change all")
ACTIONS = st.sampled_from([*READS, *WRITES, "finish", "finish last", "evict", "restart"])
STEPS = st.tuples(
    ACTIONS, st.integers(0, 1), st.sampled_from(["a", "a", "b"]), st.sampled_from([ONE, TWO, IN_THE_SLOT_OF_ONE])
)


@hypothesis.settings(max_examples=100, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(steps=st.lists(STEPS, min_size=5, max_size=40))
async def test_no_interleaving_makes_a_read_stale(redis: Redis, steps: list[tuple[str, int, str, UUID]]) -> None:
    # The answers of the example before hold numbers that are too high to be stale.
    await forget(redis)
    tables = Tables()
    async with AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(opened_cache()) for _ in range(2)]
        apps = [await stack.enter_async_context(started(service(tables.router()))) for _ in caches]
        for app, cache in zip(apps, caches, strict=True):
            app.reads.cache = cache
        world = World(tables, list(zip(apps, caches, strict=True)), redis)
        for step in steps:
            await world.step(*step)
        await world.finish()
