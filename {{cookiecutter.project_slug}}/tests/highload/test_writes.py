import asyncio
from collections.abc import AsyncGenerator, Collection
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import CursorResult, UpdateBase, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.database import ContentRefused, Database, DatabaseUnavailable, Work, create_engine, open_database
from app.highload.writes.group_commit import MAX_BATCH
from tests.highload.notes import NAME, NOTES, insert_notes, new_note, note_writer
from tests.waiting import PATIENCE, settle


class CommitsAndGoesAway(Database):
    """A database whose answer to the commit is lost."""

    async def write[T](self, work: Work[T]) -> T:
        await super().write(work)
        raise DatabaseUnavailable


class CommitsAndTriesAgain(Database):
    """A database whose answer to the commit is lost with its connection, so that the work runs once more."""

    async def write[T](self, work: Work[T]) -> T:
        await super().write(work)
        return await super().write(work)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    async with open_database(database_url, name=NAME, pool_size=1, timeout=PATIENCE) as database:
        yield database


def executing(statement: UpdateBase) -> Work[CursorResult[Any]]:
    """Return work that is one statement."""

    async def execute(connection: AsyncConnection) -> CursorResult[Any]:
        return await connection.execute(statement)

    return execute


def changing(note_id: UUID) -> Work[CursorResult[Any]]:
    return executing(update(NOTES.table).where(NOTES.table.c.id == note_id).values(text="y"))


def deleting(note_id: UUID) -> Work[CursorResult[Any]]:
    return executing(NOTES.table.delete().where(NOTES.table.c.id == note_id))


async def test_a_write_with_an_unclear_end_is_a_change(database_url: str) -> None:
    engine = create_engine(database_url, name=NAME, pool_size=1, timeout=PATIENCE)
    changes = 0

    async def count(_: Collection[str]) -> None:
        nonlocal changes
        changes += 1

    writer = note_writer(CommitsAndGoesAway(engine, pool_size=1, timeout=PATIENCE), count)
    new = new_note()
    with pytest.raises(DatabaseUnavailable):
        await writer.create(new)
    with pytest.raises(DatabaseUnavailable):
        await writer.change(changing(new["id"]), ["notes"])
    with pytest.raises(DatabaseUnavailable):
        await writer.change(deleting(new["id"]), ["notes"])
    await engine.dispose()
    assert changes == 3


async def test_a_deletion_that_ran_again_is_a_change(database_url: str) -> None:
    """The second run finds nothing to delete."""
    engine = create_engine(database_url, name=NAME, pool_size=1, timeout=PATIENCE)
    told: list[Collection[str]] = []

    async def tell(places: Collection[str]) -> None:
        told.append(places)

    writer = note_writer(CommitsAndTriesAgain(engine, pool_size=1, timeout=PATIENCE), tell)
    new = new_note()
    await writer.create(new)
    told.clear()
    done = await writer.change(deleting(new["id"]), ["notes"], changed=lambda result: bool(result.rowcount))
    await engine.dispose()
    assert (done.rowcount, told) == (0, [["notes"]])


async def test_the_same_rows_in_another_order_do_not_wait_for_each_other(postgresql_url: str) -> None:
    open_one = partial(open_database, postgresql_url, name=NAME, pool_size=1, timeout=PATIENCE)
    rows = [new_note(key=str(number)) for number in range(200)]
    async with open_one() as one, open_one() as other:
        for _ in range(5):
            await one.write(executing(NOTES.table.delete()))
            await asyncio.gather(
                one.write(partial(insert_notes, rows=rows)), other.write(partial(insert_notes, rows=rows[::-1]))
            )


async def test_a_write_is_answered_after_its_change_was_told(database: Database) -> None:
    telling = asyncio.Event()
    told = asyncio.Event()

    async def tell(_: Collection[str]) -> None:
        telling.set()
        await told.wait()

    writer = note_writer(database, tell)
    new = new_note()
    for write in (
        writer.create(new),
        writer.change(changing(new["id"]), ["notes"]),
        writer.change(deleting(new["id"]), ["notes"]),
    ):
        writing = asyncio.ensure_future(write)
        async with asyncio.timeout(PATIENCE):
            await telling.wait()
        await settle()
        assert not writing.done(), "its change is not told yet"
        told.set()
        await writing
        telling.clear()
        told.clear()


async def test_a_drain_waits_for_what_was_accepted(database: Database) -> None:
    writer = note_writer(database)
    creating = [asyncio.create_task(writer.create(new_note())) for _ in range(3 * MAX_BATCH)]
    await settle()
    await writer.drain()
    await settle()
    assert sum(not task.done() for task in creating) == 0
    assert all(receipt.stored for receipt in await asyncio.gather(*creating))


async def test_what_the_database_refuses_ends_nothing(database: Database) -> None:
    ended = 0

    async def count(_: Collection[str]) -> None:
        nonlocal ended
        ended += 1

    writer = note_writer(database, count)
    new = new_note()
    await writer.create(new)
    await writer.create(new)
    assert ended == 2, "who has stored the row may not have told it yet"
    ended = 0
    with pytest.raises(ContentRefused):
        await writer.create(new_note() | {"text": None})
    with pytest.raises(ContentRefused):
        await writer.change(executing(update(NOTES.table).values(text=None)), ["notes"])
    assert ended == 0
