"""A database under load: pooled connections, a deadline for each flush, and one error for "it is away"."""

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool, QueuePool

from app.highload.addresses import NO_PREPARED_STATEMENTS, is_sqlite
from app.highload.metrics.instruments import gauge
from app.highload.metrics.process import looked_at
from app.highload.sqlite import behave_as_postgresql
from app.highload.turns import Lease, Turns

logger = logging.getLogger(__name__)

# Classes of SQLSTATE (PostgreSQL manual, appendix A). These blame the server or its state: connection exception,
# read-only transaction, authorization, catalog name, transaction rollback, insufficient resources, lock not available,
# operator intervention, system error. Data exception and integrity constraint violation blame the values.
UNAVAILABLE_SQLSTATES = ("08", "25006", "28", "3D", "40", "53", "55P03", "57", "58")
CONTENT_SQLSTATES = ("22", "23")
FOREIGN_KEY_VIOLATION = "23503"
# Restrict, unique and exclusion violation.
CONFLICT_SQLSTATES = ("23001", "23505", "23P01")
SQLITE_CONFLICTS = ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_ROWID")
# Their messages end with the columns or the constraint, after a colon.
SQLITE_NAMED = (*SQLITE_CONFLICTS, "SQLITE_CONSTRAINT_CHECK", "SQLITE_CONSTRAINT_NOTNULL")
# Seconds between two lines of the log about an outage, in which every statement fails.
QUIET = 1.0

POOL = "Connections to the database that all pools hold."
USED = gauge("highload_pool_connections", POOL, state="used")
IDLE = gauge("highload_pool_connections", POOL, state="idle")
POOL_LIMIT = gauge("highload_pool_limit", "Connections to the database that all pools may hold.")
# The same in all processes.
BUDGET_PLANNED = gauge(
    "highload_database_connections_planned", "Connections to the database that all processes may need.", max
)
BUDGET_LIMIT = gauge("highload_database_connections_limit", "DB_MAX_CONNECTIONS.", max)

type Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection]]
type Work[T] = Callable[[AsyncConnection], Awaitable[T]]


class DatabaseUnavailable(Exception):
    """The database did not answer in time, or not at all; the message is the reason."""


class ContentRefused(Exception):
    """The database refused the values of a statement.

    `reason` is for programs: a word for the kind of the refusal. `constraint` is the constraint or the column that the
    database names, or "". None of them, nor the message, tells anything about a row. `words` are the database's
    own, which may quote a value.
    """

    reason = "value-refused"

    def __init__(self, words: str, constraint: str = "") -> None:
        super().__init__("the database refused a value" + (f" ({constraint})" if constraint else ""))
        self.words = words
        self.constraint = constraint


class Conflict(ContentRefused):
    """The values are valid, but another row stands against them: one that is equal, or one that refers to this row."""

    reason = "conflict"


class MissingReference(ContentRefused):
    """A foreign key refers to a row that does not exist, or not yet."""

    reason = "missing-reference"


