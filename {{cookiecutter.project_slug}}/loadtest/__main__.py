"""Load the service on this machine and write loadtest/report.html: python -m loadtest."""

import argparse
import functools
import shutil
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from loadtest import client, hey, open_loop, wrk
from loadtest.machine import commit, load_average, this_machine
from loadtest.process import Tick
from loadtest.report import page
from loadtest.results import CannotLoad, Measurement, Run, last, save
from loadtest.service import address_of, service_at, workloads
from loadtest.text import behind, count, percent, punctuality, times

PLACE = Path(__file__).parent
REPORT = PLACE / "report.html"
RESULTS = PLACE / "results"
INTERRUPTED = 130
HIGHEST_RATE = 100_000

type Load = Callable[..., Measurement]

# The tool for each method, and how to use it.
TOOLS: dict[str, tuple[str, Load]] = {"GET": ("wrk", wrk.load), "POST": ("hey", hey.load)}


def positive(text: str) -> int:
    """Return a whole number above zero."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def rate_of(text: str) -> int | None:
    """Return the requests a second of an open loop, or None for a closed one. Raises CannotLoad for anything else."""
    if not text:
        return None
    if text.isdecimal() and len(text) <= len(str(HIGHEST_RATE)) and 1 <= int(text) <= HIGHEST_RATE:
        return int(text)
    raise CannotLoad(f"RATE={text} is not a whole number of requests a second from 1 to {HIGHEST_RATE}.")


def main() -> int:
    """Load the service, and return 0 when every request was answered without an error."""
    parser = argparse.ArgumentParser(prog="make load", description="Load the service on this machine.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service answers")
    parser.add_argument("--seconds", type=positive, default=10, help="how long each workload lasts")
    parser.add_argument("--connections", type=positive, default=100, help="how many requests are under way at a time")
    parser.add_argument("--rate", default="", help="requests a second, due whether or not those before are answered")
    arguments = parser.parse_args()
    # So that the programs that send the load end with this one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rate = rate_of(arguments.rate)
        run, previous = load(arguments.url, rate=rate, connections=arguments.connections, seconds=arguments.seconds)
    except CannotLoad as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    save(run, RESULTS)
    REPORT.write_text(page(run, previous), encoding="utf-8")
    for measurement in run.measurements:
        for reason, number in measurement.errors.items():
            print(f"{measurement.request}: {count(number, 'error')}, {reason}.", file=sys.stderr)
        if (schedule := measurement.schedule) and (remedy := behind(schedule)):
            print(f"{measurement.request}: {punctuality(schedule)} {remedy}", file=sys.stderr)
    print(f"The report is {REPORT.relative_to(Path.cwd(), walk_up=True)}.")
    return 1 if run.errors else 0


def load(url: str, *, connections: int, seconds: int, rate: int | None = None) -> tuple[Run, Run | None]:
    """Return the measurements of every workload, and the run before of the same kind if there was one."""
    address = address_of(url)
    previous = last(RESULTS, open_loop=rate is not None)
    to_send = workloads(address)
    service = service_at(address)
    if rate is None:
        loads = {method: available(*tool) for method, tool in TOOLS.items()}
    else:
        loads = dict.fromkeys(TOOLS, functools.partial(open_loop.load, rate=rate))
    began = datetime.now(UTC)
    load_averages = [load_average()]
    measurements = []
    for workload in to_send:
        tick = ticker(workload.request, seconds)
        measurement = loads[workload.method](address, workload, connections=connections, seconds=seconds, tick=tick)
        print(summary(measurement), flush=True)
        measurements.append(measurement)
    load_averages.append(load_average())
    machine = this_machine()
    run = Run(began, address, connections, seconds, machine, measurements, rate, service, commit(), load_averages)
    return run, previous


def available(tool: str, load_with_tool: Load) -> Load:
    """Return how to load with a tool, or with Python where the tool is missing."""
    if shutil.which(tool):
        return load_with_tool
    print(
        f"{tool} is missing, so Python sends its part of the load and shows its own limit rather than that of the "
        f"service. Install it: sudo apt install {tool}, or brew install {tool}.",
        file=sys.stderr,
    )
    return client.load


def ticker(request: str, seconds: int) -> Tick:
    """Say what begins, and return what shows how far it is."""
    terminal = sys.stderr.isatty()
    print(f"{request} for {seconds} s", end="" if terminal else "\n", file=sys.stderr, flush=True)

    def tick(passed: float) -> None:
        if terminal:
            print(f"\r{request}: {min(passed, seconds):.0f} of {seconds} s ", end="", file=sys.stderr, flush=True)

    return tick


def summary(measurement: Measurement) -> str:
    """Return a line about a workload, which overwrites its progress."""
    start = "\r" if sys.stderr.isatty() else ""
    latencies = "".join(f"{name} {value:>8}  " for name, value in times(measurement.percentiles))
    rate = f"{measurement.rate:>9,.0f} requests/s {percent(measurement.error_rate):>7} errors"
    return f"{start}{measurement.request:<16}{rate}  {latencies}{measurement.tool}"


if __name__ == "__main__":
    sys.exit(main())
