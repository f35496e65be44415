"""A database that is slow, away, or talkative."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.database import QUIET, Database, DatabaseUnavailable, Work, create_engine, open_database
from tests.conftest import in_database
from tests.highload.notes import NAME, NOTES, insert_notes, new_note
from tests.proxy import proxied
from tests.waiting import eventually

type Open = Callable[..., AbstractAsyncContextManager[Database]]

open_one: Open = partial(open_database, name=NAME, pool_size=1)
open_many: Open = partial(open_database, name=NAME, pool_size=5)


async def ping_at_once(database: Database) -> set[type[BaseException] | None]:
    """Ask five times at once, and return the types of what is raised, or None for an answer."""
    outcomes = await asyncio.gather(*(database.ping() for _ in range(5)), return_exceptions=True)
    return {type(outcome) if isinstance(outcome, BaseException) else None for outcome in outcomes}


async def test_an_error_does_not_repeat_what_a_client_sent(database_url: str) -> None:
    engine = create_engine(database_url, name=NAME, pool_size=1, timeout=2)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT * FROM nothing WHERE name = :name"), {"name": "secret"})
    await engine.dispose()
    assert "nothing" in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_trip_has_a_deadline(postgresql_url: str, log: list[str]) -> None:
    async with proxied(postgresql_url) as (url, proxy), open_one(url, timeout=0.2) as database:
        await database.ping()
        proxy.freeze()
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        assert time.monotonic() - started < 1
    assert log == ["the database cannot be used: no answer within 0.2 seconds"]


async def test_a_change_that_was_given_up_does_not_happen_later(postgresql_url: str) -> None:
    """A server that stalled executes what it has received; others have changed the row since, and nobody tells."""

    def changing(words: str) -> Work[object]:
        return lambda connection: connection.execute(update(NOTES.table).values(text=words))

    async def connections(connection: AsyncConnection) -> int:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
        return int(await connection.scalar(query, {"name": NAME}))

    async def all_closed() -> bool:
        return await in_database(postgresql_url, connections) == 0

    async with proxied(postgresql_url) as (url, proxy), open_one(url, timeout=0.5) as database:
        await database.write(partial(insert_notes, rows=[new_note()]))
        # The server knows the statement by now, so that one message would execute it.
        await database.write(changing("before"))
        proxy.freeze()
        with pytest.raises(DatabaseUnavailable):
            await database.write(changing("late"))
        proxy.thaw()
        await eventually(all_closed, within=5)
    found = await in_database(postgresql_url, lambda connection: connection.scalar(select(NOTES.table.c.text)))
    assert found == "before"


async def test_a_restart_of_the_database_is_not_noticed(postgresql_url: str) -> None:
    async with proxied(postgresql_url) as (url, proxy), open_many(url, timeout=2) as database:
        assert await ping_at_once(database) == {None}
        await proxy.stop()
        await proxy.start()
        await database.write(partial(insert_notes, rows=[new_note()]))
        assert await ping_at_once(database) == {None}


async def test_the_log_says_why_the_database_cannot_be_used(postgresql_url: str, log: list[str]) -> None:
    missing = urlsplit(postgresql_url)._replace(path="/missing").geturl()
    async with open_many(missing, timeout=2) as database:
        assert await ping_at_once(database) == {DatabaseUnavailable}
        assert log == ['the database cannot be used: database "missing" does not exist']
        await asyncio.sleep(QUIET)
        assert await ping_at_once(database) == {DatabaseUnavailable}
        assert len(log) == 2


async def test_a_dead_database_is_named_once_it_is_asked(log: list[str]) -> None:
    async with open_one("postgresql+asyncpg://postgres@127.0.0.1:1/db", timeout=2) as database:
        assert not log
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
    assert "ConnectionRefusedError" in log[0]


async def test_a_database_that_only_reads_counts_as_away(postgresql_url: str) -> None:
    """As after the fail-over of a managed database, until the connections lead to its new primary."""

    async def insert_into_a_standby(connection: AsyncConnection) -> None:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        await insert_notes(connection, [new_note()])

    async with open_one(postgresql_url, timeout=2) as database:
        with pytest.raises(DatabaseUnavailable):
            await database.write(insert_into_a_standby)
