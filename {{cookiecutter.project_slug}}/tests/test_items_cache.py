import time

import pytest

from app.config import NAME
from app.highload.reads.cache import open_cache
from tests.conftest import Serve, stack_url
from tests.proxy import proxied


@pytest.fixture
async def redis_url() -> str:
    """The address of a Redis where nothing counts any more that the service has kept before."""
    url = stack_url("REDIS_URL")
    async with open_cache(url, name=NAME, ttl=60, timeout=2, max_waiting=1) as cache:
        await cache.invalidate()
    return url


async def test_every_write_ends_what_is_kept(serve: Serve, redis_url: str) -> None:
    async with serve(redis_url=redis_url, cache_timeout=2) as client:

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
    async with proxied(redis_url) as (url, proxy), serve(redis_url=url) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/items")).status_code == 200
        assert (await client.get("/items")).headers["x-cache"] == "hit"
        proxy.freeze()
        started = time.monotonic()
        response = await client.get("/items")
        assert (response.status_code, response.headers["x-cache"]) == (200, "miss")
        assert time.monotonic() - started < 0.5
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "cache" in ready.json()["detail"]
