"""The pipelines of a rendered project: no tool finds a fault in them, and a test executes each of their commands."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests import test_lint, test_stack, test_supply, test_variants, test_workflows
from tests.conftest import environment_of
from tests.executed import executes
from tests.test_workflows import ACTION, TOOLS, bash
from tests.variants import ROOT, TEMPLATE, answers_to, name_of, render, variants_to_test

GITHUB = [".github/workflows/audit.yml", ".github/workflows/ci.yml"]
GITLAB = [".gitlab-ci.yml", ".gitlab/docker-compose.yml"]
CI, PIPELINE = GITHUB[1], GITLAB[0]

SCHEMA = "check-jsonschema --builtin-schema"
ZIZMOR = "zizmor --offline --persona auditor --no-progress"
ACTIONLINT = "actionlint"
WORKFLOW = f"{SCHEMA} vendor.github-workflows"
TIMEOUTS = f"{SCHEMA} custom.github-workflows-require-timeout"
GITLAB_CI = f"{SCHEMA} vendor.gitlab-ci --data-transform gitlab-ci"
COMPOSE = f"{SCHEMA} vendor.compose-spec"

# What each tool reads.
TOOLS_OF = {
    "github": {
        ZIZMOR: GITHUB,
        ACTIONLINT: GITHUB,
        WORKFLOW: GITHUB,
        TIMEOUTS: GITHUB,
    },
    "gitlab": {GITLAB_CI: GITLAB[:1], COMPOSE: GITLAB[1:]},
}

LAST = '[[ "$RESULTS" =~ ^success(,success)*$ ]]'

# Each command of a pipeline, with the test that executes it: make by a literal in its source.
EXECUTED: dict[str, Callable[..., None]] = {
    "make lint": test_lint.test_the_variant_is_clean,
    "make test": test_variants.test_the_tests_of_the_variant_pass,
    "make test-stack": test_stack.test_all_tests_of_the_variant_pass_on_real_servers,
    "make sbom": test_supply.test_the_list_of_packages_is_valid_and_names_each_with_its_hashes,
    "make audit": test_supply.test_an_audit_is_clean_only_when_everything_was_asked,
    test_stack.UP: test_stack.test_an_item_lives_and_dies,
    test_stack.SMOKE: test_stack.test_a_pipeline_asks_the_service,
    test_stack.SMOKE_BESIDE_DOCKER: test_stack.test_a_pipeline_asks_the_service,
    test_stack.UNDO_AND_REDO: test_stack.test_migrations_can_be_undone_and_done_again,
    test_stack.LOGS: test_stack.test_a_pipeline_asks_the_service,
    test_stack.DOWN: test_stack.stack,
    LAST: test_workflows.test_the_last_job_passes_when_every_other_did,
}


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project for each answer."""
    return {ci: render(tmp_path_factory.mktemp(ci), ci=ci) for ci in answers_to("ci")}


@pytest.fixture(scope="module")
def workflows(projects: dict[str, Path]) -> list[dict[str, Any]]:
    return [yaml.safe_load((projects["github"] / path).read_text(encoding="utf-8")) for path in GITHUB]


@pytest.fixture(scope="module")
def pipeline(projects: dict[str, Path]) -> dict[str, Any]:
    return pipeline_of(projects["gitlab"])


def pipeline_of(project: Path) -> dict[str, Any]:
    pipeline: dict[str, Any] = yaml.safe_load((project / PIPELINE).read_text(encoding="utf-8"))
    return pipeline


