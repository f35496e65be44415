"""The judgement on a drill, and what Docker may refuse.

What must never be fails at once, what a busy machine can cause fails the second time, on CPUs that are free.
"""

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pytest

from tests.drills import __main__ as drills
from tests.drills.__main__ import ENOUGH_OF_A_CPU
from tests.drills.drill import Outcome, judge
from tests.drills.faults import (
    BAD_GATEWAY,
    BROKEN,
    FAULTS,
    GATEWAY_TIMEOUT,
    REFUSED,
    REPLICATED,
    SILENT,
    UNAVAILABLE,
    Fault,
    together,
)
from tests.drills.history import Record, Shown, create, page
from tests.drills.linearizability import Verdict
from tests.drills.load import Load
from tests.drills.machine import share_of_a_cpu
from tests.drills.stack import FREEZE_ATTEMPTS, REPLICAS, Stack

GOOD = Outcome("", "", [], [])
WRONG = Outcome("", "", ["1 accepted items are lost"], ["goodput was 0.10 of the peak"])
SLOW = Outcome("", "", [], ["goodput was 0.10 of the peak"])


@pytest.mark.parametrize(
    ("outcomes", "share", "failed"),
    [
        ([GOOD], 1.0, 0),
        ([WRONG], 1.0, 1),
        ([SLOW, GOOD], 1.0, 0),
        ([SLOW, SLOW], 0.9, 1),
        ([SLOW, SLOW], 0.5, 0),
        ([SLOW, WRONG], 0.5, 1),
    ],
)
def test_only_what_was_slow_gets_another_try_and_counts_when_the_cpus_were_free(
    monkeypatch: pytest.MonkeyPatch, outcomes: Sequence[Outcome], share: float, failed: int
) -> None:
    left = list(outcomes)

    def run_drill(stack: Stack, names: Sequence[str], report: TextIO, faults: Mapping[str, Fault]) -> Outcome:
        assert (stack.address, names, report, faults) == (("127.0.0.1", 8900), ["api-kill"], kept, FAULTS)
        return left.pop(0)

    monkeypatch.setattr(drills, "run_drill", run_drill)
    monkeypatch.setattr(drills, "share_of_a_cpu", lambda: share)
    kept = io.StringIO()
    arguments = argparse.Namespace(fault=["api-kill"], minutes=None, sample=None, seed=1)
    assert drills.run_drills(Stack("drill", 8900), arguments, kept) == failed
    assert not left


def test_a_program_among_others_gets_a_share_of_a_cpu() -> None:
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        assert 0 < share_of_a_cpu() < ENOUGH_OF_A_CPU
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_a_sample_holds_so_many_drills_and_no_sample_all() -> None:
    def names(sample: int | None) -> list[str]:
        return [name for (name,) in drills.chosen(argparse.Namespace(fault=[], minutes=None, sample=sample))]

    assert len(set(names(4))) == 4
    assert sorted(names(None)) == sorted([*FAULTS, *drills.CLIENTS])


@pytest.mark.parametrize("parts", [["api", "db"], ["db", "api"]])
def test_of_several_parts_the_servers_come_back_first(parts: Sequence[str]) -> None:
    back: list[str] = []

    def broken(part: str) -> Fault:
        return Fault(frozenset([part]), strike=lambda _: None, repair=lambda _: back.append(part))

    together([broken(part) for part in parts]).repair(Stack("drill", 8900))
    assert back == ["db", "api"]


def judged(
    fault: Fault,
    *,
    failures: Iterable[str] = (),
    unavailable: float = 0.0,
    oldest: float = 0.0,
    lasted: float = 2.0,
    reason: str = "",
) -> Outcome:
    """Return the judgement on what clients have seen of a fault."""
    stack = Stack("drill", 8900)
    load = Load(stack)
    load.seconds = 1.0
    load.failures.update(failures)
    load.slowest_unavailable = unavailable
    return judge(
        *(stack, fault, load, Verdict(9, 1, reason)),
        stored=[],
        struck=1,
        repaired=1 + lasted,
        newest_listed_after=oldest,
    )


