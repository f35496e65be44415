"""What a rate of requests takes, and what gives out first: python -m benchmarks.scaling build/bench docs.

The costs of a request are measured (benchmarks/costs.py). What is assumed stands in `Assumptions`, and in the page.
"""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

PARTS = ("API", "Celery", "PostgreSQL", "Redis", "RabbitMQ")
RATES = (1_000, 10_000, 100_000, 1_000_000)
BITS = 8e-9
HIGHEST = 1e9


class Assumptions(NamedTuple):
    """What nobody can measure for you."""

    writes: float = 0.05
    lists_of_reads: float = 0.5
    items_found: float = 0.9
    # A worker reads a list anew after each flush of writes, and one reading after the other.
    seconds_of_a_list: float = 0.005
    busy: float = 0.6
    pool: int = 5
    celery_connections: int = 1
    cpus_of_one_machine: int = 8
    cpus_of_the_largest_machine: int = 64
    connections_of_postgresql: int = 500
    gigabits_of_one_machine: float = 10.0
    dollars_of_a_cpu: float = 25.0


class Demand(NamedTuple):
    """What a rate of requests takes, in CPUs that are busy for the assumed share of their time."""

    rate: float
    api: float
    celery: float
    postgresql: float
    postgresql_writes: float
    redis: float
    rabbitmq: float
    connections: float
    gigabits: float

    @property
    def parts(self) -> tuple[float, ...]:
        """The CPUs of each part, in the order of `PARTS`."""
        return self.api, self.celery, self.postgresql, self.redis, self.rabbitmq

    @property
    def cpus(self) -> int:
        """The CPUs of all parts."""
        return sum(map(whole, self.parts))


def whole(cpus: float) -> int:
    """Return how many CPUs a part gets, which is one at least."""
    return max(1, math.ceil(cpus))


# What costs.py has written: `costs` and `bytes`.
type Document = Mapping[str, Any]


def demand(rate: float, document: Document, a: Assumptions) -> Demand:
    """Return what a rate takes of the service with cache and queue.

    Raises ValueError when a worker has no time left beside the lists that it reads anew.
    """
    costs: Mapping[str, Mapping[str, float]] = document["costs"]
    sizes: Mapping[str, int] = document["bytes"]
    writes = rate * a.writes
    lists = (rate - writes) * a.lists_of_reads
    items = rate - writes - lists
    read_alone = {"list, hit": lists, "item, hit": items, "item, miss": items * (1 - a.items_found)}

    def busy(part: str, requests: Mapping[str, float]) -> float:
        return sum(count * costs[kind].get(part, 0) for kind, count in requests.items()) / 1e6 / a.busy

    requests = read_alone | {"POST, queued": writes}
    # Each worker misses the list after a flush; it reads one after the other, however many flushes there are.
    misses_of_a_worker = min(writes, 1 / a.seconds_of_a_list)
    lost = misses_of_a_worker * costs["list, miss"]["API"] / 1e6 / a.busy
    if lost >= 1:
        raise ValueError("A worker that only reads lists is too busy: raise seconds_of_a_list, or make pages shorter.")
    api = busy("API", requests) / (1 - lost)
    # A worker that gets few lists misses no more than those.
    misses = min(lists, max(1, api) * misses_of_a_worker)
    requests["list, miss"] = misses
    celery = busy("Celery", requests)
    return Demand(
        rate,
        api,
        celery,
        busy("PostgreSQL", requests),
        busy("PostgreSQL", {"POST, queued": writes}),
        busy("Redis", requests),
        busy("RabbitMQ", requests),
        math.ceil(api) * a.pool + math.ceil(celery) * a.celery_connections,
        (lists * sizes["list"] + (rate - lists) * sizes["item"]) * BITS,
    )


class Limit(NamedTuple):
    """What one of something cannot give, and what takes its place."""

    name: str
    needed: Callable[[Demand], float]
    given: float
    instead: str


