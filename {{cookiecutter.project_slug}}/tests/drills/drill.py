"""One drill: strike and repair under load, let the system come to rest, and count."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from loadtest.resource import NAME, TABLE
from tests.drills import history
from tests.drills.client import Connection
from tests.drills.faults import BROKEN, GATEWAY_TIMEOUT, SILENT, UNAVAILABLE, UNAVAILABLE_LIMIT, Fault
from tests.drills.flood import percentile
from tests.drills.history import Record, Shown, key_of
from tests.drills.linearizability import Verdict, examine
from tests.drills.load import BROKEN_WHEN_KEPT, TIMEOUT, Load
from tests.drills.stack import LONGEST_KEPT, PROJECT, WORKERS, Stack

# Seconds from the moment when a part answers its health check to the last request that fails.
RECOVERY_LIMIT = 5.0
# What a machine with too much to do can cause by itself.
CAN_BE_SLOW = (UNAVAILABLE, GATEWAY_TIMEOUT)
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
        newest_listed_after = await seconds_until_the_newest_is_listed(stack, load)
    verdict = examine(
        load.history,
        oldest=fault.oldest,
        # {% if not cookiecutter.caching %}
        caching=False,
        # {% endif %}
        # {% if cookiecutter.queued_writes %}
        queued=True,
        # {% endif %}
    )
    if verdict.reason:
        history.dump(load.history, PROJECT / f"drill-history-{name}.jsonl")
    outcome = judge(
        stack,
        fault,
        load,
        verdict,
        stored=stored,
        struck=struck,
        repaired=repaired,
        newest_listed_after=newest_listed_after,
    )
    await asyncio.to_thread(fault.restore, stack)
    return outcome


def judge(
    stack: Stack,
    fault: Fault,
    load: Load,
    verdict: Verdict,
    *,
    stored: Sequence[Shown],
    struck: float,
    repaired: float,
    newest_listed_after: float,
) -> Outcome:
    """Compare what was seen with what may be."""
    ids = {key_of(row.value): row.id for row in stored}
    lost = sum(ids.get(key) != row_id for key, row_id in load.kept.items())
    doubled = len(stored) - len(ids) + len(load.mistaken)
    recovery = max(0.0, load.last_failure - repaired)
    budget = stack.budget
    allowed = fault.failures | ({BROKEN_WHEN_KEPT} if BROKEN in fault.failures else set())
    if fault.unavailable_within == math.inf and repaired - struck > TIMEOUT - UNAVAILABLE_LIMIT:
        # A process was frozen for longer than its clients wait, because another part needed as long to be repaired.
        allowed |= {SILENT}
    unexpected = {failure: count for failure, count in load.failures.items() if failure not in allowed}
    refused = unexpected.pop(UNAVAILABLE, 0)
    late = unexpected.pop(GATEWAY_TIMEOUT, 0)
    if not fault.repeatables_fail:
        late = max(late, load.failed_repeatables[GATEWAY_TIMEOUT])
    failed = sum(load.failed_repeatables.values()) - sum(load.failed_repeatables[kind] for kind in CAN_BE_SLOW)
    wrong = {
        f"{lost} accepted items are lost": lost > 0,
        f"{doubled} items are doubled": doubled > 0,
        f"{failed} requests failed that a proxy may send again": failed > 0 and not fault.repeatables_fail,
        f"a list was {newest_listed_after:.1f} s old": newest_listed_after > fault.oldest,
        verdict.reason: bool(verdict.reason),
        f"{stack.most_connections} database connections": stack.most_connections > budget,
        **{f"{count} requests ended in {failure}": True for failure, count in unexpected.items()},
    }
    slow = {
        f"{refused} requests ended in {UNAVAILABLE}": refused > 0,
        f"{late} requests ended in {GATEWAY_TIMEOUT}": late > 0,
        f"requests failed until {recovery:.1f} s after the repair": recovery > RECOVERY_LIMIT,
        f"it took {load.slowest_unavailable:.1f} s to answer 503": load.slowest_unavailable > fault.unavailable_within,
    }
    during = [seconds for started, seconds in load.posts if struck <= started <= repaired]
    counts = (
        f"{load.seconds:>8.1f}{sum(load.answers.values()) / load.seconds:>7.0f}"
        f"{len(load.kept):>9}{len(stored):>8}{lost:>6}{doubled:>8}"
        f"{load.failures[BROKEN]:>7}{load.failures[BROKEN_WHEN_KEPT]:>6}{recovery:>10.1f}{load.slowest:>9.2f}"
        f"{percentile(during, 0.99):>10.2f}{load.slowest_unavailable:>8.2f}"
        f"{f'{stack.most_connections} of {budget}':>13}"
    )
    answers = load.answers + Counter({name: count for name, count in load.failures.items() if not name.isdigit()})
    details = ", ".join(f"{answer} x {count}" for answer, count in sorted(answers.items()))
    if newest_listed_after:
        details += f", oldest list {newest_listed_after:.1f} s"
    if not verdict.reason:
        details += f"; linearizable: {verdict.operations} operations on {verdict.objects} items"
    return Outcome(counts, details, sentences(wrong), sentences(slow))


NEWEST_FIRST = f"{TABLE} ORDER BY created_at DESC, id DESC"


async def come_to_rest(stack: Stack, load: Load) -> Sequence[Shown]:
    """Return what is stored, after all items are there or had time to arrive."""
    deadline = time.monotonic() + 60
    while True:
        started = time.monotonic()
        lines = await asyncio.to_thread(stack.sql, f"SELECT {NAME}, id FROM {NEWEST_FIRST};")
        stored = tuple(Shown(*line.split("|")) for line in lines)
        missing = load.kept.keys() - {key_of(row.value) for row in stored}
        if not missing or time.monotonic() > deadline:
            load.history.append(Record("stored", started, time.monotonic(), 200, rows=stored))
            return stored
        await asyncio.sleep(0.5)


async def seconds_until_the_newest_is_listed(stack: Stack, load: Load) -> float:
    """Return for how long, at rest, a list lacks the newest item; 0.0 when it never does."""
    (newest,) = await asyncio.to_thread(stack.sql, f"SELECT {NAME} FROM {NEWEST_FIRST} LIMIT 1;")
    started = time.monotonic()
    old_until = started
    agreeing = 0
    page = history.page(around_the_cache=0)
    # On connections of their own, so that every process answers.
    while agreeing < 5 * WORKERS and time.monotonic() < started + 2 * LONGEST_KEPT:
        connection = Connection(lambda: stack.address, timeout=TIMEOUT, keeps=False)
        begun = time.monotonic()
        reply = await connection.request(page.method, page.path)
        load.history.append(page.record(begun, time.monotonic(), reply))
        agreeing += 1
        if key_of(newest) not in (key_of(row.value) for row in load.history[-1].rows):
            old_until, agreeing = time.monotonic(), 0
    return old_until - started
