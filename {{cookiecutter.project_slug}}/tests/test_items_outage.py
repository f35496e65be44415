"""The database is away: the client is told in time, and everything works again by itself."""

import asyncio

import httpx2
import pytest

from tests.conftest import Serve
from tests.proxy import proxied
from tests.waiting import eventually


async def is_stored(client: httpx2.AsyncClient, name: str) -> bool:
    return (await client.post("/items", json={"name": name})).status_code == 201


async def assert_told(client: httpx2.AsyncClient) -> None:
    for method, path, body in (
        ("GET", "/items", None),
        ("GET", "/items/01890a5d-ac96-774b-bcce-b302099a8057", None),
        ("POST", "/items", {"name": "x"}),
        ("PATCH", "/items/01890a5d-ac96-774b-bcce-b302099a8057", {"name": "x"}),
        ("DELETE", "/items/01890a5d-ac96-774b-bcce-b302099a8057", None),
    ):
        response = await client.request(method, path, json=body)
        assert response.status_code == 503, (method, path)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("outage", ["stopped", "frozen"])
async def test_the_client_is_told_and_the_service_recovers(serve: Serve, postgresql_url: str, outage: str) -> None:
    async with proxied(postgresql_url) as (url, proxy), serve(database_url=url, db_timeout=0.5) as client:
        # On a busy machine the first attempts may take longer than that.
        await eventually(lambda: is_stored(client, "before"))
        if outage == "stopped":
            await proxy.stop()
        else:
            proxy.freeze()
        await assert_told(client)
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "database" in ready.json()["detail"]
        assert (await client.get("/livez")).status_code == 200

        if outage == "stopped":
            await proxy.start()
        else:
            proxy.thaw()

        async def ready_again() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await eventually(ready_again)
        await eventually(lambda: is_stored(client, "after"))
        items = (await client.get("/items")).json()["items"]
        names = [item["name"] for item in items]
        assert names[0] == "after"
        assert names[-1] == "before"


async def test_the_deadline_of_the_database_is_a_setting(serve: Serve, postgresql_url: str, log: list[str]) -> None:
    async with proxied(postgresql_url) as (url, proxy), serve(database_url=url, db_timeout=0.7) as client:

        async def is_there() -> bool:
            return (await client.get("/items")).status_code == 200

        await eventually(is_there)
        proxy.freeze()

        async def is_told_of() -> bool:
            assert not await is_there()
            return "the database cannot be used: no answer within 0.7 seconds" in log

        # The log is quiet for a while after another line.
        await eventually(is_told_of)


async def test_a_restart_of_the_database_costs_no_request(serve: Serve, postgresql_url: str) -> None:
    async with proxied(postgresql_url) as (url, proxy), serve(database_url=url) as client:
        await asyncio.gather(*(client.get(f"/items?limit={limit}") for limit in range(1, 6)))
        await proxy.stop()
        await proxy.start()
        assert (await client.post("/items", json={"name": "x"})).status_code == 201
        answers = await asyncio.gather(*(client.get(f"/items?limit={limit}") for limit in range(1, 6)))
        assert {answer.status_code for answer in answers} == {200}


async def test_a_dead_database_is_named_and_stops_no_start(serve: Serve, log: list[str]) -> None:
    async with serve(database_url="postgresql://postgres@127.0.0.1:1/db") as client:
        assert (await client.get("/livez")).json() == {"status": "ok"}
        await assert_told(client)
    assert "ConnectionRefusedError" in log[0]
