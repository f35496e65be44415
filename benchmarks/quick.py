"""The ratios that guard the architecture, in one run and side by side; exits non-zero when one falls short."""

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks import load, stages
from benchmarks.load import Report
from benchmarks.results import RUNS, milliseconds
from benchmarks.service import PLACE
from benchmarks.stages import (
    BARE,
    BARE_ITEM,
    CACHED,
    CACHED_4,
    CACHED_100K,
    DIRECT,
    DIRECT_CACHED_10K,
    DIRECT_UNCACHED_10K,
    FRAMEWORK,
    FRAMEWORK_ITEM,
    GUARDED,
    MIDDLEWARE,
    NAIVE,
    NAIVE_DIRECT,
    NGINX,
    PLAIN,
    QUEUED,
    QUEUED_10K,
    RAW_100K,
    ROUNDS,
    SECONDS,
    UNBATCHED,
    UNCACHED,
    UNCACHED_1M,
    UNCACHED_100K,
    Stage,
    arrive,
    drain,
    get,
    get_any,
    get_any_kept,
    get_distinct,
    get_page,
    mix,
    mix_items,
    post,
    start_anew,
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
    Stage(UNCACHED_100K, {"uncached item": get_any("rows_100k"), "distinct pages": get_distinct()}),
    Stage(RAW_100K, {"raw item": get_any("rows_100k"), "distinct pages, raw": get_distinct()}),
    Stage(NGINX, {"nginx": get("/items")}),
    Stage(CACHED_4, {"cached list, 4 workers": get("/items")}),
    Stage(FRAMEWORK, {"POST that stores nothing": post()}),
    Stage(DIRECT, {"direct POST": post(), "direct POST, open loop": arrive}),
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
            "one client: list": get("/items", connections=1),
            "one client: item": get_any("mixed", connections=1),
            "one client: POST": post(connections=1),
        },
    ),
    Stage(
        NAIVE_DIRECT,
        {
            "one client: list, naive": get("/items", connections=1),
            "one client: item, naive": get_any("mixed", connections=1),
            "one client: POST, naive": post(connections=1),
            "start, naive": start_anew,
        },
    ),
    Stage(QUEUED_10K, {"95/5 with POST, full": mix_items("POST", 0.05)}, with_worker=True),
    Stage(QUEUED, {"start, full": start_anew}),
    Stage(QUEUED, {"95/5 of the list, full": mix(0.05), "reads and writes 50/50": mix(0.5)}, with_worker=True),
    Stage(PLAIN, {"95/5 of the list, plain": mix(0.05), "reads and writes 50/50, plain": mix(0.5)}),
    Stage(NAIVE, {"reads and writes 50/50, naive": mix(0.5)}, with_worker=True),
    Stage(CACHED, {"cached list, alone": get("/items", connections=1)}),
    Stage(UNBATCHED, {"cached list, alone, batching bypassed": get("/items", connections=1)}),
)


class Ratio(NamedTuple):
    """A ratio of two measures of a round, and the bound that its median must keep.

    `of_cpu` is the same ratio by what a request takes of a CPU, which others on the machine do not change.
    """

    name: str
    of: Callable[[Reports], float]
    bound: float
    at_most: bool = False
    of_cpu: Callable[[Reports], float] | None = None

    @property
    def words(self) -> str:
        """The bound as the tables show it."""
        return f"{'<=' if self.at_most else '>='} {self.bound:.2f}"

    def keeps(self, value: float) -> bool:
        """Whether a value is within the bound."""
        return value <= self.bound if self.at_most else value >= self.bound


def throughput(name: str, upper: str, lower: str, bound: float) -> Ratio:
    """Return the ratio of two rates."""
    return Ratio(
        name,
        lambda reports: reports[upper].per_second / reports[lower].per_second,
        bound,
        of_cpu=lambda reports: (reports[lower].cpu or 0) / (reports[upper].cpu or math.inf),
    )


def at_most(name: str, column: str, upper: str, lower: str, bound: float) -> Ratio:
    """Return the ratio of something that should be small."""
    return Ratio(name, lambda reports: getattr(reports[upper], column) / getattr(reports[lower], column), bound, True)


def tail(name: str, measure: str, percentile: str, bound: float) -> Ratio:
    """Return the ratio of a percentile of a measure to its median."""
    return Ratio(name, lambda reports: getattr(reports[measure], percentile) / (reports[measure].p50 or 1), bound, True)


