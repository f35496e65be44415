"""Writes, sent by hey."""

from collections import Counter

from loadtest.process import TIMEOUT, Tick, output_of
from loadtest.results import Answer, CannotLoad, Measurement, measure
from loadtest.service import Workload, authorization

# hey keeps this many answers and only counts those that follow.
MOST_ANSWERS = 1_000_000


def action(code: str) -> str:
    """Return an action of a Go template."""
    return 2 * "{" + code + 2 * "}"


# The CSV of `-o csv` leaves out the requests that got no answer, so hey gets a template of our own: a line with the
# duration, one for each kind of failure, and one for each answer.
TEMPLATE = "\n".join(
    [
        "total " + action(".Total.Seconds"),
        action("range $reason, $count := .ErrorDist") + "error " + action("$count") + " " + action("$reason"),
        action("end") + action("range $number, $latency := .Lats") + "answer " + action("index $.Offsets $number"),
    ]
) + "".join([" ", action("$latency"), " ", action("index $.StatusCodes $number"), "\n", action("end")])


def load(url: str, workload: Workload, *, connections: int, seconds: int, tick: Tick) -> Measurement:
    """Send a workload of POSTs and return what hey measured."""
    (path,) = workload.paths
    options = f"-z {seconds}s -c {connections} -t {TIMEOUT} -m {workload.method} -T application/json -d {workload.body}"
    fields = [argument for name, value in authorization().items() for argument in ("-H", f"{name}: {value}")]
    command = ["hey", *options.split(), *fields, "-o", TEMPLATE, url + path]
    return parse(output_of(command, seconds=seconds, tick=tick), workload)


def parse(output: str, workload: Workload) -> Measurement:
    """Read what hey prints by our template."""
    lines = [line.split(" ") for line in output.splitlines() if line]
    try:
        ((_, total),) = [line for line in lines if line[0] == "total"]
    except ValueError:
        raise CannotLoad(f"hey printed something unexpected: {output[:200].strip()}") from None
    answers = [Answer(float(line[1]), float(line[2]), int(line[3])) for line in lines if line[0] == "answer"]
    seconds = float(total)
    if len(answers) >= MOST_ANSWERS:
        seconds = max(answer.offset + answer.latency for answer in answers)
    unanswered: Counter[str] = Counter()
    for line in lines:
        if line[0] == "error":
            unanswered[reason_of(" ".join(line[2:]))] += int(line[1])
    return measure(workload.title, workload.request, "hey", seconds=seconds, answers=answers, unanswered=unanswered)


def reason_of(error: str) -> str:
    """Return the last clause of an error, without the addresses that make each one different."""
    return error.rpartition(": ")[2]
