"""What a load test measured, and how runs are kept from one to the next."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from loadtest.machine import Machine

# A latency stands for each 0.25 % of the requests: enough for a histogram, and independent of their number.
QUANTILES = 400
INTERVAL = 0.5
FIRST_ERROR = 400
SHARES = {"50": 0.5, "90": 0.9, "99": 0.99, "99.9": 0.999, "100": 1.0}
# The answers beyond a percentile without which it would be chance.
BEYOND = 10


class CannotLoad(Exception):
    """The load test cannot be done; the message is a sentence that says what to do."""


class Answer(NamedTuple):
    """A status that came `latency` seconds after its request, which left `offset` seconds after the start."""

    offset: float
    latency: float
    status: int


@dataclass(frozen=True, slots=True)
class Series:
    """A value of each part of a run, in order; every part lasts `step` seconds."""

    step: float
    values: list[float]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How an open loop kept to its schedule.

    Of the requests that were `due`, `late` left a millisecond late or more because the client was busy, the last by
    `latest` seconds, and `waited` found all connections in use.
    """

    due: int
    late: int
    latest: float
    waited: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """A workload under load; times are in seconds.

    `answers` counts those that are no error; `errors` counts the others by status, and what got no answer by reason.
    `percentiles` holds "50", "90", "99", "100" and, where enough answers lie beyond it, "99.9"; nothing when nothing
    was answered. `quantiles` is the latency of each 0.25 % of the requests. `timeline` is the answers a second in each
    half second that is complete. `series` holds the percentiles over time, as far as the tool tells when each answer
    came; `schedule` is that of an open loop.
    """

    title: str
    request: str
    tool: str
    seconds: float
    answers: int
    errors: dict[str, int]
    percentiles: dict[str, float]
    quantiles: list[float]
    timeline: list[float]
    series: dict[str, Series] = field(default_factory=dict)
    schedule: Schedule | None = None

    @property
    def rate(self) -> float:
        """Answers a second; errors do not count, because refusing is fast.

        Of an open loop it is the rate at which answers came while requests were due: those that come afterwards would
        count for a service that does not keep up.
        """
        return fmean(self.timeline) if self.schedule and self.timeline else self.answers / self.seconds

    @property
    def failed(self) -> int:
        """Errors of all kinds."""
        return sum(self.errors.values())

    @property
    def error_rate(self) -> float:
        """The share of the requests that failed, from 0 to 1."""
        return self.failed / max(1, self.answers + self.failed)


@dataclass(frozen=True, slots=True)
class Service:
    """What a service tells of itself; what is empty or zero it does not tell."""

    name: str = ""
    version: str = ""
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """The measurements of a run and its settings; `began` knows its time zone.

    `rate` is the requests a second of an open loop, and None for a closed one. `load_averages` are those of the machine
    before and after the run. A run of an older release lacks what has a default.
    """

    began: datetime
    url: str
    connections: int
    seconds: int
    machine: Machine
    measurements: list[Measurement]
    rate: int | None = None
    service: Service = field(default_factory=Service)
    commit: str = ""
    load_averages: list[float] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Errors of all workloads."""
        return sum(measurement.failed for measurement in self.measurements)


def measure(
    title: str,
    request: str,
    tool: str,
    *,
    seconds: float,
    answers: Sequence[Answer],
    unanswered: Counter[str],
    schedule: Schedule | None = None,
) -> Measurement:
    """Summarise answers that are known one by one."""
    latencies = sorted(answer.latency for answer in answers)
    statuses = Counter(f"status {answer.status}" for answer in answers if answer.status >= FIRST_ERROR)
    return Measurement(
        title,
        request,
        tool,
        seconds,
        len(answers) - statuses.total(),
        dict(sorted((statuses + unanswered).items())),
        {name: latency_of(latencies, SHARES[name]) for name in shown(len(latencies))},
        [latency_of(latencies, (number + 0.5) / QUANTILES) for number in range(QUANTILES) if latencies],
        timeline_of(answers, seconds),
        series_of(answers, seconds),
        schedule,
    )


def shown(count: int) -> list[str]:
    """Return the percentiles of so many answers: without p99.9, where it would be that of a handful."""
    return [name for name in SHARES if count and (name != "99.9" or enough(count, SHARES[name]))]


def enough(count: int, share: float) -> bool:
    """Whether so many answers tell a percentile; the slowest of them is that of any number."""
    return count > 0 if share == 1 else count * (1 - share) > BEYOND - 1e-6


def latency_of(latencies: Sequence[float], share: float) -> float:
    """Return the least of the sorted latencies that so large a share does not exceed (the nearest rank)."""
    rank = -int(-share * len(latencies) // 1)
    return latencies[max(rank, 1) - 1]


def timeline_of(answers: Sequence[Answer], seconds: float) -> list[float]:
    """Return the answers a second in each complete interval, errors left out."""
    good = [answer for answer in answers if answer.status < FIRST_ERROR]
    counts = Counter(int((answer.offset + answer.latency) / INTERVAL) for answer in good)
    return [counts[number] / INTERVAL for number in range(int(seconds / INTERVAL))]


def series_of(answers: Sequence[Answer], seconds: float) -> dict[str, Series]:
    """Return each percentile over time, in parts as short as the number of answers allows.

    An answer belongs to the part in which its request left or was due: one that comes late shows where it was awaited.
    """
    intervals: list[list[float]] = [[] for _ in range(int(seconds / INTERVAL))]
    for answer in answers:
        if (number := int(answer.offset / INTERVAL)) < len(intervals):
            intervals[number].append(answer.latency)
    while intervals and not intervals[-1]:
        intervals.pop()
    found = {name: percentile_over_time(intervals, share) for name, share in SHARES.items()}
    return {name: series for name, series in found.items() if series}


def percentile_over_time(intervals: Sequence[Sequence[float]], share: float) -> Series | None:
    """Return a percentile of equally long parts, or None where not even halves hold enough answers."""
    for length in range(1, len(intervals) // 2 + 1):
        places = range(0, len(intervals) // length * length, length)
        if all(enough(sum(map(len, intervals[place : place + length])), share) for place in places):
            parts = (sorted(chain.from_iterable(intervals[place : place + length])) for place in places)
            return Series(length * INTERVAL, [latency_of(part, share) for part in parts])
    return None


def save(run: Run, directory: Path) -> None:
    """Keep a run; its file is named for the time at which it began."""
    directory.mkdir(exist_ok=True)
    document = asdict(run) | {"began": run.began.isoformat()}
    path = directory / f"{run.began:%Y%m%dT%H%M%S%fZ}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def last(directory: Path, *, open_loop: bool = False) -> Run | None:
    """Return the run that was kept last, of those with an open loop or of the others, or None when there is none.

    Raises CannotLoad when a file holds something else.
    """
    runs = map(read, sorted(directory.glob("*.json"), reverse=True))
    return next((run for run in runs if (run.rate is not None) == open_loop), None)


def read(path: Path) -> Run:
    """Return the run of a file, which may be that of an older release."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Run(
            **document
            | {
                "began": datetime.fromisoformat(document["began"]),
                "machine": Machine(**document["machine"]),
                "service": Service(**document.get("service", {})),
                "measurements": [measurement_of(measurement) for measurement in document["measurements"]],
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CannotLoad(f"{path} is not the result of a run: delete it and repeat the command.") from None


def measurement_of(document: dict[str, Any]) -> Measurement:
    """Return the measurement of a document."""
    schedule = document.get("schedule")
    series = {name: Series(**one) for name, one in document.get("series", {}).items()}
    return Measurement(**document | {"series": series, "schedule": Schedule(**schedule) if schedule else None})