RATIOS = (
    throughput("cached list / bare list", "cached list", "bare list", 0.92),
    throughput("cached list / nginx", "cached list", "nginx", 0.40),
    throughput("cached list: with / without a guard", "cached list, guarded", "cached list", 0.65),
    throughput("cached list: with / without middleware", "cached list, one middleware", "cached list", 0.35),
    throughput("uncached list / bare list", "uncached list", "bare list", 0.40),
    throughput("distinct pages / raw", "distinct pages", "distinct pages, raw", 0.70),
    throughput("cached item of 100k / bare item", "cached item", "bare item", 0.70),
    throughput("uncached item of 100k / raw item", "uncached item", "raw item", 0.45),
    throughput("uncached item of 100k / FastAPI item", "uncached item", "FastAPI item", 1),
    throughput("direct POST / POST that stores nothing", "direct POST", "POST that stores nothing", 1),
    throughput("queued POST / POST that stores nothing", "queued POST", "POST that stores nothing", 1.1),
    throughput("worker drain / queued POST", "worker drain", "queued POST", 3)._replace(of_cpu=None),
    tail("cached list: p99 / p50", "cached list", "p99", 3),
    tail("direct POST, open loop: p99.9 / p50", "direct POST, open loop", "p999", 20),
    throughput("cached list: 1000 / 100 connections", "cached list, 1000 connections", "cached list", 0.80),
    at_most("cached list: CPU with 4 workers / 1", "cpu", "cached list, 4 workers", "cached list", 1.15),
    throughput("uncached: page 10,000 / page 1", "uncached list, page 10,000", "uncached list, 1M rows", 0.90),
    throughput("uncached: 1M rows / 1k rows", "uncached list, 1M rows", "uncached list", 0.90),
    throughput("95/5 with POST: cached / not", "95/5 with POST, cached", "95/5 with POST, not cached", 2),
    throughput("95/5 with PATCH: cached / not", "95/5 with PATCH, cached", "95/5 with PATCH, not cached", 1.4),
    Ratio("95/5 with PATCH: hits", lambda reports: reports["95/5 with PATCH, cached, hits counted"].hits or 0, 0.9),
    throughput("95/5 over 10,000 items: full / plain", "95/5 with POST, full", "95/5 with POST, not cached", 1.5),
    throughput("95/5 of the list: full / plain", "95/5 of the list, full", "95/5 of the list, plain", 1),
    throughput("50/50: full / plain", "reads and writes 50/50", "reads and writes 50/50, plain", 0.8),
    throughput("50/50 / naive 50/50", "reads and writes 50/50", "reads and writes 50/50, naive", 12),
    at_most(
        "alone: p50 / p50 with batching bypassed",
        "p50",
        "cached list, alone",
        "cached list, alone, batching bypassed",
        1.1,
    ),
    at_most("one client: p50 of the list / naive", "p50", "one client: list", "one client: list, naive", 1),
    at_most("one client: p50 of an item / naive", "p50", "one client: item", "one client: item, naive", 1),
    at_most("one client: p50 of a POST / naive", "p50", "one client: POST", "one client: POST, naive", 1),
    at_most("seconds to the first answer / naive", "start", "start, full", "start, naive", 1.5),
    at_most("megabytes of a worker / naive", "megabytes", "start, full", "start, naive", 1.3),
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
    run = {"rounds": ROUNDS, "seconds": SECONDS, "ratios": [figures_of(ratio, rounds) for ratio in RATIOS]}
    with (PLACE.parent / RUNS).open("a") as runs:
        runs.write(json.dumps(run) + "\n")
    print(text)
    return missed


def figures_of(ratio: Ratio, rounds: Sequence[Reports]) -> dict[str, str]:
    """Return what the page tells of a ratio in one of several runs."""
    median = f"{statistics.median(map(ratio.of, rounds)):.2f}"
    by_cpu = median_by_cpu(ratio, rounds)
    return {"ratio": ratio.name, "bound": ratio.words, "median": f"{median} ({by_cpu})" if by_cpu else median}


def median_by_cpu(ratio: Ratio, rounds: Sequence[Reports]) -> str:
    """Return the median of a ratio by CPU as the tables show it, and nothing where there is none."""
    return "" if ratio.of_cpu is None else f"{statistics.median(map(ratio.of_cpu, rounds)):.2f}"


def table_of_measures(rounds: Sequence[Reports]) -> Iterator[str]:
    """Yield the lines of the table of medians."""
    columns = "".join(f"{name:>9}" for name in ("CPU us", "p50 ms", "p99 ms"))
    yield f"{'one API worker, 100 connections':<40}{'per second':>12}{columns}{'errors':>8}"
    for name in rounds[0]:
        reports = [reports[name] for reports in rounds]
        rate = statistics.median(report.per_second for report in reports)
        used = [report.cpu for report in reports if report.cpu]
        cells = [
            f"{statistics.median(used) * 1e6:.0f}" if used else "",
            milliseconds([report.p50 for report in reports]),
            milliseconds([report.p99 for report in reports]),
        ]
        errors = sum(report.errors for report in reports)
        yield f"{name:<40}{rate:>12,.0f}{''.join(f'{cell:>9}' for cell in cells)}{errors:>8}"


def table_of_ratios(rounds: Sequence[Reports]) -> tuple[list[str], int]:
    """Return the lines of the table of ratios, each the median of those within a round, and how many fall short."""
    lines = [f"{'ratio':<44}{'bound':>9}{'median':>9}{'spread':>16}{'by CPU':>9}"]
    missed = 0
    for ratio in RATIOS:
        values = sorted(ratio.of(reports) for reports in rounds)
        median = statistics.median(values)
        missed += not ratio.keeps(median)
        spread = f"{values[0]:.2f}-{values[-1]:.2f}"
        by_cpu = median_by_cpu(ratio, rounds)
        short = "" if ratio.keeps(median) else "  short"
        lines.append(f"{ratio.name:<44}{ratio.words:>9}{median:>9.2f}{spread:>16}{by_cpu:>9}{short}".rstrip())
    failed = sum(report.errors for reports in rounds for report in reports.values())
    lines.append(f"{'requests with an error':<44}{'0':>9}{failed:>9}{'  short' if failed else '':>23}".rstrip())
    return lines, missed + bool(failed)


if __name__ == "__main__":
    sys.exit(main())
