"""Any load, sent by Python: slow, and there where wrk and hey are not."""

import asyncio
import random
import time
from collections import Counter

import httpx2

from loadtest.process import PAUSE, TIMEOUT, Tick
from loadtest.results import Answer, Measurement, measure
from loadtest.service import JSON, Workload, authorization


def load(url: str, workload: Workload, *, connections: int, seconds: int, tick: Tick) -> Measurement:
    """Send a workload and return what was measured."""
    return asyncio.run(send(url, workload, connections=connections, seconds=seconds, tick=tick))


async def send(url: str, workload: Workload, *, connections: int, seconds: float, tick: Tick) -> Measurement:
    """Send requests through so many connections for so many seconds; each waits for the answer to the one before."""
    answers: list[Answer] = []
    unanswered: Counter[str] = Counter()
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx2.AsyncClient(
        base_url=url, timeout=TIMEOUT, limits=limits, trust_env=False, headers=authorization()
    ) as client:
        began = time.monotonic()

        async def use_a_connection() -> None:
            while (left := time.monotonic()) < began + seconds:
                try:
                    status = await exchange(client, workload)
                except httpx2.TransportError as error:
                    unanswered[type(error).__name__] += 1
                else:
                    answers.append(Answer(left - began, time.monotonic() - left, status))

        async def keep_ticking() -> None:
            while True:
                tick(time.monotonic() - began)
                await asyncio.sleep(PAUSE)

        ticking = asyncio.create_task(keep_ticking())
        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(use_a_connection())
        ticking.cancel()
        took = time.monotonic() - began
    return measure(workload.title, workload.request, "Python", seconds=took, answers=answers, unanswered=unanswered)


async def exchange(client: httpx2.AsyncClient, workload: Workload) -> int:
    """Send a request and return the status of its answer."""
    headers = JSON if workload.body else None
    path = random.choice(workload.paths)
    response = await client.request(workload.method, path, content=workload.body, headers=headers)
    return response.status_code
