"""Migrations: run on the database of the settings, by one process at a time."""

import asyncio
import logging
import sys

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.config import ConfigurationError, load_settings
from app.db import create_engine
from app.highload.migrations import OPTIONS, one_transaction
from app.models import Base

# Any number will do, as long as no other program locks the same one in this database.
ADVISORY_LOCK = 7_236_531_684_420_101_337


def migrate(connection: Connection) -> None:
    """Run the migrations; whoever comes second waits and finds nothing left to do."""
    with one_transaction(connection):
        run(connection)


def run(connection: Connection) -> None:
    """Let Alembic do what its command asks for."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        **OPTIONS,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        context.run_migrations()


async def main() -> None:
    """Connect and migrate."""
    engine = create_engine(load_settings(), pool_size=1)
    try:
        connection = await engine.connect()
    except DBAPIError as error:
        sys.exit(f"No migration, the server of DATABASE_URL refused the connection: {error.orig}.")
    except OSError as error:
        sys.exit(f"No migration, the server of DATABASE_URL does not answer: {error!r}.")
    try:
        await connection.run_sync(migrate)
        await connection.commit()
    finally:
        await connection.close()
        await engine.dispose()


logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
try:
    asyncio.run(main())
except ConfigurationError as error:
    sys.exit(f"No migration: {error}.")
