"""How numbers are written, in the terminal and on the page."""

from collections.abc import Mapping

from loadtest.results import Schedule

# Keys of Measurement.percentiles, and their names.
PERCENTILES = {"50": "p50", "90": "p90", "99": "p99", "99.9": "p99.9", "100": "max"}

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
SIGNIFICANT_DIGITS = 3
# The share of late requests from which on the delay of the client itself reaches the 99th percentile.
TOO_MANY_LATE = 0.01


def duration(seconds: float) -> str:
    """Return a time with three significant digits and its unit."""
    for size, unit in UNITS:
        if seconds >= 0.9995 * size or unit == "µs":
            break
    return f"{significant(seconds / size)}\N{NO-BREAK SPACE}{unit}"


def significant(number: float) -> str:
    """Return a number with three significant digits, and all those before the point."""
    before_the_point = len(str(int(float(f"{number:.{SIGNIFICANT_DIGITS}g}"))))
    return f"{number:,.{max(0, SIGNIFICANT_DIGITS - before_the_point)}f}"


def ratio(now: float, before: float) -> str:
    """Return how many times as large something is as before."""
    return f"{now / before:.2f}" if before else "none"


def count(number: int, what: str) -> str:
    """Return a number of things, in words where there are none."""
    return f"{number:,} {what}{'' if number == 1 else 's'}" if number else f"no {what}s"


def percent(share: float) -> str:
    """Return a share from 0 to 1 in percent, and never none of what is some."""
    if 0 < share < 0.0001:  # noqa: PLR2004 - the least that two digits behind the point show
        return "< 0.01\N{NO-BREAK SPACE}%"
    return f"{100 * share:.{0 if share in (0, 1) else 2 if share < 0.01 else 1}f}\N{NO-BREAK SPACE}%"  # noqa: PLR2004


def times(percentiles: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the names and durations of those percentiles that are known."""
    return [(name, duration(percentiles[key])) for key, name in PERCENTILES.items() if key in percentiles]


def punctuality(schedule: Schedule) -> str:
    """Say how an open loop kept to its schedule, in one sentence."""
    late, waited = (percent(part / max(1, schedule.due)) for part in (schedule.late, schedule.waited))
    return (
        f"{schedule.due:,} requests were due. The client sent {late} of them a millisecond late or more, the latest by "
        f"{duration(schedule.latest)}; {waited} waited for a free connection."
    )


def behind(schedule: Schedule) -> str:
    """Say what it means that the client could not keep to its schedule, or nothing when it could."""
    if schedule.late <= TOO_MANY_LATE * schedule.due:
        return ""
    return "The client fell behind, and its delay is in the latencies: name a lower RATE, or leave it more CPU."
