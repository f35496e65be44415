"""The drills of each variant in Docker: they load the machine and measure, so they run alone."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port, make
from tests.test_proxy import use_the_newest_nginx
from tests.variants import is_fullest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("docker")]
FLOODS = {"overload", "bad-clients"}


@pytest.fixture(scope="module")
def project(docker_project: Path) -> Iterator[Path]:
    yield docker_project
    subprocess.run(["docker", "image", "rm", "--force", docker_project.name], stdout=subprocess.DEVNULL, check=True)


def drilled(project: Path, *arguments: str) -> str:
    """Run drills and return what they print."""
    return make(project, *arguments, f"DRILL_PORT={free_port()}").stdout


def assert_nothing_lost(printed: str, *, names: set[str]) -> None:
    rows = re.findall(r"^([a-z+-]+) +[\d.]+ +\d+ +(\d+) +(\d+) +(\d+)(?: +(\d+))? ", printed, re.MULTILINE)
    assert rows, printed
    assert names <= {name for name, *_ in rows}, printed
    assert printed.count("; linearizable: ") == sum(name not in FLOODS for name, *_ in rows), printed
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
    printed = drilled(project, "drill")
    assert_nothing_lost(printed, names=faults_of(answers))


def test_no_fault_of_a_cluster_loses_or_doubles_an_item(project: Path, answers: dict[str, Any]) -> None:
    if not is_fullest(answers):
        pytest.skip("the fullest variant has all clusters")
    printed = drilled(project, "drill-clusters")
    assert_nothing_lost(printed, names={"database-promote", "cache-node-kill", "broker-leader-kill"})


def test_a_soak_loses_or_doubles_no_item(project: Path, answers: dict[str, Any]) -> None:
    if answers["caching"] or answers["queued_writes"]:
        pytest.skip("one short soak shows that it works")
    printed = drilled(project, "soak", "MINUTES=0.2")
    assert_nothing_lost(printed, names=set())


def test_replicas_come_and_go_without_a_failed_read(project: Path, answers: dict[str, Any]) -> None:
    if not is_fullest(answers):
        pytest.skip("what stands before the replicas is the same in every variant")
    use_the_newest_nginx(project)
    printed = drilled(project, "drill-replicas")
    names = {"replica-kill", "replica-replace", "replica-scale-down", "one-worker-kill", "pooler-kill"}
    assert_nothing_lost(printed, names=names)
