"""The plots of the page of the benchmarks, as SVG."""

from io import StringIO
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import CONNECTIONS, Results, find, median

# Colours that people with any colour vision tell apart (Okabe and Ito, 2008).
COLOURS = {
    "bare ASGI app": "#000000",
    "FastAPI, constant": "#7f7f7f",
    "cached": "#0072b2",
    "not cached": "#56b4e9",
    "direct writes": "#009e73",
    "queued writes": "#e69f00",
    "plain": "#009e73",
    "full": "#e69f00",
    "naive direct": "#cc79a7",
    "naive": "#d55e00",
}
# The same colours on black, where the browser of a reader prefers the dark.
FOR_THE_DARK = "<style>@media (prefers-color-scheme: dark) { svg { filter: invert(1) hue-rotate(180deg) } }</style>"
STYLE = Path(__file__).parent / "plots.mplstyle"
COMPARED = (
    "list, 100 connections",
    "item, any of 100,000",
    "POST, 100 connections",
    "50/50 of the list, 100 connections",
)
ROWS = {"1k": 1_000, "100k": 100_000, "1m": 1_000_000}


def draw(results: Results, directory: Path) -> None:
    """Write all plots into a directory."""
    directory.mkdir(exist_ok=True)
    with style.context(STYLE):
        for name, plot in (("throughput", throughput), ("latency", latency), ("cost", cost)):
            svg = StringIO()
            plot(results).savefig(svg, format="svg", metadata={"Date": None}, bbox_inches="tight")
            text = svg.getvalue().replace(" <metadata>", f" {FOR_THE_DARK}\n <metadata>", 1)
            (directory / f"{name}.svg").write_text(text, encoding="utf-8")


def throughput(results: Results) -> Figure:
    """Draw the rates of the contenders in the main workloads, each beside its limit."""
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    for axes, workload in zip(figure.subplots(2, 2).flat, COMPARED, strict=True):
        cases = [case for case in results["cases"] if case["workload"] == workload]
        names = [case["contender"] for case in cases]
        rates = [median(case, "per_second") for case in cases]
        bars = axes.barh(names, rates, color=[COLOURS[name] for name in names], height=0.6)
        axes.bar_label(bars, labels=[f"{rate:,.0f}" for rate in rates], padding=3)
        axes.set_title(workload, loc="left", fontsize=10)
        axes.set_xlim(0, max(rates) * 1.18)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel("requests a second")
    return figure


def latency(results: Results) -> Figure:
    """Draw the latencies of the list against connections."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axes, column, title in zip(figure.subplots(1, 2), ("p50", "p99"), ("median", "99th percentile"), strict=True):
        for contender in ("bare ASGI app", "cached", "not cached", "naive"):
            latencies = [
                1000 * median(find(results, f"list, {count} connections", contender), column) for count in CONNECTIONS
            ]
            axes.plot(CONNECTIONS, latencies, marker="o", label=contender, color=COLOURS[contender])
        logarithmic(axes, title, "connections", "milliseconds")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(frameon=False)
    return figure


def cost(results: Results) -> Figure:
    """Draw what a request takes, against the size of the table."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for kind, colour in (("list", COLOURS["not cached"]), ("item", COLOURS["direct writes"])):
        microseconds = [
            1e6 / median(find(results, f"{kind} of {rows} rows", "not cached"), "per_second") for rows in ROWS
        ]
        axes.plot(list(ROWS.values()), microseconds, marker="o", label=f"{kind}, not cached", color=colour)
    logarithmic(axes, "100 connections, one worker", "rows", "microseconds a request")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower right")
    return figure


def logarithmic(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Give axes a logarithmic scale in x, with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
