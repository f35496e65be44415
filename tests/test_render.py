"""Every combination of all answers: what is rendered, and what is not."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cookiecutter.main import cookiecutter
from jinja2 import Environment

from tests.commits import commit_all
from tests.variants import (
    FILES_ONLY,
    QUESTIONS,
    ROOT,
    SAMPLES,
    SLUG,
    TEMPLATE,
    answers_to,
    core_variants,
    features,
    is_of_others,
    name_of,
    pairs_of,
    product_of_all_answers,
    render,
    text_files,
)
from tests.variants import product as every_product

# What must not be left of a template, and what would tell a reader that there was one. After a dollar sign, it is an
# expression of GitHub.
RESIDUE = re.compile(r"(?<!\$)\{\{ *\w|\{%|%\}|\{#|cookiecutter|jinja", re.IGNORECASE)

# Its name may be said only where a project tells what it was made from, and how that is updated.
TEMPLATE_NAME = "cookiecutter-fastapi-highload"
SAYS_WHERE_FROM = ("README.md", "pyproject.toml", "docs/update.md")

MODULES_OF_FEATURES = {
    "caching": {"redis", "hiredis"},
    "queued_writes": {"celery", "kombu", "aio_pika"},
    "observability": {"opentelemetry_sdk", "opentelemetry_proto"},
}
VARIABLES_OF_FEATURES = {
    "caching": {"REDIS_URL", "CACHE_TTL", "REDIS_PASSWORD"},
    "queued_writes": {"BROKER_URL", "RABBITMQ_PASSWORD", "RABBITMQ_CLUSTER_PASSWORD", "WORKER_CONCURRENCY"},
    "observability": {
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_TRACES_SAMPLER_ARG",
        "GRAFANA_PASSWORD",
        "OBSERVER_PASSWORD",
    },
}


@cache
def table_of_the_hook(name: str) -> dict[str, Any]:
    source = (ROOT / "hooks/post_gen_project.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            table: dict[str, Any] = ast.literal_eval(node.value)
            return table
    raise AssertionError(f"the hook has no table {name}")


def files_of_features() -> dict[str, list[str]]:
    """Return the files of each yes or no."""
    return table_of_the_hook("FILES_OF_FEATURES")


def files_of_choices() -> dict[str, dict[str, list[str]]]:
    """Return the files of each answer to a question that adds files only."""
    return table_of_the_hook("FILES_OF_CHOICES")


def test_every_question_is_tried() -> None:
    for question in QUESTIONS:
        assert len(answers_to(question)) >= 1
    asked = {name for name, default in QUESTIONS.items() if isinstance(default, str)}
    assert asked == set(SAMPLES), "list samples for every question that is free text"


def test_every_yes_says_what_it_costs() -> None:
    prompts = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["__prompts__"]
    assert set(prompts) == set(QUESTIONS)
    for feature in features():
        assert "? It costs " in prompts[feature]


def test_the_table_of_features_is_complete() -> None:
    table = files_of_features()
    assert set(table) == set(features())
    for path in (path for paths in table.values() for path in paths):
        assert (TEMPLATE / path).is_file(), path
    for question, choices in files_of_choices().items():
        assert set(choices) <= set(answers_to(question))
        for path in (path for paths in choices.values() for path in paths):
            assert (TEMPLATE / path).is_file(), path
    assert set(files_of_choices()) == set(FILES_ONLY)
    for feature in features():
        assert MODULES_OF_FEATURES[feature]
        assert VARIABLES_OF_FEATURES[feature]


@pytest.fixture
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what Jinja makes of a file: that takes most of the time, and is the same for all answers."""
    compiled: dict[tuple[object, ...], Any] = {}
    compile_anew = Environment.compile

    def compile_once(self: Environment, source: Any, name: Any = None, filename: Any = None, *options: Any) -> Any:
        key = (source, name, filename, *options)
        if key not in compiled:
            compiled[key] = compile_anew(self, source, name, filename, *options)
        return compiled[key]

    monkeypatch.setattr(Environment, "compile", compile_once)


