"""The drill of too much load."""

import asyncio
import time
from collections.abc import Sequence
from statistics import median
from uuid import UUID

from loadtest.resource import PATH, TABLE, body
from tests.drills.client import render
from tests.drills.drill import Outcome, sentences
from tests.drills.flood import GOOD, REFUSED, Flood, open_flood, percentile
from tests.drills.stack import LIMIT_CONCURRENCY, WORKERS, Stack, connection_budget

SECONDS = 1.5
ROUNDS = 5
ATTEMPTS = 3
BUSY_CONNECTIONS = WORKERS * LIMIT_CONCURRENCY // 2
TOO_MANY_CONNECTIONS = WORKERS * LIMIT_CONCURRENCY * 3
AS_FAST_AS_IT_ANSWERS = 1e6
OVERLOAD = 3

# Shares of what was before, and seconds.
GOODPUT_LIMIT = 0.8
REFUSAL_LIMIT = 0.1
GROWTH_LIMIT = 1.05

BODY = body("flood").encode()
PATCH = render("PATCH", f"{PATH}/{UUID(int=0)}", {}, BODY)
POST = render("POST", PATH, {}, BODY)


async def overload(stack: Stack) -> Outcome:
    """Find the peak, and offer three times as much."""
    started = time.monotonic()
    floods: list[Flood] = []
    memory = []
    async with stack.apart_from_load(), stack.counting_connections():
        peaks, goodputs, refused_in = [], [], []
        for _ in range(ROUNDS):
            peaks.append(await send(stack, floods, BUSY_CONNECTIONS, rate=AS_FAST_AS_IT_ANSWERS))
            # What was accepted may still wait to be stored, which takes CPU from whoever is measured next.
            await come_to_rest(stack, floods)
            goodputs.append(await send(stack, floods, TOO_MANY_CONNECTIONS, rate=OVERLOAD * peaks[-1]))
            await come_to_rest(stack, floods)
            refused_in.append(floods[-1].refused_in)
            memory.append(await asyncio.to_thread(stack.memory))
        # What each process keeps for its connections comes with the first overload, and no more with the next one.
        growth = memory[-1] / memory[0]
        idly_refused_in = await p99_of_refusals_while_the_database_hangs(stack)
    stored = await come_to_rest(stack, floods)
    accepted = sum(map(good, floods))
    share = median(goodput / peak for goodput, peak in zip(goodputs, peaks, strict=True))
    usual, longest = (median(percentile(seconds, part) for seconds in refused_in) for part in (0.5, 0.99))
    answers = sum((flood.answers for flood in floods), start=type(floods[0].answers)())
    broken = sum(flood.broken for flood in floods)
    wrong = {
        f"{accepted - stored} accepted items are lost": stored < accepted,
        "nothing was refused": not all(refused_in),
        "a refusal came without Retry-After": any(flood.without_retry_after for flood in floods),
        f"{broken} connections broke": broken > 0,
        f"there were other answers: {dict(answers)}": bool(answers.keys() - {*GOOD, REFUSED}),
        f"the memory of one overload grew to {growth:.2f} of that in the next": growth > GROWTH_LIMIT,
        f"{stack.most_connections} database connections": stack.most_connections > connection_budget(),
    }
    slow = {
        f"a refusal took {longest:.2f} s": longest > REFUSAL_LIMIT,
        f"a refusal took {idly_refused_in:.2f} s with idle CPUs": not 0 < idly_refused_in <= REFUSAL_LIMIT,
        f"goodput was {share:.2f} of the peak": share < GOODPUT_LIMIT,
    }
    return Outcome(
        f"{time.monotonic() - started:>8.1f}{median(goodputs):>7.0f}"
        f"{accepted:>9}{stored:>8}{max(0, accepted - stored):>6}",
        f"peak {median(peaks):.0f}/s, at {OVERLOAD} x peak {median(goodputs):.0f}/s ({share:.2f}); "
        f"{sum(map(len, refused_in))} refused in {usual:.3f} s (median), {longest:.3f} s (p99); "
        f"{idly_refused_in:.3f} s (p99) while the CPUs are idle; memory {growth:.2f}; "
        f"{stack.most_connections} of {connection_budget()} connections",
        sentences(wrong),
        sentences(slow),
    )


async def send(stack: Stack, floods: list[Flood], connections: int, *, rate: float) -> float:
    """Send a flood, remember it, and return how many good answers came a second."""
    async with open_flood(stack.address, POST, connections=connections) as flood:
        floods.append(flood)
        return await flood.run(rate, SECONDS)


async def p99_of_refusals_while_the_database_hangs(stack: Stack) -> float:
    """Return the seconds within which nearly all changes are refused while others wait for a frozen database.

    The CPUs have little to do then. Others on this machine can only make it look slower, so a slow round is repeated.
    """
    seconds = []
    for _ in range(ATTEMPTS):
        await asyncio.to_thread(stack.freeze, "db")
        try:
            async with open_flood(stack.address, PATCH, connections=TOO_MANY_CONNECTIONS) as flood:
                await flood.run(2 * WORKERS * LIMIT_CONCURRENCY, SECONDS)
        finally:
            await asyncio.to_thread(stack.thaw, "db")
        seconds.append(percentile(flood.refused_in, 0.99))
        if 0 < seconds[-1] <= REFUSAL_LIMIT:
            break
    return min(seconds)


def good(flood: Flood) -> int:
    """Return how many items were accepted."""
    return sum(flood.answers[status] for status in GOOD)


async def come_to_rest(stack: Stack, floods: Sequence[Flood]) -> int:
    """Return how many items are stored, after all are there or have had time to arrive."""
    accepted = sum(map(good, floods))
    deadline = time.monotonic() + 60
    while True:
        stored = int((await asyncio.to_thread(stack.sql, f"SELECT count(*) FROM {TABLE};"))[0])
        if stored >= accepted or time.monotonic() > deadline:
            return stored
        await asyncio.sleep(0.5)
