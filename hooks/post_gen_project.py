"""Remove the files of features that are off, name the resource, make the secrets, and say what to do next."""

import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Container, Iterator
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

FILES_OF_FEATURES = {
    "caching": [
        "app/highload/reads/cache.py",
        "kubernetes/overlays/development/redis.yaml",
        "observe/prometheus/rules/cache.yml",
        "observe/prometheus/tests/cache.yml",
        "tests/highload/test_cache.py",
        "tests/highload/test_consistency.py",
        "tests/highload/test_generations.py",
        "tests/test_items_cache.py",
    ],
    "queued_writes": [
        "app/highload/metrics/port.py",
        "app/highload/tracing/tasks.py",
        "app/highload/worker.py",
        "app/highload/writes/dead_letters.py",
        "app/highload/writes/publisher.py",
        "app/highload/writes/queue.py",
        "app/highload/writes/queued.py",
        "app/tasks.py",
        "kubernetes/autoscaling/worker.yaml",
        "kubernetes/base/worker.yaml",
        "kubernetes/overlays/development/rabbitmq.yaml",
        "observe/prometheus/rules/queue.yml",
        "observe/prometheus/tests/queue.yml",
        "tests/highload/releases.py",
        "tests/highload/test_delivery_limit.py",
        "tests/highload/test_publisher.py",
        "tests/highload/test_queue.py",
        "tests/highload/test_releases.py",
        "tests/highload/worker.py",
        "tests/queues.py",
        "tests/test_items_queue.py",
        "tests/test_items_queue_tracing.py",
    ],
    "observability": [
        "app/highload/tracing/__init__.py",
        "app/highload/tracing/collector.py",
        "app/highload/tracing/sampling.py",
        "app/highload/tracing/spans.py",
        "app/highload/tracing/tasks.py",
        "app/tracing.py",
        "docs/runbook.md",
        "kubernetes/monitoring/exporters.yaml",
        "kubernetes/monitoring/kustomization.yaml",
        "kubernetes/monitoring/monitors.yaml",
        "kubernetes/monitoring/network.yaml",
        "kubernetes/monitoring/rules.yaml",
        "observe/Dockerfile",
        "observe/grafana/dashboards/dashboards.yml",
        "observe/grafana/dashboards/service.json",
        "observe/grafana/datasources/prometheus.yml",
        "observe/prometheus/prometheus.yml",
        "observe/prometheus/rules/cache.yml",
        "observe/prometheus/rules/queue.yml",
        "observe/prometheus/rules/service.yml",
        "observe/prometheus/tests/cache.yml",
        "observe/prometheus/tests/queue.yml",
        "observe/prometheus/tests/service.yml",
        "tests/collector.py",
        "tests/highload/test_tracing.py",
        "tests/test_items_queue_tracing.py",
        "tests/test_items_tracing.py",
        "tests/test_observe.py",
    ],
}
# Of a question with choices: the files of each answer. They hold no code, so no other file knows of them.
FILES_OF_CHOICES = {
    "ci": {
        "github": [
            ".github/ISSUE_TEMPLATE/bug.yml",
            ".github/workflows/audit.yml",
            ".github/workflows/ci.yml",
        ],
        "gitlab": [
            ".gitlab-ci.yml",
            ".gitlab/docker-compose.yml",
            ".gitlab/issue_templates/Bug.md",
        ],
    },
    "deployment": {
        "kubernetes": [
            "docs/kubernetes.md",
            "kubernetes/autoscaling/api.yaml",
            "kubernetes/autoscaling/kustomization.yaml",
            "kubernetes/autoscaling/worker.yaml",
            "kubernetes/base/api.yaml",
            "kubernetes/base/kustomization.yaml",
            "kubernetes/base/migrate.yaml",
            "kubernetes/base/network.yaml",
            "kubernetes/base/pgbouncer.ini",
            "kubernetes/base/pooler.yaml",
            "kubernetes/base/settings.env",
            "kubernetes/base/worker.yaml",
            "kubernetes/monitoring/exporters.yaml",
            "kubernetes/monitoring/kustomization.yaml",
            "kubernetes/monitoring/monitors.yaml",
            "kubernetes/monitoring/network.yaml",
            "kubernetes/monitoring/rules.yaml",
            "kubernetes/overlays/development/database.ini",
            "kubernetes/overlays/development/kustomization.yaml",
            "kubernetes/overlays/development/namespace.yaml",
            "kubernetes/overlays/development/postgres.yaml",
            "kubernetes/overlays/development/rabbitmq.yaml",
            "kubernetes/overlays/development/redis.yaml",
            "kubernetes/overlays/development/roles.sh",
            "kubernetes/overlays/development/settings.env",
            "kubernetes/overlays/production/database.ini",
            "kubernetes/overlays/production/kustomization.yaml",
            "kubernetes/overlays/production/namespace.yaml",
            "kubernetes/overlays/production/servers.yaml",
            "kubernetes/overlays/production/settings.env",
            "tests/test_kubernetes.py",
        ],
    },
}
# JSON has no comments, so tags cannot take out a part of the dashboard.
DASHBOARD = Path("observe/grafana/dashboards/service.json")
ROWS_OF_FEATURES = {"caching": "Cache", "queued_writes": "Queue"}

