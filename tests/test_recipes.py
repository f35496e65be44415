"""Every recipe of a rendered project does what it says, on embedded parts and on real servers."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Urls, clean_environment, docker_is_there, servers_of
from tests.test_mutations import copy_of
from tests.variants import TEMPLATE, is_fullest

pytestmark = pytest.mark.slow

RECIPES = "docs/recipes.md"
# A paragraph, with the block of code that it leads to.
PARAGRAPH = re.compile(
    r"(?P<paragraph>(?:^[^\n`].*\n)+)(?:\n```(?P<language>\w+)\n(?P<code>(?:.*\n)*?)```)?", re.MULTILINE
)
DELETION = re.compile(r"^In `(?P<path>[^`]+)`, delete (?P<names>.*)\.$")


class Step(NamedTuple):
    """What a paragraph tells its reader to do, with the block of code after it."""

    instruction: str
    language: str | None
    code: str


def steps_of(project: Path, title: str) -> list[Step]:
    """Return the steps of a recipe."""
    text = (project / RECIPES).read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    steps = [
        Step(" ".join(match["paragraph"].split()), match["language"], match["code"] or "")
        for match in PARAGRAPH.finditer(section)
    ]
    return [step for step in steps if step.language or DELETION.search(step.instruction)]


def titles(project: Path) -> list[str]:
    return re.findall(r"^## (.*)$", (project / RECIPES).read_text(encoding="utf-8"), re.MULTILINE)


def create(_: str, code: str) -> str:
    return code


def append(source: str, code: str) -> str:
    return f"{source.rstrip()}\n\n\n{code}"


def add_imports(source: str, code: str) -> str:
    """Put imports below the docstring; the formatter sorts them."""
    docstring = ast.parse(source).body[0]
    lines = source.splitlines(keepends=True)
    return "".join([*lines[: docstring.end_lineno], "\n", code, *lines[docstring.end_lineno :]])


def definition(source: str, name: str) -> tuple[int, int]:
    """Return the first line of what has a name, with its decorators, and the line after its last one."""
    (node,) = [node for node in ast.parse(source).body if name_of(node) == name]
    assert node.end_lineno is not None
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1, node.end_lineno


def name_of(node: ast.stmt) -> str | None:
    """Return what a statement defines."""
    match node:
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            return node.name
        case ast.Assign(targets=[ast.Name(name)]):
            return name
    return None


def add_to_class(source: str, code: str, name: str) -> str:
    lines = source.splitlines(keepends=True)
    _, end = definition(source, name)
    return "".join([*lines[:end], code, *lines[end:]])


def replace_function(source: str, code: str, name: str) -> str:
    lines = source.splitlines(keepends=True)
    begin, end = definition(source, name)
    return "".join([*lines[:begin], code, *lines[end:]])


def at_line(source: str, anchor: str) -> tuple[list[str], int]:
    """Return the lines of a file, and which of them has this text and no other."""
    lines = source.splitlines(keepends=True)
    (number,) = [number for number, line in enumerate(lines) if line.strip() == anchor]
    return lines, number


def add_below(source: str, code: str, anchor: str) -> str:
    lines, number = at_line(source, anchor)
    return "".join([*lines[: number + 1], code, *lines[number + 1 :]])


def add_above(source: str, code: str, anchor: str) -> str:
    lines, number = at_line(source, anchor)
    return "".join([*lines[:number], code, *lines[number:]])


def replace_line(source: str, code: str, anchor: str) -> str:
    lines, number = at_line(source, anchor)
    return "".join([*lines[:number], code, *lines[number + 1 :]])


def delete(source: str, name: str) -> str:
    """Delete what has a name, or else the line that says it."""
    lines = source.splitlines(keepends=True)
    begin, end = definition(source, name) if name.isidentifier() else (at_line(source, name)[1], None)
    return "".join([*lines[:begin], *lines[end or begin + 1 :]])


# What a recipe may tell its reader to do with a block, for a file and, where there is another name, at this place.
EDITS: dict[str, Callable[..., str]] = {
    r"Create `(?P<path>[^`]+)`:$": create,
    r"Add to `(?P<path>[^`]+)`:$": append,
    r"Add the imports to `(?P<path>[^`]+)`:$": add_imports,
    r"At the end of `class (?P<name>\w+)` in `(?P<path>[^`]+)`, add:$": add_to_class,
    r"In `(?P<path>[^`]+)`, replace the function `(?P<name>\w+)` by:$": replace_function,
    r"In `(?P<path>[^`]+)`, replace `(?P<anchor>[^`]+)` by:$": replace_line,
    r"In `(?P<path>[^`]+)`, add below `(?P<anchor>[^`]+)`:$": add_below,
    r"In `(?P<path>[^`]+)`, add above `(?P<anchor>[^`]+)`:$": add_above,
}


def edit(project: Path, step: Step) -> str:
    """Do what a step says, and return the path of the file that it changes."""
    if deletion := DELETION.search(step.instruction):
        path = project / deletion["path"]
        for name in re.findall(r"`([^`]+)`", deletion["names"]):
            path.write_text(delete(path.read_text(encoding="utf-8"), name), encoding="utf-8")
        return deletion["path"]
    ((edited, match),) = [
        (edited, match) for words, edited in EDITS.items() if (match := re.search(words, step.instruction))
    ]
    places = match.groupdict()
    path = project / places.pop("path")
    source = path.read_text(encoding="utf-8") if path.exists() else ""
    assert bool(source) is (edited is not create), step.instruction
    path.write_text(edited(source, step.code, **places), encoding="utf-8")
    return path.relative_to(project).as_posix()


def run(project: Path, *command: str, **variables: str) -> None:
    done = subprocess.run(
        command,
        cwd=project,
        env=clean_environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}"


# The tools of the variant are there.
MAKE = "command make --assume-old=.venv/dev BIN=.venv/bin"


def carry_out(project: Path, title: str) -> tuple[set[str], set[str]]:
    """Carry out a recipe, and return the files that it changed and the tests that it made."""
    changed = set()
    for step in steps_of(project, title):
        if step.language == "bash":
            run(project, "sh", "-ec", f'make() {{ {MAKE} "$@"; }}\n{step.code}')
        else:
            changed.add(edit(project, step))
    run(project, "sh", "-c", f"{MAKE} format")
    tests = {path for path in changed if path.startswith("tests/")}
    return changed - tests, tests


@pytest.fixture(scope="session")
def urls(project: Path) -> Iterator[Urls]:
    """The addresses of real servers, where there is a Docker."""
    with ExitStack() as stack:
        addresses = stack.enter_context(servers_of(project)) if docker_is_there() else {}
        yield {f"TEST_{name}": address for name, address in addresses.items()}


# After these, the tests that the service had before still hold.
WHOLE = {"Add a column", "Add a second resource", "Remove the first resource"}


def test_each_recipe_works(project: Path, variant: dict[str, bool], tmp_path: Path, urls: Urls) -> None:
    for number, title in enumerate(titles(project)):
        copy = copy_of(project, tmp_path / str(number))
        _, tests = carry_out(copy, title)
        pytest_of = [".venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        assert tests or title in WHOLE, title
        run(copy, *pytest_of, *(sorted(tests) or ["tests/test_config.py"]))
        run(copy, ".venv/bin/ruff", "check", "--no-cache", ".")
        run(copy, ".venv/bin/ruff", "format", "--no-cache", "--check", ".")
        run(copy, ".venv/bin/lint-imports", "--no-cache", "--no-logo")
        if is_fullest(variant):
            run(copy, ".venv/bin/mypy", f"--cache-dir={project / '.mypy_cache'}")
            if title in WHOLE:
                run(copy, *pytest_of, *UPPER_FLOOR)
        if urls and tests:
            run(copy, *pytest_of, *sorted(tests), **urls)
            if variant["caching"]:
                run(copy, ".venv/bin/python", "-c", EMPTY_CACHE, **urls)
                run(copy, *pytest_of, *sorted(tests), **urls, REDIS_URL=urls["TEST_REDIS_URL"])
            run(copy, ".venv/bin/python", "-c", EMPTY_DATABASE, **urls)


# The floor below has not changed, and knows nothing of the one above.
UPPER_FLOOR = ("tests", "--ignore", "tests/highload")
# Each recipe has migrations of its own.
EMPTY_DATABASE = """
import asyncio, os, sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

async def main():
    engine = create_async_engine(os.environ["TEST_DATABASE_URL"])
    async with engine.begin() as connection:
        for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
            await connection.execute(sa.text(statement))
    await engine.dispose()

asyncio.run(main())
"""
EMPTY_CACHE = "import os, redis; redis.Redis.from_url(os.environ['TEST_REDIS_URL']).flushall()"


@pytest.mark.parametrize(
    ("title", "most_files", "most_lines"), [("Add a column", 6, 15), ("Add a second resource", 8, 140)]
)
def test_a_recipe_costs_little(title: str, most_files: int, most_lines: int) -> None:
    """The migration is a file that nobody writes by hand; the tests of a recipe count as a file, and not its lines."""
    steps = [step for step in steps_of(TEMPLATE, title) if step.language == "python"]
    paths = {re.findall(r"`([\w/]+\.py)`", step.instruction)[-1] for step in steps}
    lines = sum(len(step.code.splitlines()) for step in steps if not re.findall(r"`(tests/\w+\.py)`", step.instruction))
    assert len(paths) + 1 <= most_files
    assert lines <= most_lines
