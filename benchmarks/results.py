"""The results of the benchmarks as they are in JSON."""

import statistics
from collections.abc import Sequence
from typing import Any

# How many the loads against connections use.
CONNECTIONS = (1, 10, 100, 1000)
FEW_CONNECTIONS = CONNECTIONS[:3]
# The file with what each run has found of the ratios, beside the directory that each run makes anew.
RUNS = "bench-runs.jsonl"

type Results = dict[str, Any]
type Case = dict[str, Any]


def find(results: Results, workload: str, contender: str) -> Case:
    """Return the case of a workload and a contender."""
    (case,) = (one for one in results["cases"] if (one["workload"], one["contender"]) == (workload, contender))
    found: Case = case
    return found


def median(case: Case, column: str) -> float:
    """Return the median of a column over the rounds."""
    return float(statistics.median(one[column] for one in case["rounds"]))


def milliseconds(latencies: Sequence[float | None]) -> str:
    """Return the median of latencies in seconds for a table, and nothing where there is none."""
    known = [latency for latency in latencies if latency is not None]
    return f"{statistics.median(known) * 1000:.2f}" if known else ""
