"""How numbers are written, in the terminal and on the page."""

# Keys of Measurement.percentiles, and their names.
PERCENTILES = {"50": "p50", "90": "p90", "99": "p99", "100": "max"}

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
SIGNIFICANT_DIGITS = 3


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