class Database:
    """Runs work on pooled connections, of which there are `pool_size`, within a deadline of `timeout` seconds.

    Work that waits for a connection gets it in its turn. Those who wait in the pool itself do not: whoever comes while
    one of them wakes up takes the connection, again and again.
    """

    def __init__(self, engine: AsyncEngine, *, pool_size: int, timeout: float) -> None:
        self._timeout = timeout
        self._turns = Turns(pool_size)
        self._quiet_until = -math.inf
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._engine = engine
        self.dialect = engine.dialect.name
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def read[T](self, work: Work[T]) -> T:
        """Run work that is one SELECT, without the round trips of a transaction.

        Raises DatabaseUnavailable.
        """
        return await self._run(self._read_in_turn(work))

    async def write[T](self, work: Work[T]) -> T:
        """Run work in one transaction and commit it. The work may run twice, so it must be idempotent.

        One statement needs a transaction, too: a server that stalls executes later what it has received, long after
        the deadline, and must not find a COMMIT then.

        Raises ContentRefused, or DatabaseUnavailable; after the latter the transaction may have been committed.
        """
        return await self._run(self._write_in_turn(work))

    async def ping(self) -> None:
        """Ask for nothing and get it.

        Raises DatabaseUnavailable.
        """
        await self.read(lambda connection: connection.execute(text("SELECT 1")))

    async def _run[T](self, attempt: Coroutine[Any, Any, T]) -> T:
        try:
            return await self._within_deadline(attempt)
        except DatabaseUnavailable as error:
            self._log(error)
            raise

    def _log(self, error: DatabaseUnavailable) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            logger.warning("the database cannot be used: %s", error)

    async def _within_deadline[T](self, work: Coroutine[Any, Any, T]) -> T:
        attempt = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait([attempt], timeout=self._timeout)
        except asyncio.CancelledError:
            self._abandon(attempt)
            raise
        if not done:
            self._abandon(attempt)
            raise DatabaseUnavailable(f"no answer within {self._timeout:g} seconds")
        return attempt.result()

    async def _read_in_turn[T](self, work: Work[T]) -> T:
        lease = await self._turns.take(reads=True) or Lease(self._autocommit.connect)
        try:
            return await run_work(lease.connection, work)
        finally:
            await self._turns.give(lease)

    async def _write_in_turn[T](self, work: Work[T]) -> T:
        await self._turns.take(reads=False)
        try:
            return await run_work(self._engine.begin, work)
        finally:
            await self._turns.give(None)

    def _abandon(self, attempt: asyncio.Task[Any]) -> None:
        # Closing a connection to a frozen server takes its time, and no caller should wait for it.
        attempt.cancel()
        self._abandoned.add(attempt)
        attempt.add_done_callback(self._abandoned.discard)


async def run_work[T](connect: Connect, work: Work[T]) -> T:
    """Run work on a connection, on another one if the server was restarted under the first.

    Raises ContentRefused, or DatabaseUnavailable.
    """
    try:
        try:
            async with connect() as connection:
                return await work(connection)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # The pool has dropped all its connections by now.
        async with connect() as connection:
            return await work(connection)
    except (PoolTimeoutError, OSError) as error:
        # The message of a timeout is empty.
        raise DatabaseUnavailable(repr(error)) from error
    except DBAPIError as error:
        if blames_server(error):
            raise DatabaseUnavailable(str(error.orig)) from error
        refusal = refusal_of(error)
        if refusal is None:
            raise
        raise refusal from error
    except (OverflowError, UnicodeEncodeError) as error:
        # So SQLite's driver refuses a number or a text that it cannot send.
        raise ContentRefused(str(error)) from error