@pytest.mark.usefixtures("compiled_once")
def test_the_full_product_of_answers(tmp_path: Path) -> None:
    """One test, because rendering is fast and a failure names the answers."""
    template_files = {path.relative_to(TEMPLATE).as_posix() for path in TEMPLATE.rglob("*") if is_source(path)}
    template_files = {path for path in template_files if not is_of_others(path)}
    product = list(product_of_all_answers())
    assert len(product) == 4 * 2 * 2 * 2 ** len(features())
    asked = [question for question in QUESTIONS if len(answers_to(question)) > 1]
    pairs = set().union(*map(pairs_of, every_product(asked)))
    assert set().union(*map(pairs_of, product)) >= pairs, "every two answers meet"
    for number, answers in enumerate(product):
        project = render(tmp_path / str(number), **answers)
        files = text_files(project)
        off = {feature for feature in features() if not answers[feature]}
        removed = {path for feature in off for path in files_of_features()[feature]}
        for question, choices in files_of_choices().items():
            removed |= {path for choice, paths in choices.items() if choice != answers[question] for path in paths}
        assert set(files) == template_files - removed | {".env"}, answers
        for path, text in files.items():
            said = text.replace(f"org/{TEMPLATE_NAME}", "").replace(f"[{TEMPLATE_NAME}]", "")
            searched = said if path in SAYS_WHERE_FROM else text
            residue = [line for line in searched.splitlines() if RESIDUE.search(line)]
            assert not residue, (answers, path, residue)
            assert not text or text.endswith("\n"), path
            assert not re.search(r"\n\n\n\n", text), (answers, path)
        assert_only_chosen_features(files, off)
        assert_answers_are_used(files, answers)


def is_source(path: Path) -> bool:
    return path.is_file() and not {"__pycache__", ".mypy_cache", ".ruff_cache"} & set(path.parts)


def assert_only_chosen_features(files: dict[str, str], off: set[str]) -> None:
    absent = {name for feature in off for name in MODULES_OF_FEATURES[feature] | VARIABLES_OF_FEATURES[feature]}
    for path, text in files.items():
        # To look for the begin of a name first takes a tenth of the time.
        near = {name for name in absent if name.partition("_")[0] in text}
        found = {name for name in near if re.search(rf"\b{name.replace('_', '[_-]')}\b", text)}
        assert not found, (path, found)
    locked = set(re.findall(r"^([a-z0-9-]+)==", files["requirements.txt"], re.MULTILINE))
    for feature in set(features()) - off:
        assert {name.replace("_", "-") for name in MODULES_OF_FEATURES[feature]} <= locked


def assert_answers_are_used(files: dict[str, str], answers: dict[str, Any]) -> None:
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == answers["project_slug"]
    assert project["description"] == answers["description"]
    assert project["authors"] == [{"name": answers["author_name"]}]
    assert project["license"] == answers["license"].replace("Proprietary", "LicenseRef-Proprietary")
    first_words = {"MIT": "MIT License", "Apache-2.0": "Apache License", "BSD-3-Clause": "BSD 3-Clause License"}
    assert first_words.get(answers["license"], "All rights reserved") in files["LICENSE"]
    assert len(files["LICENSE"].split("Copyright")[0].splitlines()) < 250
    assert answers["author_name"] in files["LICENSE"]
    assert f'PYTHON="python:{answers["python_version"]}-slim"' in files["Dockerfile"]
    services = yaml.safe_load(files["docker-compose.yml"])["services"]
    assert services["api"]["environment"]["WEB_CONCURRENCY"] == f"${{WEB_CONCURRENCY:-{answers['workers']}}}"
    assert ("redis" in services) is answers["caching"]
    assert ("worker" in services) is ("rabbitmq" in services) is answers["queued_writes"]
    assert answers["project_name"] in files["README.md"]


