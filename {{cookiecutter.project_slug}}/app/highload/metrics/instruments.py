"""Counters, gauges and histograms: numbers in memory, declared when modules are imported.

An instrument is one series, or a few that belong together, with fixed labels. It begins with numbers of its own and
moves into memory that several processes share when its process joins that (`slots`). So nothing has to be started
before something can be counted.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Any, Literal

# Seconds: what is kept in memory is answered faster than the first bucket of most libraries ends.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

type Numbers = array[float] | memoryview[float]
type Labels = tuple[tuple[str, str], ...]
type Kind = Literal["counter", "gauge", "histogram"]
type Combine = Callable[[Iterable[float]], float]


class Instrument:
    """Numbers with a place in memory that only this process writes.

    `values` and `base` say where: whoever observes much adds there, from the thread of the event loop.
    """

    size = 1
    bounds: tuple[float, ...] = ()

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.values: Numbers = array("d", bytes(8 * self.size))
        self.base = 0

    def move(self, values: Numbers, base: int) -> None:
        """Go on in another place, with what was counted until now and what a predecessor has counted there."""
        for offset in range(self.size):
            values[base + offset] += self.values[self.base + offset]
        self.values, self.base = values, base


class Counter(Instrument):
    """A number that grows."""

    def add(self, amount: float = 1) -> None:
        """Count; threads may do so at the same time."""
        with adding:
            self.values[self.base] += amount


class Gauge(Instrument):
    """A number that is what it is at the moment: in all processes together their sum, or what `combine` makes of it."""

    def __init__(self, labels: Labels, combine: Combine = sum) -> None:
        super().__init__(labels)
        self.combine = combine

    def set(self, value: float) -> None:
        """Say what it is now."""
        self.values[self.base] = value


class Histogram(Instrument):
    """How many observations there were up to each bound, and their sum."""

    def __init__(self, labels: Labels, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.size = 2 + len(self.bounds)
        super().__init__(labels)

    def observe(self, value: float) -> None:
        """Count a value; threads may do so at the same time."""
        with adding:
            self.values[self.base] += value
            self.values[self.base + 1 + bisect_left(self.bounds, value)] += 1


class KeyedHistograms(Instrument):
    """Histograms with one label more, `by`, whose values are numbers that nobody knows before they are observed.

    `row_of` says where the sum for a number is, which its buckets follow; `take_row` finds a place for one that is new.
    A row is taken by the first observation of a number. The last row is for all numbers beyond the first ones, so the
    memory, and the time to read it, are bounded whatever comes.
    """

    rows = 8
    other = -1

    def __init__(self, labels: Labels, bounds: Sequence[float], by: str) -> None:
        self.by = by
        self.bounds = tuple(bounds)
        self.row_size = 3 + len(self.bounds)
        self.size = self.rows * self.row_size
        self.row_of: dict[int, int] = {}
        super().__init__(labels)

    def observe(self, key: int, value: float) -> None:
        """Count a value under a number other than 0; for the thread of the event loop."""
        row = self.row_of.get(key) or self.take_row(key)
        values = self.values
        values[row] += value
        values[row + 1 + bisect_left(self.bounds, value)] += 1

    def move(self, values: Numbers, base: int) -> None:
        """Go on in another place."""
        before = dict(self.read([self.values[self.base : self.base + self.size]]))
        self.values, self.base = values, base
        self.row_of.clear()
        for key, numbers in before.items():
            row = self.take_row(key)
            for offset, number in enumerate(numbers):
                values[row + offset] += number

    def read(self, places: Iterable[Numbers]) -> Iterator[tuple[int, list[float]]]:
        """Yield each number with its sum and its buckets, over the places of several processes."""
        found: dict[int, list[Numbers]] = {}
        for place in places:
            for row in range(0, self.size, self.row_size):
                key = int(place[row])
                if key == 0:
                    break
                found.setdefault(key, []).append(place[row + 1 : row + self.row_size])
        for key in sorted(found, key=lambda key: (key == self.other, key)):
            yield key, totals(found[key])

    def take_row(self, key: int) -> int:
        """Return where the sum for a number is, and remember it."""
        last = self.base + self.size - self.row_size
        for row in range(self.base, last, self.row_size):
            if self.values[row] in (0, key):
                break
        else:
            # Not remembered, because there may be many.
            row, key = last, self.other
        if key != self.other:
            self.row_of[key] = row + 1
        self.values[row] = key
        return row + 1


class Family:
    """All instruments of one name."""

    def __init__(self, name: str, meaning: str, kind: Kind) -> None:
        self.name = name
        self.meaning = meaning
        self.kind = kind
        self.instruments: dict[Labels, Instrument] = {}


class Registry:
    """What is declared. `closed` says why nothing can be declared any more, if so."""

    def __init__(self) -> None:
        self.families: dict[str, Family] = {}
        self.closed: str | None = None


# One addition at a time, where threads count: a handler that is no coroutine runs in one.
adding = Lock()
registry = Registry()


def counter(name: str, meaning: str, **labels: str) -> Counter:
    """Return the counter with this name and these labels; `meaning` says what is counted, in one sentence.

    Declare it at the level of a module. Its name ends with `_total`.
    """
    return declare(name, meaning, "counter", Counter, labels)


def gauge(name: str, meaning: str, combine: Combine = sum, **labels: str) -> Gauge:
    """Return the gauge with this name and these labels; `combine` makes one number of those of all processes."""
    return declare(name, meaning, "gauge", Gauge, labels, combine)


def histogram(name: str, meaning: str, bounds: Sequence[float] = SECONDS, **labels: str) -> Histogram:
    """Return the histogram with this name and these labels; `bounds` are the upper ends of its buckets."""
    return declare(name, meaning, "histogram", Histogram, labels, bounds)


def keyed_histograms(
    name: str, meaning: str, bounds: Sequence[float] = SECONDS, *, by: str, **labels: str
) -> KeyedHistograms:
    """Return the histograms with this name and these labels, one for each of the first numbers under `by`."""
    return declare(name, meaning, "histogram", KeyedHistograms, labels, bounds, by)


def declare[I: Instrument](
    name: str, meaning: str, kind: Kind, make: Callable[..., I], labels: dict[str, str], *options: Any
) -> I:
    """Return what has this name and these labels, made now or before.

    Raises ValueError for a name that is none or has another meaning, and RuntimeError when it is too late.
    """
    key: Labels = tuple(sorted(labels.items()))
    family = registry.families.get(name)
    if family is not None and (family.meaning, family.kind) != (meaning, kind):
        raise ValueError(f"{name} is a {family.kind} already, of: {family.meaning}")
    if family is not None and key in family.instruments:
        return family.instruments[key]  # type: ignore[return-value]
    if not NAME.fullmatch(name) or not meaning.isprintable() or (kind == "counter" and not name.endswith("_total")):
        raise ValueError(
            f"{name}: give it a name of letters, digits and _, with _total for a counter, and one sentence."
        )
    if registry.closed is not None:
        raise RuntimeError(f"{name} is declared too late, {registry.closed}: declare it at the level of a module.")
    instrument = make(key, *options)
    if family is None:
        family = registry.families[name] = Family(name, meaning, kind)
    family.instruments[key] = instrument
    return instrument


def layout() -> list[Instrument]:
    """Return all instruments in the order of their places: the gauges come first."""
    ordered = sorted(registry.families.values(), key=lambda family: (family.kind != "gauge", family.name))
    return [family.instruments[key] for family in ordered for key in sorted(family.instruments)]


def digest() -> int:
    """Return a number that is the same in all processes whose instruments have the same places, and that is not 0."""
    description = [
        (name, family.kind, sorted((key, one.size, one.bounds) for key, one in family.instruments.items()))
        for name, family in sorted(registry.families.items())
    ]
    # So long that a double holds it exactly.
    return int.from_bytes(blake2b(repr(description).encode(), digest_size=6).digest()) or 1


def totals(rows: Sequence[Numbers]) -> list[float]:
    """Return the sums of equal places."""
    return list(map(sum, zip(*rows, strict=True)))
