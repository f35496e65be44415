import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import STDOUT, Process
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aio_pika import Message, connect
from celery import Celery
from celery.exceptions import Reject
from sqlalchemy import select

from app import broker, dead_letters, tasks
from app.broker import BrokerUnavailable, Publisher, open_publisher
from app.config import Settings
from app.db import Database, create_engine
from app.models import Item
from app.schemas import NewItem
from app.writes import DirectWriter
from tests.conftest import Serve, in_database, stack_url
from tests.proxy import proxied
from tests.waiting import eventually

NEW = {"name": "x", "description": "y"}
UNSTORABLE = "x" * 256


def item(name: str = "x", **fields: Any) -> NewItem:
    return NewItem(uuid4(), name, None, datetime.now(UTC), **fields)


async def names_in(database_url: str) -> list[str]:
    rows = await in_database(database_url, lambda connection: connection.execute(select(Item.name)))
    return sorted(rows.scalars())


async def queue_sizes(url: str) -> tuple[int, int]:
    """Return how many messages are ready in the queue and in the dead-letter queue."""
    async with await connect(url) as connection:
        channel = await connection.channel()
        names = (broker.QUEUE, broker.DEAD_LETTER_QUEUE)
        queues = [await channel.declare_queue(name, passive=True) for name in names]
        counts = [queue.declaration_result.message_count or 0 for queue in queues]
    return counts[0], counts[1]


async def becomes[T](look: Callable[[], Awaitable[T]], expected: T, *, within: float = 4) -> None:
    """Wait for a value, and show the last one where it does not come."""

    async def seen() -> bool:
        return await look() == expected

    with suppress(TimeoutError):
        await eventually(seen, within=within)
    assert await look() == expected


async def logged(log: Path, *texts: str) -> None:
    """Return when a log says all of this."""

    async def said() -> bool:
        said_so_far = await asyncio.to_thread(log.read_text)
        return all(text in said_so_far for text in texts)

    await eventually(said)


def processes_of_the_worker(broker_url: str) -> list[int]:
    """Return the ids of the processes that run tasks."""
    with Celery(broker=broker_url) as app, app.connection() as connection:
        stats = app.control.inspect(limit=1, timeout=10, connection=connection).stats() or {}
    return [process for worker in stats.values() for process in worker["pool"]["processes"]]


@pytest.fixture
async def broker_url() -> str:
    """The address of a broker with new queues."""
    url = stack_url("BROKER_URL")
    async with await connect(url) as connection:
        channel = await connection.channel()
        for name in (broker.QUEUE, broker.DEAD_LETTER_QUEUE):
            await channel.queue_delete(name)
    async with open_publisher(url, deadline=5):
        return url


