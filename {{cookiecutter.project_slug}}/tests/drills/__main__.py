"""Drills: break parts of the stack under load, and count what was accepted, stored, lost and doubled.

Runs on a compose project of its own and removes it at the end. Exits non-zero when an item is
lost or doubled, when the service does not recover in time, or when clients see more of a fault than
docs/promises.md says.
What a busy machine can cause by itself, such as a slow recovery, counts when it happens twice in a row while
other programs leave the CPUs alone.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

import uvloop

from loadtest.resource import TABLE
from tests.drills.drill import HEADER, Outcome, drill
from tests.drills.faults import DEPLOYS, FAULTS, Fault, together
from tests.drills.machine import share_of_a_cpu
from tests.drills.overload import overload
from tests.drills.siege import siege
from tests.drills.stack import PROJECT, Stack

CLIENTS = {"overload": overload, "bad-clients": siege}
ATTEMPTS = 2
# With less, a program is slow because of others.
ENOUGH_OF_A_CPU = 0.8


def chosen(arguments: argparse.Namespace) -> Iterator[Sequence[str]]:
    """Yield the faults that strike together, one drill after another."""
    if arguments.minutes is None:
        names = arguments.fault or random.sample([*FAULTS, *CLIENTS], arguments.sample or len(FAULTS) + len(CLIENTS))
        yield from ([name] for name in names)
        return
    deadline = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < deadline:
        first, second = random.sample(sorted(FAULTS), 2)
        apart = FAULTS[first].parts.isdisjoint(FAULTS[second].parts) and DEPLOYS.isdisjoint([first, second])
        yield [first, second] if apart and random.random() < 0.5 else [first]


def run_drill(stack: Stack, names: Sequence[str], report: TextIO, faults: Mapping[str, Fault]) -> Outcome:
    """Run one drill on an empty table, and say what it counted and what must not be."""
    stack.sql(f"TRUNCATE {TABLE};")
    if names[0] in CLIENTS:
        outcome = uvloop.run(CLIENTS[names[0]](stack))
    else:
        outcome = asyncio.run(drill(stack, "+".join(names), together([faults[name] for name in names])))
    say(report, f"{'+'.join(names):<31}{outcome.counts}  {outcome.details}")
    for sentence in outcome.wrong:
        say(report, f"  FAILED: {sentence}")
    for sentence in outcome.slow:
        say(report, f"  SLOW: {sentence}")
    return outcome


def run_drills(stack: Stack, arguments: argparse.Namespace, report: TextIO) -> int:
    """Run all drills that are asked for and return how many of them failed."""
    say(report, f"seed {arguments.seed}\n{HEADER}")
    return sum(not holds(stack, names, report) for names in chosen(arguments))


def holds(stack: Stack, names: Sequence[str], report: TextIO, faults: Mapping[str, Fault] = FAULTS) -> bool:
    """Whether a drill shows nothing that must not be, and is not slow each time with the CPUs to itself."""
    share = 1.0
    for _ in range(ATTEMPTS):
        share = min(share, share_of_a_cpu())
        outcome = run_drill(stack, names, report, faults)
        if outcome.wrong or not outcome.slow:
            return not outcome.wrong
        share = min(share, share_of_a_cpu())
    say(
        report,
        f"  {ATTEMPTS} times, while other programs left {share:.2f} of a CPU; {ENOUGH_OF_A_CPU} is enough",
    )
    return share < ENOUGH_OF_A_CPU


def say(report: TextIO, text: str) -> None:
    """Print, and write to the report at once, so that an interrupted run leaves one too."""
    print(text, flush=True)
    print(text, file=report, flush=True)


@contextmanager
def started(stack: Stack) -> Iterator[tuple[Stack, TextIO]]:
    """Start a stack, open the report, and remove the stack at the end."""
    try:
        stack.up("--build")
        with (PROJECT / "drill-report.txt").open("w", encoding="utf-8") as report:
            yield stack, report
    finally:
        stack.remove()


def run_in(layout: Callable[[str, int], Stack], faults: Mapping[str, Fault], *, program: str, about: str | None) -> int:
    """Run the faults of another layout of the stack that the command line names, or all of them."""
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("fault", nargs="*", choices=[*faults, []], help="some of these; all without an argument")
    parser.add_argument("--port", type=int, default=8900, help="port at which the drill reaches the API")
    arguments = parser.parse_args()
    with started(layout(f"{PROJECT.name}-drill", arguments.port)) as (stack, report):
        say(report, HEADER)
        return min(1, sum(not holds(stack, [name], report, faults) for name in arguments.fault or faults))


def main() -> int:
    """Run the drills that are named, a sample, or all of them; or any of them until the time is over."""
    parser = argparse.ArgumentParser(prog="make drill", description=__doc__)
    names = [*FAULTS, *CLIENTS]
    parser.add_argument("fault", nargs="*", choices=[*names, []], help="some of these; all without an argument")
    parser.add_argument("--port", type=int, default=8900, help="port of the drill's API")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats the draws of a run")
    parser.add_argument("--sample", type=int, choices=range(1, len(names) + 1), help="run so many, drawn by chance")
    parser.add_argument("--minutes", type=float, help="run any, also several at once, until so much time is over")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with started(Stack(f"{PROJECT.name}-drill", arguments.port)) as (stack, report):
        return min(1, run_drills(stack, arguments, report))


if __name__ == "__main__":
    sys.exit(main())
