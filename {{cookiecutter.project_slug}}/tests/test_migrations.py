import asyncio
import os
import socket
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, make_url, select, text

from app.models import Item
from tests.conftest import in_database, migrate


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
    count = await in_database(
        empty_database_url, lambda connection: connection.scalar(select(func.count()).select_from(Item))
    )
    assert count == 0


def test_a_server_that_is_away_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SystemExit, match="the server of DATABASE_URL does not answer: ConnectionRefusedError"):
        migrate(f"postgresql://app@127.0.0.1:{port}/db", "upgrade", "head")


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
