"""Style and types: of the template as it lies there, and of every rendered variant."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import clean_environment, make
from tests.variants import TEMPLATE


def test_the_variant_is_clean(project: Path) -> None:
    make(project, "lint")


def test_the_template_is_valid_source_as_it_lies(project: Path, variant: dict[str, bool]) -> None:
    if not all(variant.values()):
        pytest.skip("the template needs the dependencies of the fullest variant")
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        command = [project / ".venv/bin" / tool[0], *tool[1:]]
        done = subprocess.run(
            command, cwd=TEMPLATE, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
