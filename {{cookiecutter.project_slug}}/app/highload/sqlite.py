"""SQLite as PostgreSQL behaves: moments with a time zone, readers beside a writer, foreign keys."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.types import TypeDecorator


class SQLiteUTC(TypeDecorator[datetime]):
    """A moment in SQLite, which knows no time zones: kept in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Drop the time zone after a change to UTC."""
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Name the time zone again."""
        return value and value.replace(tzinfo=UTC)


def behave_as_postgresql(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Switch a SQLite connection to write-ahead logging, let it wait for a lock, and enforce foreign keys."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 1000")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
