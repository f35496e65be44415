"""What is measured: contenders, the loads that they get, and the rounds in which they take their turns."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from app.highload.pagination import Position, encode_cursor

from benchmarks import load, open_loop, service
from benchmarks.load import Report, Script
from benchmarks.service import PLACE, Contender, Server

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = int(os.environ.get("SECONDS", "2"))
PAGE = 100
SENT_AHEAD = 100
# Less than 1 shrinks the tables, for a run that only shows that everything works.
SCALE = float(os.environ.get("SCALE", "1"))
ROWS = {
    "rows_1k": 1000,
    "rows_100k": int(100_000 * SCALE),
    "rows_1m": int(1_000_000 * SCALE),
    "writes": 1000,
    "mixed": int(10_000 * SCALE),
}
QUIET = 1.0
LONGEST_START = 60.0
LONGEST_DRAIN = 5.0
STARTED_AT_ONCE = 3

NAIVE_WORKER = ("--app", "benchmarks.contenders.naive:celery", "worker", "--queues", "naive", "--concurrency", "2")
WORKER = ("--app", "app.tasks", "worker")

BARE = Contender("bare ASGI app", "full", "benchmarks.contenders.bare:app")
BARE_ITEM = BARE._replace(body="item")
FRAMEWORK = Contender("FastAPI, constant", "full", "benchmarks.contenders.framework:app")
FRAMEWORK_ITEM = FRAMEWORK._replace(body="item")
CACHED = Contender("cached", "full")
CACHED_100K = CACHED._replace(database="rows_100k", cache=1)
UNCACHED = Contender("not cached", "plain")
UNCACHED_100K = UNCACHED._replace(database="rows_100k")
UNCACHED_1M = UNCACHED._replace(database="rows_1m")
DIRECT = Contender("direct writes", "caching", database="writes", cache=2)
# One database is enough: each of them reads what it wrote itself, or nobody changed.
DIRECT_CACHED_10K = Contender("cached, direct writes", "caching", database="mixed", cache=4)
DIRECT_UNCACHED_10K = Contender("not cached, direct writes", "plain", database="mixed")
QUEUED = Contender("queued writes", "full", database="writes", cache=2, worker=WORKER, queue="bench-full.rows")
NAIVE = Contender(
    "naive",
    "full",
    "benchmarks.contenders.naive:app",
    database="writes",
    cache=3,
    worker=NAIVE_WORKER,
    queue="naive",
    table="naive_items",
)
QUEUED_10K = Contender("full", "full", database="mixed", cache=5, worker=WORKER, queue="bench-full.rows")
PLAIN = Contender("plain", "plain", database="writes")
NGINX = Contender("nginx", "full", service.NGINX)
RAW_100K = Contender("raw", "plain", "benchmarks.contenders.raw:app", database="rows_100k")
NAIVE_DIRECT = Contender("naive direct", "plain", "benchmarks.contenders.naive_direct:app", database="mixed")
CACHED_4 = CACHED._replace(name="cached, 4 workers", workers=4)
MIDDLEWARE = CACHED._replace(name="one middleware", application="benchmarks.contenders.with_middleware:app")
GUARDED = CACHED._replace(name="guarded", application="benchmarks.contenders.guarded:app")
UNBATCHED = CACHED._replace(name="batching bypassed", application="benchmarks.contenders.unbatched:app")

# Cursors of pages that are never asked for twice while a load lasts.
STARTS = "starts_100k"

type Load = Callable[[Server], Report]


class Stage(NamedTuple):
    """A contender that is loaded once in each round, and its loads by the names of what they measure."""

    contender: Contender
    loads: Mapping[str, Load]
    with_worker: bool = False


def measured(server: Server, send: Callable[[], Report]) -> Report:
    """Send a load that lasts so many seconds, and add what a request took of a CPU."""
    before = server.cpu_seconds()
    report = send()
    return report._replace(cpu=(server.cpu_seconds() - before) / (report.per_second * SECONDS))


def reading(server: Server, path: str = "", **how: Any) -> Report:
    """Read with wrk."""
    return measured(server, lambda: load.read(server.url + path, seconds=SECONDS, **how))


def get(path: str, *, connections: int = 100) -> Load:
    """Return the load of GETs of one path."""
    return lambda server: reading(server, path, connections=connections)


def get_distinct(*, connections: int = 100) -> Load:
    """Return the load of GETs of pages of which no two are the same."""

    def send(server: Server) -> Report:
        starts = PLACE / STARTS
        # Where the one before has hardly come to.
        first = int(time.monotonic() * 10_000) % len(starts.read_text().splitlines())
        script = Script("each.lua", [starts, first])
        return reading(server, connections=connections, script=script)

    return send


def get_one(server: Server) -> Report:
    """Send GETs of one item."""
    return get(a_path(server.contender.database))(server)


def get_page(number: int) -> Load:
    """Return the load of GETs of one page, counted from 1; where the table ends before, of its last page."""

    def send(server: Server) -> Report:
        database = server.contender.database
        existing = min(number, ROWS[database] // PAGE)
        return get(page_paths(database, existing, existing)[0])(server)

    return send


def get_any(paths: str, *, connections: int = 100) -> Load:
    """Return the load of GETs of paths drawn uniformly from a file."""
    script = Script("uniform.lua", [PLACE / paths])
    return lambda server: reading(server, connections=connections, script=script)


def get_any_kept(paths: str) -> Load:
    """Return the same load of a server that keeps its answers, after it was asked for each of them."""

    def send(server: Server) -> Report:
        keep_each(server, PLACE / paths)
        return get_any(paths)(server)

    return send


def keep_each(server: Server, paths: Path) -> None:
    """Ask for each path of a file, once in the life of the databases."""
    kept = paths.with_suffix(".kept")
    count = len(paths.read_text().splitlines())
    asked = 0
    while asked < count and not kept.exists():
        say(f"{asked:,} of {count:,} answers are kept")
        script = Script("each.lua", [paths, max(0, asked - SENT_AHEAD)])
        report = load.read(server.url, connections=100, seconds=5, script=script)
        asked += int(report.per_second * 5)
    kept.touch()


def get_again(server: Server) -> Report:
    """Send conditional GETs of a list that has not changed."""
    with urlopen(f"{server.url}/items") as answer:
        header = f"If-None-Match: {answer.headers['etag']}"
    return reading(server, "/items", connections=100, header=header)


def post(*, connections: int = 100) -> Load:
    """Return the load of POSTs of new items."""

    def send(server: Server) -> Report:
        wake(server)
        url = f"{server.url}/items"
        return measured(server, lambda: load.write(url, connections=connections, seconds=SECONDS))

    return send


def mix(share_of_writes: float, *, connections: int = 100) -> Load:
    """Return the load of GETs of the list with so many POSTs among them."""
    script = Script("mixed.lua", [share_of_writes])

    def send(server: Server) -> Report:
        wake(server)
        return reading(server, connections=connections, script=script)

    return send


def mix_items(method: str, share_of_writes: float, *, connections: int = 100, count: bool = False) -> Load:
    """Return the load of GETs of any item, which a cache has kept before, with so many POSTs or PATCHes among them.

    To count the hits takes time from the load itself.
    """

    def send(server: Server) -> Report:
        paths = PLACE / server.contender.database
        if server.contender.cache:
            keep_each(server, paths)
        script = Script("mixed_items.lua", [paths, method, share_of_writes, *(["count"] if count else [])])
        return reading(server, connections=connections, script=script)

    return send


def arrive(server: Server) -> Report:
    """Send POSTs at half of the rate that the service can take, as many clients do who do not wait for each other."""
    wake(server)
    url = f"{server.url}/items"
    capacity = load.write(url, connections=100, seconds=1).per_second
    return measured(server, lambda: open_loop.write(server.url, rate=capacity / 2, seconds=SECONDS))


def start_anew(server: Server) -> Report:
    """Serve the contender once more, and read its first page until it is warm."""
    with service.serving(server.contender) as fresh:
        report = get("/items")(fresh)
        return report._replace(start=fresh.seconds_to_start, megabytes=fresh.megabytes())


def wake(server: Server) -> None:
    """Send one item: RabbitMQ hangs up on who is silent for minutes, as a contender is between its turns."""
    load.write_once(f"{server.url}/items")


def drain(server: Server) -> Report:
    """Start a worker and measure the items a second that it stores of what POSTs have queued."""
    return Report(asyncio.run(drain_rate(server.contender)))


def post_and_drain(server: Server) -> Report:
    """Queue items as a hundred connections do, and measure how a worker stores them."""
    post()(server)
    return drain(server)


async def drain_rate(contender: Contender) -> float:
    """Return the items a second that a worker stores, counted from the first one on."""
    async with service.connected(contender.database) as connection:

        async def stored() -> int:
            return int(await connection.fetchval(f"SELECT count(*) FROM {contender.table}"))

        before = last = await stored()
        with service.working(contender):
            deadline = time.monotonic() + LONGEST_START
            while last == before and time.monotonic() < deadline:
                last = await stored()
            if last == before:
                sys.exit(f"The worker of {contender.name} stores nothing; see the log in build/bench.")
            first, start = last, time.monotonic()
            end = start
            while time.monotonic() < min(end + QUIET, start + LONGEST_DRAIN):
                await asyncio.sleep(0.02)
                now = await stored()
                if now > last:
                    last, end = now, time.monotonic()
    return (last - first) / (end - start)


def prepare() -> None:
    """Make the databases, and keep the bytes that the constant contenders answer."""
    service.migrate()
    for database, rows in ROWS.items():
        say(f"filling {database}")
        service.create_database(database, rows)
    # All but the oldest, behind which no whole page is left, in no order.
    all_but = f"SELECT * FROM items ORDER BY created_at, id OFFSET {PAGE}"
    starts = service.sql("rows_100k", f"SELECT (created_at, id) FROM ({all_but}) ORDER BY md5(id::text)")
    cursors = "".join(f"/items?cursor={encode_cursor(Position(*start))}\n" for start in starts)
    (PLACE / STARTS).write_text(cursors)
    service.sql("writes", "CREATE TABLE naive_items (id serial PRIMARY KEY, name text, description text)")
    for body in ("page", "item"):
        (PLACE / body).write_bytes(b"{}")
    with service.serving(UNCACHED) as server:
        for body, path in (("page", "/items"), ("item", a_path("rows_1k"))):
            with urlopen(server.url + path) as answer:
                (PLACE / body).write_bytes(answer.read())


def page_paths(database: str, first: int, last: int) -> list[str]:
    """Return the paths of pages of the list, counted from 1."""
    ends = service.sql(
        database,
        "SELECT (created_at, id) FROM (SELECT *, row_number() OVER (ORDER BY created_at DESC, id DESC) FROM items) "
        f"WHERE row_number % {PAGE} = 0 AND row_number / {PAGE} BETWEEN {first - 1} AND {last - 1} ORDER BY row_number",
    )
    beginning = ["/items"] if first == 1 else []
    return [*beginning, *(f"/items?cursor={encode_cursor(Position(*end))}" for end in ends)]


def a_path(database: str) -> str:
    """Return the path of one of the items of a database."""
    with (PLACE / database).open() as paths:
        return paths.readline().strip()


def take_turns(stages: Sequence[Stage]) -> list[dict[str, Report]]:
    """Load every contender in each round, in rotating order, and return the reports of each round.

    All are served from the beginning to the end, so that each one is as warm as the others; those that have no turn
    wait for requests, which costs them nothing.
    """
    rounds: list[dict[str, Report]] = []
    contenders = list(dict.fromkeys(stage.contender for stage in stages))
    with ExitStack() as stack:
        say(f"starting {', '.join(contender.name for contender in contenders)}")
        with ThreadPoolExecutor(STARTED_AT_ONCE) as pool:
            servers = dict(zip(contenders, pool.map(partial(warmed_up, stack), contenders), strict=True))
        for number in range(ROUNDS):
            reports: dict[str, Report] = {}
            first = number * len(stages) // ROUNDS
            for stage in (*stages[first:], *stages[:first]):
                reports |= perform(stage, servers[stage.contender], f"round {number + 1} of {ROUNDS}")
            rounds.append(reports)
        # Together: each one waits a moment for requests that are on their way.
        for server in servers.values():
            server.process.terminate()
    return rounds


def warmed_up(stack: ExitStack, contender: Contender) -> Server:
    """Serve a contender until the end of a stack, and return it after its first requests."""
    server = stack.enter_context(service.serving(contender))
    load.read(f"{server.url}/items", connections=20, seconds=1)
    return server


def perform(stage: Stage, server: Server, progress: str) -> dict[str, Report]:
    """Load a contender that is served, and return the reports."""
    contender = stage.contender
    if contender.database == "writes":
        service.empty_writes()
    reports: dict[str, Report] = {}
    with service.consuming(contender) if stage.with_worker else nullcontext():
        for name, send in stage.loads.items():
            say(f"{progress}: {name}")
            reports[name] = send(server)
    if contender.queue:
        service.purge(contender.queue)
    return reports


def say(progress: str) -> None:
    """Show what is going on."""
    print(progress, file=sys.stderr, flush=True)
