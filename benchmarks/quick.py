"""The ratios that guard the architecture, in one run and side by side; exits non-zero when one falls short."""

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks import load, stages
from benchmarks.load import Report
from benchmarks.results import milliseconds
from benchmarks.service import PLACE
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
    GUARDED,
    MIDDLEWARE,
    NAIVE,
    QUEUED,
    UNBATCHED,
    UNCACHED,
    UNCACHED_1M,
    UNCACHED_100K,
    Stage,
    drain,
    get,
    get_any,
    get_any_kept,
    get_page,
    mix,
    mix_items,
    post,
)

type Reports = Mapping[str, Report]

STAGES = (
    Stage(BARE, {"bare list": get("/items")}),
    Stage(CACHED, {"cached list": get("/items"), "cached list, 1000 connections": get("/items", connections=1000)}),
    Stage(GUARDED, {"cached list, guarded": get("/items")}),
    Stage(MIDDLEWARE, {"cached list, one middleware": get("/items")}),
    Stage(UNCACHED, {"uncached list": get("/items")}),
    Stage(UNCACHED_1M, {"uncached list, 1M rows": get("/items"), "uncached list, page 10,000": get_page(10_000)}),
    Stage(BARE_ITEM, {"bare item": get_any("rows_100k")}),
    Stage(CACHED_100K, {"cached item": get_any_kept("rows_100k")}),
    Stage(FRAMEWORK_ITEM, {"FastAPI item": get_any("rows_100k")}),
    Stage(UNCACHED_100K, {"uncached item": get_any("rows_100k")}),
    Stage(FRAMEWORK, {"POST that stores nothing": post()}),
    Stage(DIRECT, {"direct POST": post()}),
    Stage(QUEUED, {"queued POST": post(), "worker drain": drain}),
    Stage(
        DIRECT_CACHED_10K,
        {
            "95/5 with POST, cached": mix_items("POST", 0.05),
            "95/5 with PATCH, cached": mix_items("PATCH", 0.05),
            "95/5 with PATCH, cached, hits counted": mix_items("PATCH", 0.05, count=True),
        },
    ),
    Stage(
        DIRECT_UNCACHED_10K,
        {
            "95/5 with POST, not cached": mix_items("POST", 0.05),
            "95/5 with PATCH, not cached": mix_items("PATCH", 0.05),
        },
    ),
    Stage(QUEUED, {"reads and writes 50/50": mix(0.5)}, with_worker=True),
    Stage(NAIVE, {"reads and writes 50/50, naive": mix(0.5)}, with_worker=True),
    Stage(CACHED, {"cached list, alone": get("/items", connections=1)}),
    Stage(UNBATCHED, {"cached list, alone, batching bypassed": get("/items", connections=1)}),
)


