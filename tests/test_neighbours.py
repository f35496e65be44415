"""Two rendered services share all servers, and nothing crosses: their names outside of a process come from the slug."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.conftest import PATIENCE, Urls, environment_of, install, servers_of
from tests.test_variants import serving
from tests.variants import render

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("docker")]

WORKER = ["--app", "app.tasks", "worker", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
ROWS = """
import asyncio, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

async def main(url, statement):
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        result = await connection.execute(text(statement))
        for row in result if result.returns_rows else ():
            print(*row)
    await engine.dispose()

asyncio.run(main(*sys.argv[1:]))
"""


class Service:
    """A rendered project and the settings under which it shares the servers of another one."""

    def __init__(self, project: Path, urls: Urls) -> None:
        self.project = project
        server, _, _ = urls["DATABASE_URL"].rpartition("/")
        database = project.name.replace("-", "_")
        self.settings = urls | {"DATABASE_URL": f"{server}/{database}", "WEB_CONCURRENCY": "1"}
        self.sql(f"CREATE DATABASE {database}", url=urls["DATABASE_URL"])
        self._run("alembic", "upgrade", "head")

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self.project / ".venv/bin" / program), *arguments]
        environment = environment_of(**self.settings)
        return subprocess.run(
            command, cwd=self.project, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    def sql(self, statement: str, *, url: str = "") -> list[str]:
        """Run a statement, and return its rows."""
        return self._run("python", "-c", ROWS, url or self.settings["DATABASE_URL"], statement).splitlines()

    @contextmanager
    def worker(self, log: Path) -> Iterator[None]:
        """Run a Celery worker that is ready."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(self.project / ".venv/bin/celery"), *WORKER],
                cwd=self.project,
                env=environment_of(**self.settings),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: " ready." in log.read_text())
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_services_on_the_same_servers_keep_apart(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first, second = (
        install(render(tmp_path, project_slug=slug), tmp_path_factory) for slug in ("shop-service", "order-service")
    )
    with servers_of(first) as urls:
        shop, orders = (Service(project, urls) for project in (first, second))
        command = "gunicorn app.main:app --bind 0.0.0.0:8000"
        with (
            serving(shop.project, command, tmp_path / "shop.log", **shop.settings) as in_shop,
            serving(orders.project, command, tmp_path / "orders.log", **orders.settings) as in_orders,
        ):
            with orders.worker(tmp_path / "orders-worker.log"):
                assert in_orders.get("/items").json()["items"] == []
                accepted = in_shop.post("/items", json={"name": "of the shop"})
                assert accepted.status_code == 202
                ordered = in_orders.post("/items", json={"name": "an order"})
                assert ordered.status_code == 202
                until(lambda: orders.sql("SELECT name FROM items") == ["an order"])
                until(lambda: names_in(in_orders) == ["an order"])
                # The message of the shop waits for a worker of the shop.
                assert shop.sql("SELECT name FROM items") == []
                assert names_in(in_shop) == []
            with shop.worker(tmp_path / "shop-worker.log"):
                until(lambda: names_in(in_shop) == ["of the shop"])
                assert orders.sql("SELECT name FROM items") == ["an order"]
            for client, names in ((in_shop, ["of the shop"]), (in_orders, ["an order"])):
                assert names_in(client) == names
                assert client.get("/items").headers["x-cache"] == "hit"
                assert names_in(client) == names
            connected = orders.sql("SELECT DISTINCT application_name FROM pg_stat_activity")
        assert {name for name in connected if name.endswith("-service")} == {"shop-service", "order-service"}


def names_in(client: httpx2.Client) -> list[str]:
    """Return the names of the items that a service lists."""
    return [item["name"] for item in client.get("/items").json()["items"]]


def test_the_names_of_the_containers_come_from_the_slug(tmp_path: Path) -> None:
    for slug in ("shop-service", "order-service"):
        project = render(tmp_path, project_slug=slug)
        compose = ["docker", "compose", "config", "--format", "json"]
        config = subprocess.run(compose, cwd=project, stdout=subprocess.PIPE, text=True, check=True).stdout
        other = {"shop-service", "order-service"} - {slug}
        assert f'"name": "{slug}"' in config
        assert f'"image": "{slug}"' in config
        assert not any(name in config for name in other)
