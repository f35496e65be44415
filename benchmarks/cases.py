"""Every workload and the contenders that get it; of those of one workload, the first is the limit for the others."""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from benchmarks.results import CONNECTIONS, FEW_CONNECTIONS
from benchmarks.service import Contender
from benchmarks.stages import (
    BARE,
    BARE_ITEM,
    CACHED,
    CACHED_100K,
    DIRECT,
    DIRECT_CACHED_10K,
    DIRECT_UNCACHED_10K,
    FRAMEWORK,
    FRAMEWORK_ITEM,
    NAIVE,
    NAIVE_DIRECT,
    PLAIN,
    QUEUED,
    QUEUED_10K,
    RAW_100K,
    UNBATCHED,
    UNCACHED,
    UNCACHED_1M,
    UNCACHED_100K,
    Load,
    get,
    get_again,
    get_any,
    get_any_kept,
    get_distinct,
    get_one,
    get_page,
    mix,
    mix_items,
    post,
    post_and_drain,
)

DEPTHS = (1, 10, 100, 1000, 10_000)
PAGES = "pages_100k"

# Apart from the stages that leave messages with few items behind.
QUEUED_APART, NAIVE_APART = QUEUED._replace(cache=4), NAIVE._replace(cache=5)
FULL = QUEUED._replace(name="full")
SHARES = (("95/5", 0.05), ("50/50", 0.5))


class Case(NamedTuple):
    """A load for a contender."""

    workload: str
    contender: Contender
    send: Load
    with_worker: bool = False

    @property
    def name(self) -> str:
        """The name of the case among all reports."""
        return f"{self.workload}: {self.contender.name}"


def all_cases() -> list[Case]:
    """Return everything that is measured, in the order of the tables."""
    return [*lists(), *items(), *misses(), *sizes(), *writes(), *mixtures()]


def lists() -> Iterator[Case]:
    """Yield the reads of the list."""
    for count in CONNECTIONS:
        for contender in (BARE, FRAMEWORK, CACHED, UNCACHED, NAIVE):
            yield Case(f"list, {count} connections", contender, get("/items", connections=count))
    yield Case("list, 1 connections", UNBATCHED, get("/items", connections=1))
    yield Case("list, If-None-Match", BARE, get_again)
    yield Case("list, If-None-Match", CACHED, get_again)
    yield Case("list, any of 1,000 pages", BARE, get("/items"))
    yield Case("list, any of 1,000 pages", CACHED_100K, get_any_kept(PAGES))
    yield Case("list, any of 1,000 pages", UNCACHED_100K, get_any(PAGES))


def items() -> Iterator[Case]:
    """Yield the reads of single items."""
    for contender in (BARE_ITEM, FRAMEWORK_ITEM, CACHED, UNCACHED):
        yield Case("item, always the same", contender, get_one)
    for contender in (BARE_ITEM, FRAMEWORK_ITEM, UNCACHED_100K):
        yield Case("item, any of 100,000", contender, get_any("rows_100k"))
    yield Case("item, any of 100,000", CACHED_100K, get_any_kept("rows_100k"))


def misses() -> Iterator[Case]:
    """Yield the reads of what nobody has asked for before."""
    for count in FEW_CONNECTIONS:
        for contender in (RAW_100K, UNCACHED_100K):
            yield Case(f"distinct pages, {count} connections", contender, get_distinct(connections=count))
        for contender in (RAW_100K, FRAMEWORK_ITEM, UNCACHED_100K):
            send = get_any("rows_100k", connections=count)
            yield Case(f"distinct items, {count} connections", contender, send)


def sizes() -> Iterator[Case]:
    """Yield the reads that must cost the same however large the table is, and however deep the page lies."""
    for contender in (UNCACHED, UNCACHED_100K, UNCACHED_1M):
        rows = contender.database.removeprefix("rows_")
        yield Case(f"list of {rows} rows", contender, get("/items"))
        yield Case(f"item of {rows} rows", contender, get_any(contender.database))
    for number in DEPTHS:
        yield Case(f"list of 1m rows, page {number:,}", UNCACHED_1M, get_page(number))


def writes() -> Iterator[Case]:
    """Yield the writes, and what the workers do with them."""
    for count in CONNECTIONS:
        for contender in (FRAMEWORK, DIRECT, QUEUED, NAIVE_DIRECT, NAIVE):
            yield Case(f"POST, {count} connections", contender, post(connections=count))
    for contender in (QUEUED_APART, NAIVE_APART):
        yield Case("items stored by a worker", contender, post_and_drain)


def mixtures() -> Iterator[Case]:
    """Yield reads and writes together, with a worker where there is a queue."""
    for (percentages, share), count in product(SHARES, FEW_CONNECTIONS):
        workload = f"{percentages} of the list, {count} connections"
        send = mix(share, connections=count)
        yield Case(workload, PLAIN, send)
        yield Case(workload, FULL, send, with_worker=True)
        yield Case(workload, NAIVE, send, with_worker=True)
        workload = f"{percentages} over 10,000 items, {count} connections"
        send = mix_items("POST", share, connections=count)
        yield Case(workload, DIRECT_UNCACHED_10K, send)
        yield Case(workload, DIRECT_CACHED_10K, send)
        yield Case(workload, QUEUED_10K, send, with_worker=True)
