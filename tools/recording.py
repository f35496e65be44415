"""Type the first five minutes of a user into a terminal, and write docs/first-steps.md of what is seen and measured.

With the argument `questions`, what was measured before stays.
"""

import contextlib
import fcntl
import os
import platform
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/first-steps.md"
COLUMNS, ROWS = 120, 40

RENDER = "uvx cookiecutter gh:org/cookiecutter-fastapi-highload"
SLUG = "order-service"
ASK = "curl --silent http://127.0.0.1:8000/orders"
ANSWERS = ["Order Service", "", "order", *[""] * 11]
WRONG_ANSWERS = ["Order Service", "json", "Order", "docs", "", "", "", "", "many", "maybe", *[""] * 5]
# What stands in every run of the tool, and above which the page is the same in each.
MEASURED = "## How long it takes\n"

# What a question of Cookiecutter ends with: the answer that it offers.
ASKED = re.compile(rb"\)(?:\x1b\[0m)?: $")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TRACE = re.compile(r"^Traceback .*\n(?: .*\n)+", re.MULTILINE)

TEXT = """\
# First steps

`make recording` types this into a terminal of {columns} columns, and a test does it again. What is typed stands behind
the colon of a question. Where nothing stands there, Enter takes the answer in parentheses.

```console
{answered}```

## Wrong answers

Each reason is a sentence that names the question, what was answered and what to enter. They come together, as the first
lines after the last question, and nothing is left on the disk. Cookiecutter adds lines of its own behind them, which no
hook can keep back: they say no more than that there are reasons.

```console
{refused}```

{measured}"""

TABLE = """\
{heading}
Measured at commit {commit} with Cookiecutter {cookiecutter}, on {machine}.
The load average was {load} before; an idle machine has 0. Python, `make`, and Docker with the images of the servers and
of Python were there; the caches of pip and uv were empty, that of Docker's builds was not. All commands but the first
are typed in the directory `{slug}`.

| command | what is timed | seconds | at most |
|---|---|---|---|
{rows}

After `make run`, in another terminal; the [README](../README.md) shows how something is created:

```console
$ {ask}
{answer}
```

`make test` ends with this line:

```text
{tests}
```
"""


class Step(NamedTuple):
    """A command, what is timed of it, how many seconds that took, and how many it may take."""

    command: str
    timed: str
    seconds: float
    bound: int | None = None


def type_into(command: Sequence[str], lines: Sequence[str], directory: Path, environment: Mapping[str, str]) -> str:
    """Run a command in a terminal, type a line wherever it asks, and return what a user sees, without colours.

    Raises IndexError when it asks more often than there are lines.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    terminal = {"TERM": "xterm", "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(
        command,
        cwd=directory,
        env={**environment, **terminal},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ):
        os.close(theirs)
        seen, left = b"", list(lines)
        try:
            while part := read(ours):
                seen += part
                if ASKED.search(seen):
                    os.write(ours, f"{left.pop(0)}\n".encode())
        finally:
            os.close(ours)
    shown = COLOUR.sub("", seen.decode().replace("\r\n", "\n"))
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())


def read(terminal: int) -> bytes:
    """Return what comes next, or nothing at the end, of which Linux tells by an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def session(lines: Sequence[str], directory: Path, environment: Mapping[str, str]) -> str:
    """Return what a user sees who answers the questions."""
    cookiecutter = str(Path(sys.executable).parent / "cookiecutter")
    seen = type_into([cookiecutter, str(ROOT)], lines, directory, environment)
    # Which lines of Cookiecutter's code were run depends on its release.
    return f"$ {RENDER}\n{TRACE.sub('Traceback (most recent call last):\n  ...\n', seen)}".rstrip() + "\n"


def page(answered: str, refused: str, measured: str) -> str:
    """Return the page."""
    return TEXT.format(columns=COLUMNS, answered=answered, refused=refused, measured=measured)


def measured_before() -> str:
    """Return the part of the page that holds what was measured."""
    return MEASURED + PAGE.read_text(encoding="utf-8").partition(MEASURED)[2]


