import asyncio
import json
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from aio_pika import Message, connect
from billiard import pool
from celery.exceptions import Reject
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.highload import worker
from app.highload.database import ContentRefused, Database, DatabaseUnavailable, open_database
from app.highload.idempotency import IdempotencyKeyReused
from app.highload.resource import Message as ResourceMessage
from app.highload.resource import Row
from app.highload.writes import dead_letters, publisher
from app.highload.writes.group_commit import DirectWriter
from app.highload.writes.publisher import BrokerUnavailable, Publisher, open_publisher, task_message
from app.highload.writes.queue import RowQueue
from app.highload.writes.queued import QueuedWriter
from tests.conftest import Serve, in_database, stack_url
from tests.highload.notes import NAME, NOTES, QUEUE, new_note, note_writer, nothing_ends
from tests.highload.worker import celery, process, store_rows
from tests.numbers import Numbers
from tests.proxy import proxied
from tests.queues import logged, queue_sizes, renew_queues, run_worker
from tests.waiting import PATIENCE, eventually, said, settle

UNSTORABLE = "x" * 256
NO_BROKER = "amqp://guest:guest@127.0.0.1:1/"


async def texts_in(database_url: str) -> list[str]:
    rows = await in_database(database_url, lambda connection: connection.execute(select(NOTES.table.c.text)))
    return sorted(rows.scalars())


async def sizes(url: str) -> tuple[int, int]:
    """Return how many messages are ready in the queue and in the dead-letter queue."""
    return await queue_sizes(url, QUEUE)


async def become_sizes(url: str, expected: tuple[int, int]) -> None:
    """Wait for the sizes of the queues, and show the last ones where those do not come."""

    async def seen() -> bool:
        return await sizes(url) == expected

    with suppress(TimeoutError):
        await eventually(seen)
    assert await sizes(url) == expected


@pytest.fixture
async def broker_url() -> str:
    """The address of a broker with new queues."""
    url = stack_url("BROKER_URL")
    await renew_queues(url, QUEUE)
    return url


def note_worker(
    database_url: str, broker_url: str, log: Path, **variables: str
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    variables = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, **variables}
    return run_worker("tests.highload.worker", log, **variables)


@asynccontextmanager
async def in_a_thread[T](context: AbstractContextManager[T]) -> AsyncGenerator[T]:
    """Leave a context while the loop goes on, on which a proxy runs that the worker needs to the end."""
    with ExitStack() as stack:
        yield stack.enter_context(context)
        await asyncio.to_thread(stack.close)


def message_of(*notes: Row) -> ResourceMessage:
    """Return what the task gets."""
    return NOTES.message(notes)


open_one = partial(open_database, name=NAME, pool_size=1)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    async with open_one(database_url, timeout=PATIENCE) as database:
        yield database


