from datetime import UTC, datetime
from uuid import uuid4

import pytest

from app.config import Settings
from app.db import Database, DatabaseUnavailable, Work, create_engine
from app.schemas import NewItem
from app.writes import DirectWriter


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
    item = NewItem(uuid4(), "x", None, datetime.now(UTC))
    with pytest.raises(DatabaseUnavailable):
        await writer.create(item)
    with pytest.raises(DatabaseUnavailable):
        await writer.update(item.id, {"name": "y"})
    with pytest.raises(DatabaseUnavailable):
        await writer.delete(item.id)
    await engine.dispose()
    assert changes == 3
