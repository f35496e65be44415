"""A rendered project takes over what changed in the template, by cruft, and keeps what its owner wrote.

The template is a clone of this repository on this disk, so that nothing needs a network.
"""

import difflib
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cookiecutter.main import cookiecutter

from tests.commits import AUTHOR, commit_all
from tests.conftest import clean_environment, install, make, options_for_tests
from tests.executed import executes
from tests.test_recipes import carry_out
from tests.variants import CONTEXT, QUESTIONS, ROOT, SLUG, TEMPLATE, core_variants, features, is_fullest, name_of

TOOLS = Path(sys.executable).parent
CRUFT = str(TOOLS / "cruft")
ADDRESS = "https://github.com/org/cookiecutter-fastapi-highload"
VERSION: str = CONTEXT["_version"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
# The commit of each release, the newest first.
RELEASES: dict[str, str] = dict(re.findall(rf"^\[([\d.]+)\]: {ADDRESS}/commit/([0-9a-f]{{40}})$", CHANGELOG, re.MULTILINE))
# Each command of a rendered project's docs/update.md, with the test that executes it.
EXECUTED: dict[str, Callable[..., None]] = {}

# What comes with the next release, beside what this repository has: for each file the text, and what takes its place.
COMES: dict[str, tuple[str, str]] = {
    "Makefile": ("SECONDS ?= 10\n", "SECONDS ?= 11\n"),
    "README.md": ("Stop the containers and delete their data:", "Stop the containers, and delete their data:"),
    "app/config.py": ("# Orchestrators put files here", "# Most orchestrators put files here"),
    "app/crud.py": ("SQL of your own belongs here, too.", "SQL of your own belongs here as well."),
    "app/highload/batching.py": ("\nclass ", "\n# Callers share what they wait for.\nclass "),
    "app/main.py": ("# Whoever asks for these needs", "# Who asks for these needs"),
    "app/models.py": ('"""The parent of all models."""', '"""What all models have."""'),
    "app/routes/items.py": ('    """Fetch an item."""', '    """Fetch one item."""'),
    "app/schemas.py": ("# PostgreSQL stores every character but NUL.", "# PostgreSQL stores all characters but NUL."),
    "docker-compose.yml": ("pids_limit: 2000", "pids_limit: 2001"),
    "docs/settings.md": ("Set them in the environment", "Set all of them in the environment"),
    "pyproject.toml": ("\n[tool.mypy]\nstrict = true\n", "\n[tool.mypy]\nstrict = true\npretty = true\n"),
    "requirements.txt": ("\nalembic==", "\nalembic==9."),
}
COMES_ANEW = "tests/highload/test_later.py"

# What a user writes, beside what two recipes say: for each file the text, and what takes its place.
SETTING = "    max_waiting: PositiveInt = 1000\n"
ROUTE = '''@router.get("/{item_id}/name", responses=NOT_FOUND)
async def get_name(items: Items, item_id: UUID) -> str:
    """Fetch the name of an item."""
    return found(await items.one(item_id)).name


'''
WRITES: dict[str, tuple[str, str]] = {
    "Makefile": ("DRILL_PORT ?= 8900\n", "DRILL_PORT ?= 8901\n"),
    "README.md": ("# Highload Service\n", "# The items of our company\n"),
    "app/config.py": (SETTING, f"{SETTING}    most_names: PositiveInt = 10\n"),
    "app/routes/items.py": ("def found(", f"{ROUTE}def found("),
    "docker-compose.yml": ("    MAX_WAITING:\n", "    MAX_WAITING:\n    MOST_NAMES:\n"),
    "docs/settings.md": ("| `MAX_WAITING` |", "| `MOST_NAMES` | 10 | names that a client may ask for |\n| `MAX_WAITING` |"),
    "pyproject.toml": ('    "aiosqlite', '    "a-package-of-ours>=1,<2",\n    "aiosqlite'),
    "requirements.txt": ("\naiosqlite==", f"\na-package-of-ours==1.0 \\\n    --hash=sha256:{'0' * 64}\naiosqlite=="),
}
RECIPES = ("Add a column", "Add a second resource")


class Upstream(NamedTuple):
    """A repository of the template: its history, what lies here as the newest release, and on a branch the next one."""

    directory: Path
    next_one: str = "next"


def run(directory: Path, *command: str, typed: str = "", status: int = 0, **environment: str) -> str:
    """Run a command that ends with a status, and return what it prints."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=clean_environment() | environment,
        input=typed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def git(directory: Path, *arguments: str) -> str:
    return run(directory, "git", *AUTHOR, *arguments)


def missing_history() -> str:
    """Return why this checkout cannot tell what a release was, or nothing."""
    asked = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository", *(f"{commit}^{{commit}}" for commit in RELEASES.values())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode == 0 and asked.stdout.startswith("false"):
        return ""
    return "the commits of the releases are not here: get them with git fetch --unshallow, or clone the repository"


needs_history = pytest.mark.skipif(bool(missing_history()), reason=missing_history())


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    """The template as its users reach it, with what is not committed yet."""
    here = tmp_path_factory.mktemp("upstream") / "template"
    shutil.copytree(ROOT, here, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache", "*.db"))
    if missing_history():
        commit_all(here)
    else:
        git(ROOT, "clone", "--quiet", "--no-checkout", str(ROOT), str(here.with_suffix(".git")))
        shutil.move(here.with_suffix(".git") / ".git", here)
        commit_all(here)
        for release, commit in RELEASES.items():
            git(here, "tag", "--force", release, commit)
    git(here, "tag", "--force", VERSION)
    git(here, "checkout", "--quiet", "-b", Upstream._field_defaults["next_one"])
    replace(here / TEMPLATE.name, COMES)
    (here / TEMPLATE.name / COMES_ANEW).write_text("def test_later() -> None:\n    assert True\n", encoding="utf-8")
    commit_all(here)
    git(here, "checkout", "--quiet", "-B", "main", VERSION)
    return Upstream(here)


def replace(project: Path, edits: dict[str, tuple[str, str]]) -> None:
    """Replace a text in each file, at its first place."""
    for name, (text, instead) in edits.items():
        path = project / name
        source = path.read_text(encoding="utf-8")
        assert text in source, (name, text)
        path.write_text(source.replace(text, instead, 1), encoding="utf-8")


def create(upstream: Upstream, directory: Path, checkout: str, **answers: Any) -> Path:
    """Return a project, all of it committed, that cruft made."""
    directory.mkdir(parents=True, exist_ok=True)
    extra = ("--extra-context", json.dumps(answers))
    run(directory, CRUFT, "create", str(upstream.directory), "--no-input", "--checkout", checkout, *extra)
    commit_all(directory / SLUG)
    return directory / SLUG


def update(project: Path, *arguments: str) -> str:
    return run(project, CRUFT, "update", "--skip-apply-ask", *arguments)


def files_of(project: Path) -> dict[str, str]:
    """Return the files that Git keeps, or would, but for what cruft notes."""
    listed = git(project, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    paths = {name: project / name for name in sorted(listed) if name not in {".cruft.json", ".venv"}}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}


def added(before: str, after: str) -> set[str]:
    """Return the lines that are new in a text."""
    compared = difflib.ndiff(before.splitlines(), after.splitlines())
    return {line[2:] for line in compared if line.startswith("+ ") and line[2:].strip()}


def conflicts(project: Path) -> set[str]:
    return set(git(project, "diff", "--name-only", "--diff-filter=U").splitlines())


def secrets_of(project: Path) -> set[str]:
    return set(re.findall(r"^\w+_PASSWORD=(.+)$", (project / ".env").read_text(encoding="utf-8"), re.MULTILINE))


def assert_merged(project: Path, printed: str, *, secrets: set[str], environment: bytes) -> None:
    """Check that nothing was rejected, and that the secrets were neither touched nor shown."""
    assert "Failed to apply" not in printed
    assert not list(project.rglob("*.rej"))
    assert (project / ".env").read_bytes() == environment
    assert secrets
    assert not {secret for secret in secrets if secret in printed}


def of_every_file(text: str, files: dict[str, str]) -> dict[str, str]:
    return {name: source for name, source in files.items() if text in source}


def test_each_release_has_a_section_and_a_commit() -> None:
    sections = re.findall(r"^## \[?([^\]\n]+)\]?$", CHANGELOG, re.MULTILINE)
    assert sections.pop(0) == "Unreleased"
    # The commit of the newest is not known before it is made.
    assert list(RELEASES) in (sections, sections[1:])
    numbers = [tuple(map(int, release.split("."))) for release in sections]
    assert numbers == sorted(numbers, reverse=True)
    template = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sections[0] == template["version"] == VERSION


@needs_history
def test_the_commit_of_each_release_is_that_of_its_version() -> None:
    for older, newer in pairwise([*reversed(RELEASES.values()), "HEAD"]):
        git(ROOT, "merge-base", "--is-ancestor", older, newer)
    for release, commit in RELEASES.items():
        assert tomllib.loads(git(ROOT, "show", f"{commit}:pyproject.toml"))["project"]["version"] == release


@needs_history
def test_an_answer_that_is_dropped_was_announced_a_release_before() -> None:
    release, commit = next(iter(RELEASES.items()))
    before = json.loads(git(ROOT, "show", f"{commit}:cookiecutter.json"))
    (section,) = re.findall(rf"^## \[{release}\]\n(.*?)(?=^## |\Z)", CHANGELOG, re.MULTILINE | re.DOTALL)
    # An answer to a question that is gone does no harm.
    for question in before.keys() & QUESTIONS.keys():
        assert type(QUESTIONS[question]) is type(before[question]), question
        if isinstance(before[question], list):
            for answer in {*before[question]} - {*QUESTIONS[question]}:
                assert f"`{question}={answer}` is accepted for one release more" in section, (question, answer)


def created_at(variant: dict[str, bool]) -> str:
    """Return the newest release that asks what a variant needs, or else what lies here."""
    for commit in RELEASES.values():
        if not missing_history() and {*variant} <= {*json.loads(git(ROOT, "show", f"{commit}:cookiecutter.json"))}:
            return commit
    return "main"


@pytest.mark.slow
@pytest.mark.parametrize("variant", core_variants(), ids=name_of)
def test_an_update_keeps_what_the_user_wrote(
    variant: dict[str, bool], upstream: Upstream, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fresh = create(upstream, tmp_path / "fresh", upstream.next_one, **variant)
    install(fresh, tmp_path_factory)
    project = create(upstream, tmp_path / "project", created_at(variant), **variant)
    # The tools of the next release, which other tests need, too.
    (project / ".venv").symlink_to((fresh / ".venv").readlink())
    before, environment, secrets = files_of(project), (project / ".env").read_bytes(), secrets_of(project)
    replace(project, WRITES)
    for recipe in RECIPES:
        carry_out(project, recipe)
    commit_all(project)
    written = files_of(project)
    assert {name for name in before if before[name] != written[name]} >= {*WRITES, "app/models.py", "app/main.py"}

    printed = update(project, "--checkout", upstream.next_one)
    assert_merged(project, printed, secrets=secrets, environment=environment)
    assert not conflicts(project)
    merged, comes = files_of(project), files_of(fresh)
    assert of_every_file("<<<<<<<", merged) == {}
    for name in sorted({*merged, *written, *comes}):
        if before.get(name) == written.get(name):
            assert merged.get(name) == comes.get(name), name
            continue
        lines = set(merged[name].splitlines())
        assert added(before.get(name, ""), written[name]) <= lines, name
        assert added(before.get(name, ""), comes.get(name, "")) <= lines, name
    for name, text in merged.items():
        if name.endswith(".py"):
            compile(text, name, "exec")
    assert COMES_ANEW in merged
    tested = make(project, "test", "--assume-old=.venv/dev", PYTEST_ADDOPTS=options_for_tests(variant))
    assert " passed" in tested.stdout