async def test_queued_rows_arrive_through_the_worker(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with note_worker(postgresql_url, broker_url, log):
        accepted = await queue_notes(serve, broker_url)
        await eventually(lambda: all_stored(postgresql_url, accepted))
    assert "Traceback" not in log.read_text()
    assert await sizes(broker_url) == (0, 0)


async def test_a_worker_comes_back_before_the_broker_knows_that_it_was_gone(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    async with (
        proxied(broker_url) as (url, proxy),
        serve(broker_url=broker_url) as client,
        in_a_thread(note_worker(postgresql_url, url, log)) as running,
    ):
        await client.post("/notes", content="before")
        await eventually(lambda: stored(postgresql_url, "before"))
        proxy.forsake()

        async def stored_again() -> bool:
            assert running.poll() is None, log.read_text()
            # The broker gives some of them to the connection that is gone.
            await client.post("/notes", content="after")
            return await stored(postgresql_url, "after")

        await eventually(stored_again)


async def test_concurrent_rows_share_messages(serve: Serve, broker_url: str) -> None:
    async with serve(broker_url=broker_url) as client:
        await asyncio.gather(*(client.post("/notes", content="x") for _ in range(200)))
    ready, _ = await sizes(broker_url)
    assert 1 <= ready < 100


async def queues(client: httpx2.AsyncClient) -> bool:
    """Whether the service gives a note to the broker."""
    return (await client.post("/notes", content="x")).status_code == 202


async def test_a_stopped_broker_means_a_direct_write(serve: Serve, broker_url: str) -> None:
    async with proxied(broker_url) as (url, proxy), serve(broker_url=url) as client:
        await eventually(lambda: queues(client))
        await proxy.stop()
        for _ in range(10):
            response = await client.post("/notes", content="x")
            assert response.status_code == 201
        assert len((await client.get("/notes")).json()["notes"]) == 10

        await proxy.start()
        await eventually(lambda: queues(client))


async def test_a_publisher_tells_whether_the_broker_is_there(broker_url: str) -> None:
    async with proxied(broker_url) as (url, proxy), open_publisher(url, QUEUE, deadline=PATIENCE) as publisher:
        await publisher.ping()
        await proxy.stop()

        async def lost() -> bool:
            return publisher._connection is None

        await eventually(lost)
        with pytest.raises(BrokerUnavailable):
            await publisher.ping()


async def test_a_frozen_broker_means_a_direct_write_within_the_deadline(
    serve: Serve, broker_url: str, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(broker_url) as (url, proxy), serve(broker_url=url, broker_deadline=0.3) as client:
        # On a busy machine the first attempts may take longer than that.
        await eventually(lambda: queues(client))
        log.clear()
        monkeypatch.setattr(publisher, "COOL_DOWN", math.inf)
        proxy.freeze()
        for _ in range(2):
            assert (await client.post("/notes", content="x")).status_code == 201
        assert sum("did not confirm" in line for line in log) == 1, "the deadline is paid once"


async def test_the_service_starts_without_a_broker(serve: Serve) -> None:
    async with serve(broker_url=NO_BROKER) as client:
        assert (await client.post("/notes", content="x")).status_code == 201


async def test_a_drain_waits_for_what_the_broker_does_not_take(database: Database, database_url: str) -> None:
    async def publish(_: Sequence[Row]) -> Sequence[None]:
        await settle()
        raise BrokerUnavailable

    writer = QueuedWriter(publish, note_writer(database), max_waiting=10)
    creating = asyncio.create_task(writer.create(new_note()))
    await asyncio.sleep(0)
    await writer.drain()
    assert await texts_in(database_url) == ["x"]
    assert (await creating).stored


async def test_an_unconfirmed_row_that_did_arrive_is_stored_once(database: Database, database_url: str) -> None:
    twin = new_note()
    writer = note_writer(database)
    await writer.create(twin)
    assert await worker.store(writer, [twin]) == []
    assert await texts_in(database_url) == ["x"]


async def test_an_idempotency_key_is_answered_by_the_database(serve: Serve, broker_url: str) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    async with serve(broker_url=broker_url) as client:
        first = await client.post("/notes", content="x", headers=key)
        again = await client.post("/notes", content="x", headers=key)
        other = await client.post("/notes", content="another", headers=key)
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert first.json() == again.json()


async def test_without_a_database_everything_is_queued(serve: Serve, postgresql_url: str, broker_url: str) -> None:
    async with proxied(postgresql_url) as (url, proxy), serve(database_url=url, broker_url=broker_url) as client:
        await proxy.stop()
        assert (await client.post("/notes", content="x")).status_code == 202
        keyed = await client.post("/notes", content="x", headers={"Idempotency-Key": str(uuid4())})
        assert keyed.status_code == 202
    assert (await sizes(broker_url))[0] == 2


async def test_without_a_database_and_a_broker_the_client_is_told(serve: Serve, postgresql_url: str) -> None:
    async with (
        proxied(postgresql_url) as (url, proxy),
        serve(database_url=url, broker_url=NO_BROKER) as client,
    ):
        await proxy.stop()
        for headers in ({}, {"Idempotency-Key": str(uuid4())}):
            response = await client.post("/notes", content="x", headers=headers)
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"


async def test_a_message_that_no_queue_takes_is_no_confirm(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publisher:
        assert await publisher(NOTES, [new_note()]) == [None]
        monkeypatch.setattr(publisher, "_queue", RowQueue("nowhere", QUEUE.task))
        with pytest.raises(BrokerUnavailable):
            await publisher(NOTES, [new_note()])


async def test_a_publisher_without_a_connection_fails_at_once() -> None:
    publisher = Publisher(NO_BROKER, QUEUE, deadline=PATIENCE)
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(publisher(NOTES, [new_note()]), PATIENCE)
    with pytest.raises(BrokerUnavailable):
        await publisher.ping()


def test_the_message_is_the_one_celery_makes() -> None:
    ours = task_message(QUEUE.task, NOTES.message([new_note()]))
    theirs = celery.amqp.create_task_message("id", QUEUE.task, args=({},), kwargs={}, origin="api", ignore_result=True)
    assert set(ours.headers) == set(theirs.headers)
    varying = ("id", "root_id", "argsrepr")
    assert ours.headers["argsrepr"] == "(...)", "the log shows no value of a client"
    assert {name: value for name, value in ours.headers.items() if name not in varying} == {
        name: value for name, value in theirs.headers.items() if name not in varying
    }


async def test_a_bad_row_dies_alone(database: Database, postgresql_url: str) -> None:
    notes = [new_note("good"), new_note(UNSTORABLE), new_note("fine")]
    refused = await worker.store(note_writer(database), notes)
    ((bad, reason),) = refused
    assert bad["text"] == UNSTORABLE
    assert isinstance(reason, ContentRefused)
    assert "too long" in reason.words
    assert await texts_in(postgresql_url) == ["fine", "good"]


async def test_a_reused_idempotency_key_is_refused_by_the_worker(database: Database) -> None:
    writer = note_writer(database)
    first, second = new_note("x", key="key"), new_note("other", key="key")
    assert await worker.store(writer, [first]) == []
    assert [bad for bad, _ in await worker.store(writer, [second])] == [second]


async def test_the_worker_waits_for_the_database(postgresql_url: str, log: list[str]) -> None:
    async with proxied(postgresql_url) as (url, proxy), open_one(url, timeout=PATIENCE) as database:
        await proxy.stop()
        store = partial(worker.store, note_writer(database), [new_note("late")])
        storing = asyncio.create_task(worker.patiently(store, PATIENCE))
        await said(log, "the database cannot be used")
        await settle()
        assert not storing.done()
        await proxy.start()
        assert await storing == []
    assert await texts_in(postgresql_url) == ["late"]


async def test_the_patience_of_a_task_counts_its_attempts_too(postgresql_url: str) -> None:
    """A message that is held for longer than the consumer timeout costs the worker its channel."""
    async with proxied(postgresql_url) as (url, proxy), open_one(url, timeout=0.5) as database:
        proxy.freeze()
        attempts = 0

        async def store() -> None:
            nonlocal attempts
            attempts += 1
            await worker.store(note_writer(database), [new_note()])

        with pytest.raises(DatabaseUnavailable):
            await worker.patiently(store, 1.0)
        # Their pauses are 0.1 and 0.2 seconds; without their own times there would be five.
        assert attempts <= 3


async def test_an_unexpected_error_is_not_swallowed(database: Database) -> None:
    async def broken(*_: object) -> Sequence[Row | IdempotencyKeyReused]:
        raise RuntimeError("broken")

    writer = DirectWriter(database, broken, nothing_ends, ended_by_insert=lambda _: [], max_waiting=10)
    with pytest.raises(RuntimeError):
        await worker.store(writer, [new_note()])


@contextmanager
def worker_process(database_url: str) -> Iterator[None]:
    """Keep what a worker process opens, in this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        process.start()
    try:
        yield
    finally:
        process.stop()


@pytest.fixture
def started_process(database_url: str) -> Iterator[None]:
    with worker_process(database_url):
        yield


@pytest.mark.usefixtures("started_process")
async def test_the_task_stores_and_sends_what_is_refused_to_the_dead_letters(
    postgresql_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(celery.conf, "broker_url", broker_url)
    notes = [new_note("good"), new_note(UNSTORABLE), new_note("\0")]
    await asyncio.to_thread(store_rows, message_of(*notes))
    assert await texts_in(postgresql_url) == ["good"]
    assert await sizes(broker_url) == (0, 2)

    assert await dead_letters.show(broker_url, QUEUE, dead_letters.in_short) == 2
    listed = capsys.readouterr().out
    assert all(str(refused["id"]) in listed for refused in notes[1:])
    assert f"text={notes[1]['text']!r}" in listed
    assert "too long" in listed
    assert "invalid byte sequence" in listed
    assert await dead_letters.replay(broker_url, QUEUE) == 2
    assert await sizes(broker_url) == (2, 0)


async def test_a_poison_row_in_a_batch_is_put_aside_by_a_worker(
    postgresql_url: str, broker_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    poison = new_note(UNSTORABLE)
    async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publisher:
        await publisher(NOTES, [new_note("before"), poison, new_note("after")])

    with note_worker(postgresql_url, broker_url, tmp_path / "worker.log"):
        await become_sizes(broker_url, (0, 1))
        assert await texts_in(postgresql_url) == ["after", "before"]
        for _ in range(25):
            assert await dead_letters.show(broker_url, QUEUE, dead_letters.in_full) == 1
            # A message that was looked at is back a moment later, and must not be used up by that.
            await become_sizes(broker_url, (0, 1))
        shown = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (shown["id"], shown["text"]) == (str(poison["id"]), UNSTORABLE)
        assert "too long" in shown["reason"]
        assert shown["code"] == "value-refused"

        assert await dead_letters.replay(broker_url, QUEUE) == 1
        await become_sizes(broker_url, (0, 1))
        assert await texts_in(postgresql_url) == ["after", "before"]
    assert await dead_letters.purge(broker_url, QUEUE) == 1
    assert await sizes(broker_url) == (0, 0)


@pytest.mark.usefixtures("started_process")
async def test_a_task_ends_after_the_confirm_of_its_dead_letter(
    postgresql_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgresql_url
    message = message_of(new_note(UNSTORABLE))
    async with proxied(broker_url) as (url, proxy):
        monkeypatch.setattr(celery.conf, "broker_url", url)
        monkeypatch.setattr(celery.amqp, "_producer_pool", None)
        await asyncio.to_thread(store_rows, message)
        proxy.freeze()
        storing = asyncio.create_task(asyncio.to_thread(store_rows, message))
        done, _ = await asyncio.wait([storing], timeout=2)
        proxy.thaw()
        assert not done, "the broker did not confirm yet"
        await asyncio.wait_for(storing, PATIENCE)
    assert await sizes(broker_url) == (0, 2)


async def test_a_task_that_waited_long_enough_goes_back_to_the_queue(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(postgresql_url) as (url, proxy):
        await proxy.stop()
        monkeypatch.setattr(worker, "PATIENCE", 0)
        with worker_process(url), pytest.raises(Reject) as raised:
            await asyncio.to_thread(store_rows, message_of(new_note()))
        assert raised.value.requeue  # type: ignore[attr-defined]


@pytest.mark.usefixtures("started_process")
async def test_a_process_soon_ends_without_a_parent_that_reads_its_results() -> None:
    looks = 0

    class Counter:
        @property
        def value(self) -> int:
            nonlocal looks
            looks += 1
            return 0

    ensure_consumed = pool.Worker._ensure_messages_consumed  # type: ignore[attr-defined]
    assert not await asyncio.to_thread(ensure_consumed, SimpleNamespace(on_ready_counter=Counter()), completed=1)
    assert looks == worker.WAIT_FOR_PARENT


def test_the_worker_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_FILE", tmp_path / "heartbeat")
    worker.touch_heartbeat_file()
    assert (tmp_path / "heartbeat").exists()


async def test_a_message_that_no_worker_can_read_becomes_a_dead_letter(
    postgresql_url: str,
    broker_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "worker.log"
    with note_worker(postgresql_url, broker_url, log):
        async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publisher:
            monkeypatch.setattr(NOTES, "message", lambda _: "no message")
            await publisher(NOTES, [new_note()])
        await eventually(lambda: logged(log, "raised unexpected"))
        await become_sizes(broker_url, (0, 1))
    monkeypatch.setattr(sys, "argv", ["dead_letters", "list"])
    assert await asyncio.to_thread(dead_letters.main, broker_url, QUEUE) == 0
    assert "the broker gave it up: rejected" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["dead_letters", "purge"])
    assert await asyncio.to_thread(dead_letters.main, broker_url, QUEUE) == 0
    assert await sizes(broker_url) == (0, 0)


@pytest.mark.parametrize("body", ["no JSON", "[]", "{}", "[[1]]", "[[[1]], {}, {}]"])
async def test_a_dead_letter_without_rows_is_shown_as_it_is(
    broker_url: str, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    async with await connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(Message(body.encode()), routing_key=QUEUE.dead_letters)

    async def shown(form: Callable[[dict[str, Any], str, str], str]) -> str:
        assert await dead_letters.show(broker_url, QUEUE, form) == 1
        await become_sizes(broker_url, (0, 1))
        return capsys.readouterr().out

    assert f"unreadable  {body!r}  the broker gave it up" in await shown(dead_letters.in_short)
    in_full = json.loads(await shown(dead_letters.in_full))
    assert (in_full["body"], in_full["code"]) == (body, "gave-up")


def test_dead_letters_need_a_broker(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["dead_letters", "list"])
    assert dead_letters.main(None, QUEUE) == 1
    assert "BROKER_URL" in capsys.readouterr().err


@asynccontextmanager
async def blocked_inserts(database_url: str) -> AsyncGenerator[None]:
    """Keep every insert waiting until the end of the block."""
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.execute(text(f"LOCK TABLE {NOTES.name} IN SHARE MODE"))
        yield
    await engine.dispose()


async def test_a_killed_worker_loses_nothing(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    accepted = await queue_notes(serve, broker_url)
    async with blocked_inserts(postgresql_url):
        with note_worker(postgresql_url, broker_url, tmp_path / "killed.log") as running:
            await eventually(lambda: some_task_waits(postgresql_url))
            running.kill()
    with note_worker(postgresql_url, broker_url, tmp_path / "next.log"):
        await eventually(lambda: all_stored(postgresql_url, accepted))


async def test_a_killed_process_of_a_worker_loses_nothing(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    accepted = await queue_notes(serve, broker_url)
    log = tmp_path / "worker.log"
    # Longer than Celery waits by itself for a process in the place of another one.
    with note_worker(postgresql_url, broker_url, log, WORKER_CONCURRENCY="1", SECONDS_TO_START="4.5") as running:
        async with blocked_inserts(postgresql_url):
            await eventually(lambda: some_task_waits(postgresql_url))
            os.kill(await asyncio.to_thread(a_child_of, running.pid), signal.SIGKILL)
            await eventually(lambda: logged(log, "WorkerLostError"))

        async def all_arrived() -> bool:
            assert "Timed out" not in await asyncio.to_thread(log.read_text)
            return await all_stored(postgresql_url, accepted)

        await eventually(all_arrived)


async def test_what_a_worker_has_counted_outlives_its_process(
    serve: Serve, postgresql_url: str, broker_url: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def told() -> Numbers:
        async with httpx2.AsyncClient(timeout=PATIENCE) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 404
        return Numbers(answer.text)

    log = tmp_path / "worker.log"
    with note_worker(postgresql_url, broker_url, log, WORKER_CONCURRENCY="1", METRICS_PORT=str(port)) as running:
        for stored in (100, 200):
            await queue_notes(serve, broker_url)

            async def all_told(number: int = stored) -> bool:
                if "ready." not in await asyncio.to_thread(log.read_text):
                    return False
                return (await told()).sum("highload_stored_total", {"resource": NOTES.name}) == number

            await eventually(all_told)
            if stored == 100:
                os.kill(await asyncio.to_thread(a_child_of, running.pid), signal.SIGKILL)
        async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publisher:
            await publisher(NOTES, [new_note(UNSTORABLE)])
        await become_sizes(broker_url, (0, 1))

        async def dead_letter_told() -> bool:
            return (await told()).sum("highload_dead_letters_total", {"resource": NOTES.name}) == 1

        await eventually(dead_letter_told)
        assert (await told()).sum("highload_workers") == 1
        assert (await told()).sum("highload_flush_size_sum", {"kind": "insert"}) >= 200


async def queue_notes(serve: Serve, broker_url: str) -> set[str]:
    """Queue notes and return their ids."""
    async with serve(broker_url=broker_url) as client:
        answers = await asyncio.gather(*(client.post("/notes", content="x") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {202}
    return {answer.json()["id"] for answer in answers}


async def stored(database_url: str, words: str) -> bool:
    return words in await texts_in(database_url)


async def all_stored(database_url: str, accepted: set[str]) -> bool:
    rows = await in_database(database_url, lambda connection: connection.execute(select(NOTES.table.c.id)))
    return {str(note_id) for note_id in rows.scalars()} == accepted


async def some_task_waits(database_url: str) -> bool:
    """Whether an insert waits for a lock."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = to_regclass(:name)")
    parameters = {"name": NOTES.name}
    return bool(await in_database(database_url, lambda connection: connection.scalar(waiting, parameters)))


def a_child_of(parent: int) -> int:
    """Return the number of a process that a Celery worker with one process has started."""
    (child,) = subprocess.run(["pgrep", "-P", str(parent)], check=True, capture_output=True, text=True).stdout.split()
    return int(child)
