"""The judgement on a drill, and what Docker may refuse.

What must never be fails at once, what a busy machine can cause fails the second time.
"""

import argparse
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import pytest

from tests.drills import __main__ as drills
from tests.drills.drill import Outcome
from tests.drills.faults import FAULTS
from tests.drills.stack import FREEZE_ATTEMPTS, Stack

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


def test_a_sample_holds_so_many_drills_and_no_sample_all() -> None:
    def names(sample: int | None) -> list[str]:
        return [name for (name,) in drills.chosen(argparse.Namespace(fault=[], minutes=None, sample=sample))]

    assert len(set(names(4))) == 4
    assert sorted(names(None)) == sorted([*FAULTS, drills.OVERLOAD])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return where a stand-in for Docker notes its calls: the real one refuses too seldom for a test."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\ncd "$(dirname "$0")"\necho "$@" >> calls\n. ./verdict\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "calls"


def test_docker_may_need_several_attempts_to_freeze_a_container(calls: Path) -> None:
    calls.with_name("verdict").write_text(
        "test $(wc -l < calls) -eq 3 && exit\necho OCI runtime pause failed: unable to freeze >&2\nexit 1\n"
    )
    Stack("drill", 8900).freeze("db")
    assert calls.read_text().splitlines() == ["compose --project-name drill pause db"] * 3


@pytest.mark.parametrize(("error", "attempts"), [("unable to freeze", FREEZE_ATTEMPTS), ("no such service: db", 1)])
def test_a_container_that_cannot_be_frozen_ends_the_drills(calls: Path, error: str, attempts: int) -> None:
    calls.with_name("verdict").write_text(f"echo {error} >&2\nexit 1\n")
    with pytest.raises(SystemExit, match=f"docker compose --project-name drill pause db failed: {error}"):
        Stack("drill", 8900).freeze("db")
    assert len(calls.read_text().splitlines()) == attempts
