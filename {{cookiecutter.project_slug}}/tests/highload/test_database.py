"""A database that is slow, away, or talkative."""

import asyncio
import os
import shutil
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import pytest
from sqlalchemy import event, make_url, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.addresses import database_url as address_of
from app.highload.database import (
    QUIET,
    Database,
    DatabaseUnavailable,
    Work,
    create_engine,
    of_several_hosts,
    open_database,
)
from tests.conftest import in_database
from tests.highload.notes import NAME, NOTES, insert_notes, new_note
from tests.proxy import proxied
from tests.waiting import PATIENCE, eventually, settle

type Open = Callable[..., AbstractAsyncContextManager[Database]]

open_one: Open = partial(open_database, name=NAME, pool_size=1)
open_many: Open = partial(open_database, name=NAME, pool_size=5)


async def ping_at_once(database: Database) -> set[type[BaseException] | None]:
    """Ask five times at once, and return the types of what is raised, or None for an answer."""
    outcomes = await asyncio.gather(*(database.ping() for _ in range(5)), return_exceptions=True)
    return {type(outcome) if isinstance(outcome, BaseException) else None for outcome in outcomes}


async def test_an_error_does_not_repeat_what_a_client_sent(database_url: str) -> None:
    engine = create_engine(database_url, name=NAME, pool_size=1, timeout=PATIENCE)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT * FROM nothing WHERE name = :name"), {"name": "secret"})
    await engine.dispose()
    assert "nothing" in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_trip_has_a_deadline(postgresql_url: str, log: list[str]) -> None:
    async with proxied(postgresql_url) as (url, proxy), open_one(url, timeout=PATIENCE) as database:
        await database.ping()
        proxy.freeze()
        database._timeout = 0.2
        with pytest.raises(DatabaseUnavailable):
            await asyncio.wait_for(database.ping(), PATIENCE)
    assert log == ["the database cannot be used: no answer within 0.2 seconds"]


async def test_a_change_that_was_given_up_does_not_happen_later(postgresql_url: str) -> None:
    """A server that stalled executes what it has received; others have changed the row since, and nobody tells."""

    def changing(words: str) -> Work[object]:
        return lambda connection: connection.execute(update(NOTES.table).values(text=words))

    async def connections(connection: AsyncConnection) -> int:
        query = text(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND datname = current_database()"
        )
        return int(await connection.scalar(query, {"name": NAME}))

    async def all_closed() -> bool:
        return await in_database(postgresql_url, connections) == 0

    async with proxied(postgresql_url) as (url, proxy), open_one(url, timeout=PATIENCE) as database:
        await database.write(partial(insert_notes, rows=[new_note()]))
        # The server knows the statement by now, so that one message would execute it.
        await database.write(changing("before"))
        proxy.freeze()
        database._timeout = 0.5
        with pytest.raises(DatabaseUnavailable):
            await database.write(changing("late"))
        proxy.thaw()
        await eventually(all_closed)
    found = await in_database(postgresql_url, lambda connection: connection.scalar(select(NOTES.table.c.text)))
    assert found == "before"


async def test_a_restart_of_the_database_is_not_noticed(postgresql_url: str) -> None:
    async with proxied(postgresql_url) as (url, proxy), open_many(url, timeout=PATIENCE) as database:
        assert await ping_at_once(database) == {None}
        await proxy.stop()
        await proxy.start()
        await database.write(partial(insert_notes, rows=[new_note()]))
        assert await ping_at_once(database) == {None}


async def test_whoever_waits_for_a_connection_gets_it_in_turn(each_database_url: str) -> None:
    clients, repetitions = 60, 40
    served = 0
    passed_over: list[int] = []

    async def ask_again_and_again(database: Database) -> None:
        nonlocal served
        for _ in range(repetitions):
            before = served
            await database.ping()
            served += 1
            passed_over.append(served - before)

    async with open_database(each_database_url, name=NAME, pool_size=2, timeout=PATIENCE) as database:
        await asyncio.gather(*(ask_again_and_again(database) for _ in range(clients)))
    assert max(passed_over) <= 2 * clients


