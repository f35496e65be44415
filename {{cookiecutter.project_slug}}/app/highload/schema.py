"""Whether the schema of a database is the one that a release was written for.

Alembic keeps the revision of a database in a table of it. A deployment migrates first and then replaces processes, so a
database may be ahead of a process, but not behind it.
"""

import logging
from pathlib import Path

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import column, inspect, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from app.highload.database import Database, DatabaseUnavailable

logger = logging.getLogger(__name__)

VERSION = table("alembic_version", column("version_num"))


class NotReady(Exception):
    """The service cannot do its work; the message says what to do, and may be shown to anyone."""


class Schema:
    """Compares a database with the migrations in a directory, which are read once."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        try:
            scripts = ScriptDirectory(str(directory))
            self._heads = set(scripts.get_heads())
            self._known = {script.revision for script in scripts.walk_revisions()}
        except (CommandError, OSError):
            self._heads, self._known = set(), set()
        if not self._heads:
            logger.warning("no migration can be read in %s, so nobody checks the schema of the database", directory)

    async def check(self) -> None:
        """Do nothing if the database has the revision that this release needs, or one that only a newer release knows.

        Raises NotReady, or DatabaseUnavailable.
        """
        if not self._heads:
            return
        found = await self._database.read(revisions_of)
        if found == self._heads:
            return
        if found - self._known:
            logger.info("the database is at revision %s, which only a newer release knows", in_words(found))
            return
        raise NotReady(
            f"The database is at revision {in_words(found)}, this release needs {in_words(self._heads)}: "
            "run alembic upgrade head."
        )

    async def warn(self) -> None:
        """Log what is wrong with the schema when a process starts; it can start before the migration has ended."""
        try:
            await self.check()
        except NotReady as error:
            logger.warning("%s", error)
        except DatabaseUnavailable:
            # Whoever opened the database has logged the reason.
            pass


async def revisions_of(connection: AsyncConnection) -> set[str]:
    """Return the revisions that a database is at: one, or none before its first migration."""
    # Alembic's own reader logs two lines each time.
    if not await connection.run_sync(lambda sync: inspect(sync).has_table(VERSION.name)):
        return set()
    return set((await connection.scalars(select(VERSION.c.version_num))).all())


def in_words(revisions: set[str]) -> str:
    """Return revisions as a sentence names them."""
    return " and ".join(sorted(revisions)) or "none"
