"""The servers of a benchmark: contenders under Gunicorn, a Celery worker, and the tables they use."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import asyncpg

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent


class Contender(NamedTuple):
    """Something that answers requests: an ASGI application, run in the directory of a rendered variant."""

    name: str
    variant: Path
    application: str = "app.main:app"
    settings: tuple[tuple[str, str], ...] = ()


def environment(variant: Path, settings: dict[str, str]) -> dict[str, str]:
    """Return the environment of a contender: all servers, one worker, and the settings of its own."""
    urls = {name.removeprefix("TEST_"): url for name, url in os.environ.items() if name.startswith("TEST_")}
    common = {"WEB_CONCURRENCY": "1", "LOG_LEVEL": "warning", "BENCH_BODY": str(variant.parent / "body")}
    return os.environ | urls | common | {"PYTHONPATH": str(ROOT)} | settings


@contextmanager
def running(command: list[str], variant: Path, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the end of the block."""
    with (variant.parent / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=variant, env=environment(variant, settings), stdout=log, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextmanager
def serving(contender: Contender) -> Iterator[str]:
    """Serve a contender with one worker, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    command = [str(BIN / "gunicorn"), contender.application, "--bind", address]
    with running(command, contender.variant, dict(contender.settings)) as process:
        url = f"http://{address}"
        wait_until(lambda: process.poll() is None and answers(f"{url}/items"), contender.name)
        yield url


def answers(url: str) -> bool:
    """Whether a URL answers."""
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def wait_until(condition: Any, what: str, *, within: float = 60) -> None:
    """Return when a condition holds; exit when it does not in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not get ready within {within:.0f} seconds; see the log in build/bench.")
        time.sleep(0.02)


def sql(statement: str) -> Any:
    """Run a statement and return the first value of its result."""

    async def fetch() -> Any:
        connection = await asyncpg.connect(os.environ["TEST_DATABASE_URL"].replace("+asyncpg", ""), timeout=30)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def fill(rows: int) -> None:
    """Fill the table with so many items."""
    sql("TRUNCATE items")
    sql(
        "INSERT INTO items (id, name, description, created_at) "
        "SELECT gen_random_uuid(), 'x', 'y', now() - n * interval '1 millisecond' "
        f"FROM generate_series(1, {rows}) AS n"
    )
    sql("VACUUM ANALYZE items")
    # A container's first checkpoint after a bulk load would land in somebody's measurement.
    sql("CHECKPOINT")
