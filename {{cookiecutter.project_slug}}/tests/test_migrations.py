import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.models import Base
from tests.conftest import PROJECT, Serve, in_database, migrate

BIN = Path(sys.executable).parent

# What a user may add to app/models.py: a column of each type.
EVERYTHING = """

import enum
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, mapped_column

from app.highload.columns import MOMENT


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Money(sa.TypeDecorator[Decimal]):
    impl = sa.Numeric(12, 2)
    cache_ok = True


class Box(Base):
    __tablename__ = "boxes"

    id: Mapped[UUID] = mapped_column(primary_key=True)


class Everything(Base):
    __tablename__ = "everything"
    __table_args__ = (
        sa.CheckConstraint("whole > 0", name="whole_is_positive"),
        sa.UniqueConstraint("word", name="word_is_unique"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    box_id: Mapped[UUID] = mapped_column(sa.ForeignKey("boxes.id", ondelete="CASCADE"), index=True)
    word: Mapped[str] = mapped_column(sa.String(50))
    prose: Mapped[str | None] = mapped_column(sa.Text, comment="A comment that needs more than a line. " * 4)
    whole: Mapped[int]
    large: Mapped[int] = mapped_column(sa.BigInteger)
    flag: Mapped[bool] = mapped_column(server_default=sa.true())
    real: Mapped[float]
    exact: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2), server_default="0.00")
    price: Mapped[Decimal] = mapped_column(Money())
    day: Mapped[date]
    moment: Mapped[datetime] = mapped_column(MOMENT, server_default=sa.func.now())
    span: Mapped[timedelta]
    data: Mapped[bytes]
    colour: Mapped[Colour]
    colours: Mapped[list[Colour]] = mapped_column(sa.ARRAY(sa.Enum(Colour)).with_variant(sa.JSON(), "sqlite"))
    tags: Mapped[list[str]] = mapped_column(postgresql.ARRAY(sa.String(20)).with_variant(sa.JSON(), "sqlite"))
    extra: Mapped[dict[str, Any]] = mapped_column(postgresql.JSONB().with_variant(sa.JSON(), "sqlite"))
    more: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON().with_variant(postgresql.JSONB(), "postgresql"))
    plain: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
"""
# A step later: another table with the same enumeration, and columns of a new one and of the old one.
MORE = """
    size: Mapped[Size | None]


class Crayon(Base):
    __tablename__ = "crayons"

    id: Mapped[int] = mapped_column(primary_key=True)
    colour: Mapped[Colour]
    sharp: Mapped[bool] = mapped_column(server_default=sa.true())
    made: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    size: Mapped[Size]
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """A copy of what makes and runs migrations, in a directory whose name is no plain word."""
    copy = tmp_path / "100% mine"
    for name in ("app", "alembic"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml", "Makefile"):
        shutil.copy(PROJECT / name, copy)
    return copy


@pytest.fixture
async def own_database_url(tmp_path: Path) -> AsyncGenerator[str]:
    """The address of a database of the test's own: SQLite, or PostgreSQL where there is one."""
    server = os.environ.get("TEST_DATABASE_URL")
    if server is None:
        yield f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"
        return
    name = f"migrations_{uuid4().hex}"
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await engine.dispose()


def run(directory: Path, *command: str, **environment: str) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "WEB_CONCURRENCY": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def make_revision(service: Path, message: str, *more: str) -> str:
    """Run `make revision` with the tools that run this test, and return what it prints."""
    return run(service, "make", "--assume-old=.venv/dev", f"BIN={BIN}", "revision", f"M={message}", *more)


@pytest.fixture
async def empty_database_url(migrated_database_url: str, tmp_path: Path) -> str:
    """The address of a database without tables."""
    if migrated_database_url.startswith("sqlite"):
        return f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
    await asyncio.to_thread(migrate, migrated_database_url, "downgrade", "base")
    return migrated_database_url


async def test_models_and_migrations_agree_and_every_step_can_be_undone(empty_database_url: str) -> None:
    for step in ("upgrade +1", "downgrade -1", "upgrade head", "downgrade base", "upgrade head"):
        await asyncio.to_thread(migrate, empty_database_url, *step.split())
    await asyncio.to_thread(migrate, empty_database_url, "check")
    assert await tables_in(empty_database_url) == {"alembic_version", *Base.metadata.tables}


