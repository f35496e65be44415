"""Queues of a broker, and workers on them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aio_pika import Message, connect
from kombu import Connection

from app.highload.resource import Message as ResourceMessage
from app.highload.resource import Resource
from app.highload.writes.publisher import open_publisher
from app.highload.writes.queue import RowQueue
from tests.waiting import PATIENCE

# What Celery says of a test that runs as root.
WARN_NOT_OF_ROOT = {"PYTHONWARNINGS": "ignore:You're running the worker"}


async def ask_broker(url: str) -> None:
    """Connect to a broker as the service does, and ask it for something."""
    async with await connect(url) as connection:
        await connection.channel()


async def ask_broker_as_worker(url: str) -> None:
    """Connect to a broker as a worker does."""

    def ask() -> None:
        with Connection(url) as connection:
            connection.connect()

    await asyncio.to_thread(ask)


async def delete_queues(url: str, queue: RowQueue) -> None:
    """Delete a queue and its dead letters."""
    async with await connect(url) as connection:
        channel = await connection.channel()
        for name in (queue.name, queue.dead_letters):
            await channel.queue_delete(name)


async def renew_queues(url: str, queue: RowQueue) -> None:
    """Give a queue and its dead letters a new beginning."""
    await delete_queues(url, queue)
    async with open_publisher(url, queue, deadline=PATIENCE):
        pass


async def queue_sizes(url: str, queue: RowQueue) -> tuple[int, int]:
    """Return how many messages are ready in a queue and in its dead letters."""
    async with await connect(url) as connection:
        channel = await connection.channel()
        declared = [await channel.declare_queue(name, passive=True) for name in (queue.name, queue.dead_letters)]
        ready, dead = [one.declaration_result.message_count or 0 for one in declared]
    return ready, dead


async def publish_text(url: str, queue: RowQueue, body: str, headers: dict[str, Any]) -> None:
    """Publish what no service would."""
    async with await connect(url) as connection:
        channel = await connection.channel()
        sent = Message(body.encode(), content_type="application/json", content_encoding="utf-8", headers=headers)
        await channel.default_exchange.publish(sent, routing_key=queue.name)


def with_rows(resource: Resource[Any, Any, Any], rows: list[Any]) -> ResourceMessage:
    """Return a message for a resource that holds any rows."""
    return resource.message([]) | {"rows": json.dumps(rows)}


@contextmanager
def run_worker(module: str, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the Celery worker of a module as production does, with two processes unless a variable says otherwise."""
    command = [sys.executable, "-m", "celery", "--quiet", "--app", module, "worker", "--loglevel", "INFO"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle", "--hostname", f"{log.stem}@%h"],
            env={**os.environ, **WARN_NOT_OF_ROOT, "WORKER_CONCURRENCY": "2", **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


async def logged(log: Path, words: str) -> bool:
    """Whether a log says this."""
    return words in await asyncio.to_thread(log.read_text)
