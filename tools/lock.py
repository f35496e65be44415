"""Compile the requirements of every variant, and write them to the template as one file with block tags.

A feature only adds packages, so one file holds all variants: what every variant needs stands plain, what a feature adds
stands in a block of that feature. The tool fails when the variants cannot be told apart in that way.
"""

import itertools
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "{{cookiecutter.project_slug}}"
COMPILE = shlex.split("uv pip compile --quiet --upgrade --universal --generate-hashes")


class Variant(NamedTuple):
    """The answers that decide what is installed."""

    caching: bool
    queued_writes: bool
    observability: bool


CONDITIONS: dict[str, Callable[[Variant], bool]] = {
    "": lambda _: True,
    "cookiecutter.caching": lambda variant: variant.caching,
    "cookiecutter.queued_writes": lambda variant: variant.queued_writes,
    "cookiecutter.observability": lambda variant: variant.observability,
    "cookiecutter.caching or cookiecutter.queued_writes": lambda variant: variant.caching or variant.queued_writes,
    "cookiecutter.caching and cookiecutter.queued_writes": lambda variant: variant.caching and variant.queued_writes,
}

# Each file, with what is compiled into it. Renovate compiles them in the order of their names, so the first one is not
# bound to the second.
FILES = {
    "requirements-dev.txt": ["--group=dev", "pyproject.toml"],
    "requirements.txt": ["--constraint=requirements-dev.txt", "pyproject.toml"],
}


def compile_variant(variant: Variant) -> dict[str, dict[str, str]]:
    """Return, for each file of a variant, its packages by name with their lines."""
    with tempfile.TemporaryDirectory() as directory:
        answers = variant._asdict()
        project = Path(cookiecutter(str(ROOT), no_input=True, output_dir=directory, extra_context=answers))
        for name, sources in FILES.items():
            subprocess.run(
                [*COMPILE, *sources, f"--output-file={name}"], cwd=project, check=True, stdout=subprocess.DEVNULL
            )
        return {name: packages((project / name).read_text(encoding="utf-8")) for name in FILES}


def packages(requirements: str) -> dict[str, str]:
    """Return the lines of each package, and those of the head, which tells how the file was made."""
    blocks = re.split(r"^(?=[^\s#])", requirements, flags=re.MULTILINE)
    return {re.split(r"[=\[ ]", block, maxsplit=1)[0]: block for block in blocks if block}


def merge(variants: Mapping[Variant, Mapping[str, str]]) -> Iterator[str]:
    """Yield the packages of all variants, those of a feature between its block tags."""
    names = sorted({name for lines in variants.values() for name in lines})
    for condition, group in itertools.groupby(names, key=lambda name: condition_of(name, variants)):
        text = "".join(next(lines[name] for lines in variants.values() if name in lines) for name in group)
        yield f"# {{% if {condition} %}}\n{text}# {{% endif %}}\n" if condition else text


def condition_of(name: str, variants: Mapping[Variant, Mapping[str, str]]) -> str:
    """Return the condition under which a package is needed."""
    needing = {variant for variant, lines in variants.items() if name in lines}
    if len({variants[variant][name] for variant in needing}) > 1:
        sys.exit(f"{name} differs between the variants: give it one range in pyproject.toml for all of them.")
    for condition, holds in CONDITIONS.items():
        if {variant for variant in variants if holds(variant)} == needing:
            return condition
    sys.exit(f"{name} is needed by {sorted(needing)}: add a condition for these to tools/lock.py.")


def main() -> None:
    """Write the files."""
    variants = [Variant(*answers) for answers in itertools.product([True, False], repeat=len(Variant._fields))]
    compiled = {variant: compile_variant(variant) for variant in variants}
    for name in FILES:
        merged = "".join(merge({variant: files[name] for variant, files in compiled.items()}))
        (TEMPLATE / name).write_text(merged, encoding="utf-8")


if __name__ == "__main__":
    main()