@pytest.mark.parametrize("first", FAULTS)
def test_of_several_faults_clients_may_see_what_each_alone_may_show(first: str) -> None:
    def most(fault: Fault) -> dict[str, Any]:
        seen: dict[str, Any] = {
            "failures": fault.failures,
            "unavailable": min(60.0, fault.unavailable_within),
            "oldest": fault.oldest,
        }
        assert judged(fault, **seen)[2:] == ([], [])
        return seen

    for second in FAULTS:
        seen = most(FAULTS[first])
        for names in ((first, second), (second, first)):
            assert judged(together([FAULTS[name] for name in names]), **seen)[2:] == ([], [])


@pytest.mark.parametrize(
    ("names", "seen", "wrong", "slow"),
    [
        ("database-kill", {"failures": [UNAVAILABLE], "unavailable": 10.7}, [], ["it took 10.7 s to answer 503"]),
        ("api-process-freeze database-kill", {"failures": [UNAVAILABLE], "unavailable": 10.7}, [], []),
        ("api-stop api-process-freeze", {"failures": [UNAVAILABLE, REFUSED], "unavailable": 10.7}, [], []),
        (
            "api-kill database-freeze",
            {"failures": [UNAVAILABLE], "unavailable": 2.1},
            [],
            ["it took 2.1 s to answer 503"],
        ),
        ("api-kill api-reload", {"failures": [BROKEN, REFUSED]}, [], []),
        ("api-reload database-kill", {"failures": [BROKEN]}, ["1 requests ended in broken"], []),
        ("api-process-freeze", {"failures": [SILENT]}, ["1 requests ended in silent"], []),
        ("api-process-freeze database-kill", {"failures": [SILENT], "lasted": 14.0}, [], []),
        ("database-freeze", {"failures": [SILENT], "lasted": 14.0}, ["1 requests ended in silent"], []),
        ("api-kill database-kill", {"reason": "no order explains it"}, ["no order explains it"], []),
        ("api-kill database-kill", {"oldest": 6.0}, ["a list was 6.0 s old"], []),
    ],
)
def test_what_no_part_excuses_counts(names: str, seen: dict[str, Any], wrong: list[str], slow: list[str]) -> None:
    assert judged(together([FAULTS[name] for name in names.split()]), **seen)[2:] == (wrong, slow)


@pytest.mark.parametrize(
    ("failure", "wrong", "slow"),
    [
        (BAD_GATEWAY, ["1 requests failed that a proxy may send again"], []),
        (GATEWAY_TIMEOUT, [], ["1 requests ended in 504"]),
    ],
)
def test_behind_a_proxy_nothing_fails_that_may_be_sent_again(failure: str, wrong: list[str], slow: list[str]) -> None:
    stack = Stack("drill", 8900, replicas=REPLICAS)
    repeatable = [(page(), [wrong, slow]), (create("a", keyed=True), [wrong, slow])]
    for ask, judgement in (*repeatable, (create("a", keyed=False), [[], []])):
        load = Load(stack)
        load.seconds = 1.0
        load.fail(ask, failure, 1.0)
        outcome = judge(
            *(stack, REPLICATED["replica-kill"], load, Verdict(9, 1)),
            stored=[],
            struck=1,
            repaired=3,
            newest_listed_after=0.0,
        )
        assert list(outcome[2:]) == judgement


def test_what_clients_deleted_is_not_lost() -> None:
    load = Load(Stack("drill", 8900))
    for key in "abc":
        load.remember(Record("create", 0, 1, 201, key, key, (Shown(key, f"id of {key}", ""),)))
    for key, status in (("a", 204), ("b", 503), ("c", 404)):
        load.remember(Record("delete", 2, 3, status, key))
    assert load.kept == {"c": "id of c"}


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


def test_after_faults_that_strike_together_each_puts_in_order_what_it_has_changed() -> None:
    restored: list[str] = []

    def restoring(name: str) -> Fault:
        return FAULTS[name]._replace(restore=lambda _: restored.append(name))

    together([restoring("api-kill"), restoring("api-stop")]).restore(Stack("drill", 8900))
    assert restored == ["api-kill", "api-stop"]
