"""Items on their way through the queue, which has tests of its own in tests/highload/."""

import asyncio
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import select

from app.config import NAME
from app.crud import ITEMS
from app.db import QUEUE
from app.highload.resource import Row
from app.highload.writes.publisher import open_publisher
from app.models import Item
from app.schemas import ItemCreate
from tests.conftest import PROJECT, Serve, in_database, stack_url
from tests.proxy import proxied
from tests.queues import logged, publish_text, queue_sizes, renew_queues, run_worker, with_rows
from tests.waiting import PATIENCE, eventually

NEW = {"name": "x", "description": "y"}
UNSTORABLE = "x" * 256
MARK = "what-a-client-sends"
# Bodies and headers.
UNUSABLE: list[tuple[str, dict[str, Any]]] = [(MARK, {"task": QUEUE.task, "id": "1"}), (MARK, {}), (f'["{MARK}"]', {})]
SAID_OF_WHAT_IS_UNUSABLE = [
    "goes to the dead-letter queue: the database refused a value",
    "wrong values at 0.id",
    "cannot read it: KeyError('of_tomorrow')",
    "Received unregistered task of type 'app.tasks.of_tomorrow' (it is not shown)",
    "Can't decode message body (it is not shown)",
    "Received and deleted unknown message",
]


def new_item(name: str) -> Row:
    body: Any = ItemCreate.model_construct(name=name, description=None)
    return ITEMS.new_row(body, None, service=NAME)


@pytest.fixture
async def broker_url() -> str:
    """The address of a broker with new queues."""
    url = stack_url("BROKER_URL")
    await renew_queues(url, QUEUE)
    return url


