"""The page about a run: one file that needs no other, for light and dark, wide and narrow screens."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from loadtest import plots
from loadtest.comparison import comparison
from loadtest.markup import moment, request_of, time
from loadtest.noise import noise
from loadtest.results import BEYOND, INTERVAL, Measurement, Run
from loadtest.text import behind, count, percent, punctuality, significant, times

STYLE = Path(__file__).with_name("style.css")

TOOLS = {
    "wrk": "wrk corrects its latencies for coordinated omission: for an answer that took longer than usual it adds the "
    "requests that the connection would have sent meanwhile, with their wait. Its throughput over time is counted when "
    "a connection sends its next request, which is when it has read the answer before or has failed. wrk does not tell "
    "one error status from another, and counts a timeout when the late answer comes: a service that hangs shows as "
    "throughput that falls to zero. It does not tell when each answer came, so nothing is known of the noise of its "
    "percentiles.",
    "hey": "hey reports every answer. It needs much CPU itself: alone on its machine, the service would do better.",
}
NOT_OVER_TIME = (
    '<p class="quiet">wrk does not tell when each answer came: <code>make load RATE=500</code> shows p99 over time.</p>'
)
OF_PYTHON = "The small Python client is slower than the service. Its numbers compare with each other only."
CLOSED_LOOP = (
    "Each connection sends its next request when it has the answer to the one before: a closed loop. So the mean "
    "latency is the number of connections divided by the requests a second (Little's law): connections beyond what the "
    "service needs lengthen the wait and nothing else. For the latencies at a rate of yours: make load RATE=500."
)
OPEN_LOOP = (
    "Requests were due at a constant rate, whether or not those before them were answered: an open loop. A latency "
    "counts from the time at which its request was due, so the wait for a free connection is in it (no coordinated "
    "omission), and so is the delay of the Python client where that was late itself. Requests/s counts the answers "
    "that came while requests were due."
)


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
<title>{escape(title(run))}, {escape(moment(run.began))}</title>
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
    way = f"{count(run.rate, 'request')} a second, at most " if run.rate else ""
    commit = f", commit {escape(run.commit)}" if run.commit else ""
    return f"""<header>
<h1>{escape(title(run))}</h1>
<p>{time(run.began)}, on {escape(run.url)}{commit}<br>
{way}{count(run.connections, "connection")}, {count(run.seconds, "second")} for each workload</p>
{verdict}
</header>"""


def title(run: Run) -> str:
    """Return what was loaded, as far as the service tells its name."""
    return f"Load test of {run.service.name}" if run.service.name else "Load test"


def workload(measurement: Measurement, previous: Measurement | None) -> str:
    """Return the section about a workload: its numbers, its errors and its plots."""
    rate = significant(measurement.rate)
    if spread := noise(measurement.timeline):
        rate += f" <small>± {significant(spread)}</small>"
    numbers = [
        number("requests/s", rate),
        number("errors", percent(measurement.error_rate), bad=measurement.failed > 0),
        *(number(name, value) for name, value in times(measurement.percentiles)),
    ]
    name = escape(measurement.title.lower().replace(" ", "-"))
    return f"""<section aria-labelledby="{name}">
