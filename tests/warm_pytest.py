"""Run pytest many times in one project's environment, and import what it depends on only once.

Run as a script, this file imports the dependencies, then forks for each run that it reads from its standard input.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

# A plugin that is there before pytest starts keeps its own asserts as they are.
OPTIONS = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]

# Most of the time of a short run goes into these.
DEPENDENCIES = [
    "aio_pika",
    "alembic.command",
    "asyncpg",
    "celery.app.base",
    "celery.app.builtins",
    "celery.app.task",
    "fastapi.testclient",
    "httpx2",
    "hypothesis.stateful",
    "pytest",
    "redis.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite.aiosqlite",
    "sqlalchemy.ext.asyncio",
    "uvicorn",
    "uvloop",
]


class Run(NamedTuple):
    """How a run ended: pytest's exit status, and what it printed."""

    returncode: int
    stdout: str


class WarmPytest:
    """A process that has the dependencies of a project in its memory and forks for each run of pytest."""

    def __init__(self, python: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, __file__], env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(
        self, directory: Path, arguments: list[str], environment: Mapping[str, str], output: Path, seconds: float
    ) -> Run:
        """Run pytest in a directory; one that takes longer than so many seconds is killed."""
        assert self._process.stdin
        assert self._process.stdout
        asked = [os.fspath(directory), [*OPTIONS, *arguments], dict(environment), os.fspath(output), seconds]
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return Run(int(self._process.stdout.readline()), output.read_text(encoding="utf-8"))


def run_forked(directory: str, arguments: list[str], environment: dict[str, str], output: str, seconds: float) -> int:
    """Run pytest in a fork of this process, as `python -m pytest` does, and return its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with Path(output).open("wb") as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = directory
    sys.argv = [importlib.import_module("pytest").__file__ or "", *arguments]
    sys.exit(importlib.import_module("pytest").main(arguments))


def main() -> None:
    """Import the dependencies that are installed, then run what is asked for, one line each, until the input ends."""
    for name in DEPENDENCIES:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        sys.stdout.write(f"{run_forked(*json.loads(line))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
