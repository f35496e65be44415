"""What is counted, once each, and told for all processes."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from uuid import UUID

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.highload.batching import Batcher, Flushes
from app.highload.http.requests import METHODS
from app.highload.metrics import exposition, instruments, slots
from app.highload.metrics.instruments import Registry, counter, gauge, histogram, keyed_histograms
from app.highload.metrics.slots import LayoutDiffers, Memory
from app.highload.server import Connection
from tests.conftest import Serve, running
from tests.highload.notes import creation_held, notes_service
from tests.numbers import Numbers
from tests.waiting import eventually

SLOT_BYTES = 4096
SLOTS = 4
BOUNDS = (1.0, 2.0)


class Process:
    """A process, as far as it counts."""

    def __init__(self, *names: str) -> None:
        self.memory = Memory()
        self.registry = Registry()
        with self.running():
            self.counters = {name: counter(name, "Counts.") for name in names}
            self.inside = gauge("inside", "Goes up and down.")
            self.largest = gauge("largest", "The largest counts.", max)
            self.sizes = histogram("sizes", "Have bounds.", BOUNDS, kind='100% "b"\\\n')
            self.seconds = keyed_histograms("seconds", "Have a status.", BOUNDS, by="status")

    @contextmanager
    def running(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (instruments, slots, exposition):
                patch.setattr(module, "registry", self.registry)
            patch.setattr(exposition, "memory", self.memory)
            yield

    def join(self, mapping: mmap, slot: int) -> None:
        with self.running():
            self.memory.lend(mapping, slot, SLOT_BYTES)
            self.memory.join()

    def told(self) -> Numbers:
        with self.running():
            return Numbers(exposition.exposition())


@pytest.fixture
def mapping() -> mmap:
    return mmap(-1, SLOTS * SLOT_BYTES)


def test_numbers_are_told_without_anything_that_is_shared() -> None:
    process = Process("one_total")
    process.counters["one_total"].add(2)
    process.inside.set(-1.5)
    for value in (0.5, 1, 1.5, 7):
        process.sizes.observe(value)
    told = process.told()
    assert told.kinds == {
        "inside": "gauge",
        "largest": "gauge",
        "one_total": "counter",
        "seconds": "histogram",
        "sizes": "histogram",
    }
    assert told.sum("one_total") == 2
    assert told.sum("inside") == -1.5
    assert [told.sum("sizes_bucket", {"le": le}) for le in ("1", "2", "+Inf")] == [2, 3, 4]
    assert told.sum("sizes_sum") == 10
    assert ("sizes_sum", frozenset([("kind", r"100% \"b\"\\\n")])) in told.samples


def test_all_processes_are_told_by_each(mapping: mmap) -> None:
    processes = [Process("one_total") for _ in range(3)]
    processes[0].counters["one_total"].add(10)
    for slot, process in enumerate(processes):
        process.join(mapping, slot)
        process.counters["one_total"].add()
        process.inside.set(slot)
        process.largest.set(slot)
        process.sizes.observe(slot)
        process.seconds.observe(200 + slot, 1)
        process.seconds.observe(200, 3)
    for process in processes:
        told = process.told()
        assert told.sum("one_total") == 13
        assert told.sum("inside") == 3
        assert told.sum("largest") == 2
        assert told.sum("sizes_count") == 3
        assert told.sum("seconds_count", {"status": "200"}) == 4
        assert told.sum("seconds_sum", {"status": "200"}) == 10
        assert told.sum("seconds_count", {"status": "201"}) == 1


def test_a_successor_goes_on_and_has_gauges_of_its_own(mapping: mmap) -> None:
    for number in range(1, 4):
        process = Process("one_total")
        process.join(mapping, 1)
        assert process.told().sum("inside") == 0
        process.counters["one_total"].add()
        process.inside.set(5)
        process.seconds.observe(503, 1)
        told = process.told()
        assert (told.sum("one_total"), told.sum("inside"), told.sum("seconds_count")) == (number, 5, number)


def test_a_process_of_another_release_tells_nothing(mapping: mmap) -> None:
    old = Process("one_total")
    old.join(mapping, 0)
    old.counters["one_total"].add()
    new = Process("one_total", "two_total")
    new.join(mapping, 1)
    new.counters["one_total"].add()
    assert old.told().sum("one_total") == 1
    with pytest.raises(LayoutDiffers):
        new.told()
    with old.running():
        before = instruments.digest()
    with new.running():
        assert instruments.digest() != before


def test_the_place_of_a_number_does_not_depend_on_the_order_of_imports(mapping: mmap) -> None:
    one, other = Process("a_total", "b_total"), Process("b_total", "a_total")
    one.join(mapping, 0)
    other.join(mapping, 1)
    one.counters["a_total"].add()
    assert (other.told().sum("a_total"), other.told().sum("b_total")) == (1, 0)


def test_a_slot_that_is_too_small_is_refused(mapping: mmap) -> None:
    process = Process(*(f"number_{number}_total" for number in range(SLOT_BYTES // 8)))
    with pytest.raises(ValueError, match="raise SLOT_BYTES"):
        process.join(mapping, 0)


def test_what_nobody_can_count_is_refused(mapping: mmap) -> None:
    process = Process("one_total")
    with process.running():
        assert counter("one_total", "Counts.") is process.counters["one_total"]
        with pytest.raises(ValueError, match="one_total is a counter already"):
            counter("one_total", "Counts something else.")
        with pytest.raises(ValueError, match="with _total for a counter"):
            counter("one", "Counts.")
        with pytest.raises(ValueError, match="a name of letters"):
            gauge("in-side", "Is.")
    process.join(mapping, 0)
    with process.running(), pytest.raises(RuntimeError, match="two_total is declared too late"):
        counter("two_total", "Counts.")


def test_what_a_scrape_tells_is_bounded_whatever_came(mapping: mmap) -> None:
    processes = [Process() for _ in range(SLOTS)]
    lines = set()
    for slot, process in enumerate(processes):
        process.join(mapping, slot)
    for _ in range(3):
        for process in processes:
            for status in range(100, 600):
                process.seconds.observe(status, 1)
        lines.add(len(processes[0].told().samples))
    told = processes[0].told()
    assert len(lines) == 1
    assert told.sum("seconds_count") == 3 * SLOTS * 500
    assert told.sum("seconds_count", {"status": "other"}) == 3 * SLOTS * (500 - processes[0].seconds.rows + 1)


async def numbers_of(client: httpx2.AsyncClient) -> Numbers:
    answer = await client.get("/metrics")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "x-cache" not in answer.headers
    return Numbers(answer.text)


class Growth:
    """What has grown since the begin."""

    def __init__(self, before: Numbers, after: Numbers) -> None:
        self._before, self._after = before, after
        self.all_requests = after.all_requests - before.all_requests

    def requests(self, method: str, route: str, status: int) -> int:
        return self._after.requests(method, route, status) - self._before.requests(method, route, status)

    def sum(self, name: str, **labels: str) -> float:
        return self._after.sum(name, labels) - self._before.sum(name, labels)


REQUESTS = [
    ("GET", "/notes", "/notes", 200),
    ("GET", "/notes?limit=0", "/notes", 422),
    ("HEAD", "/notes", "/notes", 200),
    ("GET", f"/notes/{UUID(int=1)}", "/notes/{note_id}", 404),
    ("POST", "/notes", "/notes", 201),
    ("DELETE", f"/notes/{UUID(int=1)}", "/notes/{note_id}", 204),
    ("PUT", "/notes", "unmatched", 405),
    ("GET", "/nowhere", "unmatched", 404),
    ("GET", "/docs", "/docs", 200),
    ("GET", "/readyz", "/readyz", 200),
    ("GET", "/mounted/x", "/mounted", 404),
    ("GET", "/included/there", "/included/there", 200),
]


WAYS = {"on the connection": Connection, "through the application": HttpToolsProtocol}


@pytest.fixture(params=WAYS)
def http(request: pytest.FixtureRequest) -> type[asyncio.Protocol]:
    """The way that requests take."""
    return WAYS[request.param]


async def test_each_request_is_counted_once(database_url: str, http: type[asyncio.Protocol]) -> None:
    included = APIRouter()
    included.add_api_route("/there", lambda: "there")
    app = notes_service(database_url=database_url)
    app.include_router(included, prefix="/included")
    app.mount("/mounted", FastAPI())
    async with running(app, http=http) as client:
        before = await numbers_of(client)
        for method, path, _, status in REQUESTS:
            assert (path, (await client.request(method, path)).status_code) == (path, status)
        assert (await client.get("/livez")).status_code == 200
        growth = Growth(before, await numbers_of(client))
    for method, path, route, status in REQUESTS:
        assert (path, growth.requests(method, route, status)) == (path, 1)
    assert growth.all_requests == len(REQUESTS)
    assert growth.sum("highload_reads_total", http_route="/notes", outcome="miss") == 3
    assert growth.sum("highload_reads_total", http_route="/notes/{note_id}") == 1
    assert growth.sum("highload_flush_size_count", kind="insert") == 1


async def test_who_shares_and_who_does_not_is_counted_once(serve: Serve, http: type[asyncio.Protocol]) -> None:
    async with serve(http=http) as client:
        before = await numbers_of(client)
        await asyncio.gather(*(client.get("/notes") for _ in range(20)))
        assert (await client.get("/notes", headers={"Authorization": "x"})).headers["x-cache"] == "bypass"
        etag = (await client.get("/notes")).headers["etag"]
        assert (await client.get("/notes", headers={"If-None-Match": etag})).status_code == 304
        growth = Growth(before, await numbers_of(client))
    assert (growth.requests("GET", "/notes", 200), growth.requests("GET", "/notes", 304)) == (22, 1)
    assert growth.sum("highload_reads_total", outcome="bypass") == 1
    assert growth.sum("highload_reads_total") == 23


async def test_who_is_refused_is_counted_once(database_url: str, http: type[asyncio.Protocol]) -> None:
    app = notes_service(database_url=database_url, limit_concurrency=1)
    async with running(app, http=http) as client:
        assert (await client.get("/notes")).status_code == 200
        before = await numbers_of(client)
        with creation_held() as release:
            creating = asyncio.create_task(client.post("/notes", content="x"))

            async def is_full() -> bool:
                return app.admission.full

            await eventually(is_full)
            for _ in range(3):
                assert (await client.get("/notes")).status_code == 503
            told = await numbers_of(client)
            release.set()
            assert (await creating).status_code == 201
        growth = Growth(before, await numbers_of(client))
    assert growth.requests("GET", "unmatched", 503) == 3
    assert growth.sum("highload_refusals_total", reason="overload") == 3
    assert growth.all_requests == 4
    # They are told under overload, too.
    assert (told.sum("highload_concurrency_limit"), told.sum("highload_workers")) == (1, 1)
    assert told.sum("highload_pool_limit") == 5


async def test_gauges_are_looked_at_again_and_again(database_url: str) -> None:
    app = notes_service(database_url=database_url)
    async with running(app) as client:
        with creation_held() as release:
            creating = asyncio.create_task(client.post("/notes", content="x"))

            async def is_seen() -> bool:
                return (await numbers_of(client)).sum("http_server_active_requests") == 1

            await eventually(is_seen)
            release.set()
            await creating

        async def is_gone() -> bool:
            return (await numbers_of(client)).sum("http_server_active_requests") == 0

        await eventually(is_gone)
        assert (await numbers_of(client)).sum("process_cpu_seconds_total") > 0


async def test_whoever_waits_behind_too_many_is_counted_once(serve: Serve, http: type[asyncio.Protocol]) -> None:
    async with serve(http=http, max_waiting=1) as client:
        before = await numbers_of(client)
        answers = await asyncio.gather(*(client.get("/notes") for _ in range(30)))
        refused = sum(answer.status_code == 503 for answer in answers)
        growth = Growth(before, await numbers_of(client))
    assert growth.all_requests == 30
    assert growth.requests("GET", "/notes", 503) == growth.sum("highload_refusals_total", reason="waiting") == refused


async def test_no_client_makes_more_series_than_the_service_has_declared(database_url: str) -> None:
    app = notes_service(database_url=database_url)

    @app.get("/status/{status}")
    async def answer(status: int) -> Response:
        return Response(status_code=status)

    async with running(app) as client:
        for status in range(200, 260):
            await client.get(f"/status/{status}")
        for number in range(30):
            await client.request(f"METHOD{number}", f"/nowhere/{number}")
        told = await numbers_of(client)
    name = "http_server_request_duration_seconds_count"
    labels = [dict(labels) for (other, labels) in told.samples if other == name]
    assert sum(one["http_route"] == "/status/{status}" for one in labels) == 8
    assert told.requests("GET", "/status/{status}", "other") == 53
    assert {one["http_request_method"] for one in labels} <= {*METHODS, "_OTHER"}
    assert all(one["http_route"] == "unmatched" or one["http_route"].startswith("/") for one in labels)
    assert not any("nowhere" in one["http_route"] for one in labels)


async def test_a_flush_that_fails_is_counted() -> None:
    class Away(Exception):
        pass

    async def send(entries: Sequence[int]) -> Sequence[int]:
        if len(entries) > 1:
            raise Away
        return entries

    flushes = Flushes("other")
    before = (flushes.size.values[flushes.size.base], flushes.failures.values[flushes.failures.base])
    batcher = Batcher(send, max_batch=10, max_waiting=10, outages=(Away,))
    outcomes = await asyncio.gather(*map(batcher, range(4)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Away] * 4
    after = (flushes.size.values[flushes.size.base], flushes.failures.values[flushes.failures.base])
    assert (after[0] - before[0], after[1] - before[1]) == (4, 1)