@pytest.mark.parametrize("variant", core_variants(), ids=name_of)
def test_a_project_tells_what_it_was_made_from(variant: dict[str, bool], tmp_path: Path) -> None:
    answers: dict[str, Any] = {
        "project_name": 'The "Best" Shop',
        "resource": "order",
        "license": "Proprietary",
        **variant,
    }
    project = render(tmp_path, **answers)
    template = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recorded = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cruft"]
    assert template["name"] == TEMPLATE_NAME
    assert recorded["template"] == f"https://github.com/org/{TEMPLATE_NAME}"
    assert recorded["version"] == template["version"]
    assert set(recorded["answers"]) == set(QUESTIONS)
    in_words = {
        name: "yes" if answer is True else "no" if answer is False else answer for name, answer in answers.items()
    }
    assert recorded["answers"].items() >= in_words.items()
    first, *_ = re.findall(r"^\|.*", (project / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"[{TEMPLATE_NAME}]({recorded['template']}) {recorded['version']} |" in first


def test_many_workers_get_enough_connections(tmp_path: Path) -> None:
    compose = yaml.safe_load((render(tmp_path, workers="64") / "docker-compose.yml").read_text(encoding="utf-8"))
    assert compose["services"]["api"]["environment"]["DB_MAX_CONNECTIONS"] == "${DB_MAX_CONNECTIONS:-340}"
    assert compose["services"]["db"]["command"][-1] == (
        "max_connections=${POSTGRES_MAX_CONNECTIONS:-${DB_MAX_CONNECTIONS:-340}}"
    )


@pytest.mark.parametrize("variant", core_variants(), ids=name_of)
def test_the_containers_need_nothing_of_the_directory(variant: dict[str, bool], tmp_path: Path) -> None:
    """The daemon may be on another machine."""
    compose = yaml.safe_load((render(tmp_path, **variant) / "docker-compose.yml").read_text(encoding="utf-8"))
    mounted = {mount for service in compose["services"].values() for mount in service.get("volumes", [])}
    assert {mount.partition(":")[0] for mount in mounted} <= set(compose["volumes"])


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_with_hashes_and_without_addresses(tmp_path: Path, name: str) -> None:
    text = (render(tmp_path) / name).read_text(encoding="utf-8")
    for block in re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)[1:]:
        assert "==" in block.splitlines()[0]
        assert "--hash=sha256:" in block
    assert "://" not in text


def test_requirements_satisfy_the_ranges(tmp_path: Path) -> None:
    """A changed range needs a new lock: the locked versions still resolve for every variant."""
    for answers in core_variants():
        project = render(tmp_path / name_of(answers), **answers)
        recipe = " ".join((project / "Makefile").read_text(encoding="utf-8").replace("\\\n", "").split())
        for name in ("requirements-dev.txt", "requirements.txt"):
            before = (project / name).read_text(encoding="utf-8")
            # Renovate runs it, as make does with two options more.
            _, command, *_ = (line.removeprefix("#").strip() for line in before.splitlines())
            assert command.replace("compile", "compile --quiet --upgrade") in recipe
            subprocess.run(
                [*command.split(), "--quiet"], cwd=project, check=True, stdout=subprocess.DEVNULL, env=path_with_tools()
            )
            assert (project / name).read_text(encoding="utf-8") == before


def path_with_tools() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def test_the_hooks_need_the_standard_library_only() -> None:
    for hook in (ROOT / "hooks").glob("*.py"):
        tree = ast.parse(hook.read_text(encoding="utf-8"))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names
    assert {path.suffix for path in (ROOT / "hooks").iterdir() if path.is_file()} == {".py"}


def names_of_the_hook(directory: Path) -> dict[str, Any]:
    """Return what the first hook defines."""
    source = (ROOT / "hooks/pre_gen_project.py").read_text(encoding="utf-8")
    body = source[: source.index("sys.exit(main())")].replace("{{ cookiecutter | tojson }}", "{}")
    (directory / "hook.py").write_text(body, encoding="utf-8")
    return runpy.run_path(str(directory / "hook.py"))


def test_the_template_writes_no_file_that_is_taken_for_one_of_a_tool(tmp_path: Path) -> None:
    made_by_tools = names_of_the_hook(tmp_path)["MADE_BY_TOOLS"]
    project = render(tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    listed = ["git", "ls-files", "--others", "--ignored", *(f"--exclude={name}" for name in made_by_tools)]
    assert subprocess.run(listed, cwd=project, capture_output=True, text=True, check=True).stdout == ""


def test_the_reserved_names_cover_the_dependencies(tmp_path: Path) -> None:
    reserved = names_of_the_hook(tmp_path)["DEPENDENCIES"]
    direct = tomllib.loads((render(tmp_path) / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    for requirement in direct:
        name = re.split(r"[^a-z0-9-]", requirement)[0]
        assert name.replace("-", "_") in reserved, name
    assert SLUG.replace("-", "_") not in reserved


def test_a_project_that_is_rendered_again_keeps_its_secrets(tmp_path: Path) -> None:
    project = render(tmp_path)
    secrets = (project / ".env").read_text(encoding="utf-8")
    commit_all(project)
    again = cookiecutter(str(ROOT), no_input=True, output_dir=str(tmp_path), overwrite_if_exists=True)
    assert (Path(again) / ".env").read_text(encoding="utf-8") == secrets


@pytest.mark.parametrize("variant", core_variants(), ids=name_of)
def test_every_setting_reaches_the_containers(variant: dict[str, bool], tmp_path: Path) -> None:
    project = render(tmp_path, **variant)
    table = (project / "docs/settings.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE))
    compose = yaml.safe_load((project / "docker-compose.yml").read_text(encoding="utf-8"))
    assert documented == set(compose["services"]["api"]["environment"])