class Ratio(NamedTuple):
    """A ratio of two measures of a round, and the bound that its median must keep."""

    name: str
    of: Callable[[Reports], float]
    bound: float
    at_most: bool = False

    def keeps(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value <= self.bound if self.at_most else value >= self.bound


def throughput(upper: str, lower: str) -> Callable[[Reports], float]:
    """Return the ratio of two rates."""
    return lambda reports: reports[upper].per_second / reports[lower].per_second


def tail(measure: str) -> Callable[[Reports], float]:
    """Return the ratio of a measure's 99th percentile to its median."""
    return lambda reports: (reports[measure].p99 or 0) / (reports[measure].p50 or 1)


def median_latency(upper: str, lower: str) -> Callable[[Reports], float]:
    """Return the ratio of two median latencies."""
    return lambda reports: (reports[upper].p50 or 0) / (reports[lower].p50 or 1)


RATIOS = (
    Ratio("cached list / bare list", throughput("cached list", "bare list"), 0.92),
    Ratio("cached list: with / without a guard", throughput("cached list, guarded", "cached list"), 0.65),
    Ratio("cached list: with / without middleware", throughput("cached list, one middleware", "cached list"), 0.35),
    Ratio("uncached list / bare list", throughput("uncached list", "bare list"), 0.40),
    Ratio("cached item of 100k / bare item", throughput("cached item", "bare item"), 0.70),
    Ratio("uncached item of 100k / FastAPI item", throughput("uncached item", "FastAPI item"), 0.70),
    Ratio("direct POST / POST that stores nothing", throughput("direct POST", "POST that stores nothing"), 0.75),
    Ratio("queued POST / POST that stores nothing", throughput("queued POST", "POST that stores nothing"), 0.75),
    Ratio("worker drain / queued POST", throughput("worker drain", "queued POST"), 3),
    Ratio("cached list: p99 / p50", tail("cached list"), 3, at_most=True),
    Ratio("cached list: 1000 / 100 connections", throughput("cached list, 1000 connections", "cached list"), 0.80),
    Ratio("uncached: page 10,000 / page 1", throughput("uncached list, page 10,000", "uncached list, 1M rows"), 0.90),
    Ratio("uncached: 1M rows / 1k rows", throughput("uncached list, 1M rows", "uncached list"), 0.90),
    Ratio("95/5 with POST: cached / not", throughput("95/5 with POST, cached", "95/5 with POST, not cached"), 2),
    Ratio("95/5 with PATCH: cached / not", throughput("95/5 with PATCH, cached", "95/5 with PATCH, not cached"), 1.4),
    Ratio("95/5 with PATCH: hits", lambda reports: reports["95/5 with PATCH, cached, hits counted"].hits or 0, 0.9),
    Ratio("50/50 / naive 50/50", throughput("reads and writes 50/50", "reads and writes 50/50, naive"), 12),
    Ratio(
        "alone: p50 / p50 with batching bypassed",
        median_latency("cached list, alone", "cached list, alone, batching bypassed"),
        1.1,
        at_most=True,
    ),
)


def main() -> int:
    """Measure, print the tables, and return how many bounds are not kept."""
    load.require_tools()
    stages.prepare()
    return report(stages.take_turns(STAGES))


def report(rounds: Sequence[Reports]) -> int:
    """Print the tables, keep them for the page of all benchmarks, and return how many bounds are not kept."""
    ratios, missed = table_of_ratios(rounds)
    text = "\n".join([*table_of_measures(rounds), "", *ratios])
    (PLACE / "quick.txt").write_text(text + "\n")
    print(text)
    return missed


def table_of_measures(rounds: Sequence[Reports]) -> Iterator[str]:
    """Yield the lines of the table of medians."""
    yield f"{'one API worker, 100 connections':<40}{'per second':>12}{'p50 ms':>9}{'p99 ms':>9}{'errors':>8}"
    for name in rounds[0]:
        reports = [reports[name] for reports in rounds]
        rate = statistics.median(report.per_second for report in reports)
        latencies = [milliseconds([report.p50 for report in reports]), milliseconds([report.p99 for report in reports])]
        errors = sum(report.errors for report in reports)
        yield f"{name:<40}{rate:>12,.0f}{latencies[0]:>9}{latencies[1]:>9}{errors:>8}"


def table_of_ratios(rounds: Sequence[Reports]) -> tuple[list[str], int]:
    """Return the lines of the table of ratios, each the median of those within a round, and how many fall short."""
    lines = [f"{'ratio':<44}{'bound':>9}{'median':>9}{'spread':>16}"]
    missed = 0
    for ratio in RATIOS:
        values = sorted(ratio.of(reports) for reports in rounds)
        median = statistics.median(values)
        missed += not ratio.keeps(median)
        bound = f"{'<=' if ratio.at_most else '>='} {ratio.bound:.2f}"
        spread = f"{values[0]:.2f}-{values[-1]:.2f}"
        lines.append(f"{ratio.name:<44}{bound:>9}{median:>9.2f}{spread:>16}{'' if ratio.keeps(median) else '  short'}")
    failed = sum(report.errors for reports in rounds for report in reports.values())
    lines.append(f"{'requests with an error':<44}{'0':>9}{failed:>9}{'  short' if failed else '':>23}".rstrip())
    return lines, missed + bool(failed)


if __name__ == "__main__":
    sys.exit(main())