<h2 id="{name}">{escape(measurement.title)} {request_of(measurement)}</h2>
<dl class="numbers">
{"\n".join(numbers)}
</dl>
{error_list(measurement)}
{kept_schedule(measurement)}
{figures(measurement, previous)}
{NOT_OVER_TIME if measurement.tool == "wrk" else ""}
</section>"""


def number(what: str, value: str, *, bad: bool = False) -> str:
    """Return a number, as markup, and what it is."""
    style = ' class="bad"' if bad else ""
    return f"<div{style}><dt>{what}</dt><dd>{value}</dd></div>"


def error_list(measurement: Measurement) -> str:
    """Return the errors by status, or by the reason for which there was no answer."""
    entries = "\n".join(f"<li>{escape(reason)}: {number:,}</li>" for reason, number in measurement.errors.items())
    return f'<ul class="bad">\n{entries}\n</ul>' if entries else ""


def kept_schedule(measurement: Measurement) -> str:
    """Return how an open loop kept to its schedule."""
    if measurement.schedule is None:
        return ""
    remedy = behind(measurement.schedule)
    style = ' class="bad"' if remedy else ""
    return f"<p{style}>{punctuality(measurement.schedule)} {remedy}</p>"


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
    if measurement.series:
        compared = previous if previous and "99" in previous.series and "99" in measurement.series else None
        missing = [name for key, name in (("99", "p99"), ("99.9", "p99.9")) if key not in measurement.series]
        too_few = f" Too few answers for {' and '.join(missing)}." if missing else ""
        caption = f"The slowest answers over time{'; dashed, p99 of the run before' if compared else ''}.{too_few}"
        plotted.append(figure(plots.tails(measurement, compared), caption))
    return f'<div class="figures">\n{"\n".join(plotted)}\n</div>' if plotted else ""


def figure(svg: str, caption: str) -> str:
    """Return a plot with its caption."""
    return f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>"


def explanations(run: Run) -> str:
    """Return how the numbers came about."""
    used = dict.fromkeys(measurement.tool for measurement in run.measurements)
    of_tools = TOOLS | {"Python": "" if run.rate else OF_PYTHON}
    notes = [
        OPEN_LOOP if run.rate else CLOSED_LOOP,
        "Requests/s counts answers without an error; errors are the share of the requests that failed. p50, p90 and "
        "p99 are the times within which 50, 90 and 99 % of the requests were answered; max is the slowest.",
        f"p99.9, and a percentile over time, is shown where at least {BEYOND} answers are slower.",
        "± is the noise of a run: the mean lies within it with 99 % confidence, as far as one run can tell (batch "
        "means).",
        "An arrow stands where a value changed by more than the noise of both runs together (Welch's test). Of runs "
        "that are alike, one to three values in a hundred get one. What differs from run to run, such as other "
        "programs, is not in that noise: repeat both runs. Nothing stands where the noise is not known, because a run "
        "was too short or its tool does not tell.",
        f"A point of a throughput plot is the mean of {INTERVAL:g} s; an interval that the end cut short is left out. "
        "A bar of a histogram is made of steps of 0.25 % of the requests, so the very slowest lie beyond the last bar.",
        *(of_tools[tool] for tool in used if of_tools[tool]),
    ]
    return f"""<section aria-labelledby="reading">
<h2 id="reading">How to read this page</h2>
<ul>
{list_entries(notes)}
</ul>
</section>"""


def list_entries(texts: Iterable[str]) -> str:
    """Return the entries of a list."""
    return "\n".join(f"<li>{escape(text.replace(' %', '\N{NO-BREAK SPACE}%'))}</li>" for text in texts)


def settings(run: Run) -> str:
    """Return what must be the same in a run to compare with."""
    tools = ", ".join(f"{measurement.request}: {measurement.tool}" for measurement in run.measurements)
    service, machine = run.service, run.machine
    entries = [
        ("Service", f"{service.name} {service.version}".strip()),
        ("Workers", f"{service.workers}" if service.workers else ""),
        ("Commit", f"{run.commit}, of the directory from which the load came" if run.commit else ""),
        (
            "Rate",
            f"{run.rate:,} requests a second, due at equal distances" if run.rate else "as fast as the answers come",
        ),
        ("Connections", f"{run.connections:,}"),
        ("Seconds", f"{run.seconds:,} for each workload"),
        ("Tools", tools),
        ("CPUs", f"{machine.cpus}, shared by the load and the service"),
        ("CPU", machine.cpu),
        ("Memory", f"{machine.memory / 2**30:.1f} GiB" if machine.memory else ""),
        (
            "Load average",
            " before, ".join(f"{load:.2f}" for load in run.load_averages) + " after" * bool(run.load_averages),
        ),
        ("System", machine.system),
        ("Python", f"{machine.python}, of the load test"),
    ]
    return f"""<section aria-labelledby="settings">
<h2 id="settings">Machine and settings</h2>
<dl class="settings">
{pairs([(name, value) for name, value in entries if value])}
</dl>
</section>"""


def pairs(entries: Sequence[tuple[str, str]]) -> str:
    """Return the entries of a list of names and values."""
    return "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in entries)
