"""What Gunicorn's workers count together is exact, whatever becomes of them."""

import asyncio
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import httpx2

from tests.conftest import PROJECT
from tests.numbers import Numbers
from tests.test_items_release import ABSENT, Release, change, served_release
from tests.waiting import PATIENCE, eventually

CLIENTS = 6


class Load:
    """Requests of some clients, as they see them."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._stop = asyncio.Event()
        self.sent = 0
        self.answered = 0
        self._clients = [asyncio.create_task(self._ask(number)) for number in range(CLIENTS)]

    async def _ask(self, number: int) -> None:
        # Each on a connection of its own, so that all workers get some.
        limits = httpx2.Limits(max_keepalive_connections=0)
        async with httpx2.AsyncClient(base_url=self._client.base_url, timeout=PATIENCE, limits=limits) as client:
            while not self._stop.is_set():
                self.sent += 1
                with suppress(httpx2.TransportError):
                    if number % 3 == 0:
                        await client.post("/items", json={"name": "x"})
                    else:
                        await client.get("/items" if number % 3 == 1 else ABSENT)
                    self.answered += 1
                # What starts meanwhile needs a CPU, too.
                await asyncio.sleep(0.02)

    async def more(self) -> None:
        """Wait until there were some more answers."""
        enough = self.answered + 50

        async def there_are() -> bool:
            return self.answered > enough

        await eventually(there_are)

    async def stop(self) -> None:
        self._stop.set()
        await asyncio.gather(*self._clients)


DOCUMENTED = re.compile(r"^\| `(\w+)` \| (\w+) \|(.*?)\| (.*) \|$", re.MULTILINE)


async def test_the_documentation_tells_what_is_told(client: httpx2.AsyncClient) -> None:
    await client.get(ABSENT)
    numbers = Numbers((await client.get("/metrics")).text)
    table, _, of_the_worker = (PROJECT / "docs/metrics.md").read_text().partition("METRICS_PORT")
    told_by_all = {name for name, *_ in DOCUMENTED.findall(table)}
    ours = {name for name in numbers.kinds if name.startswith(("http_", "highload_", "process_"))}
    assert told_by_all == ours - {name for name, *_ in DOCUMENTED.findall(of_the_worker)}
    for name, kind, labels, meaning in DOCUMENTED.findall(table + of_the_worker):
        # Another test may have imported the worker, or not.
        if name not in numbers.kinds:
            continue
        assert (name, kind) == (name, numbers.kinds[name])
        assert (name, meaning) == (name, numbers.meanings[name])
        assert (name, set(re.findall(r"\w+", labels))) == (name, numbers.labels(name))


async def told(release: Release) -> Numbers:
    async with httpx2.AsyncClient(base_url=release.client.base_url, timeout=PATIENCE) as client:
        answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Numbers(answer.text)


def pids(release: Release) -> list[int]:
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", release.text())]


async def workers_are(release: Release, number: int, started: int) -> None:
    """Wait until so many workers serve, of all that have started."""

    async def are() -> bool:
        if release.text().count("Application startup complete") < started:
            return False
        return (await told(release)).sum("highload_workers") == number

    await eventually(are)


async def test_no_request_is_lost_or_counted_twice(database_url: str, tmp_path: Path) -> None:
    async with served_release(tmp_path, database_url, workers=2) as release:
        await workers_are(release, 2, started=2)
        load = Load(release.client)
        await load.more()
        release.reload()
        await workers_are(release, 2, started=4)
        await load.more()
        await load.stop()
        # A worker that ends tells those that it has answered nothing, and its clients repeat nothing here.
        exact = await told(release)
        assert exact.all_requests == load.answered, (load.sent, exact.samples)
        assert exact.sum("highload_database_connections_limit") == 0 or "postgresql" in database_url

        load = Load(release.client)
        await load.more()
        os.kill(pids(release)[-1], signal.SIGKILL)
        await workers_are(release, 2, started=5)
        await load.more()
        await load.stop()
        after = await told(release)
        counted = after.all_requests - exact.all_requests
        assert load.answered <= counted <= load.sent
        assert after.sum("highload_concurrency_limit") == 2 * exact.sum("highload_concurrency_limit") / 2

        # A layout of its own begins at nothing, and what the old one has counted is in none of its numbers.
        crud = "app/crud.py"
        change(tmp_path, crud, "ITEMS = ", 'MORE = counter("more_total", "More.")\nITEMS = ')
        change(tmp_path, crud, "\nfrom app", "\nfrom app.highload.metrics.instruments import counter\nfrom app")
        release.reload()
        await workers_are(release, 2, started=7)
        new = await told(release)
        assert new.samples["more_total", frozenset()] == 0
        assert new.all_requests == 0
        await release.client.get("/items")
        assert (await told(release)).all_requests == 1
    assert "Traceback" not in release.log.read_text()
