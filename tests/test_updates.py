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
from tests.test_recipes import carry_out
from tests.variants import CONTEXT, QUESTIONS, ROOT, SLUG, TEMPLATE, core_variants, features, name_of

TOOLS = Path(sys.executable).parent
CRUFT = str(TOOLS / "cruft")
ADDRESS = "https://github.com/org/cookiecutter-fastapi-highload"
VERSION: str = CONTEXT["_version"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
# The commit of each release, the newest first.
RELEASES: dict[str, str] = dict(
    re.findall(rf"^\[([\d.]+)\]: {ADDRESS}/commit/([0-9a-f]{{40}})$", CHANGELOG, re.MULTILINE)
)

# The commands of a rendered project's docs/update.md.
CREATE = f"uvx cruft create {ADDRESS}"
ANSWERS = (
    'import json, tomllib; print(json.dumps(tomllib.load(open("pyproject.toml", "rb"))["tool"]["cruft"]["answers"]))'
)
LINK = f"""uvx cruft link {ADDRESS} --checkout {VERSION} --no-input --extra-context "$(python3 -c '{ANSWERS}')\""""
CHECK = "uvx cruft check"
DIFF = "uvx cruft diff"
UPDATE = 'uvx cruft update --checkout "$RELEASE"'
CONFLICTS = "git diff --name-only --diff-filter=U"
UNDO = ("git reset --hard", "git clean -d --force")
SWITCHES = {
    answer: f"uvx cruft update --checkout {VERSION} --variables-to-update '{{\"caching\": {answer}}}'"
    for answer in ("true", "false")
}

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
    "docs/settings.md": (
        "| `MAX_WAITING` |",
        "| `MOST_NAMES` | 10 | names that a client may ask for |\n| `MAX_WAITING` |",
    ),
    "pyproject.toml": ('    "aiosqlite', '    "a-package-of-ours>=1,<2",\n    "aiosqlite'),
    "requirements.txt": ("\naiosqlite==", f"\na-package-of-ours==1.0 \\\n    --hash=sha256:{'0' * 64}\naiosqlite=="),
}
RECIPES = ("Add a column", "Add a second resource")
# The tests of what all this changes, for the variants of which not all tests run.
TESTS = [f"tests/test_{name}.py" for name in ("config", "items", "items_main", "items_reads", "price", "reviews")]
DEFAULTS = {name: QUESTIONS[name] for name in features()}


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
    shutil.copytree(
        ROOT, here, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache", "*.db")
    )
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
    # The engine is that of a fresh project, whose tests run elsewhere: one variant runs them here as well.
    tests = options_for_tests(variant) if variant == DEFAULTS else " ".join(TESTS)
    assert " passed" in make(project, "test", "--assume-old=.venv/dev", PYTEST_ADDOPTS=tests).stdout


def test_an_update_merges_and_leaves_the_secrets_alone(upstream: Upstream, tmp_path: Path) -> None:
    project = create(upstream, tmp_path, "main")
    environment, secrets = (project / ".env").read_bytes(), secrets_of(project)
    assert "diff --git" not in run(project, CRUFT, "diff")
    ours = project / "Makefile"
    text = ours.read_text(encoding="utf-8")
    replace(project, {"Makefile": WRITES["Makefile"]})
    commit_all(project)
    printed = update(project, "--checkout", upstream.next_one)
    assert_merged(project, printed, secrets=secrets, environment=environment)
    for edits in (WRITES, COMES):
        text = text.replace(*edits["Makefile"])
    assert ours.read_text(encoding="utf-8") == text


def execute(
    template: Path, project: Path, command: str, *, typed: str = "", status: int = 0, **environment: str
) -> str:
    """Execute a command of the document, with a template on this disk and the tools that are installed."""
    here = command.removeprefix("uvx ").replace(ADDRESS, shlex.quote(str(template)))
    path = {"PATH": f"{TOOLS}:{clean_environment()['PATH']}"}
    return run(project, "sh", "-c", here, typed=typed, status=status, **path, **environment)


def test_cruft_asks_what_cookiecutter_asks(upstream: Upstream, tmp_path: Path) -> None:
    execute(upstream.directory, tmp_path, CREATE, typed="\n" * len(QUESTIONS))
    noted = json.loads((tmp_path / SLUG / ".cruft.json").read_text(encoding="utf-8"))
    assert noted["commit"] == git(upstream.directory, "rev-parse", "main").strip()


