"""The servers of a benchmark: contenders under Gunicorn, Celery workers, and the databases and queues they use."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import aio_pika
import asyncpg
from aio_pika.abc import AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent
# Where __main__ has rendered the variants, and runs in one of them.
PLACE = Path.cwd().parent


# Not an application, but the server by itself.
NGINX = "nginx"


class Contender(NamedTuple):
    """Something that answers requests: an ASGI application, run in the directory of a rendered variant."""

    name: str
    variant: str
    application: str = "app.main:app"
    database: str = "rows_1k"
    cache: int = 0
    body: str = "page"
    worker: tuple[str, ...] = ()
    queue: str = ""
    table: str = "items"
    workers: int = 1


def database_url(database: str) -> str:
    """Return the URL of one of the databases of the benchmark."""
    return urlsplit(os.environ["TEST_DATABASE_URL"])._replace(path=f"/{database}").geturl()


def environment(contender: Contender) -> dict[str, str]:
    """Return the environment of a contender: all servers, its workers, and a cache that outlives the benchmark."""
    return os.environ | {
        "DATABASE_URL": database_url(contender.database),
        "REDIS_URL": urlsplit(os.environ["TEST_REDIS_URL"])._replace(path=f"/{contender.cache}").geturl(),
        "BROKER_URL": os.environ["TEST_BROKER_URL"],
        "CACHE_TTL": "3600",
        "WEB_CONCURRENCY": str(contender.workers),
        "WORKER_CONCURRENCY": "2",
        # Requests of a thousand connections may be inside still when the next load begins.
        "LIMIT_CONCURRENCY": "2000",
        "LOG_LEVEL": "warning",
        "BENCH_BODY": str(PLACE / contender.body),
        "PYTHONPATH": str(ROOT),
    }


@contextmanager
def running(command: Sequence[str], contender: Contender) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of the rendered project's environment until the end of the block."""
    with (PLACE / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            cwd=PLACE / f"bench-{contender.variant}",
            env=environment(contender),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
            if process.poll():
                sys.exit(f"{command[0]} ended by itself; see the log in build/bench.")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


class Server(NamedTuple):
    """A contender that serves; `parent` is the process that has started those that answer."""

    contender: Contender
    url: str
    process: subprocess.Popen[bytes]
    parent: int
    seconds_to_start: float

    def cpu_seconds(self) -> float:
        """Return the seconds of a CPU that the processes which answer have used, in exact numbers of the kernel."""
        tasks = (task for pid in children_of(self.parent) for task in Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def megabytes(self) -> float:
        """Return the resident memory of the largest process that answers."""
        return resident_megabytes(self.parent)


def resident_megabytes(parent: int) -> float:
    """Return the resident memory of the largest child of a process."""
    processes = ",".join(children_of(parent))
    sizes = subprocess.run(["ps", "-o", "rss=", "-p", processes], check=True, capture_output=True, text=True)
    return max(map(int, sizes.stdout.split())) / 1024


@contextmanager
def serving(contender: Contender) -> Iterator[Server]:
    """Serve a contender."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    if contender.application == NGINX:
        with serving_with_nginx(contender, address) as server:
            yield server
        return
    started = time.monotonic()
    with running(["gunicorn", contender.application, "--bind", address], contender) as process:
        url = f"http://{address}"
        wait_until(lambda: process.poll() is None and answers(f"{url}/items"), contender.name)
        yield Server(contender, url, process, process.pid, time.monotonic() - started)


@contextmanager
def serving_with_nginx(contender: Contender, address: str) -> Iterator[Server]:
    """Let one worker of nginx answer the bytes of a file to whatever is asked."""
    configuration = (ROOT / "benchmarks/contenders/nginx.conf").read_text()
    (PLACE / "nginx.conf").write_text(configuration.replace("ADDRESS", address))
    name = f"bench-nginx-{os.getpid()}"
    started = time.monotonic()
    mounted = ["--volume", f"{PLACE}:/bench:ro", "--tmpfs", "/tmp"]  # noqa: S108 - in the container
    command = ["docker", "run", "--rm", "--name", name, "--network", "host", *mounted, "nginx:1-alpine"]
    with (PLACE / "log").open("ab") as log:
        run_nginx = [*command, "nginx", "-c", "/bench/nginx.conf"]
        process = subprocess.Popen(run_nginx, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until(lambda: process.poll() is None and answers(f"http://{address}/items"), contender.name)
            inspect = ["docker", "inspect", "--format", "{{.State.Pid}}", name]
            parent = int(subprocess.run(inspect, check=True, capture_output=True, text=True).stdout)
            yield Server(contender, f"http://{address}", process, parent, time.monotonic() - started)
        finally:
            process.terminate()
            process.wait(60)


def children_of(parent: int) -> list[str]:
    """Return the numbers of the processes that a process has started."""
    done = subprocess.run(["pgrep", "-P", str(parent)], check=False, capture_output=True, text=True)
    return done.stdout.split()


def working(contender: Contender) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Run the Celery worker of a contender until the end of the block."""
    return running(["celery", *contender.worker, "--without-gossip", "--without-mingle"], contender)


@contextmanager
def consuming(contender: Contender) -> Iterator[None]:
    """Run the Celery worker of a contender, from the moment when it takes messages until the end of the block."""
    with working(contender):
        wait_until(lambda: is_consumed(contender.queue), f"the worker of {contender.name}")
        yield


def answers(url: str) -> bool:
    """Whether a URL answers."""
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], what: str, *, within: float = 60) -> None:
    """Return when a condition holds; exit when it does not in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not get ready within {within:.0f} seconds; see the log in build/bench.")
        time.sleep(0.01)


@asynccontextmanager
async def connected(database: str) -> AsyncGenerator[Any]:
    """Open a connection to a database."""
    url = database_url(database).replace("+asyncpg", "")
    connection = await asyncpg.connect(url, timeout=30, command_timeout=300)
    try:
        yield connection
    finally:
        await connection.close()


def sql(database: str, *statements: str) -> list[Any]:
    """Run statements and return the first column of the last one's rows."""

    async def fetch() -> list[Any]:
        rows: list[Any] = []
        async with connected(database) as connection:
            for statement in statements:
                rows = await connection.fetch(statement)
        return [row[0] for row in rows]

    return asyncio.run(fetch())


