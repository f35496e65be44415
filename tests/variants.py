"""The variants of the template, enumerated from cookiecutter.json, and how to render one."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
QUESTIONS: dict[str, Any] = {
    name: default for name, default in json.loads((ROOT / "cookiecutter.json").read_text()).items() if name[0] != "_"
}
SLUG = "highload-service"

# Answers that are free text. A new question must be a choice, a yes or no, or be listed here with samples.
SAMPLES: dict[str, list[str]] = {
    "project_name": ["Highload Service"],
    "project_slug": [SLUG],
    # Other names are tried in tests/test_names.py.
    "resource": ["item"],
    "resource_plural": ["items"],
    "description": ["An items service"],
    "author_name": ["Ada Lovelace"],
    "workers": ["4", "auto"],
}

type Answers = Mapping[str, Any]


def answers_to(question: str) -> list[Any]:
    """Return the answers to a question that the tests try; the first is the default where there is one."""
    default = QUESTIONS[question]
    if isinstance(default, list):
        return default
    if isinstance(default, bool):
        return [default, not default]
    return SAMPLES[question]


def product_of_all_answers() -> Iterator[dict[str, Any]]:
    """Yield every combination of answers."""
    for answers in itertools.product(*map(answers_to, QUESTIONS)):
        yield dict(zip(QUESTIONS, answers, strict=True))


def features() -> list[str]:
    """Return the questions that switch a feature."""
    return [name for name, default in QUESTIONS.items() if isinstance(default, bool)]


def core_variants() -> list[dict[str, bool]]:
    """Return every combination of features: those differ in code and dependencies."""
    switches = itertools.product([True, False], repeat=len(features()))
    return [dict(zip(features(), answers, strict=True)) for answers in switches]


def docker_variants() -> list[dict[str, Any]]:
    """Return the core variants with the Python versions in turn, so that each version gets built."""
    versions = itertools.cycle(answers_to("python_version"))
    return [{**variant, "python_version": next(versions)} for variant in core_variants()]


def is_fullest(answers: Answers) -> bool:
    """Whether a variant has every feature."""
    return all(answers[feature] for feature in features())


def name_of(answers: Answers) -> str:
    """Return a short name for a test's id."""
    return "+".join(name for name, answer in answers.items() if answer is True) or "plain"


def render(directory: Path, **answers: Any) -> Path:
    """Render the template without a question and return the project's directory."""
    return Path(cookiecutter(str(ROOT), no_input=True, output_dir=str(directory), extra_context=answers))


def text_files(project: Path) -> dict[str, str]:
    """Return the text of every file that the template made, by its path."""
    made = (path for path in sorted(project.rglob("*")) if path.is_file() and ".venv" not in path.parts)
    return {path.relative_to(project).as_posix(): path.read_text(encoding="utf-8") for path in made}
