import logging
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from app.highload.http.admission import Admission
from tests.conftest import Serve, in_database, lines_of, running, stack_url
from tests.highload.notes import Base, notes_service


@pytest.fixture
async def database_url(tmp_path: Path) -> AsyncGenerator[str]:
    """The address of a database with a table of notes while a test runs: SQLite, or PostgreSQL where there is one."""
    url = os.environ.get("TEST_DATABASE_URL") or f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
    await in_database(url, lambda connection: connection.run_sync(Base.metadata.create_all))
    yield url
    await in_database(url, lambda connection: connection.run_sync(Base.metadata.drop_all))


@pytest.fixture(params=["SQLite", "PostgreSQL"])
async def each_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[str]:
    """The address of each of the two databases, with the tables of the tests while a test runs."""
    embedded = f"sqlite+aiosqlite:///{tmp_path / 'things.db'}"
    url = embedded if request.param == "SQLite" else stack_url("DATABASE_URL")
    await in_database(url, lambda connection: connection.run_sync(Base.metadata.drop_all))
    await in_database(url, lambda connection: connection.run_sync(Base.metadata.create_all))
    yield url
    await in_database(url, lambda connection: connection.run_sync(Base.metadata.drop_all))


@pytest.fixture
def serve(database_url: str) -> Serve:
    """Start the service of notes in this process, on a free port, and stop it at the end of the block."""

    def start(
        *, keep_alive: int = 60, graceful: int = 20, http: Any = None, **options: Any
    ) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        app = notes_service(**({"database_url": database_url} | options))
        return running(app, keep_alive=keep_alive, graceful=graceful, http=http)

    return start


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    """The requests that reach the application; shared reads do not, because the server answers them itself."""
    scopes: list[Scope] = []
    serve = Admission.__call__

    async def call(self: Admission, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scopes.append(scope)
        await serve(self, scope, receive, send)

    monkeypatch.setattr(Admission, "__call__", call)
    return scopes


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the server tells of its work; "Shutting down" when all connections know that it stops."""
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "isEnabledFor", lambda _: True)
    with lines_of("uvicorn.error", level=logging.INFO) as lines:
        yield lines
