"""Plots of a measurement in SVG: a histogram of latencies, and throughput and the slowest answers over time.

They have no colours and fonts of their own: their classes get them from the style of the page.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from loadtest.results import INTERVAL, Measurement, Series
from loadtest.text import PERCENTILES, duration

WIDTH, HEIGHT = 440, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 414, 36, 198
BINS_PER_DECADE = 10
MOST_TICKS = 5
WIDTH_OF_A_NAME = 30
# Percentiles whose course is shown, and the classes of their lines.
TAILS = {"99": "line", "99.9": "line rare", "100": "slowest"}
WIDTH_OF_A_KEY = 70
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
    area = f"{path(bars, across, up)} V{BOTTOM} H{LEFT} Z"
    return drawing(
        label,
        [
            *value_axis(up, top, step, "requests/s"),
            *time_axis(across, length),
            f'<path class="area" d="{area}"/>',
            steps(outline, across, up, "previous"),
            steps(bars, across, up, "line"),
        ],
    )


def tails(measurement: Measurement, previous: Measurement | None) -> str:
    """Return the percentiles p99 and p99.9 and the slowest answers over time, on a logarithmic scale."""
    series = {name: measurement.series[name] for name in TAILS if name in measurement.series}
    outline = previous.series.get("99") if previous else None
    drawn = [*series.values(), *([outline] if outline else [])]
    least, most = decades([value for one in drawn for value in one.values])
    up = Scale(least, most, BOTTOM, TOP)
    length = max(one.step * len(one.values) for one in drawn)
    across = Scale(0, length, LEFT, RIGHT)
    parts = [
        f"{PERCENTILES[name]} between {duration(min(one.values))} and {duration(max(one.values))}"
        for name, one in series.items()
    ]
    return drawing(
        f"Latency of {measurement.request} over {length:g} seconds: {', '.join(parts)}.",
        [
            *latency_grid(up, least, most),
            '<text class="unit" x="0" y="11">latency</text>',
            *time_axis(across, length),
            course(outline, across, up, "previous") if outline else "",
            *(dots(one, across, up) for name, one in series.items() if name == "100"),
            *(course(one, across, up, TAILS[name]) for name, one in series.items() if name != "100"),
            *keys(list(series)),
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


def latency_ticks(least: float, most: float) -> list[tuple[float, float]]:
    """Return logarithm and latency at 1, 2 and 5 of each decade, or at fewer where they would stand too close."""
    exponents = range(math.floor(least), math.ceil(most) + 1)
    factors = next(factors for decades_shown, factors in FACTORS.items() if most - least <= decades_shown)
    ticks = [(math.log10(factor) + exponent, factor * 10.0**exponent) for exponent in exponents for factor in factors]
    return [(place, latency) for place, latency in ticks if least <= place <= most]


def latency_axis(across: Scale, least: float, most: float) -> list[str]:
    """Return ticks at round latencies."""
    return [
        *(tick(across(place), tick_name(latency)) for place, latency in latency_ticks(least, most)),
        axis_name("latency, on a logarithmic scale"),
    ]


def latency_grid(up: Scale, least: float, most: float) -> list[str]:
    """Return horizontal gridlines at round latencies of a logarithmic scale."""
    return [
        f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{up(place):.1f}" y2="{up(place):.1f}"/>'
        f'<text class="value" x="{LEFT - 8}" y="{up(place) + 4:.1f}">{tick_name(latency)}</text>'
        for place, latency in latency_ticks(least, most)
    ]


def time_axis(across: Scale, length: float) -> list[str]:
    """Return ticks at round numbers of seconds."""
    _, step = ceiling(length)
    seconds = [number * step for number in range(int(length / step) + 1)]
    return [*(tick(across(number), f"{number:g}") for number in seconds), axis_name("seconds since the start")]


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


def logarithmic(series: Series) -> list[Bar]:
    """Return the logarithms of latencies over time."""
    return [
        Bar(number * series.step, (number + 1) * series.step, math.log10(max(value, 1e-6)))
        for number, value in enumerate(series.values)
    ]


def course(series: Series, across: Scale, up: Scale, style: str) -> str:
    """Return the latencies over time as a line of steps."""
    bars = logarithmic(series)
    places = (f"V{up(bar.value):.1f} H{across(bar.end):.1f}" for bar in bars)
    return f'<path class="{style}" d="M{across(0):.1f} {up(bars[0].value):.1f} {" ".join(places)}"/>'


def dots(series: Series, across: Scale, up: Scale) -> str:
    """Return a dot for each latency."""
    return "".join(
        f'<circle class="slowest" cx="{across((bar.begin + bar.end) / 2):.1f}" cy="{up(bar.value):.1f}" r="2.5"/>'
        for bar in logarithmic(series)
    )


def keys(names: Sequence[str]) -> list[str]:
    """Return a sample of each line and its name, above the plot."""
    places = [RIGHT - WIDTH_OF_A_KEY * (len(names) - number) + 10 for number in range(len(names))]
    samples = [
        f'<circle class="slowest" cx="{place + 10}" cy="12" r="2.5"/>'
        if name == "100"
        else f'<path class="{TAILS[name]}" d="M{place} 12 h20"/>'
        for name, place in zip(names, places, strict=True)
    ]
    texts = [
        f'<text x="{place + 26}" y="16">{PERCENTILES[name]}</text>' for name, place in zip(names, places, strict=True)
    ]
    return [*samples, *texts]


def drawing(label: str, parts: Sequence[str]) -> str:
    """Return an SVG that says in words what it shows."""
    content = "\n".join(filter(None, parts))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">\n{content}\n</svg>'
