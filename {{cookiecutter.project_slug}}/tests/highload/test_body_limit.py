from collections.abc import AsyncGenerator

import httpx2
from fastapi import APIRouter, Request

from app.highload.service import Service
from tests.conftest import Serve

LIMIT = 65_536

router = APIRouter()


@router.post("/length")
async def length(request: Request) -> int:
    return len(await request.body())


def assert_refused(response: httpx2.Response) -> None:
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert f"{LIMIT} bytes" in response.json()["detail"]


async def chunks(size: int) -> AsyncGenerator[bytes]:
    for begin in range(0, size, 10_000):
        yield b"x" * min(10_000, size - begin)


async def test_a_huge_body_is_refused(serve: Serve) -> None:
    async with serve(routers=[router]) as client:
        assert_refused(await client.post("/length", content=b"x" * (LIMIT + 1)))
        assert_refused(await client.post("/length", content=chunks(LIMIT + 1)))


async def test_a_body_as_long_as_the_bound_is_served(serve: Serve) -> None:
    async with serve(routers=[router]) as client:
        assert (await client.post("/length", content=b"x" * LIMIT)).json() == LIMIT
        assert (await client.post("/length", content=chunks(LIMIT))).json() == LIMIT


def test_a_body_that_is_too_large_is_for_the_layers() -> None:
    service = Service(limit_concurrency=1, max_body_bytes=10, max_waiting=1)
    assert service.passes_its_layers({"headers": [(b"content-length", b"10")]})
    assert not service.passes_its_layers({"headers": [(b"content-length", b"11")]})
