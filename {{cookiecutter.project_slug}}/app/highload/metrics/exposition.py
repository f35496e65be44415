"""What was counted, as text for Prometheus (text format 0.0.4)."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate

from app.highload.metrics.instruments import (
    Counter,
    Gauge,
    Histogram,
    Instrument,
    KeyedHistograms,
    Labels,
    Numbers,
    registry,
    totals,
)
from app.highload.metrics.slots import memory

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

type Places = Sequence[Numbers]


def exposition() -> str:
    """Return all numbers of all processes.

    Raises LayoutDiffers when they cannot be told.
    """
    places = {id(instrument): numbers for instrument, numbers in memory.places()}
    lines: list[str] = []
    for name in sorted(registry.families):
        family = registry.families[name]
        lines.append(f"# HELP {name} {family.meaning}")
        lines.append(f"# TYPE {name} {family.kind}")
        for key in sorted(family.instruments):
            instrument = family.instruments[key]
            lines += samples(name, instrument, places[id(instrument)])
    return "\n".join([*lines, ""])


def samples(name: str, instrument: Instrument, places: Places) -> Iterator[str]:
    """Yield the samples of an instrument, each in a line."""
    match instrument:
        case KeyedHistograms():
            for key, numbers in instrument.read(places):
                value = "other" if key == instrument.other else str(key)
                yield buckets(name, (*instrument.labels, (instrument.by, value)), instrument.bounds, numbers)
        case Histogram():
            yield buckets(name, instrument.labels, instrument.bounds, totals(places))
        case Gauge():
            yield f"{name}{in_braces(instrument.labels)} {number(instrument.combine(place[0] for place in places))}"
        case Counter():
            yield f"{name}{in_braces(instrument.labels)} {number(sum(place[0] for place in places))}"


def buckets(name: str, labels: Labels, bounds: tuple[float, ...], numbers: Sequence[float]) -> str:
    """Return the lines of a histogram: each bucket counts what the ones before it count, too."""
    total, *counts = numbers
    up_to = list(accumulate(counts))
    return lines_of_buckets(name, labels, bounds) % (*up_to, number(total), up_to[-1])


# There are as many as there are series, and to write them anew would be most of what a scrape costs.
@cache
def lines_of_buckets(name: str, labels: Labels, bounds: tuple[float, ...]) -> str:
    """Return the lines of a histogram, with places for its numbers."""
    inside = in_braces(labels).replace("%", "%%")
    before = name + "_bucket" + (inside[:-1] + "," if labels else "{")
    lines = [before + 'le="' + bound + '"} %d' for bound in (*map(number, bounds), "+Inf")]
    return "\n".join([*lines, name + "_sum" + inside + " %s", name + "_count" + inside + " %d"])


def in_braces(labels: Labels) -> str:
    """Return labels as they are written, or "" for none."""
    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels) + "}" if labels else ""


def escaped(value: str) -> str:
    r"""Return the value of a label with `\`, `"` and the end of a line escaped."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value: float) -> str:
    """Return a number as it is written."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
