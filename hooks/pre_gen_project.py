"""Refuse answers that no working project can be made of, before anything is written."""

import json
import re
import sys

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

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
        ("the standard library", sys.stdlib_module_names),
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
    if text.strip() and text.isprintable():
        return None
    return f"{name} must be one line of printable text: enter at least one visible character and no line break."


def main() -> int:
    """Print the first reason to refuse, if there is one, and return the exit status."""
    reasons = (
        refuse_line("project_name", ANSWERS["project_name"]),
        refuse_slug(ANSWERS["project_slug"]),
        refuse_line("description", ANSWERS["description"]),
        refuse_line("author_name", ANSWERS["author_name"]),
        refuse_workers(str(ANSWERS["workers"])),
    )
    for reason in filter(None, reasons):
        print(reason, file=sys.stderr)
        return 1
    return 0


sys.exit(main())
