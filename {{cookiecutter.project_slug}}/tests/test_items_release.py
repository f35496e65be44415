"""A reload is the new release as a whole, or the old one."""

import asyncio
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import httpx2

from tests.conftest import PROJECT
from tests.test_items_shutdown import gunicorn
from tests.waiting import PATIENCE, eventually

ABSENT = f"/items/{UUID(int=0)}"
LONG_NAME = {"name": "n" * 200}
LONG_BODY = {"name": "n", "description": "d" * 2000}

# A file of a release, its text, and what the next release has instead.
CHANGES = [
    ("app/schemas.py", "max_length=255", "max_length=100"),
    ("app/routes/items.py", "There is no item with this id.", "Nothing is here."),
    ("app/highload/http/problems.py", "about:blank", "about:newer"),
    ("app/highload/etags.py", "digest_size=16", "digest_size=20"),
    ("app/config.py", "max_body_bytes: PositiveInt = 65_536", "max_body_bytes: PositiveInt = 1000"),
]


def change(release: Path, file: str, old: str, new: str) -> None:
    path = release / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class Release:
    """A directory with a release that is served."""

    def __init__(self, directory: Path, client: httpx2.AsyncClient, log: Path, master: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.client = client
        self.log = log
        self._master = master

    def text(self) -> str:
        """Return what it has logged, while it runs."""
        text = self.log.read_text()
        assert self._master.poll() is None, text
        return text

    def reload(self) -> None:
        self._master.send_signal(signal.SIGHUP)


@asynccontextmanager
async def served_release(
    directory: Path, database_url: str, *changes: tuple[str, str, str], workers: int = 1
) -> AsyncGenerator[Release]:
    """Serve a copy of this release with changes: a file, its text, and what it has instead."""
    for name in ("app", "alembic", "alembic.ini", "gunicorn.conf.py"):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, directory / name)
    for file, old, new in changes:
        change(directory, file, old, new)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log = directory / "gunicorn.log"
    with gunicorn(port, database_url, log, directory=directory, workers=workers) as process:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:

            async def serves() -> bool:
                assert process.poll() is None, log.read_text()
                return "Application startup complete" in log.read_text()

            await eventually(serves)
            yield Release(directory, client, log, process)


async def seen(client: httpx2.AsyncClient) -> list[str]:
    """Return of which release each of several answers is."""
    absent = await client.get(ABSENT)
    problem = absent.json()
    listed = await client.get("/items?limit=1")
    named = await client.post("/items", json=LONG_NAME)
    described = await client.post("/items", json=LONG_BODY)
    old_and_new = [
        (problem["detail"], "There is no item with this id.", "Nothing is here."),
        (problem["type"], "about:blank", "about:newer"),
        (len(listed.headers["etag"]), 34, 42),
        (named.json().get("type", named.status_code), 201, "/problems/invalid-request"),
        (described.json().get("type", described.status_code), 201, "about:newer"),
    ]
    return [{old: "old", new: "new"}.get(value, f"{value!r}") for value, old, new in old_and_new]


async def test_a_reload_is_the_new_release_wholly(database_url: str, tmp_path: Path) -> None:
    async with served_release(tmp_path, database_url) as release:
        assert set(await seen(release.client)) == {"old"}
        for file, old, new in CHANGES:
            change(tmp_path, file, old, new)
        stop = asyncio.Event()
        statuses: Counter[int] = Counter()
        kinds: Counter[tuple[str, str]] = Counter()

        async def load() -> None:
            async with httpx2.AsyncClient(base_url=release.client.base_url, timeout=PATIENCE) as client:
                while not stop.is_set():
                    answer = await client.get(ABSENT)
                    statuses[answer.status_code] += 1
                    kinds[answer.json()["type"], answer.json()["detail"]] += 1

        loading = [asyncio.create_task(load()) for _ in range(4)]

        async def all_load() -> bool:
            return statuses.total() > 20

        await eventually(all_load)
        release.reload()

        async def is_new() -> bool:
            return release.text().count("Application startup complete") == 2 and (
                "Finished server process" in release.text()
            )

        await eventually(is_new)
        answers = await seen(release.client)
        stop.set()
        await asyncio.gather(*loading)
        assert set(answers) == {"new"}
        assert set(statuses) == {404}
        assert set(kinds) == {("about:blank", CHANGES[1][1]), ("about:newer", CHANGES[1][2])}


BROKEN = {
    "syntax": ("app/routes/items.py", "router = APIRouter(", "router = = APIRouter("),
    "import": ("app/crud.py", "from app", "from app.nowhere"),
    "setting": ("app/config.py", "limit_concurrency: PositiveInt = 1000", "limit_concurrency: PositiveInt"),
    "a shared route that cannot be shared": (
        "app/routes/items.py",
        "    limit: Limit = 100,\n",
        "    request: Request,\n    limit: Limit = 100,\n",
    ),
}


async def test_a_release_that_does_not_start_leaves_the_old_one(database_url: str, tmp_path: Path) -> None:
    async with served_release(tmp_path, database_url) as release:
        for number, (name, (file, old, new)) in enumerate(BROKEN.items()):
            change(tmp_path, file, old, new)
            release.reload()

            async def is_refused(times: int = number + 1) -> bool:
                return release.text().count("The new release does not start") == times

            await eventually(is_refused)
            assert (name, set(await seen(release.client))) == (name, {"old"})
            change(tmp_path, file, new, old)
        # What is mended is taken again.
        release.reload()

        async def is_new() -> bool:
            return release.text().count("Application startup complete") == 2

        await eventually(is_new)