def measure(project: Path, render: float, environment: Mapping[str, str]) -> str:
    """Run the commands of the first five minutes in a rendered project, and return what the page says of them."""
    steps = [Step(RENDER, "with the answers above, typed at once; without the way to GitHub", render, 3)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {**environment, "PORT": str(port), "COMPOSE_PROJECT_NAME": f"{project.name}-{os.getpid()}"}
    load = os.getloadavg()[0]
    address = f"http://127.0.0.1:{port}/readyz"
    with running("make run", project, environment) as make:
        steps.append(Step("make run", "until it answers, installation included", until_it_answers(address, make), 60))
        answer, _ = timed(ASK.replace("8000", str(port)), project, environment)
    with running("make run", project, environment) as make:
        steps.append(Step("make run", "until it answers, from the second time on", until_it_answers(address, make)))
    tests, took = timed("make test", project, environment)
    steps.append(Step("make test", "installation of the tools included", took))
    if shutil.which("docker"):
        try:
            _, took = timed("docker compose build", project, environment)
            steps.append(Step("docker compose build", "the image of the service", took))
            _, took = timed("docker compose up -d --wait", project, environment)
            steps.append(Step("docker compose up -d --wait", "until every container is healthy", took, 90))
        finally:
            timed("docker compose down --volumes --rmi local", project, environment)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return TABLE.format(
        heading=MEASURED,
        machine=f"{os.process_cpu_count()} CPUs with {memory:.0f} GiB of memory and Python {platform.python_version()}",
        cookiecutter=version("cookiecutter"),
        commit=subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip(),
        slug=project.name,
        load=f"{load:.1f}",
        ask=ASK,
        answer=answer,
        rows="\n".join(rows(steps)),
        tests=tests.splitlines()[-1].strip("= "),
    )


def rows(steps: Iterable[Step]) -> Iterator[str]:
    """Yield the rows of the table."""
    for step in steps:
        yield f"| `{step.command}` | {step.timed} | {step.seconds:.1f} | {step.bound or ''} |"


def timed(command: str, project: Path, environment: Mapping[str, str]) -> tuple[str, float]:
    """Return what a command prints, and the seconds that it takes; raise RuntimeError when it fails."""
    begun = time.monotonic()
    done = subprocess.run(
        command.split(),
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout}")
    return done.stdout, time.monotonic() - begun


@contextlib.contextmanager
def running(command: str, project: Path, environment: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command in a group of its own, and press Ctrl-C at the end."""
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command.split(), cwd=project, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)


def until_it_answers(address: str, process: "subprocess.Popen[bytes]") -> float:
    """Return the seconds until a service answers 200; raise RuntimeError when it ends before."""
    begun = time.monotonic()
    while process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10):  # noqa: S310
            return time.monotonic() - begun
        time.sleep(0.05)
    raise RuntimeError(f"{address} never answered")


def environment_of_a_user(home: Path) -> dict[str, str]:
    """Return an environment in which nothing is set for the service, and nothing is in the caches of its tools."""
    config = home / "config.yaml"
    config.write_text(f"cookiecutters_dir: {home / 'templates'}\nreplay_dir: {home / 'replay'}\n", encoding="utf-8")
    ours = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "ENVIRONMENT", "VIRTUAL_ENV")
    of_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    return {
        **{name: value for name, value in os.environ.items() if name not in (*ours, *of_make)},
        "COOKIECUTTER_CONFIG": str(config),
        "PIP_CACHE_DIR": str(home / "pip"),
        "UV_CACHE_DIR": str(home / "uv"),
    }


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as directory:
        home, there = Path(directory) / "home", Path(directory) / "there"
        home.mkdir()
        there.mkdir()
        environment = environment_of_a_user(home)
        begun = time.monotonic()
        answered = session(ANSWERS, there, environment)
        took = time.monotonic() - begun
        refused = session(WRONG_ANSWERS, home, environment)
        measured = measured_before() if "questions" in sys.argv else measure(there / SLUG, took, environment)
        PAGE.write_text(page(answered, refused, measured), encoding="utf-8")


if __name__ == "__main__":
    main()