def migrate() -> None:
    """Make the tables in the database that is the template of the others."""
    with running(["alembic", "upgrade", "head"], Contender("migration", "full", database="db")) as process:
        assert process.wait() == 0


def create_database(database: str, rows: int) -> None:
    """Create a database with so many items, and write the paths of up to 100,000 of them into a file."""
    sql("postgres", f"DROP DATABASE IF EXISTS {database} (FORCE)", f"CREATE DATABASE {database} TEMPLATE db")
    sql(database, *insert_items(rows))
    ids = sql(database, "SELECT id FROM items ORDER BY id LIMIT 100000")
    (PLACE / database).write_text("".join(f"/items/{item_id}\n" for item_id in ids))


def empty_writes() -> None:
    """Leave 1,000 items in the tables that get written."""
    naive = "INSERT INTO naive_items (name, description) SELECT 'x', 'y' FROM generate_series(1, 1000)"
    sql("writes", "TRUNCATE items, naive_items", naive, *insert_items(1000))


def insert_items(rows: int) -> Sequence[str]:
    """Return the statements that insert items, a millisecond apart, and leave nothing to do for later."""
    return (
        "INSERT INTO items (id, name, description, created_at) "
        "SELECT uuidv7(), 'x', 'y', now() - n * interval '1 millisecond' "
        f"FROM generate_series(1, {rows}) AS n",
        "VACUUM ANALYZE items",
        # A checkpoint would land in somebody's measurement.
        "CHECKPOINT",
    )


@asynccontextmanager
async def opened(queue: str) -> AsyncGenerator[AbstractQueue]:
    """Open a queue that exists."""
    async with await aio_pika.connect(os.environ["TEST_BROKER_URL"]) as connection:
        channel = await connection.channel()
        yield await channel.declare_queue(queue, passive=True)


def purge(queue: str) -> None:
    """Drop the messages that a benchmark left in a queue."""

    async def drop() -> None:
        async with opened(queue) as messages:
            await messages.purge()

    asyncio.run(drop())


def is_consumed(queue: str) -> bool:
    """Whether a worker takes messages from a queue, which its first worker makes."""

    async def count() -> int:
        async with opened(queue) as messages:
            return messages.declaration_result.consumer_count or 0

    try:
        return asyncio.run(count()) > 0
    except ChannelNotFoundEntity:
        return False