@asynccontextmanager
async def counting_takes(url: str, *, pool_size: int) -> AsyncGenerator[tuple[Database, list[object]]]:
    """Open a database, and note each connection that is taken from its pool."""
    taken: list[object] = []
    async with open_database(url, name=NAME, pool_size=pool_size, timeout=PATIENCE) as database:
        event.listen(database._engine.sync_engine.pool, "checkout", lambda *_: taken.append(1))
        yield database, taken


async def test_a_read_hands_its_connection_to_the_next(each_database_url: str) -> None:
    async with counting_takes(each_database_url, pool_size=2) as (database, taken):
        await asyncio.gather(*(database.ping() for _ in range(50)))
        assert len(taken) == 2
        await database.ping()
        assert len(taken) == 3


async def test_reads_that_wait_hold_up_no_write(each_database_url: str) -> None:
    """A connection on which others have read goes back to the pool, where a write takes it."""
    order: list[str] = []

    async def read(name: str, database: Database) -> None:
        await database.ping()
        order.append(name)

    async def write(database: Database) -> None:
        await database.write(partial(insert_notes, rows=[new_note()]))
        order.append("write")

    async with counting_takes(each_database_url, pool_size=1) as (database, taken):
        before = [read("before", database) for _ in range(3)]
        await asyncio.gather(*before, write(database), *(read("behind", database) for _ in range(3)))
        assert order == [*["before"] * 3, "write", *["behind"] * 3]
        assert len(taken) == 3


async def test_a_turn_of_who_went_away_is_passed_on(each_database_url: str) -> None:
    begun, held = asyncio.Event(), asyncio.Event()

    async def hold(_: AsyncConnection) -> None:
        begun.set()
        await held.wait()

    async with open_one(each_database_url, timeout=PATIENCE) as database:
        first = asyncio.create_task(database.read(hold))
        await begun.wait()
        waiting = [asyncio.create_task(database.ping()) for _ in range(4)]
        await settle()
        held.set()
        await first
        for task in waiting[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert outcomes[1::2] == [None, None]
        await database.write(partial(insert_notes, rows=[new_note()]))
        await database.ping()


async def test_a_connection_is_handed_on_as_new(each_database_url: str) -> None:
    async def begin(connection: AsyncConnection) -> None:
        async with connection.begin():
            await connection.execute(text("SELECT 1"))

    async with counting_takes(each_database_url, pool_size=1) as (database, taken):
        await asyncio.gather(database.ping(), database.read(begin), database.read(begin), database.ping())
        assert len(taken) == 1


async def test_a_connection_with_an_error_is_not_handed_on(each_database_url: str) -> None:
    async def fail(connection: AsyncConnection) -> None:
        await connection.execute(text("SELECT * FROM nothing"))

    async with counting_takes(each_database_url, pool_size=1) as (database, taken):
        first, failed, *others = await asyncio.gather(
            database.ping(), database.read(fail), database.ping(), database.ping(), return_exceptions=True
        )
        assert isinstance(failed, DBAPIError | DatabaseUnavailable)
        assert [first, *others] == [None, None, None]
        assert len(taken) == 2


async def test_the_log_says_why_the_database_cannot_be_used(postgresql_url: str, log: list[str]) -> None:
    missing = urlsplit(postgresql_url)._replace(path="/missing").geturl()
    async with open_many(missing, timeout=PATIENCE) as database:
        assert await ping_at_once(database) == {DatabaseUnavailable}
        assert log == ['the database cannot be used: database "missing" does not exist']
        await asyncio.sleep(QUIET)
        assert await ping_at_once(database) == {DatabaseUnavailable}
        assert len(log) == 2


async def test_a_dead_database_is_named_once_it_is_asked(log: list[str]) -> None:
    async with open_one("postgresql+asyncpg://postgres@127.0.0.1:1/db", timeout=PATIENCE) as database:
        assert not log
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
    assert "ConnectionRefusedError" in log[0]


async def test_a_connection_sets_nothing_that_a_pooler_refuses() -> None:
    """PgBouncer knows a client's name, encoding and the like, and refuses who sets more at the start."""
    received: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length, _) = struct.unpack("!II", await reader.readexactly(8))
        received.set_result((await reader.readexactly(length - 8)).split(b"\0"))
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_one(f"postgresql+asyncpg://u@127.0.0.1:{port}/d?ssl=disable", timeout=PATIENCE) as database:
            with pytest.raises(DatabaseUnavailable):
                await database.ping()
    assert set((await received)[:-2:2]) == {b"client_encoding", b"user", b"database", b"application_name"}


