"""One drill: strike and repair under load, let the system come to rest, and count."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from loadtest.resource import NAME, PATH, TABLE
from tests.drills.client import Connection
from tests.drills.faults import BROKEN, UNAVAILABLE, Fault
from tests.drills.flood import percentile
from tests.drills.load import BROKEN_WHEN_KEPT, TIMEOUT, Load, items_in
from tests.drills.stack import LONGEST_KEPT, WORKERS, Stack, connection_budget

# Seconds from the moment when a part answers its health check to the last request that fails.
RECOVERY_LIMIT = 5.0
# Seconds until a client is told that the database is away: what README.md promises.
UNAVAILABLE_LIMIT = 2.0
# {% if cookiecutter.caching %}
# Seconds within which a process makes up for an invalidation that Redis was too slow for.
MAKING_UP = 2.5
# {% endif %}
SECONDS_BEFORE = 0.3
SECONDS_AFTER = 0.7


class Outcome(NamedTuple):
    """What a drill counted. `wrong` holds a sentence for each thing that must not be.

    `slow` holds those that a machine with too much to do can cause by itself.
    """

    counts: str
    details: str
    wrong: list[str]
    slow: list[str]


def sentences(verdicts: Mapping[str, bool]) -> list[str]:
    """Return the sentences that hold."""
    return [sentence for sentence, holds in verdicts.items() if holds]


HEADER = (
    f"{'fault':<31}{'seconds':>8}{'req/s':>7}{'accepted':>9}{'stored':>8}{'lost':>6}{'doubled':>8}{'broken':>7}{'kept':>6}"
    f"{'recovery':>10}{'slowest':>9}{'p99 POST':>10}{'503 in':>8}{'connections':>13}  answers"
)


async def drill(stack: Stack, name: str, fault: Fault) -> Outcome:
    """Strike, repair, and judge."""
    load = Load(stack)
    loading = asyncio.create_task(load.run(name))
    async with stack.counting_connections():
        await asyncio.sleep(SECONDS_BEFORE + random.uniform(0, 0.7))
        struck = time.monotonic()
        await asyncio.to_thread(fault.strike, stack)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(fault.repair, stack)
        repaired = time.monotonic()
        await asyncio.sleep(SECONDS_AFTER)
        if load.last_failure > repaired:
            await asyncio.sleep(RECOVERY_LIMIT)
        load.stop()
        await loading
        stored = await come_to_rest(stack, load)
        newest_listed_after = await seconds_until_the_newest_is_listed(stack)
    return judge(
        stack,
        fault,
        load,
        stored=stored,
        struck=struck,
        repaired=repaired,
        newest_listed_after=newest_listed_after,
    )


def judge(
    stack: Stack,
    fault: Fault,
    load: Load,
    *,
    stored: Sequence[str],
    struck: float,
    repaired: float,
    newest_listed_after: float,
) -> Outcome:
    """Compare what was seen with what may be."""
    names = Counter(line.partition("|")[0] for line in stored)
    ids = dict(line.split("|") for line in stored)
    lost = sum(ids.get(name) != item_id for name, item_id in load.accepted.items())
    doubled = sum(count - 1 for count in names.values()) + len(load.mistaken)
    recovery = max(0.0, load.last_failure - repaired)
    budget = connection_budget()
    oldest = max(load.oldest, newest_listed_after)
    allowed = fault.failures | ({BROKEN_WHEN_KEPT} if BROKEN in fault.failures else set())
    oldest_allowed = 0.0
    # {% if cookiecutter.caching %}
    # On a machine that is busy enough, Redis is away for a moment by itself.
    oldest_allowed = LONGEST_KEPT if "redis" in fault.parts else MAKING_UP
    # {% endif %}
    unexpected = {failure: count for failure, count in load.failures.items() if failure not in allowed}
    refused = unexpected.pop(UNAVAILABLE, 0)
    wrong = {
        f"{lost} accepted items are lost": lost > 0,
        f"{doubled} items are doubled": doubled > 0,
        f"a list was {oldest:.1f} s old": oldest > oldest_allowed,
        f"{stack.most_connections} database connections": stack.most_connections > budget,
        **{f"{count} requests ended in {failure}": True for failure, count in unexpected.items()},
    }
    slow = {
        f"{refused} requests ended in {UNAVAILABLE}": refused > 0,
        f"requests failed until {recovery:.1f} s after the repair": recovery > RECOVERY_LIMIT,
        f"it took {load.slowest_unavailable:.1f} s to answer 503": "db" in fault.parts
        and load.slowest_unavailable > UNAVAILABLE_LIMIT,
    }
    during = [seconds for started, seconds in load.posts if struck <= started <= repaired]
    counts = (
        f"{load.seconds:>8.1f}{sum(load.answers.values()) / load.seconds:>7.0f}"
        f"{len(load.accepted):>9}{len(stored):>8}{lost:>6}{doubled:>8}"
        f"{load.failures[BROKEN]:>7}{load.failures[BROKEN_WHEN_KEPT]:>6}{recovery:>10.1f}{load.slowest:>9.2f}"
        f"{percentile(during, 0.99):>10.2f}{load.slowest_unavailable:>8.2f}"
        f"{f'{stack.most_connections} of {budget}':>13}"
    )
    answers = load.answers + Counter({name: count for name, count in load.failures.items() if not name.isdigit()})
    details = ", ".join(f"{answer} x {count}" for answer, count in sorted(answers.items()))
    if oldest:
        details += f", oldest list {oldest:.1f} s"
    return Outcome(counts, details, sentences(wrong), sentences(slow))


NEWEST_FIRST = f"{TABLE} ORDER BY created_at DESC, id DESC"


async def come_to_rest(stack: Stack, load: Load) -> Sequence[str]:
    """Return the stored names and ids, after all items are there or had time to arrive."""
    deadline = time.monotonic() + 60
    while True:
        stored = await asyncio.to_thread(
            stack.sql, f"SELECT {NAME}, id FROM {TABLE} ORDER BY created_at DESC, id DESC;"
        )
        missing = load.accepted.keys() - {line.partition("|")[0] for line in stored}
        if not missing or time.monotonic() > deadline:
            return stored
        await asyncio.sleep(0.5)


async def seconds_until_the_newest_is_listed(stack: Stack) -> float:
    """Return for how long, at rest, a list lacks the newest item; 0.0 when it never does."""
    (newest,) = await asyncio.to_thread(stack.sql, f"SELECT {NAME} FROM {NEWEST_FIRST} LIMIT 1;")
    started = time.monotonic()
    old_until = started
    agreeing = 0
    # On connections of their own, so that every process answers.
    while agreeing < 5 * WORKERS and time.monotonic() < started + 2 * LONGEST_KEPT:
        connection = Connection(lambda: stack.address, timeout=TIMEOUT, keeps=False)
        reply = await connection.request("GET", PATH)
        agreeing += 1
        if newest not in (item[NAME] for item in items_in(reply)):
            old_until, agreeing = time.monotonic(), 0
    return old_until - started
