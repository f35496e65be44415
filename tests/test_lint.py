"""Style and types: of the tools, of the template as it lies there, and of every rendered variant."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment, make
from tests.variants import ROOT, TEMPLATE, is_fullest


@pytest.mark.parametrize("command", ["ruff check --no-cache .", "ruff format --no-cache --check .", "mypy"])
def test_the_tools_are_clean(command: str) -> None:
    tool, *arguments = command.split()
    done = subprocess.run(
        [str(Path(sys.executable).parent / tool), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_variant_is_clean(project: Path) -> None:
    make(project, "lint")


def test_the_template_is_valid_source_as_it_lies(project: Path, variant: dict[str, bool]) -> None:
    if not is_fullest(variant):
        pytest.skip("the template needs the dependencies of the fullest variant")
    # A cache in the template would be rendered; that of the variant knows the dependencies already.
    environment = clean_environment() | {"MYPY_CACHE_DIR": str(project / ".mypy_cache"), "RUFF_NO_CACHE": "true"}
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        command = [str(project / ".venv/bin" / tool[0]), *tool[1:]]
        done = subprocess.run(command, cwd=TEMPLATE, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_contenders_of_the_benchmarks_are_clean(project: Path, variant: dict[str, bool]) -> None:
    if not is_fullest(variant):
        pytest.skip("the contenders import the fullest variant")
    done = subprocess.run(
        [str(project / ".venv/bin/mypy"), str(ROOT / "benchmarks/contenders")],
        cwd=project,
        env=clean_environment() | {"MYPY_CACHE_DIR": str(project / ".mypy_cache"), "MYPYPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