ONE, MANY = ANSWERS["resource"], ANSWERS["resource_plural"]

# The engine is the same in every project: it speaks of no resource.
ENGINE = ("app/highload/", "tests/highload/")

# What the template calls the resource, in every form, with the article before it. What a dictionary calls so stays.
WORD = re.compile(
    r"\.items\(\)"
    r"|(?:(?<![A-Za-z])(?P<article>[Aa]n)(?P<gap>[\s#_`]+))?"
    r"(?P<word>(?<![A-Za-z])items?(?![a-z])|Items?(?![a-z])|(?<![A-Z])ITEMS?(?![A-Z]))"
)
SOUNDS_LIKE_A_VOWEL = re.compile(r"(?!eu|ewe|one|once|u[bfkst][aeiou]|uni(?!n|m))[aeiou]|hour|honest|honou?r|heir")

# Prose stands in comments and strings, and all over Markdown. In prose, the words of a name are separate.
COMMENT_OR_STRING = re.compile(
    r"#(?P<comment>[^\n]*)"
    r"|(?P<prefix>\b[A-Za-z]{1,2})?(?:"
    r'"""(?P<long>(?:\\.|[^\\])*?)"""|"(?P<double>(?:\\.|[^"\\\n])*)"'
    r"|'(?P<single>(?:\\.|[^'\\\n])*)')",
    re.DOTALL,
)
CODE_IN_PROSE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
CODE_IN_FORMAT = re.compile(r"\{[^{}]*\}")
BEFORE_PROSE = re.compile(r"(?:^|[\s(])(?<!FROM\s)(?<!INTO\s)(?<!JOIN\s)(?<!TABLE\s)(?<!UPDATE\s)$")
AFTER_PROSE = re.compile(r"$|[\s,;:!?)]|'s\b|\.(?:\s|$)")

IMPORT = re.compile(
    r"^from (?P<module>\S+) import (?:\(\n(?P<lines>(?: {4}\w+,\n)+)\)|(?P<line>\w+(?:, \w+)*))$", re.MULTILINE
)
LINE_LENGTH = 120
# The lines of the template leave room for a plural of this length; tests/test_names.py tries it.
LONGEST_THAT_FITS = 15

# The user inside the image; it owns what a container writes into the project unless .env names another one.
IMAGE_USER = 10001


def remove_files_of_features_that_are_off(rendered: set[Path]) -> None:
    """Leave no file behind that the chosen variant does not use, and keep those that were not rendered now."""
    off = [paths for feature, paths in FILES_OF_FEATURES.items() if not ANSWERS[feature]]
    for question, choices in FILES_OF_CHOICES.items():
        off += [paths for choice, paths in choices.items() if choice != ANSWERS[question]]
    for path in rendered.intersection(map(Path, itertools.chain.from_iterable(off))):
        path.unlink()
        # A directory that is not empty stays.
        with contextlib.suppress(OSError):
            for directory in path.parents:
                directory.rmdir()
    if DASHBOARD in rendered and DASHBOARD.exists():
        text = without_rows_of_features_that_are_off(DASHBOARD.read_text(encoding="utf-8"))
        DASHBOARD.write_text(text, encoding="utf-8", newline="\n")


def without_rows_of_features_that_are_off(text: str) -> str:
    """Return the dashboard without the panels, from one row to the next, of what the variant does not have."""
    dashboard = json.loads(text)
    off = {title for feature, title in ROWS_OF_FEATURES.items() if not ANSWERS[feature]}
    kept, row, gap = [], dashboard["panels"][0], 0
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            gap += (row["title"] in off) * (panel["gridPos"]["y"] - row["gridPos"]["y"])
            row = panel
        if row["title"] not in off:
            kept.append(panel | {"gridPos": panel["gridPos"] | {"y": panel["gridPos"]["y"] - gap}})
    return json.dumps(dashboard | {"panels": kept}, indent=2, ensure_ascii=False) + "\n"


