import asyncio
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import alembic.config
import httpx2
import hypothesis
import pytest
import uvicorn
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from starlette.types import ASGIApp

from app.config import Settings
from app.highload.server import GracefulServer, http_protocol
from app.main import create_app
from app.models import Base
from tests.waiting import PATIENCE, eventually

PROJECT = Path(__file__).parent.parent

# An example that a busy machine slows down is not a bug.
hypothesis.settings.register_profile("service", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("service")

type Serve = Callable[..., AbstractAsyncContextManager[httpx2.AsyncClient]]


NEEDS_SERVER = "needs a server: "


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what random tests have tried, and what was left out."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "tried" and report.when == "teardown":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    left_out = sum(NEEDS_SERVER in reason for reason in reasons)
    if left_out:
        terminalreporter.write_line(f"Left out: {left_out} tests that need servers. To run them too: make test-stack")


@contextmanager
def lines_of(*loggers: str, level: int, formatter: logging.Formatter | None = None) -> Iterator[list[str]]:
    """Collect what loggers log of a level and above."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Lines(level)
    handler.setFormatter(formatter)
    for name in loggers:
        logging.getLogger(name).addHandler(handler)
    try:
        yield lines
    finally:
        for name in loggers:
            logging.getLogger(name).removeHandler(handler)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What the service and its server log of warnings and errors."""
    with lines_of("app", "uvicorn.error", level=logging.WARNING) as lines:
        yield lines


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop of production."""
    return "asyncio", {"use_uvloop": True}


def stack_url(name: str) -> str:
    """Return the address of a server that tests/stack.py started, or skip the test."""
    url = os.environ.get(f"TEST_{name}")
    if not url:
        pytest.skip(NEEDS_SERVER + name)
    return url


def migrate(database_url: str, *arguments: str) -> None:
    """Run Alembic; call it in a thread where a loop runs already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        patch.setenv("WEB_CONCURRENCY", "1")
        alembic.config.main(["--config", str(PROJECT / "alembic.ini"), *arguments])


@pytest.fixture(scope="session")
def migrated_database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    embedded = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('database') / 'service.db'}"
    database_url = os.environ.get("TEST_DATABASE_URL") or embedded
    migrate(database_url, "upgrade", "head")
    return database_url


async def in_database[T](database_url: str, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run work in a transaction of its own."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        result = await work(connection)
    await engine.dispose()
    return result


async def empty_tables(connection: AsyncConnection, metadata: MetaData) -> None:
    """Delete all rows of all tables."""
    for table in reversed(metadata.sorted_tables):
        await connection.execute(table.delete())


@pytest.fixture
async def database_url(migrated_database_url: str) -> str:
    """The address of a migrated database without rows: SQLite, or PostgreSQL where there is one."""
    await in_database(migrated_database_url, lambda connection: empty_tables(connection, Base.metadata))
    return migrated_database_url


@pytest.fixture
def postgresql_url(database_url: str) -> str:
    stack_url("DATABASE_URL")
    return database_url


@pytest.fixture
def serve(database_url: str) -> Serve:
    """Start the service in this process, on a free port, and stop it at the end of the block."""

    def start(
        *, keep_alive: int = 60, graceful: int = 20, **settings: Any
    ) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        defaults: dict[str, Any] = {"database_url": database_url, "web_concurrency": 1, "log_level": "warning"}
        # A machine that stalls is not an outage of a server.
        defaults |= {"db_timeout": PATIENCE}
        # {% if cookiecutter.caching %}
        defaults |= {"cache_timeout": PATIENCE}
        # {% endif %}
        # {% if cookiecutter.queued_writes %}
        defaults |= {"broker_deadline": PATIENCE}
        # {% endif %}
        app = create_app(Settings(_env_file=None, **(defaults | settings)))
        return running(app, keep_alive=keep_alive, graceful=graceful)

    return start


@asynccontextmanager
async def running(
    app: ASGIApp,
    *,
    keep_alive: int = 60,
    graceful: int = 20,
    client_timeout: float = 10 * PATIENCE,
    http: type[asyncio.Protocol] | None = None,
    trusted: str | None = None,
) -> AsyncGenerator[httpx2.AsyncClient]:
    """Serve an application in this process as production does, or with another protocol for its connections.

    `trusted` are the proxies that may tell of their clients; by default this machine.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=http or http_protocol(),
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=graceful,
        timeout_keep_alive=keep_alive,
        forwarded_allow_ips=trusted,
    )
    server = GracefulServer(config, client_timeout=client_timeout)
    serving = asyncio.create_task(server.serve(sockets=[listener]))

    async def started() -> bool:
        return server.started or serving.done()

    await eventually(started)
    host, port = listener.getsockname()
    try:
        async with httpx2.AsyncClient(base_url=f"http://{host}:{port}", timeout=PATIENCE) as client:
            yield client
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def client(serve: Serve) -> AsyncGenerator[httpx2.AsyncClient]:
    async with serve() as client:
        yield client
