"""Refuse answers that no working project can be made of, before anything is written."""

from __future__ import annotations

import builtins
import json
import keyword
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

FEATURES = ("caching", "queued_writes", "observability")
# An answer that holds another one by default, and is wrong for the same reason then.
MADE_OF = {"resource_plural": "resource", "description": "resource_plural", "author_name": "project_name"}

# What no rendering touches: the second hook keeps `.env`.
LEFT_ALONE = frozenset([".env", ".git", ".venv"])
# What tools write, and no template.
MADE_BY_TOOLS = frozenset(
    [
        *(".*_cache", ".coverage*", ".DS_Store", ".hypothesis", ".idea", ".vscode", "*.db", "*.db-shm", "*.db-wal"),
        *("*.egg-info", "*.log", "*.pyc", "*.swp", "__pycache__", "api-keys", "build", "dist", "drill-history-*.jsonl"),
        *("drill-report.txt", "loadtest/report.html", "loadtest/results", "node_modules", "sbom.cdx.json", "venv"),
    ]
)

LONGEST_SLUG = 50
MOST_WORKERS = 64

# Top-level modules, of the template and of what it installs.
TAKEN = frozenset(["app", "test", "tests", "loadtest"])
DEPENDENCIES = frozenset(
    [
        *("aio_pika", "aiormq", "aiosqlite", "alembic", "amqp", "annotated_types", "anyio", "asyncpg", "billiard"),
        *("celery", "click", "coverage", "dateutil", "dotenv", "fastapi", "greenlet", "gunicorn", "h11", "hiredis"),
        *(
            "httptools",
            "httpx2",
            "idna",
            "kombu",
            "mako",
            "markupsafe",
            "multidict",
            "mypy",
            "opentelemetry",
            "packaging",
        ),
        *("pamqp", "pip", "propcache", "pydantic", "pydantic_core", "pydantic_settings", "pytest", "redis", "ruff"),
        *("six", "sqlalchemy", "starlette", "typing_extensions", "typing_inspection", "tzdata", "uv", "uuid_utils"),
        *("uvicorn", "uvicorn_worker", "uvloop", "vine", "yarl"),
    ]
)

# PostgreSQL cuts names after 63 bytes; the longest one is that of an index, ix_<many>_created_at_id.
LONGEST_NAME = 30
# What the service answers besides.
ROUTES = frozenset(["docs", "livez", "metrics", "openapi", "readyz"])
# What PostgreSQL or SQLite reads as a word of SQL and not as the name of a table.
SQL_WORDS = frozenset(
    re.findall(
        r"\w+",
        "add after all alter analyse analyze and any array as asc asymmetric attach authorization autoincrement "
        "before begin between binary both by cascade case cast check collate collation column commit concurrently "
        "conflict constraint create cross current_catalog current_date current_role current_schema current_time "
        "current_timestamp current_user database default deferrable deferred delete desc detach distinct do drop "
        "each else end escape except exclusive exists explain fail false fetch for foreign freeze from full glob "
        "grant group having if ignore ilike immediate in index indexed initially inner insert instead intersect "
        "into is isnull join key lateral leading left like limit localtime localtimestamp match natural new not "
        "notnull null of off offset old on only or order outer over overlaps placing plan pragma primary query "
        "raise references reindex rename replace restrict returning right rollback row select session_user set "
        "similar some symmetric system_user table tablesample temp temporary then to trailing transaction trigger "
        "true union unique update user using vacuum values variadic verbose view virtual when where window with ",
    )
)


def refuse_name(question: str, name: str) -> str | None:
    """Return what is wrong with a name of the resource."""
    example = "for example purchase_order" + "s" * (question == "resource_plural")
    if not re.fullmatch(r"[a-z][a-z0-9]+(_[a-z0-9]+)*", name) or len(name) > LONGEST_NAME:
        return (
            f"{question} '{name}' is no valid name: enter lower-case letters, digits, and single underscores between "
            f"them, beginning with a letter, 2 to {LONGEST_NAME} characters, {example}."
        )
    forms = {name, name.upper(), "".join(part.capitalize() for part in name.split("_"))}
    if forms & {*dir(builtins), *keyword.kwlist, *keyword.softkwlist}:
        return f"{question} '{name}' is a word of Python: enter another one, for example shop_{name}."
    return None


def refuse_plural(plural: str, resource: str) -> str | None:
    """Return what is wrong with the name of the table and the routes."""
    if plural == resource:
        return f"resource_plural '{plural}' must differ from resource: enter another one, for example {resource}_rows."
    if plural in SQL_WORDS:
        return f"resource_plural '{plural}' is a word of SQL: enter another one, for example shop_{plural}."
    if plural in ROUTES:
        return f"resource_plural '{plural}' is a route of this template: enter another one, for example shop_{plural}."
    return None


def refuse_word(name: str, text: str, resource: str) -> str | None:
    """Return what is wrong with an answer that is nothing but the word that gives way to the name of the resource."""
    if resource == "item" or not re.fullmatch("items?", text, re.IGNORECASE):
        return None
    return f"{name} '{text}' is what this template calls its resource: enter another one, for example {text}-service."