def name_the_resource(rendered: set[Path]) -> str | None:
    """Put the names of the resource into the files that the template made, or return why that cannot be.

    A project that is rendered again keeps its other files as they are.
    """
    if (ONE, MANY) == ("item", "items"):
        return None
    texts = texts_above_the_engine(rendered)
    reason = refuse_names_in_use(texts)
    if reason is not None:
        return reason
    overwrites = Path("README.md") in texts
    for path, text in texts.items():
        target = path.with_name(renamed(path.name))
        if target != path and target.exists() and not overwrites:
            path.unlink()
            continue
        new = renamed(text, words_of_prose(text, markdown=path.suffix == ".md"))
        path.write_text(IMPORT.sub(sorted_import, new) if path.suffix == ".py" else new, encoding="utf-8", newline="\n")
        path.replace(target)
    return None


def rendered_files() -> set[Path]:
    """Return the files that are younger than the mark of the hook that ran before, and remove it."""
    mark = Path(".rendering")
    begun = mark.stat().st_mtime_ns
    mark.unlink()
    return {path for path in Path().rglob("*") if path.is_file() and path.stat().st_mtime_ns >= begun}


def texts_above_the_engine(rendered: set[Path]) -> dict[Path, str]:
    """Return the text of each file in which the resource is named.

    A running service, Git or an editor may write into a project that is rendered again: what is no text is theirs.
    """
    texts = {}
    for path in sorted(rendered):
        if path.is_file() and path.parts[0] not in {".git", ".venv"} and not path.as_posix().startswith(ENGINE):
            with contextlib.suppress(UnicodeDecodeError):
                texts[path] = path.read_text(encoding="utf-8")
    return texts


def renamed(text: str, prose: Container[int] = ()) -> str:
    """Return a text with the names of the resource; `prose` says where words begin that are words of a sentence."""
    kept = words_of_answers(text)

    def name(match: re.Match[str]) -> str:
        if match["word"] is None or match.start("word") in kept:
            return match[0]
        new = form_of(match["word"], prose=match.start("word") in prose)
        if match["article"] is None:
            return new
        return match["article"][: 2 if SOUNDS_LIKE_A_VOWEL.match(new.lower()) else 1] + match["gap"] + new

    return WORD.sub(name, text)


def form_of(word: str, *, prose: bool) -> str:
    """Return what takes the place of a word: purchase_order, PurchaseOrder or PURCHASE_ORDER, or purchase order."""
    name: str = MANY if word[-1] in "sS" else ONE
    if word.isupper():
        return name.upper()
    if prose:
        return name.replace("_", " ") if word.islower() else name.replace("_", " ").capitalize()
    return name if word.islower() else "".join(part.capitalize() for part in name.split("_"))


def words_of_answers(text: str) -> set[int]:
    """Return where words begin that stand in another answer: nobody asked to change them."""
    questions = ("project_name", "project_slug", "description", "author_name")
    answers = {ANSWERS[key] for question in questions for key in (question, f"__{question}") if key in ANSWERS}
    found = sorted(filter(WORD.search, answers), key=len, reverse=True)
    if not found:
        return set()
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, found))})(?!\w)")
    return {word.start("word") for answer in pattern.finditer(text) for word in WORD.finditer(text, *answer.span())}


def words_of_prose(text: str, *, markdown: bool) -> set[int]:
    """Return where words begin that stand by themselves among others, in a sentence and not in code."""
    words: set[int] = set()
    for begin, end, code in [(0, len(text), code_in(text))] if markdown else strings_in(text):
        for word in WORD.finditer(text, begin, end):
            first, last = word.span("word")
            before, after = text[begin:first], text[last:end]
            if (
                (before.strip() or after.strip())
                and BEFORE_PROSE.search(before)
                and AFTER_PROSE.match(after)
                and not any(code_begin <= first < code_end for code_begin, code_end in code)
            ):
                words.add(first)
    return words


