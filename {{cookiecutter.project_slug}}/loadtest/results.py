"""What a load test measured, and how runs are kept from one to the next."""

import json
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

# A latency stands for each 0.25 % of the requests: enough for a histogram, and independent of their number.
QUANTILES = 400
INTERVAL = 0.5
FIRST_ERROR = 400


class CannotLoad(Exception):
    """The load test cannot be done; the message is a sentence that says what to do."""


class Answer(NamedTuple):
    """A status that came `latency` seconds after its request, which left `offset` seconds after the start."""

    offset: float
    latency: float
    status: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """A workload under load; times are in seconds.

    `answers` counts those that are no error; `errors` counts the others by status, and what got no answer by reason.
    `percentiles` holds "50", "90", "99" and "100", and nothing when nothing was answered. `quantiles` is the latency
    of each 0.25 % of the requests. `timeline` is the answers a second in each half second that is complete.
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

    @property
    def rate(self) -> float:
        """Answers a second; errors do not count, because refusing is fast."""
        return self.answers / self.seconds


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the load and the service ran."""

    cpus: int = field(default_factory=lambda: os.process_cpu_count() or 1)
    system: str = field(default_factory=platform.platform)
    python: str = field(default_factory=platform.python_version)


@dataclass(frozen=True, slots=True)
class Run:
    """The measurements of a run and its settings; `began` knows its time zone."""

    began: datetime
    url: str
    connections: int
    seconds: int
    machine: Machine
    measurements: list[Measurement]

    @property
    def errors(self) -> int:
        """Errors of all workloads."""
        return sum(sum(measurement.errors.values()) for measurement in self.measurements)


def measure(
    title: str, request: str, tool: str, *, seconds: float, answers: Sequence[Answer], unanswered: Counter[str]
) -> Measurement:
    """Summarise answers that are known one by one."""
    latencies = sorted(answer.latency for answer in answers)
    statuses = Counter(f"status {answer.status}" for answer in answers if answer.status >= FIRST_ERROR)
    percentiles = {name: latency_of(latencies, int(name) / 100) for name in ("50", "90", "99", "100") if latencies}
    return Measurement(
        title,
        request,
        tool,
        seconds,
        len(answers) - statuses.total(),
        dict(sorted((statuses + unanswered).items())),
        percentiles,
        [latency_of(latencies, (number + 0.5) / QUANTILES) for number in range(QUANTILES) if latencies],
        timeline_of(answers, seconds),
    )


def latency_of(latencies: Sequence[float], share: float) -> float:
    """Return the least of the sorted latencies that so large a share does not exceed (the nearest rank)."""
    rank = -int(-share * len(latencies) // 1)
    return latencies[max(rank, 1) - 1]


def timeline_of(answers: Sequence[Answer], seconds: float) -> list[float]:
    """Return the answers a second in each complete interval, errors left out."""
    good = [answer for answer in answers if answer.status < FIRST_ERROR]
    counts = Counter(int((answer.offset + answer.latency) / INTERVAL) for answer in good)
    return [counts[number] / INTERVAL for number in range(int(seconds / INTERVAL))]


def save(run: Run, directory: Path) -> None:
    """Keep a run; its file is named for the time at which it began."""
    directory.mkdir(exist_ok=True)
    document = asdict(run) | {"began": run.began.isoformat()}
    path = directory / f"{run.began:%Y%m%dT%H%M%S%fZ}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def last(directory: Path) -> Run | None:
    """Return the run that was kept last, or None when there is none.

    Raises CannotLoad when its file holds something else.
    """
    paths = sorted(directory.glob("*.json"))
    if not paths:
        return None
    try:
        document = json.loads(paths[-1].read_text(encoding="utf-8"))
        return Run(
            **document
            | {
                "began": datetime.fromisoformat(document["began"]),
                "machine": Machine(**document["machine"]),
                "measurements": [Measurement(**measurement) for measurement in document["measurements"]],
            }
        )
    except (ValueError, TypeError, KeyError):
        raise CannotLoad(f"{paths[-1]} is not the result of a run: delete it and repeat the command.") from None
