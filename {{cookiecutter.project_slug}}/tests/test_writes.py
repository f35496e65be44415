import asyncio
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import pytest
import uvicorn
from sqlalchemy import delete, text
from sqlalchemy.ext.asyncio import AsyncConnection
from uvicorn.lifespan.on import LifespanOn

from app import crud
from app.config import Settings
from app.db import Database, DatabaseUnavailable, Work, create_engine, open_database
from app.main import create_app
from app.models import Item
from app.schemas import NewItem
from app.writes import MAX_BATCH, DirectWriter
from tests.waiting import settle


def item() -> NewItem:
    return NewItem(uuid4(), "x", None, datetime.now(UTC))


class CommitsAndGoesAway(Database):
    """A database whose answer to the commit is lost."""

    async def write[T](self, work: Work[T]) -> T:
        await super().write(work)
        raise DatabaseUnavailable


async def test_a_write_with_an_unclear_end_is_a_change(database_url: str) -> None:
    engine = create_engine(Settings(_env_file=None, database_url=database_url), pool_size=1)
    changes = 0

    async def count() -> None:
        nonlocal changes
        changes += 1

    writer = DirectWriter(CommitsAndGoesAway(engine, timeout=2), [count], max_waiting=10)
    new = item()
    with pytest.raises(DatabaseUnavailable):
        await writer.create(new)
    with pytest.raises(DatabaseUnavailable):
        await writer.update(new.id, {"name": "y"})
    with pytest.raises(DatabaseUnavailable):
        await writer.delete(new.id)
    await engine.dispose()
    assert changes == 3


async def test_the_same_items_in_another_order_do_not_wait_for_each_other(postgresql_url: str) -> None:
    settings = Settings(_env_file=None, database_url=postgresql_url)
    items = [NewItem(uuid4(), "x", None, datetime.now(UTC), "fingerprint") for _ in range(200)]
    async with open_database(settings, pool_size=1) as one, open_database(settings, pool_size=1) as other:
        for _ in range(5):
            await one.write(lambda connection: connection.execute(delete(Item)))
            await asyncio.gather(
                one.write(partial(crud.insert_items, items=items)),
                other.write(partial(crud.insert_items, items=items[::-1])),
            )


async def test_a_database_that_only_reads_counts_as_away(postgresql_url: str) -> None:
    """As after the fail-over of a managed database, until the connections lead to its new primary."""
    engine = create_engine(Settings(_env_file=None, database_url=postgresql_url), pool_size=1)
    database = Database(engine, timeout=2)

    async def insert_into_a_standby(connection: AsyncConnection) -> None:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        await crud.insert_items(connection, [NewItem(uuid4(), "x", None, datetime.now(UTC))])

    with pytest.raises(DatabaseUnavailable):
        await database.write(insert_into_a_standby)
    await engine.dispose()


async def test_a_write_is_answered_after_its_change_was_told(database_url: str) -> None:
    engine = create_engine(Settings(_env_file=None, database_url=database_url), pool_size=1)
    telling = asyncio.Event()
    told = asyncio.Event()

    async def tell() -> None:
        telling.set()
        await told.wait()

    writer = DirectWriter(Database(engine, timeout=2), [tell], max_waiting=10)
    new = item()
    for write in (writer.create(new), writer.update(new.id, {"name": "y"}), writer.delete(new.id)):
        writing = asyncio.create_task(write)
        async with asyncio.timeout(5):
            await telling.wait()
        await settle()
        assert not writing.done(), "its change is not told yet"
        told.set()
        await writing
        telling.clear()
        told.clear()
    await engine.dispose()


async def test_a_shutdown_waits_for_what_was_accepted(database_url: str) -> None:
    settings = Settings(_env_file=None, database_url=database_url, web_concurrency=1)
    lifespan = LifespanOn(uvicorn.Config(create_app(settings), log_config=None))
    await lifespan.startup()
    writer: DirectWriter = lifespan.state["writer"]
    creating = [asyncio.create_task(writer.create(item())) for _ in range(3 * MAX_BATCH)]
    await settle()
    await lifespan.shutdown()
    await settle()
    unfinished = sum(not task.done() for task in creating)
    assert unfinished == 0
    assert all(receipt.stored for receipt in await asyncio.gather(*creating))