def strings_in(text: str) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Yield where comments and strings begin and end, and where in them code does."""
    for match in COMMENT_OR_STRING.finditer(text):
        begin, end = match.span(match.lastgroup or 0)
        formatted = "f" in (match["prefix"] or "").lower()
        yield begin, end, code_in(text, begin, end, formatted=formatted)


def code_in(text: str, begin: int = 0, end: int = sys.maxsize, *, formatted: bool = False) -> list[tuple[int, int]]:
    """Return where code begins and ends in prose."""
    patterns = (CODE_IN_PROSE, CODE_IN_FORMAT) if formatted else (CODE_IN_PROSE,)
    return [match.span() for pattern in patterns for match in pattern.finditer(text, begin, end)]


def sorted_import(match: re.Match[str]) -> str:
    """Return an import as the formatter leaves it: constants, classes, the rest, each by the alphabet."""
    names = re.findall(r"\w+", match["lines"] or match["line"])
    names.sort(key=lambda name: (2 - name[0].isupper() - (name.isupper() and len(name) > 1), name.lower()))
    line = f"from {match['module']} import {', '.join(names)}"
    if match["lines"] is None and len(line) <= LINE_LENGTH:
        return line
    return f"from {match['module']} import (\n" + "".join(f"    {name},\n" for name in names) + ")"


def refuse_names_in_use(texts: dict[Path, str]) -> str | None:
    """Return which name meets a name that a file of the template has for something else."""
    for path, text in texts.items():
        target = path.with_name(renamed(path.name))
        if target != path and target in texts:
            return refusal("resource_plural", MANY, target)
        names = names_in(text) if path.suffix == ".py" else set()
        ours = set(filter(WORD.search, names))
        for name in sorted(ours):
            if renamed(name) in names - ours:
                plural = re.search("items", name, re.IGNORECASE)
                return refusal("resource_plural", MANY, path) if plural else refusal("resource", ONE, path)
    return None


def refusal(question: str, name: str, path: Path) -> str:
    """Return the sentence about a name in use."""
    return (
        f"{question} '{name}' has another meaning in {path.as_posix()} of this template: "
        f"enter a word that says more, for example shop_{name}."
    )


def names_in(text: str) -> set[str]:
    """Return the names in the code of a module, and its strings that are names."""
    text = text.replace(".items()", "")
    code, end = [], 0
    for match in COMMENT_OR_STRING.finditer(text):
        code.append(text[end : match.start()])
        end = match.end()
        string = text[slice(*match.span(match.lastgroup or 0))]
        if "f" in (match["prefix"] or "").lower():
            code += CODE_IN_FORMAT.findall(string)
        elif match["comment"] is None and string.isidentifier():
            code.append(string)
    return set(re.findall(r"[A-Za-z_]\w*", " ".join([*code, text[end:]])))


def write_secrets() -> None:
    """Write .env from .env.example with a random password wherever one is left empty, readable by its owner only.

    A project that is rendered again keeps its .env, because the data in its volumes belongs to the passwords there.
    """
    environment = Path(".env")
    if environment.exists() or environment.is_symlink():
        return
    text = re.sub(
        r"^(\w+_PASSWORD)=$",
        lambda match: f"{match[1]}={secrets.token_urlsafe(24)}",
        Path(".env.example").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    uid, gid = container_user()
    text = text.replace(f"CONTAINER_USER={IMAGE_USER}:{IMAGE_USER}", f"CONTAINER_USER={uid}:{gid}")
    environment.touch(mode=0o600, exist_ok=False)
    environment.write_text(text, encoding="utf-8", newline="\n")


def container_user() -> tuple[int, int]:
    """Return the user and group as which containers run, so that revisions they write belong to the developer."""
    if not hasattr(os, "getuid"):
        return IMAGE_USER, IMAGE_USER
    if os.getuid() == 0:
        # A filesystem without owners refuses, and so does a container without the right to it.
        with contextlib.suppress(OSError):
            shutil.chown("alembic/versions", IMAGE_USER, IMAGE_USER)
        return IMAGE_USER, IMAGE_USER
    return os.getuid(), os.getgid()


def main() -> int:
    """Finish the project, or say why that cannot be, and return the exit status."""
    rendered = rendered_files()
    remove_files_of_features_that_are_off(rendered)
    reason = name_the_resource(rendered)
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    write_secrets()
    slug = ANSWERS["project_slug"]
    style = "    make format\n" if max(len(ONE) + 1, len(MANY)) > LONGEST_THAT_FITS else ""
    print(f"\nThe project is in {slug}. Next:\n\n    cd {slug}\n{style}    make run\n")
    return 0


sys.exit(main())
