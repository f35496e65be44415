"""The variants of the template, enumerated from cookiecutter.json, and how to render one.

`python -m tests.variants` prints them for the workflows of GitHub Actions.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
CONTEXT: dict[str, Any] = json.loads((ROOT / "cookiecutter.json").read_text())
QUESTIONS = {name: default for name, default in CONTEXT.items() if name[0] != "_"}
COPIED: list[str] = CONTEXT["_copy_without_render"]
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

# Questions whose answers add files and change nothing else: each variant is rendered with one of them, in turn, and
# their own tests try them. All other tests take the default.
FILES_ONLY = ("ci", "deployment")

# The documents of a project whose commands are executed together; those of the others have tests of their own.
DOCUMENTS = (
    "README.md",
    "AGENTS.md",
    "docs/load.md",
    "docs/operate.md",
    "docs/promises.md",
    "docs/settings.md",
    "docs/update.md",
)

# The answers that this run is for, where it is for one variant: JSON in the environment.
ONLY: dict[str, Any] = json.loads(os.environ.get("ANSWERS", "{}"))

type Answers = Mapping[str, Any]


def answers_to(question: str) -> list[Any]:
    """Return the answers to a question that the tests try: of a choice the default first, of a yes or no the yes."""
    default = QUESTIONS[question]
    if isinstance(default, list):
        return default
    if isinstance(default, bool):
        return [True, False]
    return SAMPLES[question]


def product(questions: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield every combination of answers to some questions."""
    for answers in itertools.product(*map(answers_to, questions)):
        yield dict(zip(questions, answers, strict=True))


def product_of_all_answers() -> Iterator[dict[str, Any]]:
    """Yield every combination of answers; of those that add files only, every two of all meet."""
    added = list(product(FILES_ONLY))
    # A number of turns that is odd keeps out of step with all that is doubled.
    turns = itertools.cycle(added if len(added) % 2 else [*added, added[0]])
    for answers in product([question for question in QUESTIONS if question not in FILES_ONLY]):
        yield answers | next(turns)


def features() -> list[str]:
    """Return the questions that switch a feature."""
    return [name for name, default in QUESTIONS.items() if isinstance(default, bool)]


def core_variants() -> list[dict[str, bool]]:
    """Return every combination of features, the fullest first: those differ in code and dependencies."""
    return list(product(features()))


def variants_to_test() -> list[dict[str, bool]]:
    """Return few core variants, the fullest first, in which every two features meet, each on and off."""
    return variants_with_every_pair(features())


def variants_of_this_run() -> list[dict[str, bool]]:
    """Return the variants to test, or the one that this run is for."""
    if ONLY:
        return [variant for variant in core_variants() if {**variant, **ONLY}.items() >= variant.items()]
    return variants_to_test()


def pairs_of(answers: Answers) -> set[tuple[tuple[str, Any], ...]]:
    """Return every two answers that meet in a variant."""
    return set(itertools.combinations(answers.items(), 2))


def variants_with_every_pair(questions: Sequence[str]) -> list[dict[str, Any]]:
    """Return few variants in which every two answers to different questions meet: what fails mostly fails for two."""
    candidates = list(product(questions))
    missing = set().union(*map(pairs_of, candidates))
    chosen = []
    while missing:
        best = max(candidates, key=lambda answers: len(pairs_of(answers) & missing))
        missing -= pairs_of(best)
        chosen.append(best)
    return chosen


def choices() -> list[str]:
    """Return the questions with more than one answer to try in containers."""
    return [question for question in QUESTIONS if len(answers_to(question)) > 1 and question not in FILES_ONLY]


def docker_variants() -> list[dict[str, Any]]:
    """Return the variants that are run in Docker: those to test, each Python version with half of them.

    The stacks of the workflows hold every pair of answers.
    """
    if ONLY:
        return [ONLY]
    newest, older = answers_to("python_version")
    return [
        {
            "python_version": newest if variant["observability"] else older,
            **variant,
            "workers": "2" if is_fullest(variant) else "auto",
        }
        for variant in variants_to_test()
    ]


def is_fullest(answers: Answers) -> bool:
    """Whether a variant has every feature."""
    return all(answers[feature] for feature in features())


def name_of(answers: Answers) -> str:
    """Return a short name for a test's id."""
    return "+".join(name for name, answer in answers.items() if answer is True) or "plain"


def render(directory: Path, **answers: Any) -> Path:
    """Render the template without a question and return the project's directory."""
    return Path(cookiecutter(str(ROOT), no_input=True, output_dir=str(directory), extra_context=answers))


def documents(project: Path) -> str:
    """Return the text of the README and of what it leads to."""
    return "\n".join((project / name).read_text(encoding="utf-8") for name in DOCUMENTS)


def text_files(project: Path) -> dict[str, str]:
    """Return the text of every file that the template made, by its path; those of others were copied."""
    paths = {path.relative_to(project).as_posix(): path for path in sorted(project.rglob("*")) if path.is_file()}
    made = {name: path for name, path in paths.items() if ".venv" not in path.parts and not is_of_others(name)}
    return {name: path.read_text(encoding="utf-8") for name, path in made.items()}


def is_of_others(path: str) -> bool:
    """Whether a file of the template is copied as it is, because others wrote it."""
    return any(fnmatch(path, pattern) for pattern in COPIED)


def job(answers: Answers) -> dict[str, str]:
    """Return what a job of a workflow needs to know of a variant."""
    name = " ".join([name_of(answers), *(answer for answer in answers.values() if isinstance(answer, str))])
    return {"name": name, "python": answers["python_version"], "answers": json.dumps(answers)}


def main() -> None:
    """Print each list of variants as an output of a job: NAME=JSON."""
    for name, variants in {
        "variants": product(["python_version", *features()]),
        "stacks": variants_with_every_pair(choices()),
    }.items():
        print(f"{name}={json.dumps(list(map(job, variants)))}")


if __name__ == "__main__":
    main()
