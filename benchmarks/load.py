"""Load from wrk and hey, and what they report."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

SCRIPTS = Path(__file__).parent / "scripts"
INSTALL = {
    "wrk": "sudo apt install wrk, or brew install wrk",
    "hey": "sudo apt install hey, or brew install hey",
}
FIRST_ERROR = 400
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
NEW_ITEM = '{"name":"x","description":"y"}'


class Report(NamedTuple):
    """What a load test measured; latencies are in seconds, None where there is no request to wait for.

    `hits` is the share of answers from the cache, where the load counts them. `cpu` is the seconds of a CPU that the
    workers of the API took for a request; `start` and `megabytes` are those of a service that has just started.
    """

    per_second: float
    p50: float | None = None
    p99: float | None = None
    slowest: float | None = None
    errors: int = 0
    hits: float | None = None
    cpu: float | None = None
    p999: float | None = None
    start: float | None = None
    megabytes: float | None = None


def require_tools() -> None:
    """Exit with the install line of a tool that is missing."""
    for tool, line in INSTALL.items():
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is not on the PATH. Install it: {line}.")


class Script(NamedTuple):
    """What wrk runs to make its requests, where they are not all the same."""

    name: str
    arguments: Sequence[object]


def read(
    url: str, *, connections: int, seconds: float, script: Script | None = None, header: str | None = None
) -> Report:
    """Send GETs with wrk, or what a script makes."""
    # One thread: it is enough for what a worker answers, and takes one CPU at most from those that it loads.
    command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    if header is not None:
        command += ["--header", header]
    if script is None:
        return parse_wrk(run([*command, url]))
    return parse_wrk(run([*command, "--script", str(SCRIPTS / script.name), url, "--", *map(str, script.arguments)]))


def write_once(url: str) -> None:
    """Send one POST."""
    with urlopen(Request(url, NEW_ITEM.encode(), {"Content-Type": "application/json"}), timeout=60):
        pass


def write(url: str, *, connections: int, seconds: float) -> Report:
    """Send POSTs with hey."""
    body = ["-m", "POST", "-T", "application/json", "-d", NEW_ITEM]
    return parse_hey(run(["hey", "-z", f"{seconds}s", "-c", str(connections), *body, url]))


def run(command: list[str]) -> str:
    """Run a command and return what it prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def parse_wrk(output: str) -> Report:
    """Read the summary of wrk."""
    errors = sum(int(number) for number in re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", output))
    return Report(
        float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),  # type: ignore[index]
        seconds_of(r"50%\s+([\d.]+)(\w+)", output),
        seconds_of(r"99%\s+([\d.]+)(\w+)", output),
        seconds_of(r"Latency\s+\S+\s+\S+\s+([\d.]+)(\w+)", output),
        errors,
        float(counted[1]) if (counted := re.search(r"Hits: ([\d.]+)", output)) else None,
    )


def seconds_of(pattern: str, output: str) -> float:
    """Return a duration that wrk printed with its unit."""
    number, unit = re.search(pattern, output).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def parse_hey(output: str) -> Report:
    """Read the summary of hey."""
    statuses = {int(status): int(count) for status, count in re.findall(r"\[(\d+)\]\s+(\d+) responses", output)}
    dropped = sum(int(count) for count in re.findall(r"\[(\d+)\]\s+(?:Post|Get) ", output))
    return Report(
        float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),  # type: ignore[index]
        latency_of(r"50% in ([\d.]+)", output),
        latency_of(r"99% in ([\d.]+)", output),
        float(re.search(r"Slowest:\s+([\d.]+)", output)[1]),  # type: ignore[index]
        dropped + sum(count for status, count in statuses.items() if status >= FIRST_ERROR),
    )


def latency_of(pattern: str, output: str) -> float | None:
    """Return a latency that hey printed; it leaves those out for which it has too few answers."""
    found = re.search(pattern, output)
    return None if found is None else float(found[1])
