"""Plots of a measurement in SVG: a histogram of latencies, and throughput over time.

They have no colours and fonts of their own: their classes get them from the style of the page.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from loadtest.results import INTERVAL, Measurement
from loadtest.text import PERCENTILES, duration

WIDTH, HEIGHT = 440, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 414, 36, 198
BINS_PER_DECADE = 10
MOST_TICKS = 5
WIDTH_OF_A_NAME = 30
# Of a logarithmic axis: the ticks within a decade, for the decades that it shows at most.
FACTORS = {2.0: (1, 2, 5), 3.5: (1, 3), math.inf: (1,)}


class Bar(NamedTuple):
    """A part of the horizontal axis, and the value there."""

    begin: float
    end: float
    value: float


class Scale(NamedTuple):
    """Maps the values from `least` to `most` to the pixels from `begin` to `end`."""

    least: float
    most: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.begin + (value - self.least) / (self.most - self.least) * (self.end - self.begin)


def histogram(measurement: Measurement, previous: Measurement | None) -> str:
    """Return the share of the requests by latency, with bars that are equally wide on a logarithmic axis."""
    bars = latency_bars(measurement.quantiles)
    outline = latency_bars(previous.quantiles) if previous else []
    latencies = [*measurement.quantiles, *(previous.quantiles if previous else [])]
    least, most = decades(latencies)
    across = Scale(least, most, LEFT, RIGHT)
    top, step = ceiling(max(bar.value for bar in (*bars, *outline)))
    up = Scale(0, top, BOTTOM, TOP)
    latency = measurement.percentiles
    label = (
        f"Latency of {measurement.request}: half of the requests within {duration(latency['50'])}, "
        f"99 % within {duration(latency['99'])}, the slowest {duration(latency['100'])}."
    )
    return drawing(
        label,
        [
            *value_axis(up, top, step, "% of requests"),
            *latency_axis(across, least, most),
            *(
                f'<rect class="bar" x="{across(bar.begin) + 0.5:.1f}" y="{up(bar.value):.1f}" '
                f'width="{across(bar.end) - across(bar.begin) - 1:.1f}" height="{BOTTOM - up(bar.value):.1f}">'
                f"<title>{duration(10**bar.begin)} to {duration(10**bar.end)}: {bar.value:.1f} %</title></rect>"
                for bar in bars
            ),
            steps(outline, across, up, "previous"),
            *markers(measurement, across),
        ],
    )


def throughput(measurement: Measurement, previous: Measurement | None) -> str:
    """Return the answers a second in each half second."""
    bars = time_bars(measurement.timeline)
    outline = time_bars(previous.timeline) if previous else []
    length = max(bar.end for bar in (*bars, *outline))
    across = Scale(0, length, LEFT, RIGHT)
    top, step = ceiling(max(bar.value for bar in (*bars, *outline)))
    up = Scale(0, top, BOTTOM, TOP)
    label = (
        f"Throughput of {measurement.request} over {length:g} seconds: between {min(measurement.timeline):,.0f} "
        f"and {max(measurement.timeline):,.0f} requests a second."
    )
    _, second = ceiling(length)
    seconds = [number * second for number in range(int(length / second) + 1)]
    area = f"{path(bars, across, up)} V{BOTTOM} H{LEFT} Z"
    return drawing(
        label,
        [
            *value_axis(up, top, step, "requests/s"),
            *(tick(across(number), f"{number:g}") for number in seconds),
            axis_name("seconds since the start"),
            f'<path class="area" d="{area}"/>',
            steps(outline, across, up, "previous"),
            steps(bars, across, up, "line"),
        ],
    )


def latency_bars(quantiles: Sequence[float]) -> list[Bar]:
    """Return the shares in percent of equally wide bins of the logarithm of the latency."""
    numbers = [bin_of(latency) for latency in quantiles]
    return [
        Bar(
            number / BINS_PER_DECADE,
            (number + 1) / BINS_PER_DECADE,
            100 * numbers.count(number) / len(numbers),
        )
        for number in range(min(numbers), max(numbers) + 1)
    ]


def bin_of(latency: float) -> int:
    """Return the number of the bin of a latency; no tool measures less than a microsecond."""
    return math.floor(math.log10(max(latency, 1e-6)) * BINS_PER_DECADE)


def time_bars(timeline: Sequence[float]) -> list[Bar]:
    """Return the intervals of a timeline."""
    return [Bar(number * INTERVAL, (number + 1) * INTERVAL, rate) for number, rate in enumerate(timeline)]


def decades(latencies: Sequence[float]) -> tuple[float, float]:
    """Return the logarithms between which an axis shows all latencies, at bounds of bins."""
    least, most = bin_of(min(latencies)) - 1, bin_of(max(latencies)) + 2
    return least / BINS_PER_DECADE, most / BINS_PER_DECADE


def ceiling(value: float) -> tuple[float, float]:
    """Return the end of an axis that reaches a value, and the round step between its ticks."""
    rough = max(value, 1e-9) / (MOST_TICKS - 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough * (1 - 1e-9))
    return math.ceil(value / step - 1e-9) * step or step, step


def value_axis(up: Scale, top: float, step: float, name: str) -> list[str]:
    """Return horizontal gridlines with their values, and the unit above them."""
    values = [number * step for number in range(round(top / step) + 1)]
    return [
        *(
            f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}"/>'
            f'<text class="value" x="{LEFT - 8}" y="{up(value) + 4:.1f}">{value:,.12g}</text>'
            for value in values
        ),
        f'<text class="unit" x="0" y="11">{escape(name)}</text>',
    ]


def latency_axis(across: Scale, least: float, most: float) -> list[str]:
    """Return ticks at 1, 2 and 5 of each decade, or at fewer of them where they would stand too close."""
    exponents = range(math.floor(least), math.ceil(most) + 1)
    factors = next(factors for decades_shown, factors in FACTORS.items() if most - least <= decades_shown)
    ticks = [(math.log10(factor) + exponent, factor * 10.0**exponent) for exponent in exponents for factor in factors]
    return [
        *(tick(across(place), tick_name(latency)) for place, latency in ticks if least <= place <= most),
        axis_name("latency, on a logarithmic scale"),
    ]


def tick_name(latency: float) -> str:
    """Return a round latency without the zeros behind its point."""
    number, unit = duration(latency).split("\N{NO-BREAK SPACE}")
    return f"{float(number.replace(',', '')):g}\N{NO-BREAK SPACE}{unit}"


def tick(place: float, name: str) -> str:
    """Return a tick below the plot."""
    return (
        f'<line class="tick" x1="{place:.1f}" x2="{place:.1f}" y1="{BOTTOM}" y2="{BOTTOM + 4}"/>'
        f'<text class="place" x="{place:.1f}" y="{BOTTOM + 17}">{escape(name)}</text>'
    )


def axis_name(name: str) -> str:
    """Return the name of the horizontal axis."""
    return f'<text class="place" x="{(LEFT + RIGHT) / 2:.0f}" y="{BOTTOM + 36}">{escape(name)}</text>'


def markers(measurement: Measurement, across: Scale) -> list[str]:
    """Return lines at the median and the 99th percentile, with their names above the plot."""
    places = {PERCENTILES[key]: across(math.log10(max(measurement.percentiles[key], 1e-6))) for key in ("50", "99")}
    near = places["p99"] - places["p50"] < WIDTH_OF_A_NAME
    return [
        f'<line class="marker" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP - 4}" y2="{BOTTOM}"/>'
        f'<text class="marker" x="{place + shift:.1f}" y="{TOP - 8}">{name}</text>'
        for (name, place), shift in zip(places.items(), (-12, 12) if near else (0, 0), strict=True)
    ]


def steps(bars: Sequence[Bar], across: Scale, up: Scale, style: str) -> str:
    """Return the upper edge of bars as a line."""
    return f'<path class="{style}" d="{path(bars, across, up)}"/>' if bars else ""


def path(bars: Sequence[Bar], across: Scale, up: Scale) -> str:
    """Return the commands that draw the upper edge of bars."""
    places = (f"V{up(bar.value):.1f} H{across(bar.end):.1f}" for bar in bars)
    return f"M{across(bars[0].begin):.1f} {BOTTOM} " + " ".join(places)


def drawing(label: str, parts: Sequence[str]) -> str:
    """Return an SVG that says in words what it shows."""
    content = "\n".join(filter(None, parts))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">\n{content}\n</svg>'