def blames_server(error: DBAPIError) -> bool:
    """Whether an error of the driver blames the server or the connection."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate:
        return str(sqlstate).startswith(UNAVAILABLE_SQLSTATES)
    # SQLite calls a mistake in a statement an error of its operation.
    mistaken = sqlite_name(error) == "SQLITE_ERROR"
    return error.connection_invalidated or (isinstance(error, InterfaceError | OperationalError) and not mistaken)


def refusal_of(error: DBAPIError) -> ContentRefused | None:
    """Return what an error says about the values of the statement, or None if it blames something else."""
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    sqlite = sqlite_name(error)
    kind: type[ContentRefused] = ContentRefused
    if sqlstate == FOREIGN_KEY_VIOLATION or sqlite == "SQLITE_CONSTRAINT_FOREIGNKEY":
        kind = MissingReference if misses_reference(error) else Conflict
    elif sqlstate in CONFLICT_SQLSTATES or sqlite in SQLITE_CONFLICTS or restricts(error):
        kind = Conflict
    elif not (sqlstate.startswith(CONTENT_SQLSTATES) or isinstance(error, DataError | IntegrityError)):
        return None
    return kind(str(error.orig), constraint_of(error))


def restricts(error: DBAPIError) -> bool:
    """Whether SQLite kept a row for an `ON DELETE RESTRICT`: it says so with the code of a trigger."""
    return sqlite_name(error) == "SQLITE_CONSTRAINT_TRIGGER" and "FOREIGN KEY" in str(error.driver_exception)


def misses_reference(error: DBAPIError) -> bool:
    """Whether a violated foreign key misses the row that it refers to; else that row was to be deleted or changed.

    PostgreSQL names the referring table in a field of its own. Its detail ends with the table where it has looked: the
    one that is referred to, or the referring one. So they differ only in the first case, in each language of the
    server and at a COMMIT. For a table that refers to itself, and in SQLite, the kind of the statement decides.
    """
    statement = error.statement or ""
    table = getattr(error.driver_exception, "table_name", None)
    if table is None:
        return not re.match(r"\s*DELETE\b", statement, re.IGNORECASE)
    name = re.escape(table)
    _, _, where = (getattr(error.driver_exception, "detail", None) or "").rpartition(")")
    if not re.search(rf"\W{name}\W", where):
        return True
    return re.match(rf'\s*(INSERT|UPDATE\s+("?\w+"?\.)?"?{name}\b)', statement, re.IGNORECASE) is not None


def constraint_of(error: DBAPIError) -> str:
    """Return the constraint or the column that an error of the driver names, or ""."""
    driver = error.driver_exception
    if sqlite_name(error) in SQLITE_NAMED:
        return str(driver).partition(": ")[2]
    return getattr(driver, "constraint_name", None) or getattr(driver, "column_name", None) or ""


def sqlite_name(error: DBAPIError) -> str:
    """Return the name of a result code of SQLite, or "" under another database."""
    return getattr(error.driver_exception, "sqlite_errorname", "")


@asynccontextmanager
async def open_database(
    url: str,
    *,
    name: str,
    pool_size: int,
    timeout: float,
    budget: tuple[int, int] = (0, 0),
) -> AsyncGenerator[Database]:
    """Open the pool and close it; connections are made when they are first used.

    `budget` is told to those who watch: the connections that all processes may need, and those that there may be.
    """
    engine = create_engine(url, name=name, pool_size=pool_size, timeout=timeout)
    try:
        with looked_at(lambda: look_at(engine.pool, budget)):
            yield Database(engine, pool_size=pool_size, timeout=timeout)
    finally:
        await engine.dispose()


def look_at(pool: Pool, budget: tuple[int, int]) -> None:
    """Set the gauges of a pool."""
    planned, limit = budget
    BUDGET_PLANNED.set(planned)
    BUDGET_LIMIT.set(limit)
    if isinstance(pool, QueuePool):
        USED.set(pool.checkedout())
        IDLE.set(pool.checkedin())
        POOL_LIMIT.set(pool.size())


def create_engine(url: str, *, name: str, pool_size: int, timeout: float) -> AsyncEngine:
    """Return an engine that holds at most `pool_size` connections, and shows PostgreSQL a name for them.

    `timeout` bounds, in seconds, how long a new connection, and a free one of the pool, may take.
    """
    if is_sqlite(url):
        engine = create_async_engine(url, hide_parameters=True)
        event.listen(engine.sync_engine, "connect", behave_as_postgresql)
        return engine
    connect_args: dict[str, Any] = {"timeout": timeout, "server_settings": {"application_name": name}}
    query = make_url(url).query
    if isinstance(query.get("host"), tuple):
        connect_args["async_creator_fn"] = of_several_hosts()
    option, none = NO_PREPARED_STATEMENTS
    if query.get(option) == none:
        # The option speaks of what SQLAlchemy keeps; the driver keeps some, too.
        connect_args["statement_cache_size"] = 0
    return create_async_engine(
        url,
        # What clients send does not belong into logs.
        hide_parameters=True,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout,
        pool_use_lifo=True,
        # A pooler refuses a connection that sets more than its name.
        connect_args=connect_args,
    )


def of_several_hosts() -> Callable[..., Coroutine[Any, Any, asyncpg.Connection]]:
    """Return what connects to the first of several hosts that is right, as asyncpg does.

    The driver asks them in turn within one timeout, and one that is off may let it wait for all of that. So after each
    failure the next attempt begins with another host.
    """
    first = 0

    async def connect(*, host: Sequence[str], port: Sequence[int], **options: Any) -> asyncpg.Connection:
        nonlocal first
        began = first
        try:
            return await asyncpg.connect(
                host=[*host[began:], *host[:began]], port=[*port[began:], *port[:began]], **options
            )
        except BaseException as error:
            # Others may have failed meanwhile, and have said so.
            if first == began:
                first = (began + 1) % len(host)
            if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
                raise ConnectionError(str(error)) from error
            raise

    return connect
