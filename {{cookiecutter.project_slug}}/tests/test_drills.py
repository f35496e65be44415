"""The judgement on a drill: what must never be fails at once, what a busy machine can cause fails the second time."""

import argparse
import io
from collections.abc import Sequence
from typing import TextIO

import pytest

from tests.drills import __main__ as drills
from tests.drills.drill import Outcome
from tests.drills.stack import Stack

GOOD = Outcome("", "", [], [])
WRONG = Outcome("", "", ["1 accepted items are lost"], ["goodput was 0.10 of the peak"])
SLOW = Outcome("", "", [], ["goodput was 0.10 of the peak"])


@pytest.mark.parametrize(
    ("outcomes", "failed"), [([GOOD], 0), ([WRONG], 1), ([SLOW, GOOD], 0), ([SLOW, SLOW], 1), ([SLOW, WRONG], 1)]
)
def test_only_what_was_slow_gets_another_try(
    monkeypatch: pytest.MonkeyPatch, outcomes: Sequence[Outcome], failed: int
) -> None:
    left = list(outcomes)

    def run_drill(stack: Stack, names: Sequence[str], report: TextIO) -> Outcome:
        assert (stack.address, names, report) == (("127.0.0.1", 8900), ["api-kill"], kept)
        return left.pop(0)

    monkeypatch.setattr(drills, "run_drill", run_drill)
    kept = io.StringIO()
    arguments = argparse.Namespace(fault=["api-kill"], minutes=None, sample=None, seed=1)
    assert drills.run_drills(Stack("drill", 8900), arguments, kept) == failed
    assert not left
