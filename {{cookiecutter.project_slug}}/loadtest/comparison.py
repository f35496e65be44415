"""The part of the page that compares a run with the one before, and says what changed beyond the noise of both."""

from collections.abc import Sequence
from html import escape

from loadtest.machine import Machine
from loadtest.markup import request_of, time
from loadtest.noise import change
from loadtest.results import Measurement, Run
from loadtest.text import PERCENTILES, count, duration, percent, ratio, significant

# An arrow for the direction, a word for what it means: neither needs a colour.
BETTER, WORSE = "better", "worse"
WITHIN = "within noise"
ARROWS = {1: "↑", -1: "↓"}
DIRECTIONS = {1: "higher", -1: "lower"}


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
<p>The run before is that of {time(previous.began)}{of_commit(previous)}. {escape(differences(run, previous))}</p>
<div class="tables">
{"\n".join(tables)}
</div>
</section>"""


def of_commit(run: Run) -> str:
    """Return the commit of a run, where it is known."""
    return f", commit {escape(run.commit)}" if run.commit else ""


def comparison_table(now: Measurement, before: Measurement) -> str:
    """Return the throughput and latencies of a workload in two runs, their ratios, and what changed."""
    rows = [
        row(
            "requests/s",
            [significant(before.rate), significant(now.rate), ratio(now.rate, before.rate)],
            verdict(change(before.timeline, now.timeline), better=1),
        ),
        row("errors", [percent(before.error_rate), percent(now.error_rate), ""], ""),
    ]
    for key, name in PERCENTILES.items():
        if key in now.percentiles and key in before.percentiles:
            new, old = now.percentiles[key], before.percentiles[key]
            values = [duration(old), duration(new), ratio(new, old)]
            rows.append(row(name, values, verdict(changed(now, before, key), better=-1)))
    columns = "".join(f'<th scope="col">{name}</th>' for name in ("before", "now", "ratio"))
    return f"""<table>
<caption>{request_of(now)}</caption>
<thead><tr><td></td>{columns}<th scope="col" class="change">change</th></tr></thead>
<tbody>
{"\n".join(rows)}
</tbody>
</table>"""


def changed(now: Measurement, before: Measurement, key: str) -> int | None:
    """Return the direction in which a percentile changed; of the slowest answer there is no noise to know."""
    if key == "100" or key not in now.series or key not in before.series:
        return None
    return change(before.series[key].values, now.series[key].values)


def verdict(direction: int | None, *, better: int) -> str:
    """Return an arrow and a word, with the direction in words for who does not see it; nothing when it is not known."""
    if not direction:
        return "" if direction is None else WITHIN
    word = BETTER if direction == better else WORSE
    return (
        f'<span class="{word}"><span aria-hidden="true">{ARROWS[direction]}</span> '
        f'<span class="spoken">{DIRECTIONS[direction]}, </span>{word}</span>'
    )


def row(name: str, values: Sequence[str], verdict: str) -> str:
    """Return a row of a table."""
    cells = "".join(f"<td>{escape(value)}</td>" for value in values)
    return f'<tr><th scope="row">{escape(name)}</th>{cells}<td class="change">{verdict}</td></tr>'


def differences(run: Run, previous: Run) -> str:
    """Say what makes two runs hard to compare."""
    tools = [[measurement.tool for measurement in one.measurements] for one in (run, previous)]
    settings_of_both: dict[str, tuple[object, object]] = {
        "connections": (run.connections, previous.connections),
        "rate": (run.rate, previous.rate),
        "seconds": (run.seconds, previous.seconds),
        "address": (run.url, previous.url),
        "workers": (run.service.workers, previous.service.workers or run.service.workers),
        "machine": (run.machine, as_well_known(previous.machine, run.machine)),
        "tools": (tools[0], tools[1]),
    }
    different = [name for name, (now, before) in settings_of_both.items() if now != before]
    sentences = []
    if different:
        sentences.append(f"Not the same in both: {', '.join(different)}. The ratios hold with that reservation only.")
    else:
        sentences.append("Its settings were the same.")
    if previous.errors:
        sentences.append(f"It had {count(previous.errors, 'error')}.")
    if run.load_averages and previous.load_averages:
        sentences.append(
            f"The load average was {previous.load_averages[0]:.1f} at the begin of that run and "
            f"{run.load_averages[0]:.1f} at the begin of this one."
        )
        if max(previous.load_averages[0], run.load_averages[0]) > run.machine.cpus:
            sentences.append(
                "That is more than there are CPUs, so an arrow may come from other programs: repeat both runs when the "
                "machine is quiet."
            )
    return " ".join(sentences)


def as_well_known(machine: Machine, other: Machine) -> Machine:
    """Return a machine with what only the results of the other one tell: older runs know less."""
    return Machine(
        machine.cpus, machine.system, machine.python, machine.cpu or other.cpu, machine.memory or other.memory
    )
