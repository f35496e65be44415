"""The page about a run: one file that needs no other, for light and dark, wide and narrow screens."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from loadtest import plots
from loadtest.results import INTERVAL, Measurement, Run
from loadtest.text import PERCENTILES, count, duration, ratio, significant

STYLE = Path(__file__).with_name("style.css")

TOOLS = {
    "wrk": "wrk corrects its latencies for coordinated omission: for an answer that took longer than usual it adds the "
    "requests that the connection would have sent meanwhile, with their wait. Its throughput over time is counted when "
    "a connection sends its next request, which is when it has read the answer before or has failed. wrk "
    "does not tell one error status from another, and counts a timeout when the late answer comes: a service that "
    "hangs shows as throughput that falls to zero.",
    "hey": "hey reports every answer. It needs much CPU itself: alone on its machine, the service would do better.",
    "Python": "The small Python client is slower than the service. Its numbers compare with each other only.",
}


def page(run: Run, previous: Run | None) -> str:
    """Return the page; `previous` is the run to compare with."""
    before = {measurement.request: measurement for measurement in previous.measurements} if previous else {}
    sections = [
        head(run),
        comparison(run, previous) if previous else "",
        *(workload(measurement, before.get(measurement.request)) for measurement in run.measurements),
        explanations(run),
        settings(run),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Load test of {escape(moment(run.began))}</title>
<link rel="icon" href="data:,">
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{"\n".join(filter(None, sections))}
</main>
</body>
</html>
"""


def head(run: Run) -> str:
    """Return the title, the load, and whether there were errors."""
    verdict = (
        f'<p class="verdict bad">{count(run.errors, "request")} failed. Refusing is fast: read the '
        "errors before the numbers.</p>"
        if run.errors
        else '<p class="verdict">Every request was answered without an error.</p>'
    )
    return f"""<header>
<h1>Load test</h1>
<p>{time(run.began)}, on {escape(run.url)}<br>
{count(run.connections, "connection")}, {count(run.seconds, "second")} for each workload</p>
{verdict}
</header>"""


def comparison(run: Run, previous: Run) -> str:
    """Return tables of this run and the one before."""
    before = {measurement.request: measurement for measurement in previous.measurements}
    tables = [
        comparison_table(measurement, before[measurement.request])
        for measurement in run.measurements
        if measurement.request in before
    ]
    return f"""<section aria-labelledby="comparison">
<h2 id="comparison">Compared with the run before</h2>
<p>The run before is that of {time(previous.began)}. {differences(run, previous)}</p>
<div class="tables">
{"\n".join(tables)}
</div>
</section>"""


def comparison_table(now: Measurement, before: Measurement) -> str:
    """Return the throughput and latencies of a workload in two runs, and their ratios."""
    rows = [row("requests/s", significant(before.rate), significant(now.rate), ratio(now.rate, before.rate))]
    for key, name in PERCENTILES.items():
        if key in now.percentiles and key in before.percentiles:
            new, old = now.percentiles[key], before.percentiles[key]
            rows.append(row(name, duration(old), duration(new), ratio(new, old)))
    columns = "".join(f'<th scope="col">{name}</th>' for name in ("before", "now", "ratio"))
    return f"""<table>
<caption>{request_of(now)}</caption>
<thead><tr><td></td>{columns}</tr></thead>
<tbody>
{"\n".join(rows)}
</tbody>
</table>"""


def row(name: str, *values: str) -> str:
    """Return a row of a table."""
    cells = "".join(f"<td>{escape(value)}</td>" for value in values)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def differences(run: Run, previous: Run) -> str:
    """Say what makes two runs hard to compare."""
    tools = [[measurement.tool for measurement in one.measurements] for one in (run, previous)]
    settings_of_both: dict[str, tuple[object, object]] = {
        "connections": (run.connections, previous.connections),
        "seconds": (run.seconds, previous.seconds),
        "address": (run.url, previous.url),
        "machine": (run.machine, previous.machine),
        "tools": (tools[0], tools[1]),
    }
    different = [name for name, (now, before) in settings_of_both.items() if now != before]
    sentences = []
    if different:
        sentences.append(f"Not the same in both: {', '.join(different)}. The ratios hold with that reservation only.")
    if previous.errors:
        sentences.append(f"It had {count(previous.errors, 'error')}.")
    return " ".join(sentences) or "Its settings were the same. Repeat both before you trust a ratio that is near 1."


