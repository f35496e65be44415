"""Every workload, of every contender: measured in rounds, printed as tables, and kept with the machine as JSON."""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence

from benchmarks import load, machine, quick, service, stages
from benchmarks.cases import PAGES, Case, all_cases
from benchmarks.load import Report
from benchmarks.results import milliseconds
from benchmarks.service import PLACE, Contender
from benchmarks.stages import CACHED, QUEUED, ROUNDS, SECONDS, Load, Stage, get, post

RESULTS = PLACE / "results.json"


def stages_of(measured: Sequence[Case]) -> list[Stage]:
    """Return stages that serve each contender once for all of its cases."""
    loads: dict[tuple[Contender, bool], dict[str, Load]] = defaultdict(dict)
    for case in measured:
        loads[case.contender, case.with_worker][case.name] = case.send
    return [Stage(contender, of_contender, worker) for (contender, worker), of_contender in loads.items()]


def footprints() -> dict[str, float]:
    """Return the megabytes and the seconds to start of the processes that a service consists of."""
    with service.serving(CACHED) as server:
        get("/items")(server)
        worker = server.megabytes()
        seconds = server.seconds_to_start
    with service.serving(QUEUED) as server, service.working(QUEUED) as celery:
        service.wait_until(lambda: len(service.children_of(celery.pid)) > 1, "the Celery worker")
        post()(server)
        process = service.resident_megabytes(celery.pid)
    service.purge(QUEUED.queue)
    return {"API worker, MB": worker, "Celery process, MB": process, "API, seconds to start": seconds}


def main() -> int:
    """Measure, print, and keep the results for the page that docs/benchmarks.md is."""
    load.require_tools()
    stages.prepare()
    quick.report(stages.take_turns(quick.STAGES))
    (PLACE / PAGES).write_text("\n".join(stages.page_paths("rows_100k", 1, 1000)) + "\n")
    measured = all_cases()
    rounds = stages.take_turns(stages_of(measured))
    print_table(measured, rounds)
    document = {
        "machine": machine.describe(),
        "rounds": ROUNDS,
        "seconds": SECONDS,
        "footprints": footprints() | json.loads((PLACE / "rendering.json").read_text()),
        "cases": [
            {
                "workload": case.workload,
                "contender": case.contender.name,
                "rounds": [reports[case.name]._asdict() for reports in rounds],
            }
            for case in measured
        ],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def print_table(measured: Sequence[Case], rounds: Sequence[Mapping[str, Report]]) -> None:
    """Print the median of every case."""
    print(f"{'':<46}{'':<28}{'per second':>12}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}{'errors':>8}")
    for case in measured:
        reports = [reports[case.name] for reports in rounds]
        rate = statistics.median(report.per_second for report in reports)
        columns = ([getattr(report, name) for report in reports] for name in ("p50", "p99", "slowest"))
        latencies = "".join(f"{milliseconds(column):>10}" for column in columns)
        errors = sum(report.errors for report in reports)
        print(f"{case.workload:<46}{case.contender.name:<28}{rate:>12,.0f}{latencies}{errors:>8}")


if __name__ == "__main__":
    sys.exit(main())
