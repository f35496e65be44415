"""Messages between releases, and between rows: none is lost, and no field of one."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.resource import Row
from app.highload.writes import dead_letters
from app.highload.writes.publisher import open_publisher
from tests.conftest import in_database, stack_url
from tests.highload.everything import CHILDREN, PARENTS, ChildCreate, ParentCreate
from tests.highload.notes import NAME, Base
from tests.highload.releases import NEW, NEWER, OLD, QUEUE, Create, NewBase, OldCreate
from tests.queues import logged, queue_sizes, renew_queues, run_worker
from tests.waiting import PATIENCE, eventually


@pytest.fixture
async def broker_url() -> str:
    url = stack_url("BROKER_URL")
    await renew_queues(url, QUEUE)
    return url


@pytest.fixture
async def database_url() -> AsyncGenerator[str]:
    url = stack_url("DATABASE_URL")
    for base in (Base, NewBase):
        await in_database(url, partial(AsyncConnection.run_sync, fn=base.metadata.drop_all))
        await in_database(url, partial(AsyncConnection.run_sync, fn=base.metadata.create_all))
    yield url
    for base in (Base, NewBase):
        await in_database(url, partial(AsyncConnection.run_sync, fn=base.metadata.drop_all))


def parcel(name: str, weight: int) -> Row:
    return NEW.new_row(Create(name=name, weight=weight), None, service=NAME)


async def stored_parcels(database_url: str) -> dict[str, int]:
    columns = NEW.table.c
    query = select(columns.name, columns.weight)
    rows = await in_database(database_url, lambda connection: connection.execute(query))
    return {row.name: row.weight for row in rows}


async def test_a_new_worker_reads_a_message_of_an_old_release(
    database_url: str, broker_url: str, tmp_path: Path
) -> None:
    async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publish:
        await publish(OLD, [OLD.new_row(OldCreate(name="old"), None, service=NAME)])
        await publish(NEW, [parcel("new", 9)])

    async def all_stored() -> bool:
        return await stored_parcels(database_url) == {"old": 5, "new": 9}

    log = tmp_path / "worker.log"
    with run_worker("tests.highload.releases", log, DATABASE_URL=database_url, BROKER_URL=broker_url, RELEASE="new"):
        await eventually(all_stored)
    assert "Traceback" not in log.read_text()
    assert await queue_sizes(broker_url, QUEUE) == (0, 0)


@pytest.mark.parametrize("newer", [NEW, NEWER], ids=["another column", "another meaning"])
async def test_an_old_worker_leaves_a_message_to_a_new_one(
    database_url: str, broker_url: str, tmp_path: Path, newer: object
) -> None:
    servers = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    release, old = ("newer", "new") if newer is NEWER else ("new", "old")
    old_log, new_log = tmp_path / "old.log", tmp_path / "new.log"
    async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publish:
        for weight in range(3):
            await publish(NEWER if newer is NEWER else NEW, [parcel(f"new {weight}", weight)])
        await publish(OLD, [OLD.new_row(OldCreate(name="old"), None, service=NAME)])

    async def put_off() -> bool:
        return (await asyncio.to_thread(old_log.read_text)).count("a message comes later") > 6

    async def all_stored() -> bool:
        return await stored_parcels(database_url) == {"new 0": 0, "new 1": 1, "new 2": 2, "old": 5}

    with run_worker("tests.highload.releases", old_log, RELEASE=old, **servers):
        await eventually(put_off)
        assert await stored_parcels(database_url) == {"old": 5}
        assert (await queue_sizes(broker_url, QUEUE))[1] == 0
        with run_worker("tests.highload.releases", new_log, RELEASE=release, **servers):
            await eventually(all_stored)
    assert await queue_sizes(broker_url, QUEUE) == (0, 0)
    assert "Traceback" not in old_log.read_text() + new_log.read_text()


async def test_a_message_that_no_release_reads_is_a_dead_letter_in_the_end(
    database_url: str, broker_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publish:
        await publish(NEW, [parcel("new", 1)])

    async def dead() -> bool:
        return await queue_sizes(broker_url, QUEUE) == (0, 1)

    servers = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    with run_worker("tests.highload.releases", tmp_path / "log", RELEASE="old", COMES_LATER="1", **servers):
        await eventually(dead)
    assert await dead_letters.show(broker_url, QUEUE, dead_letters.in_short) == 1
    shown = capsys.readouterr().out
    assert "weight=1, name='new'" in shown
    assert "highload_parcels has no column weight" in shown


async def test_a_row_waits_for_the_one_that_it_refers_to(database_url: str, broker_url: str, tmp_path: Path) -> None:
    parent = PARENTS.new_row(ParentCreate(name="parent"), None, service=NAME)
    twin = PARENTS.new_row(ParentCreate(name="parent"), None, service=NAME)
    child = CHILDREN.new_row(ChildCreate(parent_id=parent["id"]), None, service=NAME)
    orphan = CHILDREN.new_row(ChildCreate(parent_id=uuid4()), None, service=NAME)
    log = tmp_path / "log"
    servers = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    with run_worker("tests.highload.releases", log, WORKER_CONCURRENCY="1", COMES_LATER="3", **servers):
        async with open_publisher(broker_url, QUEUE, deadline=PATIENCE) as publish:
            await publish(CHILDREN, [child, orphan])
            await eventually(lambda: logged(log, "a message comes later"))
            await publish(PARENTS, [parent])
            await publish(PARENTS, [twin])

        async def children_stored() -> bool:
            ids = await in_database(database_url, lambda connection: connection.execute(select(CHILDREN.table.c.id)))
            return list(ids.scalars()) == [child["id"]] and await queue_sizes(broker_url, QUEUE) == (0, 2)

        await eventually(children_stored)
    assert "Traceback" not in log.read_text()
