"""The drill of bad clients: good ones beside them get what they get without them."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from loadtest.resource import PATH, body
from tests.drills.bad_clients import bad_clients
from tests.drills.client import render
from tests.drills.drill import Outcome, sentences
from tests.drills.flood import GOOD, REFUSED, Flood, open_flood, percentile
from tests.drills.overload import come_to_rest, good
from tests.drills.stack import Stack

SECONDS = 6.0
CONNECTIONS = 50
AS_FAST_AS_IT_ANSWERS = 1e6
# The rest of the CPUs is for the clients, the bad ones as well.
MODERATE = 0.2

# Shares of what is without bad clients.
GOODPUT_LIMIT = 0.9
MEMORY_LIMIT = 1.5
# Seconds; Gunicorn kills after GRACEFUL_TIMEOUT.
STOP_LIMIT = 30

# A page of these is large.
POST = render("POST", PATH, {}, body("n" * 250).encode())
GET = render("GET", PATH, {}, b"")


async def siege(stack: Stack) -> Outcome:
    """Send a moderate load alone and beside bad clients, and stop the API while they are connected."""
    started = time.monotonic()
    async with open_flood(stack.address, POST, connections=CONNECTIONS) as first:
        peak = await first.run(AS_FAST_AS_IT_ANSWERS, 3)
    async with memory_noted(stack) as usual:
        alone = await send(stack, peak)
    async with bad_clients(stack):
        async with memory_noted(stack) as memory:
            beside = await send(stack, peak)
        stopping = time.monotonic()
        await asyncio.to_thread(stack.compose, "stop", "api")
        stopped_in = time.monotonic() - stopping
    code = stack.exit_code("api")
    await asyncio.to_thread(stack.up, "--no-deps", "api")
    writes = [first, alone[0], beside[0]]
    accepted, stored = sum(map(good, writes)), await come_to_rest(stack, writes)
    shares = [good(besieged) / good(free) for free, besieged in zip(alone, beside, strict=True)]
    growth = max(memory) / max(usual)
    answers = sum((flood.answers for flood in beside), start=type(beside[0].answers)())
    broken = sum(flood.broken for flood in (*alone, *beside))
    wrong = {
        f"{accepted - stored} accepted items are lost": stored < accepted,
        f"{broken} connections of good clients broke": broken > 0,
        f"there were other answers: {dict(answers)}": bool(answers.keys() - {*GOOD, REFUSED}),
        f"memory was {growth:.2f} of that under good load": growth > MEMORY_LIMIT,
        f"the stop took {stopped_in:.0f} s": stopped_in > STOP_LIMIT,
        f"the stop ended with exit code {code}": code != "0",
    }
    slow = {
        f"goodput was {min(shares):.2f} of that without bad clients": min(shares) < GOODPUT_LIMIT,
    }
    slowest = [percentile(flood.accepted_in, 0.99) for flood in (*alone, *beside)]
    return Outcome(
        f"{time.monotonic() - started:>8.1f}{sum(map(good, beside)) / SECONDS:>7.0f}"
        f"{accepted:>9}{stored:>8}{max(0, accepted - stored):>6}",
        f"goodput {shares[0]:.2f} of POST, {shares[1]:.2f} of GET; {answers[REFUSED]} refused; "
        f"p99 {slowest[0]:.3f} s and {slowest[1]:.3f} s alone, {slowest[2]:.3f} s and {slowest[3]:.3f} s beside; "
        f"memory {growth:.2f}; stopped in {stopped_in:.1f} s",
        sentences(wrong),
        sentences(slow),
    )


async def send(stack: Stack, peak: float) -> list[Flood]:
    """Write and read at a moderate rate, at the same time."""
    async with (
        open_flood(stack.address, POST, connections=CONNECTIONS) as writes,
        open_flood(stack.address, GET, connections=CONNECTIONS) as reads,
    ):
        await asyncio.gather(*(flood.run(MODERATE / 2 * peak, SECONDS) for flood in (writes, reads)))
    return [writes, reads]


@asynccontextmanager
async def memory_noted(stack: Stack) -> AsyncGenerator[list[int]]:
    """Note the memory of the workers again and again during the block."""
    noted: list[int] = []

    async def note() -> None:
        while True:
            noted.append(await asyncio.to_thread(stack.memory))
            await asyncio.sleep(0.3)

    noting = asyncio.create_task(note())
    try:
        yield noted
    finally:
        noting.cancel()
        await asyncio.wait([noting])
        noted.append(await asyncio.to_thread(stack.memory))
