"""The service under load: that it is on this machine, that it answers, and the requests to send."""

import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from loadtest import resource
from loadtest.resource import PATH
from loadtest.results import CannotLoad, Service

THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
ITEMS_ON_A_PAGE = 100
MOST_ITEMS_ON_A_PAGE = 1000
NEW_ITEM = resource.body(description="y")
NOT_ALLOWED = (401, 403)
JSON = {"Content-Type": "application/json"}
# Long enough for a queue that other writes fill.
PATIENCE = 30


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests with one method, each to one of `paths`, drawn uniformly; a body is JSON."""

    title: str
    request: str
    method: str
    paths: Sequence[str]
    body: str | None = None


def authorization() -> dict[str, str]:
    """Return the header field with the API key of the environment (`API_KEY`), if there is one."""
    key = os.environ.get("API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def address_of(url: str) -> str:
    """Return scheme, host and port of a URL on this machine.

    Raises CannotLoad for every other machine, which may belong to somebody who has not agreed to be loaded.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if host not in THIS_MACHINE or parts.scheme != "http":
        raise CannotLoad(f"{url} is not on this machine: load only http://127.0.0.1, http://localhost or http://[::1].")
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def workloads(url: str) -> list[Workload]:
    """Return what to send, after the list page is full, so that runs compare.

    Raises CannotLoad when the service does not answer as it should.
    """
    try:
        # No proxy from the environment stands between this machine and itself.
        with httpx2.Client(base_url=url, timeout=10, trust_env=False, headers=authorization()) as client:
            fill(client)
            paths = [f"{PATH}/{item['id']}" for item in items(client)]
    except httpx2.TransportError:
        raise CannotLoad(
            f"Nothing answers at {url}: start the service with `make run` or `docker compose up --build -d --wait`, "
            "or name its port, `make load PORT=8001`."
        ) from None
    return [
        Workload("Hot list", f"GET {PATH}", "GET", [PATH]),
        Workload("Single items", f"GET {PATH}/" + "{id}", "GET", paths),
        Workload("New items", f"POST {PATH}", "POST", [PATH], NEW_ITEM),
    ]


def service_at(url: str) -> Service:
    """Return what the service tells of itself: its OpenAPI document, and the processes that its metrics count."""
    try:
        with httpx2.Client(base_url=url, timeout=10, trust_env=False, headers=authorization()) as client:
            document, metrics = client.get("/openapi.json"), client.get("/metrics")
        told = document.json()["info"] if document.is_success else {}
    except (httpx2.TransportError, ValueError, KeyError):
        return Service()
    workers = re.search(r"^highload_workers (\d+)", metrics.text, re.MULTILINE) if metrics.is_success else None
    return Service(told.get("title", ""), told.get("version", ""), int(workers[1]) if workers else 0)


def fill(client: httpx2.Client) -> None:
    """Create the items that a list page lacks, and return when they are listed."""
    missing = ITEMS_ON_A_PAGE - len(items(client))
    with ThreadPoolExecutor() as pool:
        posts = [pool.submit(client.post, PATH, content=NEW_ITEM, headers=JSON) for _ in range(missing)]
        for post in posts:
            expect_success(post.result())
    deadline = time.monotonic() + PATIENCE
    while len(items(client)) < ITEMS_ON_A_PAGE:
        if time.monotonic() > deadline:
            raise CannotLoad(f"New items are not listed after {PATIENCE} s: see `docker compose logs`.")
        time.sleep(0.1)


def items(client: httpx2.Client) -> list[dict[str, Any]]:
    """Return the newest items."""
    response = expect_success(client.get(PATH, params={"limit": MOST_ITEMS_ON_A_PAGE}))
    listed: list[dict[str, Any]] = response.json()[resource.ROWS]
    return listed


def expect_success(response: httpx2.Response) -> httpx2.Response:
    """Return a response that is none of an error."""
    if not response.is_success:
        request = f"{response.request.method} {response.request.url}"
        remedy = "repair the service, or name the port that is its own"
        if response.status_code in NOT_ALLOWED:
            remedy = "name a key that may read and write, `make load API_KEY=...`"
        raise CannotLoad(f"{request} answers {response.status_code}: {remedy}.")
    return response
