"""The drills of each variant in Docker: they load the machine and measure, so they run alone."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port, make

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("docker")]
FLOODS = {"overload", "bad-clients"}


@pytest.fixture(scope="module")
def project(docker_project: Path) -> Iterator[Path]:
    yield docker_project
    subprocess.run(["docker", "image", "rm", docker_project.name], stdout=subprocess.DEVNULL, check=True)


def share_of_a_cpu() -> float:
    """Return how much of a CPU a program gets that wants all of it for a second; others take the rest."""
    spin = "import time; end = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    arguments = [sys.executable, "-c", spin]
    spinning = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(os.cpu_count() or 1)]
    return min(float(process.communicate()[0]) for process in spinning)


def drilled(project: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run drills; what was only slow does not count on a machine that had something else to do."""
    before = share_of_a_cpu()
    done = make(project, *arguments, f"DRILL_PORT={free_port()}", check=False, timeout=timeout)
    is_wrong = "FAILED: " in done.stdout or "SLOW: " not in done.stdout
    assert done.returncode == 0 or (min(before, share_of_a_cpu()) < 0.8 and not is_wrong), done.stdout
    return done


def assert_nothing_lost(done: subprocess.CompletedProcess[str], *, names: set[str]) -> None:
    rows = re.findall(r"^([a-z+-]+) +[\d.]+ +\d+ +(\d+) +(\d+) +(\d+)(?: +(\d+))? ", done.stdout, re.MULTILINE)
    assert rows, done.stdout
    assert names <= {name for name, *_ in rows}, done.stdout
    assert done.stdout.count("; linearizable: ") == sum(name not in FLOODS for name, *_ in rows), done.stdout
    for name, accepted, stored, lost, doubled in rows:
        # Without names, a flood cannot tell that an item is doubled.
        assert (lost, doubled) == ("0", "" if name in FLOODS else "0")
        assert int(stored) >= int(accepted) > 100


def faults_of(answers: dict[str, Any]) -> set[str]:
    """Return the drills that make sense for a variant."""
    api = {f"api-{event}" for event in ("process-kill", "process-freeze", "kill", "reload", "stop")}
    names = api | {"replace", "database-kill", "database-freeze", *FLOODS}
    if answers["caching"]:
        names |= {"cache-kill", "cache-freeze"}
    if answers["queued_writes"]:
        names |= {"broker-kill", "broker-freeze", "database-and-broker-kill"}
        names |= {f"worker-{event}" for event in ("process-kill-repeatedly", "kill", "freeze", "stop", "scale")}
    if answers["caching"] and answers["queued_writes"]:
        names |= {"everything-kill"}
    return names


def test_no_fault_loses_or_doubles_an_item(project: Path, answers: dict[str, Any]) -> None:
    done = drilled(project, "drill", timeout=1800)
    assert_nothing_lost(done, names=faults_of(answers))


def test_a_soak_loses_or_doubles_no_item(project: Path, answers: dict[str, Any]) -> None:
    if answers["caching"] or answers["queued_writes"]:
        pytest.skip("one short soak shows that it works")
    done = drilled(project, "soak", "MINUTES=0.2", timeout=600)
    assert_nothing_lost(done, names=set())
