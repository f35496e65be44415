import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from aio_pika import Message, connect
from billiard import pool
from celery.exceptions import Reject
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from app import broker, dead_letters, tasks
from app.broker import BrokerUnavailable, Publisher, open_publisher
from app.config import Settings
from app.db import Database, DatabaseUnavailable, create_engine
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


async def become_sizes(url: str, expected: tuple[int, int], *, within: float = 4) -> None:
    """Wait for the sizes of the queues, and show the last ones where those do not come."""

    async def seen() -> bool:
        return await queue_sizes(url) == expected

    with suppress(TimeoutError):
        await eventually(seen, within=within)
    assert await queue_sizes(url) == expected


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


@contextmanager
def worker(database_url: str, broker_url: str, log: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Celery worker as production does."""
    environment = {**os.environ, "DATABASE_URL": database_url, "BROKER_URL": broker_url, "WORKER_CONCURRENCY": "2"}
    with log.open("wb") as output:
        command = [sys.executable, "-m", "celery", "--app", "app.tasks", "worker", "--loglevel", "INFO"]
        process = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle"],
            env=environment | settings,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    engine = create_engine(Settings(_env_file=None, database_url=database_url), pool_size=1)
    yield Database(engine, timeout=2)
    await engine.dispose()


async def test_queued_items_arrive_through_the_worker(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    # The bound is for requests; the items of a message have been accepted.
    with worker(postgresql_url, broker_url, log, MAX_WAITING="2"):
        async with serve(broker_url=broker_url) as client:
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


async def test_the_patience_of_a_task_counts_its_attempts_too(postgresql_url: str) -> None:
    """A message that is held for longer than the consumer timeout costs the worker its channel."""
    async with proxied(postgresql_url) as (url, proxy):
        engine = create_engine(Settings(_env_file=None, database_url=url), pool_size=1)
        writer = DirectWriter(Database(engine, timeout=0.5), [], max_waiting=10)
        proxy.freeze()
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await tasks.store(writer, [item()], patience=1.0)
        assert time.monotonic() - started < 2.2
        await proxy.stop()
        await engine.dispose()


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
    rows = broker.NEW_ITEMS.dump_python([item("good"), item(UNSTORABLE), item("\0")], mode="json")
    await asyncio.to_thread(tasks.store_items, rows)
    assert await names_in(postgresql_url) == ["good"]
    assert await queue_sizes(broker_url) == (0, 2)

    assert await dead_letters.show(broker_url, dead_letters.in_short) == 2
    listed = capsys.readouterr().out
    assert UNSTORABLE in listed
    assert "too long" in listed
    assert "invalid byte sequence" in listed
    assert await dead_letters.replay(broker_url) == 2
    assert await queue_sizes(broker_url) == (2, 0)


async def test_a_poison_item_in_a_batch_is_put_aside_by_a_worker(
    postgresql_url: str, broker_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison = item(UNSTORABLE)
    async with open_publisher(broker_url, deadline=5) as publisher:
        await publisher([item("before"), poison, item("after")])

    with worker(postgresql_url, broker_url, tmp_path / "worker.log"):
        await become_sizes(broker_url, (0, 1), within=20)
        assert await names_in(postgresql_url) == ["after", "before"]
        for _ in range(25):
            assert await dead_letters.show(broker_url, dead_letters.in_full) == 1
            # A message that was looked at is back a moment later, and must not be used up by that.
            await become_sizes(broker_url, (0, 1))
        shown = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (shown["id"], shown["name"]) == (str(poison.id), UNSTORABLE)
        assert "too long" in shown["reason"]

        assert await dead_letters.replay(broker_url) == 1
        await become_sizes(broker_url, (0, 1))
        assert await names_in(postgresql_url) == ["after", "before"]
    assert await dead_letters.purge(broker_url) == 1
    assert await queue_sizes(broker_url) == (0, 0)


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


@pytest.mark.usefixtures("started_process")
async def test_a_process_soon_ends_without_a_parent_that_reads_its_results() -> None:
    process = SimpleNamespace(on_ready_counter=SimpleNamespace(value=0))
    started = time.monotonic()
    ensure_consumed = pool.Worker._ensure_messages_consumed  # type: ignore[attr-defined]
    assert not await asyncio.to_thread(ensure_consumed, process, completed=1)
    assert time.monotonic() - started < 4


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
    with worker(postgresql_url, broker_url, log):
        async with open_publisher(broker_url, deadline=5) as publisher:
            monkeypatch.setattr(broker.NEW_ITEMS, "dump_json", lambda _: b'[{"id": "1", "name": "unreadable"}]')
            await publisher([item()])
        await eventually(lambda: logged(log, "raised unexpected"))
        await become_sizes(broker_url, (0, 1))
    monkeypatch.setenv("BROKER_URL", broker_url)
    monkeypatch.setattr(sys, "argv", ["dead_letters", "list"])
    assert await asyncio.to_thread(dead_letters.main) == 0
    assert "the broker gave it up: rejected" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["dead_letters", "purge"])
    assert await asyncio.to_thread(dead_letters.main) == 0
    assert await queue_sizes(broker_url) == (0, 0)


@pytest.mark.parametrize("body", ["no JSON", "[]", "{}", "[[1]]", "[[[1]], {}, {}]"])
async def test_a_dead_letter_without_items_is_shown_as_it_is(
    broker_url: str, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    async with await connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(Message(body.encode()), routing_key=broker.DEAD_LETTER_QUEUE)

    async def shown(form: Callable[[dict[str, Any], str], str]) -> str:
        assert await dead_letters.show(broker_url, form) == 1
        await become_sizes(broker_url, (0, 1))
        return capsys.readouterr().out

    assert f"unreadable  {body!r}  the broker gave it up" in await shown(dead_letters.in_short)
    assert json.loads(await shown(dead_letters.in_full))["body"] == body


def test_dead_letters_need_a_broker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BROKER_URL", "")
    monkeypatch.setattr(sys, "argv", ["dead_letters", "list"])
    assert dead_letters.main() == 1
    assert "BROKER_URL" in capsys.readouterr().err


@asynccontextmanager
async def blocked_inserts(database_url: str) -> AsyncGenerator[None]:
    """Keep every insert waiting until the end of the block."""
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.execute(text("LOCK TABLE items IN SHARE MODE"))
        yield
    await engine.dispose()


async def test_a_killed_worker_loses_nothing(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    accepted = await queue_items(serve, broker_url)
    async with blocked_inserts(postgresql_url):
        with worker(postgresql_url, broker_url, tmp_path / "killed.log") as process:
            await eventually(lambda: some_task_waits(postgresql_url))
            process.kill()
    with worker(postgresql_url, broker_url, tmp_path / "next.log"):
        await eventually(lambda: all_stored(postgresql_url, accepted), within=10)


async def test_a_killed_process_of_a_worker_loses_nothing(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    accepted = await queue_items(serve, broker_url)
    log = tmp_path / "worker.log"
    with worker(postgresql_url, broker_url, log, WORKER_CONCURRENCY="1") as process:
        async with blocked_inserts(postgresql_url):
            await eventually(lambda: some_task_waits(postgresql_url))
            os.kill(await asyncio.to_thread(a_child_of, process.pid), signal.SIGKILL)
            await eventually(lambda: logged(log, "WorkerLostError"))
        await eventually(lambda: all_stored(postgresql_url, accepted), within=10)


async def queue_items(serve: Serve, broker_url: str) -> set[str]:
    """Queue items and return their ids."""
    async with serve(broker_url=broker_url) as client:
        answers = await asyncio.gather(*(client.post("/items", json=NEW) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    return {answer.json()["id"] for answer in answers}


async def all_stored(database_url: str, accepted: set[str]) -> bool:
    rows = await in_database(database_url, lambda connection: connection.execute(select(Item.id)))
    return {str(item_id) for item_id in rows.scalars()} == accepted


async def some_task_waits(database_url: str) -> bool:
    """Whether an insert waits for a lock."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'items'::regclass")
    return bool(await in_database(database_url, lambda connection: connection.scalar(waiting)))


def a_child_of(process: int) -> int:
    """Return the number of a process that a Celery worker with one process has started."""
    (child,) = subprocess.run(["pgrep", "-P", str(process)], check=True, capture_output=True, text=True).stdout.split()
    return int(child)


async def logged(log: Path, words: str) -> bool:
    """Whether a log says this."""
    return words in await asyncio.to_thread(log.read_text)