def workload(measurement: Measurement, previous: Measurement | None) -> str:
    """Return the section about a workload: its numbers, its errors and its plots."""
    errors = sum(measurement.errors.values())
    latencies = measurement.percentiles
    times = [(name, duration(latencies[key])) for key, name in PERCENTILES.items() if latencies]
    numbers = [("requests/s", significant(measurement.rate)), *times, ("errors", f"{errors:,}")]
    name = escape(measurement.title.lower().replace(" ", "-"))
    return f"""<section aria-labelledby="{name}">
<h2 id="{name}">{escape(measurement.title)} {request_of(measurement)}</h2>
<dl class="numbers">
{"\n".join(number(what, value, bad=what == "errors" and errors > 0) for what, value in numbers)}
</dl>
{error_list(measurement)}
{figures(measurement, previous)}
</section>"""


def number(what: str, value: str, *, bad: bool) -> str:
    """Return a number and what it is."""
    style = ' class="bad"' if bad else ""
    return f"<div{style}><dt>{escape(what)}</dt><dd>{escape(value)}</dd></div>"


def error_list(measurement: Measurement) -> str:
    """Return the errors by status, or by the reason for which there was no answer."""
    entries = "\n".join(f"<li>{escape(reason)}: {number:,}</li>" for reason, number in measurement.errors.items())
    return f'<ul class="bad">\n{entries}\n</ul>' if entries else ""


def figures(measurement: Measurement, previous: Measurement | None) -> str:
    """Return the plots that the measurement allows."""
    legend = "; dashed, the run before"
    plotted: list[str] = []
    if measurement.quantiles:
        compared = previous if previous and previous.quantiles else None
        caption = f"Latency of the answers{legend if compared else ''}."
        plotted.append(figure(plots.histogram(measurement, compared), caption))
    if any(measurement.timeline):
        compared = previous if previous and any(previous.timeline) else None
        failed = any(one.tool == "wrk" and one.errors for one in (measurement, compared) if one)
        what = "Requests, failed ones among them," if failed else "Throughput"
        caption = f"{what} by half second{legend if compared else ''}."
        plotted.append(figure(plots.throughput(measurement, compared), caption))
    return f'<div class="figures">\n{"\n".join(plotted)}\n</div>' if plotted else ""


def figure(svg: str, caption: str) -> str:
    """Return a plot with its caption."""
    return f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def explanations(run: Run) -> str:
    """Return how the numbers came about."""
    used = dict.fromkeys(measurement.tool for measurement in run.measurements)
    notes = [
        "Each connection sends its next request when it has the answer to the one before. So the mean latency is the "
        "number of connections divided by the requests a second (Little's law): connections beyond what the service "
        "needs lengthen the wait and nothing else.",
        "Requests/s counts answers without an error. p50, p90 and p99 are the times within which 50, 90 and 99 % of "
        "the requests were answered; max is the slowest.",
        f"A point of a throughput plot is the mean of {INTERVAL:g} s; an interval that the end cut short is left out. "
        "A bar of a histogram is made of steps of 0.25 % of the requests, so the very slowest lie beyond the last bar.",
        *(TOOLS[tool] for tool in used),
    ]
    return f"""<section aria-labelledby="reading">
<h2 id="reading">How to read this page</h2>
<ul>
{list_entries(notes)}
</ul>
</section>"""


def list_entries(texts: Iterable[str]) -> str:
    """Return the entries of a list."""
    return "\n".join(f"<li>{escape(text)}</li>" for text in texts)


def settings(run: Run) -> str:
    """Return what must be the same in a run to compare with."""
    tools = ", ".join(f"{measurement.request}: {measurement.tool}" for measurement in run.measurements)
    entries = [
        ("Connections", f"{run.connections:,}"),
        ("Seconds", f"{run.seconds:,} for each workload"),
        ("Tools", tools),
        ("CPUs", f"{run.machine.cpus}, shared by the load and the service"),
        ("System", run.machine.system),
        ("Python", f"{run.machine.python}, of the load test"),
    ]
    return f"""<section aria-labelledby="settings">
<h2 id="settings">Machine and settings</h2>
<dl class="settings">
{pairs(entries)}
</dl>
</section>"""


def pairs(entries: Sequence[tuple[str, str]]) -> str:
    """Return the entries of a list of names and values."""
    return "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries)


def request_of(measurement: Measurement) -> str:
    """Return the method and path of a workload as code."""
    return f"<code>{escape(measurement.request)}</code>"


def time(when: datetime) -> str:
    """Return a time that people and programs read."""
    return f'<time datetime="{escape(when.isoformat(timespec="seconds"))}">{escape(moment(when))}</time>'


def moment(when: datetime) -> str:
    """Return a time to the minute, in UTC."""
    return f"{when:%Y-%m-%d, %H:%M} UTC"