def jobs_of(pipeline: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the jobs of a pipeline of GitLab, with what they extend."""
    jobs = {}
    for name, job in pipeline.items():
        if name not in ("stages", "default", "workflow") and not name.startswith("."):
            jobs[name] = {**pipeline.get(job.get("extends"), {}), **job}
    return jobs


def lint(command: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool, which names what it reads."""
    line = shlex.join([*shlex.split(command), *map(str, files)])
    return bash(line, ROOT, {"PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}"})


def test_an_answer_decides_about_its_files_only(projects: dict[str, Path]) -> None:
    for ci, project in projects.items():
        for answer, paths in (("github", GITHUB), ("gitlab", GITLAB)):
            assert {(project / path).is_file() for path in paths} == {ci == answer}
        assert (project / ".github").exists() is (ci == "github")
        assert (project / ".gitlab").exists() is (ci == "gitlab")


@pytest.mark.parametrize(("ci", "tool"), [(ci, tool) for ci, tools in TOOLS_OF.items() for tool in tools])
def test_no_tool_finds_a_fault(projects: dict[str, Path], ci: str, tool: str) -> None:
    """In what is rendered, nor in the template as it lies there."""
    files = [directory / path for directory in (projects[ci], TEMPLATE) for path in TOOLS_OF[ci][tool]]
    done = lint(tool, *files)
    assert done.returncode == 0, done.stdout


class Mistake(NamedTuple):
    """A text, what stands there instead, and what the tool that must refuse it says."""

    tool: str
    path: str
    text: str
    instead: str
    found: str


CHECKOUT = "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
MISTAKES = [
    Mistake(ZIZMOR, CI, CHECKOUT, "@v7", "unpinned-uses"),
    Mistake(ZIZMOR, CI, "persist-credentials: false", "persist-credentials: true", "artipacked"),
    Mistake(ZIZMOR, CI, "permissions: {}\n\nenv", "permissions: write-all\n\nenv", "excessive-permissions"),
    Mistake(ZIZMOR, CI, "    permissions: {}\n", "    permissions: write-all\n", "excessive-permissions"),
    Mistake(ZIZMOR, CI, 'make "$TARGET"', "make ${{ github.head_ref }}", "template-injection"),
    Mistake(ZIZMOR, CI, "pull_request:", "pull_request_target:", "dangerous-triggers"),
    Mistake(ZIZMOR, CI, "concurrency:", "x-concurrency:", "concurrency-limits"),
    Mistake(ZIZMOR, CI, "    name: List the packages\n", "", "anonymous-definition"),
    Mistake(ACTIONLINT, CI, "needs: [check, image, packages]", "needs: [check, image, package]", "package"),
    Mistake(ACTIONLINT, CI, "TARGET: ${{ matrix.target }}", "TARGET: ${{ matrix.goal }}", "goal"),
    Mistake(ACTIONLINT, CI, "runs-on: ubuntu-24.04", "runs-on: ubuntu-24.40", "ubuntu-24.40"),
    Mistake(ACTIONLINT, GITHUB[0], '"23 4 * * 1"', '"23 4 * * 8"', "CRON"),
    Mistake(ACTIONLINT, CI, 'make "$TARGET"', "make $TARGET", "SC2086"),
    Mistake(WORKFLOW, CI, "runs-on:", "run-on:", "run-on"),
    Mistake(TIMEOUTS, CI, "    timeout-minutes: 15\n", "", "timeout-minutes"),
    Mistake(GITLAB_CI, PIPELINE, "  script:\n    - make lint", "  scripts:\n    - make lint", "scripts"),
    Mistake(GITLAB_CI, PIPELINE, "interruptible: true", "interruptable: true", "interruptable"),
    Mistake(GITLAB_CI, PIPELINE, "on_new_commit: none", "on_new_commit: never", "never"),
    Mistake(GITLAB_CI, PIPELINE, "paths: [sbom.cdx.json]", "path: [sbom.cdx.json]", "path"),
    Mistake(COMPOSE, GITLAB[1], "ports:", "port:", "port"),
]


@pytest.mark.parametrize(("ci", "tool"), [(ci, tool) for ci, tools in TOOLS_OF.items() for tool in tools])
def test_every_mistake_is_refused(projects: dict[str, Path], tmp_path: Path, ci: str, tool: str) -> None:
    assert_each_is_refused(tmp_path, tool, MISTAKES, lambda mistake: projects[ci] / mistake.path)


def assert_each_is_refused(
    directory: Path, tool: str, all_mistakes: Sequence[Mistake], source_of: Callable[[Mistake], Path]
) -> None:
    """Make all mistakes of a tool at once, each in a copy of its file: without its mistake, each file is clean."""
    mistakes = {
        directory / str(number) / mistake.path: mistake
        for number, mistake in enumerate(all_mistakes)
        if mistake.tool == tool
    }
    assert mistakes
    for wrong, mistake in mistakes.items():
        source = source_of(mistake).read_text(encoding="utf-8")
        assert mistake.text in source
        wrong.parent.mkdir(parents=True)
        wrong.write_text(source.replace(mistake.text, mistake.instead), encoding="utf-8")
    done = lint(tool, *mistakes)
    assert done.returncode != 0
    for wrong, mistake in mistakes.items():
        about = f"{wrong.relative_to(directory).parts[0]}/{mistake.path}"
        assert about in done.stdout, (mistake, done.stdout)
        assert mistake.found in done.stdout, (mistake, done.stdout)


def faults_of(pipeline: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a pipeline of GitLab and no schema sees."""
    names = list(jobs_of(pipeline))
    stages = pipeline["stages"]
    for name, job in jobs_of(pipeline).items():
        if job.get("extends", ".commit") not in pipeline:
            yield f"{name} extends {job['extends']}"
        if job["stage"] not in stages:
            yield f"{name} is in {job['stage']}"
            continue
        for need in job.get("needs", []):
            if need not in names or stages.index(pipeline[need]["stage"]) > stages.index(job["stage"]):
                yield f"{name} needs {need}"
        if "rules" not in job:
            yield f"{name} has no rules"
        for image in [pipeline["default"]["image"], *(service["name"] for service in job.get("services", []))]:
            if not re.search(r":\d", image):
                yield f"{name} takes any {image}"


def test_a_pipeline_holds_together(pipeline: dict[str, Any]) -> None:
    assert list(faults_of(pipeline)) == []


@pytest.mark.parametrize(
    ("job", "key", "value", "fault"),
    [
        ("boot", "needs", ["lint", "tests"], "boot needs tests"),
        ("lint", "needs", ["boot"], "lint needs boot"),
        ("boot", "stage", "images", "boot is in images"),
        ("lint", "extends", ".comit", "lint extends .comit"),
        ("boot", "services", [{"name": "docker:dind"}], "boot takes any docker:dind"),
    ],
)
def test_a_pipeline_that_does_not_hold_together_is_refused(
    pipeline: dict[str, Any], job: str, key: str, value: object, fault: str
) -> None:
    assert fault in faults_of({**pipeline, job: {**pipeline[job], key: value}})


def test_the_pins_are_those_of_the_template(projects: dict[str, Path]) -> None:
    own = {line.strip() for path in test_workflows.WORKFLOWS for line in uses(path)}
    for path in GITHUB:
        for line in map(str.strip, uses(projects["github"] / path)):
            assert ACTION.match(line), line
            assert line in own or "upload-artifact@" in line


def uses(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]


def test_a_job_may_do_nothing_but_read(workflows: list[dict[str, Any]]) -> None:
    for workflow in workflows:
        assert workflow["permissions"] == {}
        for name, job in workflow["jobs"].items():
            assert job["permissions"] == ({} if name == "passed" else {"contents": "read"})


def test_the_last_job_needs_every_other(workflows: list[dict[str, Any]]) -> None:
    *others, last = workflows[1]["jobs"]
    assert last == "passed"
    assert workflows[1]["jobs"][last]["needs"] == others
    assert workflows[1]["jobs"][last]["if"] == "always()"


def test_each_pipeline_runs_for_the_same_reasons(workflows: list[dict[str, Any]], pipeline: dict[str, Any]) -> None:
    # YAML 1.1 takes `on` for a yes.
    audit, ci = (workflow[True] for workflow in workflows)  # type: ignore[index]
    assert ci == {"push": {"branches": ["main"]}, "pull_request": None, "merge_group": None}
    assert audit.keys() == {"schedule", "workflow_dispatch"}
    requests, default_branch = pipeline["workflow"]["rules"]
    # The pipelines of merge trains are pipelines of merge requests, too.
    assert requests == {
        "if": '$CI_PIPELINE_SOURCE == "merge_request_event"',
        "auto_cancel": {"on_new_commit": "interruptible"},
    }
    assert default_branch == {"if": "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH"}
    assert pipeline["workflow"]["auto_cancel"] == {"on_new_commit": "none"}
    scheduled = [name for name, job in jobs_of(pipeline).items() if "==" in job["rules"][0]["if"]]
    assert scheduled == ["audit"]


def commands(workflows: list[dict[str, Any]], pipeline: dict[str, Any]) -> dict[str, set[str]]:
    """Return every line that a shell of GitHub or of GitLab executes."""
    jobs = [job for workflow in workflows for job in workflow["jobs"].values()]
    runs = {step["run"] for job in jobs for step in job["steps"] if "run" in step}
    (targets,) = (job["strategy"]["matrix"]["target"] for job in jobs if "strategy" in job)
    runs = runs - {'make "$TARGET"'} | {f"make {target}" for target in targets}
    keys = ("before_script", "script", "after_script")
    scripts = {line for job in jobs_of(pipeline).values() for key in keys for line in job.get(key, [])}
    return {"github": {line for run in runs for line in run.splitlines()}, "gitlab": scripts}


def test_every_command_is_executed_by_a_test(workflows: list[dict[str, Any]], pipeline: dict[str, Any]) -> None:
    both = commands(workflows, pipeline)
    assert both["github"] | both["gitlab"] == EXECUTED.keys()
    assert not [line for line in both["github"] if "${{" in line], "an expression belongs into the environment"
    # What differs is where the service is, and that a job of GitLab has to install Docker and has no last step.
    here, there = both["github"] - both["gitlab"], both["gitlab"] - both["github"]
    assert {line.partition(" URL=")[0] for line in there} >= here - {test_stack.LOGS, LAST}
    for command, test in EXECUTED.items():
        if re.fullmatch(r"make [\w-]+", command) and command != test_stack.SMOKE:
            assert f'"{command.removeprefix("make ")}"' in inspect.getsource(test), command


def test_the_last_job_decides_as_that_of_the_template() -> None:
    assert test_workflows.EXECUTED[LAST] is EXECUTED[LAST]


@executes(EXECUTED, "make .env")
def test_the_secrets_are_made(command: str, projects: dict[str, Path], tmp_path: Path) -> None:
    for name in ("Makefile", ".env.example"):
        shutil.copy(projects["github"] / name, tmp_path)
    done = bash(command, tmp_path, {"PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout
    assert re.search(r"^DATABASE_PASSWORD=.{32}$", (tmp_path / ".env").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("status", "shown"), [("success", False), ("failed", True)])
@executes(EXECUTED, f'[ "$CI_JOB_STATUS" = success ] || {test_stack.LOGS}')
def test_the_logs_are_shown_after_a_failure(command: str, status: str, shown: bool, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@"\n')
    docker.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = bash(command, tmp_path, {"PATH": path, "CI_JOB_STATUS": status})
    assert (done.returncode, done.stdout) == (0, "compose logs\n" if shown else "")


@pytest.mark.slow
@pytest.mark.usefixtures("docker")
@executes(
    EXECUTED, "apt-get update && apt-get install --yes --no-install-recommends docker-cli docker-compose docker-buildx"
)
def test_docker_can_be_installed_beside_python(command: str, pipeline: dict[str, Any]) -> None:
    (release,) = re.findall(r"^python:[\d.]+-(\w+)$", pipeline["default"]["image"])
    # apt-get looks for everything, and installs nothing.
    simulated = f"echo 'APT::Get::Simulate \"true\";' >/etc/apt/apt.conf.d/simulate && {command}"
    run = ["docker", "run", "--rm", f"debian:{release}-slim", "sh", "-c", simulated]
    done = subprocess.run(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if "Failed to fetch" in done.stdout or "Unable to locate" in done.stdout:
        pytest.skip(f"the packages of the system cannot be looked up here: {done.stdout[-500:]}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^Inst docker-compose ", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("docker")
def test_a_pipeline_reaches_the_service(projects: dict[str, Path], pipeline: dict[str, Any]) -> None:
    variables = pipeline["boot"]["variables"]
    config = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=projects["gitlab"],
        env=environment_of(COMPOSE_FILE=variables["COMPOSE_FILE"]),
        capture_output=True,
        text=True,
        check=True,
    )
    (port,) = (port for port in json.loads(config.stdout)["services"]["api"]["ports"] if "host_ip" not in port)
    assert (port["published"], port["target"]) == ("8001", 8000)
    assert pipeline["boot"]["services"][0]["alias"] == "docker"
    assert f"://docker:{port['published']}" in test_stack.SMOKE_BESIDE_DOCKER


@pytest.mark.parametrize("variant", variants_to_test(), ids=name_of)
def test_the_servers_of_a_pipeline_are_those_of_the_containers(variant: dict[str, bool], tmp_path: Path) -> None:
    project = render(tmp_path, ci="gitlab", **variant)
    job = pipeline_of(project)["test-stack"]
    services = yaml.safe_load((project / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    ours = {service["alias"]: service["name"] for service in job["services"]}
    assert ours == {name: services[name]["image"] for name in ("db", "redis", "rabbitmq") if name in services}
    for alias, url in zip(ours, job["variables"].values(), strict=True):
        assert re.search(rf"[/@]{alias}/", url), url


def test_no_server_is_started_beside_those_of_a_pipeline(projects: dict[str, Path], pipeline: dict[str, Any]) -> None:
    """And the service under test has no server but those that a test gives it."""
    variables = pipeline["test-stack"]["variables"]
    print_addresses = "import json, os; print(json.dumps({n: v for n, v in os.environ.items() if n.endswith('_URL')}))"
    done = subprocess.run(
        [sys.executable, "-m", "tests.stack", sys.executable, "-c", print_addresses],
        cwd=projects["gitlab"],
        # Where no program is found, no container is started.
        env={**variables, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {f"TEST_{name}": url for name, url in variables.items()}