@asynccontextmanager
async def worker(database_url: str, broker_url: str, log: Path) -> AsyncGenerator[Process]:
    """Run a Celery worker as production does."""
    environment = {**os.environ, "DATABASE_URL": database_url, "BROKER_URL": broker_url, "WORKER_CONCURRENCY": "2"}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "celery", "--app", "app.tasks", "worker", "--loglevel", "INFO"]
        process = await asyncio.create_subprocess_exec(
            *command, "--without-gossip", "--without-mingle", env=environment, stdout=output, stderr=STDOUT
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(30):
                    await process.wait()
            except TimeoutError:
                process.kill()
                raise


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    engine = create_engine(Settings(_env_file=None, database_url=database_url), pool_size=1)
    yield Database(engine, timeout=2)
    await engine.dispose()


async def test_queued_items_arrive_through_the_worker(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    async with worker(postgresql_url, broker_url, log), serve(broker_url=broker_url) as client:
        answers = await asyncio.gather(*(client.post("/items", json=NEW) for _ in range(100)))
        assert {answer.status_code for answer in answers} == {202}
        accepted = {answer.json()["id"]: answer.json() for answer in answers}
        assert len(accepted) == 100

        async def all_listed() -> bool:
            listed = (await client.get("/items")).json()["items"]
            return {item["id"]: item for item in listed} == accepted

        await eventually(all_listed)
    assert "Traceback" not in log.read_text()
    assert await queue_sizes(broker_url) == (0, 0)


async def test_concurrent_items_share_messages(serve: Serve, broker_url: str) -> None:
    async with serve(broker_url=broker_url) as client:
        await asyncio.gather(*(client.post("/items", json=NEW) for _ in range(200)))
    ready, _ = await queue_sizes(broker_url)
    assert 1 <= ready < 100


async def test_a_stopped_broker_means_a_direct_write(serve: Serve, broker_url: str) -> None:
    async with proxied(broker_url) as (url, proxy), serve(broker_url=url) as client:
        assert (await client.post("/items", json=NEW)).status_code == 202
        await proxy.stop()
        for _ in range(10):
            started = time.monotonic()
            response = await client.post("/items", json=NEW)
            assert response.status_code == 201
            assert time.monotonic() - started < 2
        assert len((await client.get("/items")).json()["items"]) == 10
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "broker" in ready.json()["detail"]

        await proxy.start()

        async def queued_again() -> bool:
            return (await client.post("/items", json=NEW)).status_code == 202

        await eventually(queued_again, within=5)


async def test_a_frozen_broker_means_a_direct_write_within_the_deadline(serve: Serve, broker_url: str) -> None:
    async with proxied(broker_url) as (url, proxy), serve(broker_url=url, broker_deadline=0.3) as client:
        assert (await client.post("/items", json=NEW)).status_code == 202
        proxy.freeze()
        started = time.monotonic()
        assert (await client.post("/items", json=NEW)).status_code == 201
        assert time.monotonic() - started < 1
        started = time.monotonic()
        assert (await client.post("/items", json=NEW)).status_code == 201
        assert time.monotonic() - started < 0.2, "the deadline is paid once"


async def test_the_service_starts_without_a_broker(serve: Serve) -> None:
    async with serve(broker_url="amqp://guest:guest@127.0.0.1:1/") as client:
        assert (await client.post("/items", json=NEW)).status_code == 201


async def test_an_unconfirmed_item_that_did_arrive_is_stored_once(database: Database, database_url: str) -> None:
    twin = item()
    writer = DirectWriter(database, [], max_waiting=10)
    await writer.create(twin)
    assert await tasks.store(writer, [twin], patience=0) == []
    assert await names_in(database_url) == ["x"]


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
    assert (await queue_sizes(broker_url))[0] == 2


async def test_without_a_database_and_a_broker_the_client_is_told(serve: Serve, postgresql_url: str) -> None:
    async with (
        proxied(postgresql_url) as (url, proxy),
        serve(database_url=url, broker_url="amqp://guest:guest@127.0.0.1:1/") as client,
    ):
        await proxy.stop()
        for headers in ({}, {"Idempotency-Key": str(uuid4())}):
            response = await client.post("/items", json=NEW, headers=headers)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"


async def test_a_message_that_no_queue_takes_is_no_confirm(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_publisher(broker_url, deadline=5) as publisher:
        assert await publisher([item()]) == [None]
        monkeypatch.setattr(broker, "QUEUE", "nowhere")
        with pytest.raises(BrokerUnavailable):
            await publisher([item()])


async def test_a_publisher_without_a_connection_fails_at_once() -> None:
    publisher = Publisher("amqp://guest:guest@127.0.0.1:1/", deadline=5)
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(publisher([item()]), 0.1)
    with pytest.raises(BrokerUnavailable):
        await publisher.ping()


async def test_the_message_is_the_one_celery_makes(broker_url: str) -> None:
    ours = broker.store_items_message([item()])
    theirs = tasks.celery.amqp.create_task_message(
        "id", broker.STORE_ITEMS, args=([{}],), kwargs={}, origin="api", ignore_result=True
    )
    assert broker_url
    assert set(ours.headers) == set(theirs.headers)
    varying = ("id", "root_id", "argsrepr")
    assert {name: value for name, value in ours.headers.items() if name not in varying} == {
        name: value for name, value in theirs.headers.items() if name not in varying
    }


async def test_a_bad_item_dies_alone(database: Database, postgresql_url: str) -> None:
    writer = DirectWriter(database, [], max_waiting=10)
    refused = await tasks.store(writer, [item("good"), item(UNSTORABLE), item("fine")], patience=0)
    assert [(bad.name, "too long" in reason) for bad, reason in refused] == [(UNSTORABLE, True)]
    assert await names_in(postgresql_url) == ["fine", "good"]


async def test_a_reused_idempotency_key_is_refused_by_the_worker(database: Database) -> None:
    writer = DirectWriter(database, [], max_waiting=10)
    first = item(fingerprint="a" * 32)
    second = NewItem(first.id, "other", None, first.created_at, "b" * 32)
    assert await tasks.store(writer, [first], patience=0) == []
    assert [bad for bad, _ in await tasks.store(writer, [second], patience=0)] == [second]


async def test_the_worker_waits_for_the_database(postgresql_url: str) -> None:
    async with proxied(postgresql_url) as (url, proxy):
        engine = create_engine(Settings(_env_file=None, database_url=url), pool_size=1)
        writer = DirectWriter(Database(engine, timeout=1), [], max_waiting=10)
        await proxy.stop()
        storing = asyncio.create_task(tasks.store(writer, [item("late")], patience=60))
        await asyncio.sleep(0.5)
        assert not storing.done()
        await proxy.start()
        assert await asyncio.wait_for(storing, 5) == []
        await engine.dispose()
    assert await names_in(postgresql_url) == ["late"]


async def test_an_unexpected_error_is_not_swallowed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("app.crud.insert_items", broken)
    with pytest.raises(RuntimeError):
        await tasks.store(DirectWriter(database, [], max_waiting=10), [item()], patience=0)


@pytest.fixture
def started_process(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """The resources of a worker process, in this one."""
    settings = Settings(_env_file=None, database_url=database_url)
    monkeypatch.setattr(tasks, "settings", settings)
    tasks.start_process()
    yield
    tasks.stop_process()


@pytest.mark.usefixtures("started_process")
async def test_the_task_stores_and_sends_what_is_refused_to_the_dead_letters(
    postgresql_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks.celery.conf, "broker_url", broker_url)
    rows = broker.NEW_ITEMS.dump_python([item("good"), item(UNSTORABLE)], mode="json")
    await asyncio.to_thread(tasks.store_items, rows)
    assert await names_in(postgresql_url) == ["good"]
    assert await queue_sizes(broker_url) == (0, 1)

    listed = await command(monkeypatch, capsys, broker_url, "list")
    assert UNSTORABLE in listed
    assert "too long" in listed
    await command(monkeypatch, capsys, broker_url, "replay")
    assert await queue_sizes(broker_url) == (1, 0)


@pytest.mark.usefixtures("started_process")
async def test_a_task_ends_after_the_confirm_of_its_dead_letter(
    postgresql_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgresql_url
    rows = broker.NEW_ITEMS.dump_python([item(UNSTORABLE)], mode="json")
    async with proxied(broker_url) as (url, proxy):
        monkeypatch.setattr(tasks.celery.conf, "broker_url", url)
        monkeypatch.setattr(tasks.celery.amqp, "_producer_pool", None)
        await asyncio.to_thread(tasks.store_items, rows)
        proxy.freeze()
        storing = asyncio.create_task(asyncio.to_thread(tasks.store_items, rows))
        done, _ = await asyncio.wait([storing], timeout=0.5)
        proxy.thaw()
        assert not done, "the broker did not confirm yet"
        await asyncio.wait_for(storing, 5)
    assert await queue_sizes(broker_url) == (0, 2)


@pytest.mark.usefixtures("started_process")
async def test_a_task_that_waited_long_enough_goes_back_to_the_queue(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(postgresql_url) as (url, proxy):
        await proxy.stop()
        monkeypatch.setattr(tasks, "settings", Settings(_env_file=None, database_url=url))
        monkeypatch.setattr(tasks, "PATIENCE", 0)
        tasks.stop_process()
        tasks.start_process()
        with pytest.raises(Reject) as raised:
            await asyncio.to_thread(tasks.store_items, broker.NEW_ITEMS.dump_python([item()], mode="json"))
        assert raised.value.requeue  # type: ignore[attr-defined]


def test_the_worker_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "HEARTBEAT_FILE", tmp_path / "heartbeat")
    tasks.touch_heartbeat_file()
    assert (tmp_path / "heartbeat").exists()


async def test_a_message_that_no_worker_can_read_becomes_a_dead_letter(
    postgresql_url: str,
    broker_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "worker.log"
    async with worker(postgresql_url, broker_url, log):
        async with open_publisher(broker_url, deadline=5) as publisher:
            monkeypatch.setattr(broker.NEW_ITEMS, "dump_json", lambda _: b'[{"id": "1", "name": "unreadable"}]')
            await publisher([item()])
        await logged(log, "raised unexpected")
        await becomes(lambda: queue_sizes(broker_url), (0, 1))
    assert "the broker gave it up: rejected" in await command(monkeypatch, capsys, broker_url, "list")
    await command(monkeypatch, capsys, broker_url, "purge")
    assert await queue_sizes(broker_url) == (0, 0)


async def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broker_url: str, action: str
) -> str:
    """Run an action on the dead letters as `make dead-letters` does, and return what it prints."""
    monkeypatch.setenv("BROKER_URL", broker_url)
    monkeypatch.setattr(sys, "argv", ["dead_letters", action])
    capsys.readouterr()
    before = await queue_sizes(broker_url)
    assert await asyncio.to_thread(dead_letters.main) == 0
    if action in ("list", "show"):
        # What was looked at returns a moment after the command.
        await becomes(lambda: queue_sizes(broker_url), before)
    return capsys.readouterr().out


async def test_a_poisoned_batch_is_stored_but_for_the_poison(
    postgresql_url: str,
    broker_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through a worker's process, with items that the API would not let pass."""
    log = tmp_path / "worker.log"
    too_long, nul = item(UNSTORABLE), item("nul\x00", fingerprint="f" * 32)
    async with open_publisher(broker_url, deadline=5) as publisher:
        await publisher([item("good"), too_long, item("fine"), nul])
    async with worker(postgresql_url, broker_url, log):
        await becomes(lambda: queue_sizes(broker_url), (0, 2), within=20)
        assert await names_in(postgresql_url) == ["fine", "good"]

        lines = (await command(monkeypatch, capsys, broker_url, "list")).splitlines()
        assert {line.split()[0] for line in lines} == {str(too_long.id), str(nul.id)}
        assert "too long" in "".join(lines)

        shown = [json.loads(line) for line in (await command(monkeypatch, capsys, broker_url, "show")).splitlines()]
        reasons = {dead["id"]: dead.pop("reason") for dead in shown}
        bodies = broker.NEW_ITEMS.dump_python([too_long, nul], mode="json")
        assert sorted(shown, key=itemgetter("id")) == sorted(bodies, key=itemgetter("id"))
        assert "too long" in reasons[str(too_long.id)]
        assert "invalid byte sequence" in reasons[str(nul.id)]

        await command(monkeypatch, capsys, broker_url, "replay")

        async def refused_again() -> tuple[int, tuple[int, int]]:
            return log.read_text().count("goes to the dead-letter queue"), await queue_sizes(broker_url)

        await becomes(refused_again, (4, (0, 2)), within=20)
        await command(monkeypatch, capsys, broker_url, "purge")
    assert await queue_sizes(broker_url) == (0, 0)
    assert await names_in(postgresql_url) == ["fine", "good"]


async def send_to_the_dead_letters(broker_url: str, body: bytes) -> None:
    async with await connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(Message(body), routing_key=broker.DEAD_LETTER_QUEUE)


async def test_looking_at_dead_letters_does_not_use_them_up(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RabbitMQ drops what came back more often than the delivery limit allows, by default 20 times."""
    await send_to_the_dead_letters(broker_url, b'[[[{"id": "1", "name": "x"}]], {}, {}]')
    for _ in range(25):
        assert "'x'" in await command(monkeypatch, capsys, broker_url, "list")


@pytest.mark.parametrize("body", ["no JSON", "[]", "{}", "[[1]]", "[[[1]], {}, {}]"])
async def test_a_dead_letter_without_items_is_shown_as_it_is(
    broker_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    await send_to_the_dead_letters(broker_url, body.encode())
    assert "the broker gave it up" in await command(monkeypatch, capsys, broker_url, "list")
    assert json.loads(await command(monkeypatch, capsys, broker_url, "show"))["body"] == body


def test_dead_letters_need_a_broker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BROKER_URL", "")
    monkeypatch.setattr(sys, "argv", ["dead_letters", "list"])
    assert dead_letters.main() == 1
    assert "BROKER_URL" in capsys.readouterr().err


async def test_a_killed_worker_loses_nothing(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    async with serve(broker_url=broker_url) as client:
        answers = await asyncio.gather(*(client.post("/items", json=NEW) for _ in range(300)))
    accepted = {answer.json()["id"] for answer in answers}
    async with worker(postgresql_url, broker_url, tmp_path / "killed.log") as process:
        await eventually(lambda: some_stored(postgresql_url))
        process.kill()
    async with worker(postgresql_url, broker_url, tmp_path / "next.log"):

        async def all_stored() -> bool:
            rows = await in_database(postgresql_url, lambda connection: connection.execute(select(Item.id)))
            return {str(item_id) for item_id in rows.scalars()} == accepted

        await eventually(all_stored)


async def some_stored(database_url: str) -> bool:
    return bool(await names_in(database_url))


async def test_processes_that_are_killed_in_the_middle_of_a_task_lose_nothing(
    postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    names = [f"item {number}" for number in range(6)]
    async with proxied(postgresql_url) as (url, proxy), open_publisher(broker_url, deadline=5) as publisher:
        await proxy.stop()
        for name in names:
            await publisher([item(name)])
        async with worker(url, broker_url, log):
            waits = "the database does not answer, 1 items wait for it"
            await logged(log, f"ForkPoolWorker-1] {waits}", f"ForkPoolWorker-2] {waits}")
            for process in await asyncio.to_thread(processes_of_the_worker, broker_url):
                os.kill(process, signal.SIGKILL)
            await logged(log, "WorkerLostError")
            await proxy.start()

            async def kept() -> tuple[list[str], tuple[int, int]]:
                return await names_in(postgresql_url), await queue_sizes(broker_url)

            await becomes(kept, (names, (0, 0)))
