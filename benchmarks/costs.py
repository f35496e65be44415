"""What a request costs each part of the service, in microseconds of a CPU; benchmarks/scaling.py reckons with it."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks import load, machine, service, stages
from benchmarks.cases import PAGES
from benchmarks.scaling import table_of_costs
from benchmarks.service import PLACE, Contender, Server
from benchmarks.stages import (
    CACHED,
    DIRECT,
    DIRECT_CACHED_10K,
    QUEUED,
    ROUNDS,
    SECONDS,
    UNCACHED_100K,
    Load,
    get,
    get_any,
    get_any_kept,
    post,
)

RESULTS = PLACE / "costs.json"
SERVERS = {"PostgreSQL": "DATABASE_URL", "Redis": "REDIS_URL", "RabbitMQ": "BROKER_URL"}
TICKS = os.sysconf("SC_CLK_TCK")


class Kind(NamedTuple):
    """A kind of request, and who answers it."""

    name: str
    contender: Contender
    send: Load


KINDS = (
    Kind("list, hit", CACHED, get("/items")),
    Kind("item, hit", DIRECT_CACHED_10K, get_any_kept("mixed")),
    # No more, because a page takes long, and the database has its second.
    Kind("list, miss", UNCACHED_100K, get_any(PAGES, connections=10)),
    Kind("item, miss", UNCACHED_100K, get_any("rows_100k")),
    Kind("POST, direct", DIRECT, post()),
    Kind("POST, queued", QUEUED, post()),
)


def container_of(variable: str) -> str:
    """Return the id of the container whose port an address of the stack names."""
    port = urlsplit(os.environ[f"TEST_{variable}"]).port
    command = ["docker", "ps", "--quiet", "--filter", f"publish={port}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def seconds_of_container(container: str) -> float:
    """Return the seconds of a CPU that the processes of a container have used, with those that have ended."""
    command = ["docker", "exec", container, "sh", "-c", "cat /proc/[0-9]*/stat"]
    told = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    assert told, container
    return sum(map(seconds_of_stat, told.splitlines()))


def seconds_of_processes(parent: int) -> float:
    """Return the seconds of a CPU that a process and its children have used."""
    pids = (str(parent), *service.children_of(parent))
    return sum(seconds_of_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")) for pid in pids)


def seconds_of_stat(stat: str) -> float:
    """Return the seconds of a process and of its children that have ended (proc(5), `utime` to `cstime`)."""
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def seconds_of_parts(processes: Mapping[str, int]) -> dict[str, float]:
    """Return the seconds of a CPU that each part has used: some processes by their names, and the servers."""
    return {part: seconds_of_processes(pid) for part, pid in processes.items()} | {
        part: seconds_of_container(container_of(variable)) for part, variable in SERVERS.items()
    }


def costs_of(requests: float, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return the microseconds of each part for each of some requests."""
    # The clock of a process ticks a hundred times a second.
    return {part: max(0, after[part] - seconds) / requests * 1e6 for part, seconds in before.items()}


def measure(kind: Kind, server: Server) -> dict[str, float]:
    """Return the costs of a request of a kind; one that is queued is over when its row is stored."""
    if kind.contender.database == "writes":
        service.empty_writes()
    if not kind.contender.queue:
        # What has to be kept first is kept now.
        kind.send(server)
        processes = {"API": server.process.pid}
        before = seconds_of_parts(processes)
        report = kind.send(server)
        assert not report.errors, report
        return costs_of(report.per_second * SECONDS, before, seconds_of_parts(processes))
    with service.working(kind.contender) as celery:
        service.wait_until(lambda: service.is_consumed(kind.contender.queue), "the worker")
        processes = {"API": server.process.pid, "Celery": celery.pid}
        rows, before = stored(), seconds_of_parts(processes)
        report = kind.send(server)
        assert not report.errors, report
        service.wait_until(lambda: not waiting(kind.contender.queue), "the worker")
        return costs_of(stored() - rows, before, seconds_of_parts(processes))


def stored() -> int:
    """Return how many items are stored."""
    return int(service.sql("writes", "SELECT count(*) FROM items")[0])


def waiting(queue: str) -> int:
    """Return how many messages nobody has taken."""

    async def count() -> int:
        async with service.opened(queue) as messages:
            return messages.declaration_result.message_count or 0

    return asyncio.run(count())


def main() -> int:
    """Measure in rounds, print the medians, and keep them."""
    load.require_tools()
    stages.prepare()
    (PLACE / PAGES).write_text("\n".join(stages.page_paths("rows_100k", 1, 1000)) + "\n")
    measured: dict[str, list[dict[str, float]]] = {kind.name: [] for kind in KINDS}
    with ExitStack() as stack:
        contenders = dict.fromkeys(kind.contender for kind in KINDS)
        servers = {contender: stages.warmed_up(stack, contender) for contender in contenders}
        for number in range(ROUNDS):
            for kind in KINDS:
                stages.say(f"round {number + 1} of {ROUNDS}: {kind.name}")
                measured[kind.name].append(measure(kind, servers[kind.contender]))
    costs = {
        name: {part: statistics.median(one[part] for one in rounds) for part in rounds[0]}
        for name, rounds in measured.items()
    }
    sizes = {"list": (PLACE / "page").stat().st_size, "item": (PLACE / "item").stat().st_size}
    document = {"machine": machine.describe(), "bytes": sizes, "costs": costs}
    print("\n".join(table_of_costs(document)))
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