def refuse_slug(slug: str) -> str | None:
    """Return what is wrong with the name of the project's directory."""
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", slug) or len(slug) > LONGEST_SLUG:
        return (
            f"project_slug '{slug}' is no valid name: enter lower-case letters, digits, and single hyphens or "
            f"underscores between them, beginning with a letter, at most {LONGEST_SLUG} characters, "
            "for example order-service."
        )
    module = slug.replace("-", "_")
    for owner, names in (
        ("this template", TAKEN),
        # Python 3.9 has no such list; it is refused, and must come that far.
        ("the standard library", getattr(sys, "stdlib_module_names", ())),
        ("a dependency", DEPENDENCIES),
    ):
        if module in names:
            return f"project_slug '{slug}' is a name of {owner}: enter another one, for example {slug}-service."
    return None


def refuse_workers(workers: str) -> str | None:
    """Return what is wrong with the number of workers."""
    if workers == "auto" or (re.fullmatch(r"[1-9][0-9]?", workers) and int(workers) <= MOST_WORKERS):
        return None
    return f"workers '{workers}' is no number of workers: enter a whole number from 1 to {MOST_WORKERS}, or auto."


def refuse_line(name: str, text: str) -> str | None:
    """Return what is wrong with a line of text."""
    if any(character.isprintable() and not character.isspace() for character in text) and all(map(is_text, text)):
        return None
    return (
        f"{name} must be one line of printable text: enter at least one visible character, and no line break, "
        "control character or mark that changes the direction of the text."
    )


def is_text(character: str) -> bool:
    """Whether a character may stand in a line: what can be seen, every space, and the joiners of Persian and emoji."""
    return character.isprintable() or character in "\u200c\u200d" or unicodedata.category(character) == "Zs"


def refuse_feature(name: str, answer: object) -> str | None:
    """Return what is wrong with an answer to a yes or no: before Cookiecutter 2.7, `no` is a text, which is true."""
    if isinstance(answer, bool):
        return None
    return (
        f"{name} '{answer}' came as text and not as yes or no: use Cookiecutter 2.7 or newer, for example with "
        "uvx cookiecutter, and write true or false where the answers are in a file."
    )


def refuse_cookiecutter() -> str | None:
    """Return what is wrong with the tool: before 2.6, it does not use the block tags of this template in answers."""
    # Cookiecutter 2.7 needs this Python, and so does the hook that comes after.
    if ANSWERS["__year"].isdecimal() and sys.version_info >= (3, 10):
        return None
    return (
        "This template needs Cookiecutter 2.7 or newer, on Python 3.10 or newer: "
        "run it with uvx cookiecutter, or install it with pipx install cookiecutter."
    )


def refuse_directory() -> str | None:
    """Return why the directory may not be rendered into: files of it could be lost, because Git does not keep them."""
    unkept = next(files_that_git_does_not_keep(), None)
    if unkept is None:
        return None
    slug = ANSWERS["project_slug"]
    return (
        f"{slug} is there already, and Git does not keep {unkept}: commit everything before you render over it, "
        f"or take over what changed in the template as docs/update.md says."
    )


def files_that_git_does_not_keep() -> Iterator[str]:
    """Yield what is in the directory, but for what Git could bring back, and what no template writes."""
    here = Path()
    if {path.name for path in here.iterdir()} <= LEFT_ALONE:
        return
    # A hook of Git that runs this would name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # What the project ignores is in it as well, because the file of a user may be there whose place the template takes.
    excluded = [f"--exclude={name}" for name in sorted(LEFT_ALONE | MADE_BY_TOOLS)]
    changed = ["git", "diff", "--name-only", "--no-ext-diff", "--diff-filter=d", "--relative", "-z", "HEAD", "--", "."]
    others = ["git", "ls-files", "--others", "-z", *excluded]
    for command in (changed, others):
        try:
            done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True)
        except (OSError, subprocess.CalledProcessError):
            # There is no Git, no repository, or no commit.
            yield min(path.name for path in here.iterdir() if path.name not in LEFT_ALONE)
            return
        yield from filter(None, done.stdout.split("\0"))


def reasons() -> dict[str, str]:
    """Return what is wrong with each answer, but for those that are wrong because they hold another one."""
    one, many = ANSWERS["resource"], ANSWERS["resource_plural"]
    found = {
        "project_name": refuse_line("project_name", ANSWERS["project_name"]),
        "project_slug": refuse_slug(ANSWERS["project_slug"]),
        "resource": refuse_name("resource", one),
        "resource_plural": refuse_name("resource_plural", many) or refuse_plural(many, one),
        "description": refuse_line("description", ANSWERS["description"]),
        "author_name": refuse_line("author_name", ANSWERS["author_name"]),
        "workers": refuse_workers(str(ANSWERS["workers"])),
        **{name: refuse_feature(name, ANSWERS[name]) for name in FEATURES},
    }
    # With another answer to the name it would be another directory.
    if found["project_slug"] is None:
        found["directory"] = refuse_directory()
    for name in ("project_name", "project_slug", "description", "author_name"):
        found[name] = found[name] or refuse_word(name, ANSWERS[name], one)
    return {
        name: reason
        for name, reason in found.items()
        if reason and not (found.get(MADE_OF.get(name, "")) and ANSWERS[MADE_OF[name]] in ANSWERS[name])
    }


def main() -> int:
    """Print every reason to refuse, and return the exit status."""
    outdated = refuse_cookiecutter()
    refusals = [outdated] if outdated else list(reasons().values())
    if refusals:
        print("\n".join(refusals), file=sys.stderr)
        return 1
    # What is younger than this file is rendered now; the hook that comes after reads that, and removes it.
    Path(".rendering").touch()
    return 0


sys.exit(main())
