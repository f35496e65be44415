"""A database may be ahead of a process, but not behind it."""

from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.database import Database, open_database
from app.highload.schema import NotReady, Schema
from tests.highload.notes import NAME
from tests.waiting import PATIENCE

FIRST, SECOND = "first", "second"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of Alembic with two revisions."""
    (tmp_path / "versions").mkdir()
    for revision, before in ((FIRST, None), (SECOND, FIRST)):
        code = f"revision = {revision!r}\ndown_revision = {before!r}\n"
        (tmp_path / f"versions/{revision}.py").write_text(code, encoding="utf-8")
    return tmp_path


@pytest.fixture
async def database(tmp_path: Path) -> AsyncGenerator[Database]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'schema.db'}"
    async with open_database(url, name=NAME, pool_size=1, timeout=PATIENCE) as database:
        yield database


async def put(database: Database, revision: str) -> None:
    """Say in a database at which revision it is."""

    async def write(connection: AsyncConnection) -> None:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32))"))
        await connection.execute(text("DELETE FROM alembic_version"))
        await connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})

    await database.write(write)


async def test_a_database_that_is_behind_is_refused(database: Database, directory: Path, log: list[str]) -> None:
    schema = Schema(database, directory)
    with pytest.raises(NotReady, match=r"at revision none, this release needs second: run alembic upgrade head\."):
        await schema.check()
    await put(database, FIRST)
    with pytest.raises(NotReady, match="at revision first, this release needs second"):
        await schema.check()
    assert not log
    await schema.warn()
    assert log == ["The database is at revision first, this release needs second: run alembic upgrade head."]
    await put(database, SECOND)
    await schema.check()


async def test_a_database_of_a_newer_release_is_used(database: Database, directory: Path, log: list[str]) -> None:
    await put(database, "third")
    await Schema(database, directory).check()
    assert not log


@pytest.mark.parametrize("versions", ["empty", "missing"])
async def test_migrations_that_cannot_be_read_are_told(
    database: Database, tmp_path: Path, log: list[str], versions: str
) -> None:
    if versions == "empty":
        (tmp_path / "versions").mkdir()
    schema = Schema(database, tmp_path / "missing" if versions == "missing" else tmp_path)
    await schema.check()
    assert "nobody checks the schema" in log[0]


async def test_a_database_that_is_away_stops_no_start(directory: Path, log: list[str]) -> None:
    open_dead = partial(open_database, "postgresql+asyncpg://postgres@127.0.0.1:1/db", name=NAME, pool_size=1)
    async with open_dead(timeout=PATIENCE) as database:
        await Schema(database, directory).warn()
    assert "ConnectionRefusedError" in log[0]