@pytest.mark.slow
def test_a_project_that_cruft_did_not_make_is_linked_and_updated(upstream: Upstream, tmp_path: Path) -> None:
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", "--branch", "main", str(upstream.directory), str(template))
    answers = {"project_name": 'The "Best" Shop', "resource": "order", "license": "Proprietary", "caching": False}
    made = cookiecutter(str(template), no_input=True, output_dir=str(tmp_path), extra_context=answers)
    project = Path(made)
    commit_all(project)
    secrets, environment = secrets_of(project), (project / ".env").read_bytes()
    execute(template, project, LINK)
    commit_all(project)
    execute(template, project, CHECK)
    assert "diff --git" not in execute(template, project, DIFF)

    setting, ours, theirs = "SECONDS ?= 10\n", "SECONDS ?= 12\n", COMES["Makefile"][1]
    replace(project, {"Makefile": (setting, ours), "README.md": ("# The ", "# Our ")})
    commit_all(project)
    shown = execute(template, project, DIFF)
    assert "-# Our " in shown
    git(template, "switch", "--quiet", upstream.next_one)
    execute(template, project, CHECK, status=1)

    # Both changed the same line.
    printed = execute(template, project, UPDATE, typed="y\n", RELEASE=upstream.next_one)
    assert_merged(project, shown + printed, secrets=secrets, environment=environment)
    assert execute(template, project, CONFLICTS) == "Makefile\n"
    both = (project / "Makefile").read_text(encoding="utf-8")
    assert re.search(f"^<<<<<<<.*\n{re.escape(ours)}=======\n{re.escape(theirs)}>>>>>>>", both, re.MULTILINE)
    assert (project / "README.md").read_text(encoding="utf-8").startswith("# Our ")


@pytest.mark.slow
@pytest.mark.parametrize("feature", features())
def test_an_answer_can_be_changed_and_changed_back(feature: str, upstream: Upstream, tmp_path: Path) -> None:
    project = create(upstream, tmp_path / "project", "main", **dict.fromkeys(features(), True))
    environment, secrets, before = (project / ".env").read_bytes(), secrets_of(project), files_of(project)
    without = {name: name != feature for name in features()}
    for answer in ("false", "true"):
        command = SWITCHES[answer].replace("caching", feature)
        printed = execute(upstream.directory, project, command, typed="y\n")
        assert_merged(project, printed, secrets=secrets, environment=environment)
        commit_all(project)
        fresh = before if answer == "true" else files_of(create(upstream, tmp_path / "fresh", "main", **without))
        assert files_of(project) == fresh


def prepare(project: Path) -> None:
    """Do what the changelog says for a project of 0.1.0."""
    noted = json.loads((project / ".cruft.json").read_text(encoding="utf-8"))
    (project / ".cruft.json").write_text(json.dumps(noted | {"skip": [".env"]}), encoding="utf-8")
    commit_all(project)


@pytest.mark.slow
@needs_history
def test_a_project_of_the_first_release_is_updated(upstream: Upstream, tmp_path: Path) -> None:
    project = create(upstream, tmp_path, RELEASES["0.1.0"])
    environment, secrets = (project / ".env").read_bytes(), secrets_of(project)
    edits = {
        "README.md": ("## ", "Ours.\n\n## "),
        "app/models.py": ("Mapped[str]", "Mapped[str | None]"),
        "app/routes.py": ('"""', '"""Ours: '),
        "docker-compose.yml": ("restart: unless-stopped", "restart: always"),
        "requirements.txt": ("\nalembic==", "\na-package-of-ours==1.0\nalembic=="),
    }
    replace(project, edits)
    prepare(project)
    assert "Failed to apply" in update(project), "the template has no app/routes.py any more, and ours is changed"

    for command in UNDO:
        execute(upstream.directory, project, command)
    git(project, "mv", "app/routes.py", "app/our_routes.py")
    commit_all(project)
    printed = update(project)
    assert_merged(project, printed, secrets=secrets, environment=environment)
    assert conflicts(project) <= {*edits}
    assert of_every_file("\n<<<<<<< ", files_of(project)).keys() == conflicts(project)
    assert files_of(project).keys() >= files_of(create(upstream, tmp_path / "fresh", "main")).keys()
    assert '"""Ours: ' in (project / "app/our_routes.py").read_text(encoding="utf-8")
    assert "restart: always" in (project / "docker-compose.yml").read_text(encoding="utf-8")


# Each command of a rendered project's document, with the test that executes it.
EXECUTED: dict[str, Callable[..., None]] = {
    CREATE: test_cruft_asks_what_cookiecutter_asks,
    **dict.fromkeys(
        (LINK, CHECK, DIFF, UPDATE, CONFLICTS), test_a_project_that_cruft_did_not_make_is_linked_and_updated
    ),
    **dict.fromkeys(SWITCHES.values(), test_an_answer_can_be_changed_and_changed_back),
    **dict.fromkeys(UNDO, test_a_project_of_the_first_release_is_updated),
}
