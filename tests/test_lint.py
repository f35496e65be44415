"""Style, types and imports: of the tools, of the template as it lies there, and of every rendered variant."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commits import HOOKS, Repository
from tests.conftest import clean_environment, make
from tests.variants import ONLY, ROOT, TEMPLATE, core_variants, is_fullest, render, variants_to_test


@pytest.mark.parametrize("command", ["ruff check --no-cache .", "ruff format --no-cache --check .", "mypy"])
def test_the_tools_are_clean(command: str) -> None:
    tool, *arguments = command.split()
    done = subprocess.run(
        [str(Path(sys.executable).parent / tool), *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_variant_is_clean(project: Path) -> None:
    make(project, "lint")


@pytest.mark.parametrize("tool", HOOKS)
def test_a_commit_is_checked(project: Path, variant: dict[str, bool], tool: str, tmp_path: Path) -> None:
    if not is_fullest(variant):
        pytest.skip("once is enough")
    copy = Path(shutil.copytree(project, tmp_path / "project", symlinks=True))
    repository = Repository(copy, tool, RUFF_NO_CACHE="true")
    for text, found in (("x=1\n", "1 file would be reformatted"), ("\n\nx: str = 1\n", "Incompatible types")):
        done = repository.commit("app/crud.py", text)
        assert done.returncode != 0
        assert found in done.stdout
    done = repository.commit("app/crud.py", "\n\nCONSTANT = 1\n")
    assert done.returncode == 0, done.stdout
    assert "style, types and imports" in done.stdout


def test_the_variants_that_are_not_tested_are_clean(
    project: Path, variant: dict[str, bool], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With what the fullest variant has installed; the workflows try each of them with its own."""
    if ONLY or not is_fullest(variant):
        pytest.skip("once is enough")
    others = [answers for answers in core_variants() if answers not in variants_to_test()]
    assert others
    for answers in others:
        other = render(tmp_path_factory.mktemp("other"), **answers)
        (other / ".venv").symlink_to((project / ".venv").resolve())
        make(other, "lint", "--assume-old=.venv/dev", MYPY_CACHE_DIR=str(project / ".mypy_cache"))


def test_the_template_is_valid_source_as_it_lies(project: Path, variant: dict[str, bool]) -> None:
    if not is_fullest(variant):
        pytest.skip("the template needs the dependencies of the fullest variant")
    # A cache in the template would be rendered; that of the variant knows the dependencies already.
    environment = clean_environment() | {"MYPY_CACHE_DIR": str(project / ".mypy_cache"), "RUFF_NO_CACHE": "true"}
    imports = ["lint-imports", "--no-cache", "--no-logo"]
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], imports):
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


def test_the_design_lists_the_imports_of_the_engine(project: Path, variant: dict[str, bool]) -> None:
    if not is_fullest(variant):
        pytest.skip("the design shows the fullest variant")
    command = [str(project / ".venv/bin/import-linter"), "drawgraph", "app.highload"]
    graph = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
    imports: dict[str, list[str]] = {name: [] for name in re.findall(r'^    "\.(\w+)"', graph, re.MULTILINE)}
    for importer, imported in re.findall(r'"\.(\w+)" ->  "\.(\w+)"', graph):
        imports[importer].append(imported)
    (listed,) = re.findall(r"```text\n(dev .*?)```", (ROOT / "docs/design.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.partition("->") for line in listed.splitlines()]
    assert {name.strip(): names.split() for name, _, names in lines} == imports


def test_an_import_from_the_engine_upwards_is_refused(project: Path) -> None:
    module = project / "app/highload/batching.py"
    source = module.read_text(encoding="utf-8")
    lint = [str(project / ".venv/bin/lint-imports"), "--no-cache", "--no-logo"]
    try:
        module.write_text(f"{source}\nimport app.config\n", encoding="utf-8")
        done = subprocess.run(lint, cwd=project, capture_output=True, text=True, check=False)
    finally:
        module.write_text(source, encoding="utf-8")
    assert done.returncode == 1
    assert "app.highload is not allowed to import app.config" in done.stdout