def limits(a: Assumptions) -> tuple[Limit, ...]:
    """Return what gives out, in no order."""
    largest = a.cpus_of_the_largest_machine
    return (
        Limit("CPUs of one machine", lambda d: d.cpus, a.cpus_of_one_machine, "replicas behind a proxy"),
        Limit(
            "network of one proxy",
            lambda d: d.gigabits,
            a.gigabits_of_one_machine,
            "more proxies; shorter pages",
        ),
        Limit(
            "connections of PostgreSQL", lambda d: d.connections, a.connections_of_postgresql, "PgBouncer between them"
        ),
        Limit("the thread of Redis", lambda d: d.redis, 1, "a service with its Redis for each part of the rows"),
        Limit(
            "the queue, one process of RabbitMQ",
            lambda d: d.rabbitmq,
            1,
            "a service with its queue for each part of the rows",
        ),
        Limit("reads of PostgreSQL", lambda d: d.postgresql, largest, "standbys for reads"),
        Limit("writes of PostgreSQL", lambda d: d.postgresql_writes, largest, "tables in parts, on several primaries"),
    )


def reached(limit: Limit, at: Callable[[float], Demand]) -> float:
    """Return the lowest rate at which a limit is reached."""
    low, high = 1.0, HIGHEST
    while high / low > 1.001:  # noqa: PLR2004 - a tenth of a percent
        middle = math.sqrt(low * high)
        if limit.needed(at(middle)) > limit.given:
            high = middle
        else:
            low = middle
    return high


def table_of_costs(document: Document) -> Iterator[str]:
    """Yield the lines of what was measured."""
    yield f"{'microseconds of a request':<27}" + "".join(f"{part:>12}" for part in PARTS)
    for kind, costs in document["costs"].items():
        yield f"{kind:<27}" + "".join(f"{costs.get(part, 0):>12.1f}" for part in PARTS)
    yield ""
    yield ", ".join(f"{kind}: {size:,} bytes" for kind, size in document["bytes"].items())


def table_of_demand(document: Document, a: Assumptions) -> Iterator[str]:
    """Yield the lines of what some rates take."""
    passed = thresholds(document, a)
    yield (
        "requests/s"
        + "".join(f"{part:>12}" for part in PARTS)
        + "  machines  connections  Gbit/s  $/month  first limit"
    )
    for rate in RATES:
        d = demand(rate, document, a)
        first = next((limit.name for threshold, limit in passed if threshold <= rate), "none")
        cpus = "".join(f"{whole(part):>12,}" for part in d.parts)
        machines = math.ceil(d.cpus / a.cpus_of_one_machine)
        rest = f"{machines:>10,}{d.connections:>13,.0f}{d.gigabits:>8.1f}{d.cpus * a.dollars_of_a_cpu:>9,.0f}  {first}"
        yield f"{rate:>10,}{cpus}{rest}"


def table_of_limits(document: Document, a: Assumptions) -> Iterator[str]:
    """Yield the lines of what gives out, in the order in which it does."""
    yield f"{'limit':<36}{'requests/s':>12}  what takes its place"
    for threshold, limit in thresholds(document, a):
        yield f"{limit.name:<36}{rounded(threshold):>12,}  {limit.instead}"


def thresholds(document: Document, a: Assumptions) -> list[tuple[float, Limit]]:
    """Return the limits with the rates at which they are reached, in order."""
    return sorted((reached(limit, lambda rate: demand(rate, document, a)), limit) for limit in limits(a))


def rounded(rate: float) -> int:
    """Return a rate with the two digits that such a reckoning has."""
    step = int(10 ** max(0, math.floor(math.log10(rate)) - 1))
    return round(rate / step) * step


def main() -> int:
    """Write the tables into the page, and keep the costs beside it."""
    source, target = map(Path, sys.argv[1:3])
    shutil.copy(source / "costs.json", target / "costs.json")
    document = json.loads((source / "costs.json").read_text(encoding="utf-8"))
    a = Assumptions()
    tables = iter((table_of_costs(document), table_of_demand(document, a), table_of_limits(document, a)))
    page = target / "scaling.md"
    text = re.sub(
        r"```text\n.*?```",
        lambda _: "```text\n" + "\n".join(next(tables)) + "\n```",
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    page.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
