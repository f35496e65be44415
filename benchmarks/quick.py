"""The ratios that guard the architecture, in one run and side by side; exits non-zero when one falls short."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from benchmarks import load, service
from benchmarks.service import Contender

PLACE = Path.cwd().parent
FULL, CACHING, QUEUED, PLAIN = (PLACE / f"bench-{name}" for name in ("full", "caching", "queued", "plain"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = int(os.environ.get("SECONDS", "3"))

BARE = Contender("bare ASGI app, same bytes", FULL, "benchmarks.contenders.bare:app")
FRAMEWORK = Contender("FastAPI, same bytes or nothing stored", FULL, "benchmarks.contenders.framework:app")
CACHED = Contender("cached", FULL)
UNCACHED = Contender("not cached", PLAIN)
DIRECT = Contender("direct writes", CACHING)
QUEUE = Contender("queued writes", FULL)


class Measurement(NamedTuple):
    """A contender under a load."""

    name: str
    contender: Contender
    load: Callable[[str], load.Report]


def read_list(url: str) -> load.Report:
    """Send reads of the first page."""
    return load.read(f"{url}/items", connections=100, seconds=SECONDS)


def write_items(url: str) -> load.Report:
    """Send new items."""
    return load.write(f"{url}/items", connections=100, seconds=SECONDS)


MEASUREMENTS = (
    Measurement("bare GET", BARE, read_list),
    Measurement("cached GET", CACHED, read_list),
    Measurement("uncached GET", UNCACHED, read_list),
    Measurement("POST that stores nothing", FRAMEWORK, write_items),
    Measurement("direct POST", DIRECT, write_items),
    Measurement("queued POST", QUEUE, write_items),
)

# Which measurement over which other one, and what the ratio must reach.
RATIOS = (
    ("cached GET", "bare GET", 0.80),
    ("uncached GET", "bare GET", 0.30),
    ("direct POST", "POST that stores nothing", 0.45),
    ("queued POST", "POST that stores nothing", 0.45),
)


def prepare() -> None:
    """Migrate, fill the table, and keep the bytes of the first page for the constant contenders."""
    subprocess.run(
        [service.BIN / "alembic", "upgrade", "head"], cwd=FULL, env=service.environment(FULL, {}), check=True
    )
    service.fill(1000)
    (PLACE / "body").write_bytes(b"{}")
    with service.serving(UNCACHED) as url, urlopen(f"{url}/items") as answer:
        (PLACE / "body").write_bytes(answer.read())


def measure(measurement: Measurement) -> load.Report:
    """Serve a contender and load it, after a warm-up."""
    service.fill(1000)
    with service.serving(measurement.contender) as url:
        load.read(f"{url}/items", connections=20, seconds=1)
        return measurement.load(url)


def main() -> int:
    """Measure in rotating order, print the tables, and return whether every ratio is reached."""
    load.require_tools()
    prepare()
    rounds: list[dict[str, load.Report]] = []
    for number in range(ROUNDS):
        reports: dict[str, load.Report] = {}
        start = number * len(MEASUREMENTS) // ROUNDS
        for measurement in (*MEASUREMENTS[start:], *MEASUREMENTS[:start]):
            print(f"round {number + 1} of {ROUNDS}: {measurement.name}", file=sys.stderr, flush=True)
            reports[measurement.name] = measure(measurement)
            time.sleep(0.5)
        rounds.append(reports)
    print_reports(rounds)
    return print_ratios(rounds)


def print_reports(rounds: list[dict[str, load.Report]]) -> None:
    """Print the median of each measurement."""
    print(f"\n{'one API worker, 100 connections':<34}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}")
    for name, *_ in MEASUREMENTS:
        reports = [reports[name] for reports in rounds]
        rate, p50, p99 = (statistics.median(report[column] for report in reports) for column in (0, 1, 2))
        errors = sum(report.errors for report in reports)
        print(f"{name:<34}{rate:>12,.0f}{p50 * 1000:>9.2f}{p99 * 1000:>9.2f}{errors:>8}")


def print_ratios(rounds: list[dict[str, load.Report]]) -> int:
    """Print the ratios and return how many fall short; each is the median of the ratios within a round."""
    missed = 0
    print(f"\n{'ratio':<46}{'at least':>10}{'median':>9}{'spread':>14}")
    for upper, lower, least in RATIOS:
        ratios = sorted(reports[upper].requests_per_second / reports[lower].requests_per_second for reports in rounds)
        median = statistics.median(ratios)
        missed += median < least
        verdict = "" if median >= least else "  short"
        spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
        print(f"{upper + ' / ' + lower:<46}{least:>10.2f}{median:>9.2f}{spread:>14}{verdict}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