async def tables_in(url: str) -> set[str]:
    names = await in_database(url, lambda connection: connection.run_sync(lambda sync: inspect(sync).get_table_names()))
    return set(names)


def versions(service: Path) -> set[Path]:
    return set((service / "alembic/versions").glob("*.py"))


def newest_revision(service: Path) -> str | None:
    return ScriptDirectory(str(service / "alembic")).get_current_head()


def alembic(service: Path, url: str, *arguments: str) -> str:
    return run(service, sys.executable, "-m", "alembic", *arguments, DATABASE_URL=url)


def write_migrations(service: Path) -> None:
    """Add two models, one after the other, and write a migration for each."""
    models = service / "app/models.py"
    for message, code in (('add "everything"', EVERYTHING), ("add crayons", MORE)):
        models.write_text(models.read_text(encoding="utf-8") + code, encoding="utf-8")
        make_revision(service, message)


def test_a_written_migration_passes_the_checks(service: Path) -> None:
    before = versions(service)
    write_migrations(service)
    written = [file.read_text(encoding="utf-8") for file in versions(service) - before]
    assert len(written) == 2
    assert not any("app." in code for code in written), "needs nothing of the application"
    assert not any("with_variant(sa.DateTime" in code for code in written), "the variant has the same DDL"
    run(service, str(BIN / "ruff"), "check", "--no-cache", "alembic")
    run(service, str(BIN / "ruff"), "format", "--no-cache", "--check", "alembic")
    run(service, str(BIN / "mypy"), f"--cache-dir={os.devnull}", "alembic/versions")


async def test_a_written_migration_of_each_type_runs_and_can_be_undone(service: Path, own_database_url: str) -> None:
    write_migrations(service)
    for step in ("upgrade head", "downgrade base", "upgrade head", "check"):
        alembic(service, own_database_url, *step.split())
    insert = text("INSERT INTO crayons (id, colour, size) VALUES (1, 'RED', 'SMALL')")
    await in_database(own_database_url, lambda connection: connection.execute(insert))


async def test_a_migration_is_the_same_with_whatever_database_it_is_written(
    service: Path, own_database_url: str, postgresql_url: str
) -> None:
    models = service / "app/models.py"
    alembic(service, own_database_url, "upgrade", "head")
    models.write_text(models.read_text(encoding="utf-8") + EVERYTHING, encoding="utf-8")
    before = versions(service)
    make_revision(service, "add with SQLite")
    (with_sqlite,) = versions(service) - before
    expected = with_sqlite.read_text(encoding="utf-8").partition("def upgrade")[2]
    with_sqlite.unlink()
    alembic(service, own_database_url, "revision", "--autogenerate", "--message", "add with PostgreSQL")
    (with_postgresql,) = versions(service) - before
    run(service, str(BIN / "ruff"), "format", "--no-cache", str(with_postgresql))
    assert with_postgresql.read_text(encoding="utf-8").partition("def upgrade")[2] == expected


def test_an_empty_migration_is_written_only_for_who_asks_for_it(service: Path) -> None:
    before = versions(service)
    assert "No migration is written, because the models and the database agree." in make_revision(service, "nothing")
    assert versions(service) == before
    make_revision(service, "fill a column", "EMPTY=1")
    assert len(versions(service)) == len(before) + 1


async def test_a_migrator_that_finds_no_revision_fails(service: Path, tmp_path: Path) -> None:
    for file in versions(service):
        file.unlink()
    with pytest.raises(AssertionError, match="versions holds none, or they cannot be read"):
        alembic(service, f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}", "upgrade", "head")
    models = service / "app/models.py"
    models.write_text(models.read_text(encoding="utf-8") + EVERYTHING, encoding="utf-8")
    make_revision(service, "the first one")
    assert len(versions(service)) == 1


