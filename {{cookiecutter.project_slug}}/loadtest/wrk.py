"""Reads, sent by wrk."""

import json
import os
import tempfile
from pathlib import Path

from loadtest.process import TIMEOUT, Tick, output_of
from loadtest.results import INTERVAL, QUANTILES, CannotLoad, Measurement, shown
from loadtest.service import Workload, authorization

SCRIPT = Path(__file__).with_name("wrk.lua")
MICROSECOND = 1e-6


def load(url: str, workload: Workload, *, connections: int, seconds: int, tick: Tick) -> Measurement:
    """Send a workload of GETs and return what wrk measured."""
    threads = thread_count(connections, os.process_cpu_count() or 1)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as paths:
        paths.write("".join(f"{path}\n" for path in workload.paths))
        paths.flush()
        options = f"-t{threads} -c{connections} -d{seconds}s --timeout {TIMEOUT}s --script {SCRIPT}"
        script_arguments = [paths.name, str(connections // threads), str(INTERVAL), str(QUANTILES)]
        fields = [f"-H{name}: {value}" for name, value in authorization().items()]
        command = ["wrk", *options.split(), *fields, url, "--", *script_arguments]
        return parse(output_of(command, seconds=seconds, tick=tick), workload)


def thread_count(connections: int, cpus: int) -> int:
    """Return the threads for a number of connections: at most one for each CPU, and all with equally many."""
    return max(threads for threads in range(1, cpus + 1) if connections % threads == 0)


def parse(output: str, workload: Workload) -> Measurement:
    """Read the line of JSON that the script prints below the summary of wrk."""
    try:
        found = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        raise CannotLoad(f"wrk printed something unexpected: {output.strip()}") from None
    reasons = {
        "status 4xx or 5xx": found["status"],
        "connection refused or failed": found["connect"],
        "read failed": found["read"],
        "write failed": found["write"],
        "timeout": found["timeout"],
    }
    answered = found["requests"]
    return Measurement(
        workload.title,
        workload.request,
        "wrk",
        found["microseconds"] * MICROSECOND,
        # An answer that came too late counts as a request and as a timeout.
        max(0, found["requests"] - found["status"] - found["timeout"]),
        {reason: count for reason, count in reasons.items() if count},
        {name: found["slowest" if name == "100" else f"p{name}"] * MICROSECOND for name in shown(answered)},
        [latency * MICROSECOND for latency in found["quantiles"] if answered],
        [count / INTERVAL for count in found["counts"]],
    )
