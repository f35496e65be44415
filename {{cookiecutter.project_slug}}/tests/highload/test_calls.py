"""How many functions of the engine a request calls: what it costs, without the noise of a machine.

A bound that is exceeded asks whether a hot way needs what was added to it.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType

import httpx2
import pytest

import app.highload

# {%- if cookiecutter.caching +%}
from app.highload.batching import Waiter
from app.highload.reads.answers import Answer
from app.highload.reads.cache import Found, Wanted

# {%- endif +%}
from app.highload.service import Service
from tests.conftest import running
from tests.highload import lean_routes
from tests.highload.notes import notes_service, router

ENGINE = str(Path(app.highload.__file__).parent)
REQUESTS = 50
BODY = b'{"text": "x"}'


@asynccontextmanager
async def served(database_url: str) -> AsyncGenerator[tuple[Service, httpx2.AsyncClient]]:
    service = notes_service(database_url=database_url, routers=[router, lean_routes.router])
    async with running(service) as client:
        yield service, client


async def calls_for(client: httpx2.AsyncClient, method: str, path: str, body: bytes = b"") -> float:
    """Return how many functions of the engine a request calls, on average of several."""
    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(ENGINE)

    fields = {"Content-Type": "application/json"} if body else {}
    for number in range(2 * REQUESTS):
        if number == REQUESTS:
            sys.setprofile(count)
        try:
            (await client.request(method, path, content=body, headers=fields)).raise_for_status()
        except BaseException:
            sys.setprofile(None)
            raise
    sys.setprofile(None)
    return calls / REQUESTS


# {% if cookiecutter.caching %}
class Kept:
    """A cache that has what is asked for."""

    def __init__(self, answer: Answer) -> None:
        self._found = Found(answer, b"generation")

    def submit(self, _: Wanted, waiter: Waiter[Found]) -> None:
        waiter.set_result(self._found)


async def test_a_kept_answer_takes_few_calls(database_url: str) -> None:
    async with served(database_url) as (service, client):
        answer = Answer(200, [(b"etag", b'"x"'), (b"content-length", b"2")], b"[]")
        service.reads.cache = Kept(answer)  # type: ignore[assignment]
        assert await calls_for(client, "GET", "/notes") <= 42


# {% endif %}
@pytest.mark.parametrize(
    ("method", "path", "body", "bound"), [("POST", "/lean", BODY, 76), ("GET", "/lean/1", b"", 64)]
)
async def test_a_lean_request_takes_few_calls(
    database_url: str, method: str, path: str, body: bytes, bound: int
) -> None:
    async with served(database_url) as (_, client):
        assert await calls_for(client, method, path, body) <= bound


async def test_a_shared_run_takes_few_calls(database_url: str) -> None:
    async with served(database_url) as (_, client):
        assert await calls_for(client, "GET", "/lean/1/shared") <= 86