async def test_a_host_that_lets_wait_is_asked_last_next_time() -> None:
    """The primary is off and another host has taken its place: the first attempt must not be like all others."""
    asked: asyncio.Queue[str] = asyncio.Queue()

    def silent(name: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asked.put(name)
            await reader.read()
            writer.close()

        return accept

    connect = of_several_hosts()
    begun_with: list[list[str]] = []
    async with (
        await asyncio.start_server(silent("first"), "127.0.0.1", 0) as first,
        await asyncio.start_server(silent("second"), "127.0.0.1", 0) as second,
    ):
        ports = [server.sockets[0].getsockname()[1] for server in (first, second)]
        for _ in range(3):
            attempts = [
                asyncio.create_task(connect(host=["127.0.0.1"] * 2, port=ports, user="u", database="d", ssl="disable"))
                for _ in range(2)
            ]
            begun_with.append([await asked.get() for _ in attempts])
            for attempt in attempts:
                attempt.cancel()
            await asyncio.wait(attempts)
    assert begun_with == [["first"] * 2, ["second"] * 2, ["first"] * 2]


async def test_no_host_of_the_right_kind_is_an_outage(postgresql_url: str) -> None:
    """As between the end of a primary and the promotion of its standby."""
    url = make_url(postgresql_url)
    host = f"{url.host}:{url.port}"
    query = {"host": (host, host), "target_session_attrs": "standby"}
    several = url._replace(host=None, port=None).update_query_dict(query)
    async with open_one(several.render_as_string(hide_password=False), timeout=PATIENCE) as database:
        with pytest.raises(DatabaseUnavailable, match="standby"):
            await database.ping()


def configure_pooler(configuration: Path, server: SplitResult, port: int) -> None:
    configuration.write_text(
        f"[databases]\n* = host={server.hostname} port={server.port} user={server.username} "
        f"password={unquote(server.password or '')}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        "unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
        + ("user = nobody\n" if os.getuid() == 0 else ""),
        encoding="utf-8",
    )


@asynccontextmanager
async def pooled(url: str, configuration: Path) -> AsyncGenerator[str]:
    """Run PgBouncer, which gives each transaction another connection to a server; yield its address."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    server = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configure_pooler(configuration, server, port)
    process = await asyncio.create_subprocess_exec(program, str(configuration), stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        lines = [line async for line in until(b"process up", process.stderr)]
        assert b"process up" in lines[-1], lines
        yield server._replace(netloc=f"user@127.0.0.1:{port}").geturl()
    finally:
        process.kill()
        await process.wait()


async def until(words: bytes, stream: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    """Yield the lines of a stream up to the first that holds some words."""
    async for line in stream:
        yield line
        if words in line:
            return


async def test_a_pooler_of_transactions_stands_between(postgresql_url: str, tmp_path: Path) -> None:
    async with pooled(postgresql_url, tmp_path / "pgbouncer.ini") as url:
        address = address_of(f"{url}?pgbouncer=true")
        async with open_many(address, timeout=PATIENCE) as one, open_many(address, timeout=PATIENCE) as other:
            for _ in range(20):
                works = [partial(insert_notes, rows=[new_note()]) for _ in range(4)]
                await asyncio.gather(*(database.write(work) for database in (one, other) for work in works))
                assert await ping_at_once(one) == await ping_at_once(other) == {None}


async def test_a_database_that_only_reads_counts_as_away(postgresql_url: str) -> None:
    """As after the fail-over of a managed database, until the connections lead to its new primary."""

    async def insert_into_a_standby(connection: AsyncConnection) -> None:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        await insert_notes(connection, [new_note()])

    async with open_one(postgresql_url, timeout=PATIENCE) as database:
        with pytest.raises(DatabaseUnavailable):
            await database.write(insert_into_a_standby)
