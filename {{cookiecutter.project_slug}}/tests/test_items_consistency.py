"""Clients of two processes cannot tell that there are two, nor that answers are shared and kept."""

import asyncio
import random
from typing import Any, NamedTuple

import pytest

from tests.conftest import Serve, stack_url
from tests.drills.faults import UNAVAILABLE
from tests.drills.linearizability import examine
from tests.drills.load import Load
from tests.waiting import PATIENCE, eventually

# Settings, each with the variable that holds its value.
CACHES: list[dict[str, str]] = [{}]
# {% if cookiecutter.caching %}
CACHES.append({"redis_url": "REDIS_URL"})
# {% endif %}

OPERATIONS = 2000


@pytest.fixture(params=CACHES, ids=lambda cache: "Redis" if cache else "no Redis")
def cache(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {setting: stack_url(variable) for setting, variable in request.param.items()}


class Processes(NamedTuple):
    """Several processes' worth of the service: a client meets one of them when it connects."""

    addresses: list[tuple[str, int]]
    direct: bool = True

    @property
    def address(self) -> tuple[str, int]:
        return random.choice(self.addresses)


async def test_what_two_processes_answer_is_linearizable(serve: Serve, cache: dict[str, Any]) -> None:
    async with serve(**cache) as here, serve(**cache) as there:
        addresses = [(client.base_url.host, client.base_url.port or 0) for client in (here, there)]
        load = Load(Processes(addresses), connect_timeout=PATIENCE)

        async def enough() -> bool:
            return len(load.history) > OPERATIONS or loading.done()

        loading = asyncio.create_task(load.run("consistency"))
        await eventually(enough, within=10 * PATIENCE)
        load.stop()
        await loading
    verdict = examine(load.history, caching="redis_url" in cache)
    assert not verdict.reason, verdict.reason
    sources = {"", "miss", "shared", "bypass"} | ({"hit"} if "redis_url" in cache else set())
    assert {record.source for record in load.history} == sources
    # Two processes that write to one SQLite file may be in each other's way.
    assert load.failures.keys() <= {UNAVAILABLE}
    assert len(load.accepted) > OPERATIONS / 4
