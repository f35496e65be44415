"""The workflows of GitHub Actions: no tool finds a fault in them, and a test executes each of their commands."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PATIENCE, clean_environment
from tests.executed import executes
from tests.test_docs import test_the_quick_benchmark_prints_its_tables as quick_benchmark
from tests.variants import (
    ROOT,
    Answers,
    answers_to,
    choices,
    core_variants,
    docker_variants,
    features,
    name_of,
    pairs_of,
    product,
    variants_to_test,
    variants_with_every_pair,
)

TOOLS = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github/workflows").iterdir())
ACTION = re.compile(r"- uses: ([\w-]+/[\w-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$")

# Each command of a workflow, with the test that executes it.
EXECUTED: dict[str, Callable[..., None]] = {"make bench-quick": quick_benchmark}


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for workflow in WORKFLOWS:
        yield from yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].items()


def bash(
    command: str, directory: Path, environment: dict[str, str], *, timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run a command as GitHub does."""
    return subprocess.run(
        ["bash", "-e", "-c", command],
        cwd=directory,
        env=clean_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The template as a workflow finds it."""
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "uv.lock", "__pycache__", ".*_cache")
    return Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignored))


@pytest.mark.parametrize(
    "command",
    [
        "zizmor --offline --persona auditor --no-progress",
        "actionlint",
        "check-jsonschema --builtin-schema vendor.github-workflows",
        "check-jsonschema --builtin-schema custom.github-workflows-require-timeout",
    ],
)
def test_no_tool_finds_a_fault(command: str) -> None:
    done = lint(command, *WORKFLOWS)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("command", "text", "instead", "found"),
    [
        ("zizmor --offline --persona auditor", "persist-credentials: false", "persist-credentials: true", "artipacked"),
        ("actionlint", "needs: [list]", "needs: [lost]", "lost"),
        # The shell's own linter works behind actionlint where it is there.
        ("actionlint", "make test-stacks", "echo $ANSWERS", "SC2086"),
    ],
)
def test_the_tools_find_faults(command: str, text: str, instead: str, found: str, tmp_path: Path) -> None:
    workflow = tmp_path / ".github/workflows/ci.yml"
    workflow.parent.mkdir(parents=True)
    source = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    workflow.write_text(source.replace(text, instead), encoding="utf-8")
    done = lint(command, workflow)
    assert done.returncode != 0
    assert found in done.stdout


def lint(command: str, *files: Path) -> subprocess.CompletedProcess[str]:
    path = {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"}
    return bash(" ".join([command, *map(str, files)]), ROOT, path)


def test_an_action_is_pinned_to_a_commit_of_a_version_that_is_named() -> None:
    pins = set()
    for workflow in WORKFLOWS:
        lines = [line.strip() for line in workflow.read_text(encoding="utf-8").splitlines() if "uses:" in line]
        assert all(map(ACTION.match, lines)), lines
        pins |= {match.groups() for line in lines if (match := ACTION.match(line))}
    assert len(pins) == len({action for action, *_ in pins}), "one commit for each action"


def test_the_tests_of_updates_get_the_history() -> None:
    assert "updates" not in re.findall(r"TESTS_OF_VARIANTS := (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))[0]
    (job,) = [job for _, job in jobs() if any(step.get("run") == "make test-template" for step in job["steps"])]
    assert job["steps"][0]["with"]["fetch-depth"] == 0


def test_a_job_may_do_nothing_but_read() -> None:
    for workflow in WORKFLOWS:
        assert yaml.safe_load(workflow.read_text(encoding="utf-8"))["permissions"] == {}
    for _, job in jobs():
        assert job["permissions"] in ({}, {"contents": "read"})


def test_every_job_is_required_by_the_last() -> None:
    for workflow in WORKFLOWS:
        (*others, last) = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].items()
        if workflow.name == "ci.yml":
            assert last[0] == "passed"
            assert last[1]["if"] == "always()"
            assert last[1]["needs"] == [name for name, _ in others]


def test_every_command_is_executed_by_a_test() -> None:
    commands = {step["run"] for _, job in jobs() for step in job["steps"] if "run" in step}
    assert commands == EXECUTED.keys()
    assert not [command for command in commands if "${{" in command], "an expression belongs into the environment"


@executes(EXECUTED, 'uv run --no-default-groups python -m tests.variants >> "$GITHUB_OUTPUT"')
def test_the_variants_are_listed(command: str, checkout: Path, tmp_path: Path) -> None:
    done = bash(command, checkout, uv_environment(tmp_path))
    assert done.returncode == 0, done.stdout
    lines = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    lists = {name: json.loads(text) for name, _, text in (line.partition("=") for line in lines)}
    given = [job["strategy"]["matrix"]["include"] for _, job in jobs() if "include" in str(job.get("strategy"))]
    assert given
    for text in given:
        name = text.removeprefix("${{ fromJSON(needs.list.outputs.").removesuffix(") }}")
        # GitHub allows 256 jobs of a matrix.
        assert 1 < len(lists[name]) <= 256
        assert len({variant["name"] for variant in lists[name]}) == len(lists[name])
        assert all(variant.keys() == {"name", "python", "answers"} for variant in lists[name])
    variants = [json.loads(variant["answers"]) for variant in lists["variants"]]
    assert variants == list(product(["python_version", *core_variants()[0]]))
    assert [json.loads(stack["answers"]) for stack in lists["stacks"]] == variants_with_every_pair(choices())


def uv_environment(directory: Path) -> dict[str, str]:
    """Return an environment in which uv uses this Python and a directory of its own."""
    return {
        "GITHUB_OUTPUT": str(directory / "output"),
        "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
        "UV_PROJECT_ENVIRONMENT": str(directory / "environment"),
        "UV_PYTHON": sys.executable,
    }


@pytest.mark.parametrize("questions", [choices(), features()])
def test_every_pair_of_answers_meets_in_a_stack(questions: list[str]) -> None:
    rows = variants_with_every_pair(questions)
    assert set().union(*map(pairs_of, rows)) == set().union(*map(pairs_of, product(questions)))
    most = sorted(len({row[question] for row in rows}) for question in questions)[-2:]
    assert len(rows) == most[0] * most[1], "no fewer can hold every pair"


def test_every_two_features_meet_in_a_stack_of_this_machine() -> None:
    stacks = docker_variants()
    assert [features_of(stack) for stack in stacks] == variants_to_test()
    assert {stack["python_version"] for stack in stacks} == set(answers_to("python_version"))


def features_of(answers: Answers) -> dict[str, bool]:
    return {name: answers[name] for name in features()}


RENDER = "uv run --no-default-groups --group render python -m pytest tests/test_answers.py "


@pytest.mark.parametrize("resolution", ["lowest-direct", "highest"])
@executes(EXECUTED, f"{RENDER}tests/test_render.py::test_the_full_product_of_answers")
def test_the_template_renders_without_make(command: str, resolution: str, checkout: Path, tmp_path: Path) -> None:
    """Narrowed, because the same tests run in full beside this one."""
    (job,) = (job for name, job in jobs() if name == "render")
    assert resolution in job["strategy"]["matrix"]["resolution"]
    environment = uv_environment(tmp_path) | {"UV_RESOLUTION": resolution, "PYTEST_ADDOPTS": "-k 'next_two or typed'"}
    done = bash(command, checkout, environment)
    assert done.returncode == 0, done.stdout
    assert " 2 passed" in done.stdout.replace("\n", " ")
    (installed,) = (tmp_path / "environment").rglob("cookiecutter-*.dist-info")
    version = re.findall(r"cookiecutter-([\d.]+)\.dist", installed.name)[0]
    if resolution == "lowest-direct":
        oldest = re.findall(r'"cookiecutter>=([\d.]+),', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[0]
        assert version.removesuffix(".0") == oldest
    else:
        assert version >= importlib.metadata.version("cookiecutter")


def collected(target: str, **environment: str) -> list[str]:
    """Return the tests that a target of the Makefile runs."""
    only = {"PYTEST_ADDOPTS": "--collect-only -q", **environment}
    done = bash(f"make {target} PYTHON={sys.executable}", ROOT, only)
    assert done.returncode == 0, done.stdout
    return re.findall(r"^tests/\S+::.+$", done.stdout, re.MULTILINE)


@pytest.fixture(scope="session")
def tests_of_ci() -> list[str]:
    """The tests that `make test-all` executes, which is what `.ci/run` executes."""
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").rstrip().endswith("\nmake test-all")
    return collected("test-all")


def test_what_is_slow_is_left_out_and_named() -> None:
    left_out = {"test_docs.py", "test_drills.py", "test_mutations.py", "test_stack.py"}
    done = bash(f"make test PYTHON={sys.executable}", ROOT, {"PYTEST_ADDOPTS": "--collect-only -q"})
    (line,) = re.findall(r"^Left out: .* To run them too: make test-all$", done.stdout, re.MULTILINE)
    assert left_out <= set(re.findall(r"\w+\.py", line))
    assert "tests/test_mutations.py::test_without_its_line_a_guarantee_is_missed" not in done.stdout


def test_the_jobs_together_run_every_test(tests_of_ci: list[str]) -> None:
    parts = [collected(target) for target in ("test-variants", "test-template", "test-stacks", "test-drills")]
    assert sorted(test for part in parts for test in part) == sorted(tests_of_ci)


@executes(EXECUTED, "make test-template")
def test_what_is_common_is_executed_by_make_test_all(command: str, tests_of_ci: list[str]) -> None:
    tests = collected(command.removeprefix("make "))
    assert set(tests) <= set(tests_of_ci)
    assert "tests/test_workflows.py::test_no_tool_finds_a_fault[actionlint]" in tests
    assert " 1 passed" in executed(command, "first_two_commands")


@executes(EXECUTED, "make test-variants")
def test_a_variant_is_executed_by_make_test_all(command: str, tests_of_ci: list[str]) -> None:
    answers = assert_only_one_variant(command, tests_of_ci, "test_variants.py::test_the_tests_of_the_variant_pass")
    assert " 1 passed" in executed(command, "test_production_refuses", ANSWERS=json.dumps(answers))


def executed(command: str, test: str, **environment: str) -> str:
    """Execute a command of a workflow, narrowed to one test, and return what it prints."""
    narrowed = {"PYTEST_ADDOPTS": f"-k {test}", "PYTHON": sys.executable, **environment}
    done = bash(command, ROOT, narrowed)
    assert done.returncode == 0, done.stdout
    return done.stdout.replace("=", " ").replace("\n", " ")


@executes(EXECUTED, "make test-stacks")
def test_a_stack_is_executed_by_make_test_all(command: str, tests_of_ci: list[str]) -> None:
    assert_only_one_variant(command, tests_of_ci, "test_stack.py::test_an_item_lives_and_dies")


@executes(EXECUTED, "make test-drills")
def test_a_drill_is_executed_by_make_test_all(command: str, tests_of_ci: list[str]) -> None:
    assert_only_one_variant(command, tests_of_ci, "test_drills.py::test_no_fault_loses_or_doubles_an_item")


def assert_only_one_variant(command: str, tests_of_ci: list[str], test: str) -> dict[str, Any]:
    (answers, *_) = [row for row in variants_with_every_pair(choices())[1:] if features_of(row) in variants_to_test()]
    tests = collected(command.removeprefix("make "), ANSWERS=json.dumps(answers))
    assert set(tests) <= set(tests_of_ci)
    assert [found for found in tests if found.startswith(f"tests/{test}[")] == [f"tests/{test}[{name_of(answers)}]"]
    return answers


@pytest.mark.parametrize(
    ("results", "passed"),
    [
        ("success", True),
        ("success,success", True),
        ("success,failure", False),
        ("cancelled,success", False),
        ("success,skipped,success", False),
        ("", False),
    ],
)
@executes(EXECUTED, '[[ "$RESULTS" =~ ^success(,success)*$ ]]')
def test_the_last_job_passes_when_every_other_did(command: str, results: str, passed: bool) -> None:
    assert (bash(command, ROOT, {"RESULTS": results}).returncode == 0) is passed


@executes(EXECUTED, "sudo apt-get update && sudo apt-get install --yes wrk hey")
def test_what_sends_load_can_be_installed(command: str, tmp_path: Path) -> None:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip("only root on Debian or Ubuntu can try it")
    # apt-get looks for everything, and installs nothing.
    (tmp_path / "apt.conf").write_text('APT::Get::Simulate "true";\n')
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = bash(command, tmp_path, {"APT_CONFIG": str(tmp_path / "apt.conf"), "PATH": path})
    if "Failed to fetch" in done.stdout or "Unable to locate" in done.stdout:
        pytest.skip(f"the packages of the system cannot be looked up here: {done.stdout[-500:]}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^Inst hey |hey is already the newest", done.stdout, re.MULTILINE), done.stdout
