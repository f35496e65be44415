"""Migrations: run on the database of the settings, by one process at a time."""

import asyncio
import sys
from typing import Any

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from app.config import ConfigurationError, Settings, configure_log, load_settings
from app.db import create_engine
from app.highload.migrations import OPTIONS, one_transaction, refuse_to_upgrade_without_revisions
from app.models import Base

# Any number will do, as long as no other program locks the same one in this database.
ADVISORY_LOCK = 7_236_531_684_420_101_337


def migrate(connection: Connection) -> None:
    """Run the migrations; whoever comes second waits and finds nothing left to do."""
    with one_transaction(connection):
        run(connection=connection)


def run(**where: Any) -> None:
    """Let Alembic do what its command asks for: on a connection, or as SQL for the database of a URL."""
    context.configure(target_metadata=Base.metadata, **OPTIONS, **where)
    with context.begin_transaction():
        if context.get_context().dialect.name == "postgresql":
            context.execute(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        context.run_migrations()


async def connect_and_migrate(settings: Settings) -> None:
    """Migrate the configured database."""
    engine = create_engine(settings, pool_size=1)
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


def main() -> None:
    """Migrate, or with `--sql` print what would migrate, which needs no server."""
    refuse_to_upgrade_without_revisions()
    settings = load_settings()
    configure_log(settings)
    if context.is_offline_mode():
        run(url=settings.database_url, literal_binds=True)
    else:
        asyncio.run(connect_and_migrate(settings))


try:
    main()
except ConfigurationError as error:
    sys.exit(f"No migration: {error}.")