async def dead_letters(action: str, broker_url: str) -> tuple[int, str, str]:
    """Run the command that acts on dead letters, and return its exit status and what it printed."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.tasks", action),
        cwd=PROJECT,
        env=os.environ | {"BROKER_URL": broker_url, "WEB_CONCURRENCY": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await command.communicate()
    assert command.returncode is not None
    return command.returncode, output.decode(), errors.decode()


async def test_queued_items_arrive_through_the_worker(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    settings = {"broker_url": broker_url}
    # {% if cookiecutter.caching %}
    settings |= {"redis_url": stack_url("REDIS_URL"), "cache_timeout": str(PATIENCE)}
    # No answer that should have ended expires while the test waits.
    settings |= {"cache_ttl": "3600"}
    # {% endif %}
    variables = {"DATABASE_URL": postgresql_url} | {name.upper(): value for name, value in settings.items()}
    # The bound is for requests; the items of a message have been accepted.
    with run_worker("app.tasks", log, MAX_WAITING="2", LOG_FORMAT="json", **variables):
        async with serve(**settings) as client:
            # {% if cookiecutter.caching %}
            await client.get("/items")
            assert (await client.get("/items")).headers["x-cache"] == "hit"
            # {% endif %}
            answers = await asyncio.gather(*(client.post("/items", json=NEW) for _ in range(100)))
            assert {answer.status_code for answer in answers} == {202}
            accepted = {answer.json()["id"]: answer.json() for answer in answers}
            assert len(accepted) == 100

            async def all_listed() -> bool:
                listed = (await client.get("/items")).json()["items"]
                return {item["id"]: item for item in listed} == accepted

            await eventually(all_listed)
    assert "Traceback" not in log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"INFO"} == {line["level"] for line in lines}
    assert await queue_sizes(broker_url, QUEUE) == (0, 0)


async def test_a_worker_logs_nothing_of_what_it_cannot_use(
    postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    """A row that is refused, rows and tasks that it does not know, and what is no task at all."""
    log = tmp_path / "worker.log"
    settings = {"DATABASE_URL": postgresql_url, "BROKER_URL": broker_url, "LOG_FORMAT": "json", "LOG_LEVEL": "debug"}
    async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publisher:
        await publisher(ITEMS, [new_item(f"{MARK}\0")])
        await publisher.send(QUEUE.task, with_rows(ITEMS, [{"id": MARK}]))
        await publisher.send(QUEUE.task, {"resource": "of_tomorrow"})
        await publisher.send("app.tasks.of_tomorrow", MARK)
    for body, headers in UNUSABLE:
        await publish_text(broker_url, QUEUE, body, headers)
    with run_worker("app.tasks", log, **settings):
        for words in SAID_OF_WHAT_IS_UNUSABLE:
            await eventually(partial(logged, log, words))
    assert MARK not in log.read_text()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"app.highload.worker", "celery.worker.consumer.consumer"} <= {line["logger"] for line in lines}


async def queues(client: httpx2.AsyncClient) -> bool:
    """Whether the service gives an item to the broker."""
    return (await client.post("/items", json=NEW)).status_code == 202


async def test_a_stopped_broker_means_a_direct_write(serve: Serve, broker_url: str) -> None:
    async with proxied(broker_url) as (url, proxy), serve(broker_url=url) as client:
        assert (await client.post("/items", json=NEW)).status_code == 202
        await proxy.stop()
        for _ in range(10):
            assert (await client.post("/items", json=NEW)).status_code == 201
        assert len((await client.get("/items")).json()["items"]) == 10
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "broker" in ready.json()["detail"]

        await proxy.start()
        await eventually(lambda: queues(client))


async def test_the_service_starts_without_a_broker(serve: Serve) -> None:
    async with serve(broker_url="amqp://guest:guest@127.0.0.1:1/") as client:
        assert (await client.post("/items", json=NEW)).status_code == 201


async def test_the_deadline_of_the_broker_is_a_setting(serve: Serve, broker_url: str) -> None:
    async with proxied(broker_url) as (url, proxy), serve(broker_url=url, broker_deadline=0.3) as client:
        # On a busy machine the first attempt to connect may take longer than that.
        await eventually(lambda: queues(client))
        proxy.freeze()
        assert (await client.post("/items", json=NEW)).status_code == 201


async def test_an_idempotency_key_is_answered_by_the_database(serve: Serve, broker_url: str) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    async with serve(broker_url=broker_url) as client:
        first = await client.post("/items", json=NEW, headers=key)
        again = await client.post("/items", json=NEW, headers=key)
        other = await client.post("/items", json={"name": "another"}, headers=key)
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert first.json() == again.json()


async def test_without_a_database_everything_is_queued(serve: Serve, postgresql_url: str, broker_url: str) -> None:
    async with proxied(postgresql_url) as (url, proxy), serve(database_url=url, broker_url=broker_url) as client:
        await proxy.stop()
        assert (await client.post("/items", json=NEW)).status_code == 202
        keyed = await client.post("/items", json=NEW, headers={"Idempotency-Key": str(uuid4())})
        assert keyed.status_code == 202
    assert (await queue_sizes(broker_url, QUEUE))[0] == 2


async def test_the_command_acts_on_what_no_worker_could_store(
    postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    poison = new_item(UNSTORABLE)

    async def put_aside() -> bool:
        return await queue_sizes(broker_url, QUEUE) == (0, 1)

    async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publisher:
        await publisher(ITEMS, [new_item("good"), poison])
    with run_worker("app.tasks", tmp_path / "worker.log", DATABASE_URL=postgresql_url, BROKER_URL=broker_url):
        await eventually(put_aside)
        stored = await in_database(postgresql_url, lambda connection: connection.execute(select(Item.name)))
        assert list(stored.scalars()) == ["good"]

        status, listed, counted = await dead_letters("list", broker_url)
        assert (status, counted) == (0, "list: 1 messages\n")
        assert listed.startswith(f"{poison['id']}  name={UNSTORABLE!r}, ")
        assert "too long" in listed
        assert await dead_letters("replay", broker_url) == (0, "", "replay: 1 messages\n")
        await eventually(put_aside)
    assert await dead_letters("purge", broker_url) == (0, "", "purge: 1 messages\n")
    assert await queue_sizes(broker_url, QUEUE) == (0, 0)


async def test_the_command_needs_a_broker() -> None:
    status, _, errors = await dead_letters("list", "")
    assert status == 1
    assert "BROKER_URL" in errors
