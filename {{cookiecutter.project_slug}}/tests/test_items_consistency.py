"""A read that begins after an acknowledged direct write sees it, whoever else reads and writes."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.conftest import Serve, stack_url

# Settings, each with the variable that holds its value.
CACHES: list[dict[str, str]] = [{}]
# {% if cookiecutter.caching %}
CACHES.append({"redis_url": "REDIS_URL"})
# {% endif %}

ROUNDS = 10


@pytest.fixture(params=CACHES, ids=lambda cache: "Redis" if cache else "no Redis")
def cache(request: pytest.FixtureRequest) -> dict[str, Any]:
    # A machine that stalls is not an outage.
    patience = {"cache_timeout": 2, "db_timeout": 5}
    return {setting: stack_url(variable) for setting, variable in request.param.items()} | patience


async def listed(client: httpx2.AsyncClient) -> dict[str, str]:
    response = await client.get("/items", params={"limit": 1000})
    assert response.status_code == 200
    return {item["id"]: item["name"] for item in response.json()["items"]}


async def write_and_read(writer: httpx2.AsyncClient, reader: httpx2.AsyncClient, name: str) -> None:
    for number in range(ROUNDS):
        created = await writer.post("/items", json={"name": f"{name}-{number}"})
        assert created.status_code == 201
        item = created.json()
        assert item["id"] in await listed(reader), "created"

        changed = await writer.patch(f"/items/{item['id']}", json={"name": "changed"})
        assert changed.status_code == 200
        assert (await reader.get(f"/items/{item['id']}")).json()["name"] == "changed"
        assert (await listed(reader))[item["id"]] == "changed"

        assert (await writer.delete(f"/items/{item['id']}")).status_code == 204
        assert (await reader.get(f"/items/{item['id']}")).status_code == 404
        assert item["id"] not in await listed(reader), "deleted"


async def read_all_the_time(client: httpx2.AsyncClient) -> None:
    while True:
        await listed(client)


async def test_a_read_after_a_write_sees_it(serve: Serve, cache: dict[str, Any]) -> None:
    """Writers and readers use different processes' worth of the service: two of them share database and cache."""
    async with serve(**cache) as here, serve(**cache) as there:
        noise = [asyncio.create_task(read_all_the_time(client)) for client in (here, there) for _ in range(5)]
        await asyncio.gather(
            *(write_and_read(here, there, f"across-{number}") for number in range(3)),
            *(write_and_read(here, here, f"alone-{number}") for number in range(3)),
        )
        for task in noise:
            task.cancel()
        outcomes = await asyncio.gather(*noise, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