async def test_a_schema_that_is_behind_is_told(serve: Serve, own_database_url: str, log: list[str]) -> None:
    head = newest_revision(PROJECT)
    reason = f"The database is at revision none, this release needs {head}: run alembic upgrade head."
    async with serve(database_url=own_database_url) as client:
        assert log == [reason]
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, f"Not ready, schema: {reason}")
        await asyncio.to_thread(migrate, own_database_url, "upgrade", "head")
        assert (await client.get("/readyz")).status_code == 200


REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"


def upgrade() -> None:
{steps}
"""
FAMILY = """
    op.create_table("parents", sa.Column("id", sa.Integer(), primary_key=True))
    op.create_table("children", sa.Column("parent", sa.Integer(), sa.ForeignKey("parents.id", ondelete="CASCADE")))
    op.execute("INSERT INTO parents VALUES (1)")
    op.execute("INSERT INTO children VALUES (1)")
"""
ANEW = """
    with op.batch_alter_table("parents", recreate="always") as batch_op:
        batch_op.add_column(sa.Column("name", sa.String()))
"""
ORPHAN = """
    op.execute("INSERT INTO children VALUES (9)")
"""


async def test_sqlite_keeps_the_rows_that_refer_to_a_table_that_is_made_anew(service: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'family.db'}"
    before = newest_revision(service)
    for revision, steps in (("family", FAMILY), ("anew", ANEW)):
        code = REVISION.format(revision=revision, before=before, steps=steps)
        (service / f"alembic/versions/{revision}.py").write_text(code, encoding="utf-8")
        alembic(service, url, "upgrade", "head")
        before = revision
    assert await in_database(url, lambda connection: connection.scalar(text("SELECT count(*) FROM children"))) == 1


async def test_sqlite_undoes_a_migration_that_leaves_a_row_without_its_parent(service: Path, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'family.db'}"
    before = newest_revision(service)
    code = REVISION.format(revision="orphan", before=before, steps=FAMILY + ORPHAN)
    (service / "alembic/versions/orphan.py").write_text(code, encoding="utf-8")
    alembic(service, url, "upgrade", str(before))
    with pytest.raises(AssertionError, match="children would refer to a row of parents that does not exist"):
        alembic(service, url, "upgrade", "head")
    assert str(before) in alembic(service, url, "current")
    assert await tables_in(url) == {"alembic_version", *Base.metadata.tables}


@pytest.fixture
def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_the_sql_is_printed_without_a_server(service: Path, closed_port: int) -> None:
    sql = alembic(service, f"postgresql://app@127.0.0.1:{closed_port}/db", "upgrade", "head", "--sql")
    for statement in ("BEGIN", "SELECT pg_advisory_xact_lock", *map("CREATE TABLE {} (".format, Base.metadata.tables)):
        assert statement in sql
    assert "TIMESTAMP WITH TIME ZONE" in sql


def test_a_server_that_is_away_is_named(closed_port: int) -> None:
    with pytest.raises(SystemExit, match="the server of DATABASE_URL does not answer: ConnectionRefusedError"):
        migrate(f"postgresql://app@127.0.0.1:{closed_port}/db", "upgrade", "head")


async def test_a_wrong_password_is_named(postgresql_url: str) -> None:
    url = make_url(postgresql_url).set(password=uuid4().hex).render_as_string(hide_password=False)
    with pytest.raises(SystemExit, match=r"refused the connection: .*password authentication failed"):
        await asyncio.to_thread(migrate, url, "upgrade", "head")


@pytest.mark.usefixtures("postgresql_url")
async def test_migrations_that_start_together_migrate_once(empty_database_url: str) -> None:
    environment = {**os.environ, "DATABASE_URL": empty_database_url, "WEB_CONCURRENCY": "1"}
    migrators = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "alembic", "upgrade", "head"), env=environment, stderr=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    outputs = [stderr.decode() for _, stderr in [await migrator.communicate() for migrator in migrators]]
    assert [migrator.returncode for migrator in migrators] == [0, 0, 0], outputs
    assert sum("Running upgrade" in output for output in outputs) == 1
    versions = await in_database(
        empty_database_url, lambda connection: connection.execute(text("SELECT version_num FROM alembic_version"))
    )
    assert len(versions.all()) == 1
