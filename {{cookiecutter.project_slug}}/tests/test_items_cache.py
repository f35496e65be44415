from uuid import UUID, uuid4

import pytest

from app.config import NAME
from app.highload.generations import ended_by_change, slot
from app.highload.reads.cache import open_cache
from tests.conftest import Serve, stack_url
from tests.proxy import proxied
from tests.waiting import PATIENCE, eventually


@pytest.fixture
async def redis_url() -> str:
    """The address of a Redis where nothing counts any more that the service has kept before."""
    url = stack_url("REDIS_URL")
    async with open_cache(url, name=NAME, ttl=60, timeout=PATIENCE, max_waiting=1) as cache:
        await cache.invalidate(ended_by_change("items"))
    return url


async def test_every_write_ends_what_is_kept(serve: Serve, redis_url: str) -> None:
    async with serve(redis_url=redis_url) as client:

        async def names() -> list[str]:
            assert (await client.get("/items")).status_code == 200
            kept = await client.get("/items")
            assert kept.headers["x-cache"] == "hit"
            return [item["name"] for item in kept.json()["items"]]

        assert await names() == []
        location = (await client.post("/items", json={"name": "new"})).headers["location"]
        assert await names() == ["new"]
        await client.patch(location, json={"name": "changed"})
        assert await names() == ["changed"]
        await client.delete(location)
        assert await names() == []


async def test_a_frozen_redis_does_not_freeze_reads(serve: Serve, redis_url: str) -> None:
    async with proxied(redis_url) as (url, proxy), serve(redis_url=url, cache_timeout=0.5) as client:

        async def is_kept() -> bool:
            return (await client.get("/items")).headers["x-cache"] == "hit"

        async def is_ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        # On a busy machine the first attempts may take longer than that.
        await eventually(is_ready)
        await eventually(is_kept)
        proxy.freeze()
        response = await client.get("/items")
        assert (response.status_code, response.headers["x-cache"]) == (200, "miss")
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "cache" in ready.json()["detail"]


async def test_a_write_that_changes_nothing_ends_nothing(serve: Serve, redis_url: str) -> None:
    async with serve(redis_url=redis_url) as client:
        body = {"name": "kept"}
        kept = (await client.post("/items", json=body)).headers["location"]
        for path in ("/items", kept):
            await client.get(path)
        writes = [
            await client.post("/items", json={}),
            await client.patch(f"/items/{uuid4()}", json=body),
            await client.delete(f"/items/{uuid4()}"),
        ]
        assert [answer.status_code for answer in writes] == [422, 404, 404]
        for path in ("/items", kept):
            assert (await client.get(path)).headers["x-cache"] == "hit", path


async def test_a_write_ends_the_lists_and_its_own_item(serve: Serve, redis_url: str) -> None:
    async with serve(redis_url=redis_url) as client:
        # Items of one slot end each other's answers.
        of_slots: dict[str, str] = {}
        while len(of_slots) < 3:
            item = (await client.post("/items", json={"name": "x"})).json()
            of_slots[slot("items", UUID(item["id"]))] = f"/items/{item['id']}"
        kept, changed, deleted = of_slots.values()
        paths = [kept, changed, deleted, "/items"]

        async def seen() -> list[str]:
            return [(await client.get(path)).headers["x-cache"] for path in paths]

        await seen()
        assert await seen() == ["hit"] * 4
        await client.post("/items", json={"name": "new"})
        assert await seen() == ["hit", "hit", "hit", "miss"]
        await client.patch(changed, json={"name": "other"})
        assert await seen() == ["hit", "miss", "hit", "miss"]
        assert (await client.get(changed)).json()["name"] == "other"
        await client.delete(deleted)
        assert await seen() == ["hit", "hit", "miss", "miss"]
        assert (await client.get(deleted)).status_code == 404


async def test_an_item_that_comes_back_ends_what_is_kept_of_it(serve: Serve, redis_url: str) -> None:
    """Its deletion by another process may be committed and not told yet; here nobody tells it."""
    key = {"Idempotency-Key": str(uuid4())}
    async with serve(redis_url=redis_url) as client, serve() as elsewhere:
        created = await client.post("/items", json={"name": "x"}, headers=key)
        address = created.headers["location"]
        for status in ("miss", "hit"):
            assert (await client.get(address)).headers["x-cache"] == status
        assert (await elsewhere.delete(address)).status_code == 204
        again = await client.post("/items", json={"name": "x"}, headers=key)
        assert again.json()["created_at"] != created.json()["created_at"]
        fetched = await client.get(address)
        assert fetched.headers["x-cache"] == "miss"
        assert fetched.json() == again.json()
