"""The page of the benchmarks, its plots and its raw numbers: python -m benchmarks.page build/bench docs."""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.results import CONNECTIONS, FEW_CONNECTIONS, RUNS, Case, Results, median, milliseconds

SECTIONS = {
    "The list": ("list, 100 connections", "list, any of 1,000 pages", "list, If-None-Match"),
    "One item": ("item, always the same", "item, any of 100,000"),
    "What nobody has asked for before": (
        *(f"distinct pages, {count} connections" for count in FEW_CONNECTIONS),
        *(f"distinct items, {count} connections" for count in FEW_CONNECTIONS),
    ),
    "Writes": ("POST, 100 connections", "items stored by a worker"),
    "Reads and writes together": tuple(
        f"{share} {kind}, {count} connections"
        for kind in ("of the list", "over 10,000 items")
        for share in ("95/5", "50/50")
        for count in FEW_CONNECTIONS
    ),
    "Connections": (
        *(f"list, {count} connections" for count in CONNECTIONS),
        *(f"POST, {count} connections" for count in CONNECTIONS),
    ),
    "Size of the table": (
        *(f"list of {rows} rows" for rows in ("1k", "100k", "1m")),
        *(f"item of {rows} rows" for rows in ("1k", "100k", "1m")),
    ),
    "Depth of the page": tuple(f"list of 1m rows, page {number}" for number in ("1", "10", "100", "1,000", "10,000")),
}
FIGURES = {
    "The list": ("throughput", "Requests a second of each contender, beside the limit of its kind"),
    "Connections": ("latency", "Latency of the list against connections, median and 99th percentile"),
    "Size of the table": ("cost", "Time of a request against the size of the table"),
}

RATIOS = "## Ratios\n"
LAST_RUNS = 3

# What a run has found of each ratio.
type Run = Sequence[Mapping[str, str]]


def main() -> int:
    """Write the page below its introduction, the plots and the raw numbers."""
    source, target = map(Path, sys.argv[1:3])
    results = json.loads((source / "results.json").read_text())
    kept = source.parent / RUNS
    if kept.exists():
        results["runs"] = last_runs(map(json.loads, kept.read_text().splitlines()), results)
    (target / "benchmarks.json").write_text(json.dumps(results, indent=1) + "\n")
    plots.draw(results, target / "plots")
    page = target / "benchmarks.md"
    introduction = page.read_text(encoding="utf-8").partition(RATIOS)[0]
    printed = "".join(blocks(results, (source / "quick.txt").read_text()))
    page.write_text(introduction + printed, encoding="utf-8")
    return 0


def last_runs(runs: Iterable[Any], results: Results) -> list[Run]:
    """Return what the last runs that are as long have found of the same ratios."""
    long = ("rounds", "seconds")
    alike: list[Run] = [run["ratios"] for run in runs if all(run[name] == results[name] for name in long)]
    names = [[figures["ratio"] for figures in run] for run in alike]
    return [run for run, of_run in zip(alike, names, strict=True) if of_run == names[-1]][-LAST_RUNS:]


def blocks(results: Results, ratios: str) -> Iterator[str]:
    """Yield the parts of the page."""
    yield f"{RATIOS}\nEach is the median of the ratios within a round.\n\n```text\n{ratios.strip()}\n```\n\n"
    yield from table_of_runs(results["runs"])
    for title, workloads in SECTIONS.items():
        yield f"## {title}\n\n"
        if title in FIGURES:
            name, caption = FIGURES[title]
            yield f"![{caption}](plots/{name}.svg)\n\n"
        yield from table(results, workloads)
    yield "## Footprint\n\n| | |\n|---|---|\n"
    for name, value in results["footprints"].items():
        yield f"| {name} | {value:.1f} |\n"
    yield f"\n## The machine\n\n{results['rounds']} rounds of {results['seconds']} seconds for each load. "
    yield "`docs/benchmarks.json` has the numbers of every round.\n\n| | |\n|---|---|\n"
    for name, value in results["machine"].items():
        yield f"| {name} | {text_of(value)} |\n"


def table_of_runs(runs: Sequence[Run]) -> Iterator[str]:
    """Yield what several runs have found of each ratio."""
    yield "What a machine does to a ratio: the medians of the last runs, the newest at the right, and in brackets "
    yield "those by CPU.\n\n"
    titles = "".join(f" run {number} |" for number in range(1, len(runs) + 1))
    yield f"| ratio | bound |{titles}\n|---|---|{'---|' * len(runs)}\n"
    for figures in zip(*runs, strict=True):
        medians = " | ".join(one["median"] for one in figures)
        yield f"| {figures[0]['ratio']} | {figures[0]['bound']} | {medians} |\n"
    yield "\n"


def text_of(value: Any) -> str:
    """Return a value of the machine's description for a table."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)


def table(results: Results, workloads: Sequence[str]) -> Iterator[str]:
    """Yield the rows of a table."""
    yield "| workload | contender | per second | spread | of the first | CPU µs | p50 ms | p99 ms | max ms | errors |\n"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    for workload in workloads:
        cases = [case for case in results["cases"] if case["workload"] == workload]
        if not cases:
            raise ValueError(f"There is no result of {workload!r}: run make bench.")
        for case in cases:
            yield row(case, median(case, "per_second") / median(cases[0], "per_second"))
    yield "\n"


def row(case: Case, share: float) -> str:
    """Return the row of a case."""
    rates = sorted(one["per_second"] for one in case["rounds"])
    latencies = [milliseconds([one[column] for one in case["rounds"]]) for column in ("p50", "p99", "slowest")]
    errors = sum(one["errors"] for one in case["rounds"])
    used = [one["cpu"] for one in case["rounds"] if one.get("cpu")]
    cells = [
        case["workload"],
        case["contender"],
        f"{statistics.median(rates):,.0f}",
        f"{rates[0]:,.0f}-{rates[-1]:,.0f}",
        f"{share:.2f}",
        f"{statistics.median(used) * 1e6:,.0f}" if used else "",
        *latencies,
        f"{errors}",
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.exit(main())
