import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from xdist.scheduler import LoadScopeScheduling

from tests.browser import Browser, find_browser
from tests.variants import core_variants, docker_variants, is_fullest, name_of, render, variants_of_this_run

type Urls = dict[str, str]
type Make = Callable[..., subprocess.CompletedProcess[str]]


# What takes longest begins first, so that no process is left alone with it at the end.
LONGEST = [f"test_{name}.py" for name in ("mutations", "stack", "recipes", "variants", "names", "render")]
# Seconds after which what did not happen never will, on a machine that is busy as well.
PATIENCE = 300.0
# How many tests of each file a run leaves out.
LEFT_OUT: Counter[str] = Counter()


class OneVariantAProcess(LoadScopeScheduling):  # type: ignore[misc]
    """Gives the tests of a module to one process; where they are for a variant, those of each variant.

    `--dist loadgroup` cannot: it ignores its groups since pytest 9.2 (pytest-xdist, issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        parameters = test.partition("[")[2].removesuffix("]").split("-")
        return "-".join([module, *(name for name in map(name_of, core_variants()) if name in parameters)])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneVariantAProcess:
    """Tell pytest-xdist which tests belong together."""
    return OneVariantAProcess(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what is left out."""
    LEFT_OUT.update(item.path.name for item in items if item.get_closest_marker("slow"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the first process what this one leaves out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(LEFT_OUT)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what a process leaves out; all leave out the same."""
    if not LEFT_OUT:
        LEFT_OUT.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    if LEFT_OUT:
        parts = ", ".join(f"{count} of {name}" for name, count in sorted(LEFT_OUT.items()))
        terminalreporter.write_line(
            f"Left out: {LEFT_OUT.total()} slow tests ({parts}). To run them too: make test-all"
        )


@pytest.fixture(autouse=True, scope="session")
def _home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the replay files of the tests away from those of the user."""
    config = tmp_path_factory.mktemp("cookiecutter") / "config.yaml"
    config.write_text(f"cookiecutters_dir: {config.parent / 'templates'}\nreplay_dir: {config.parent / 'replay'}\n")
    os.environ["COOKIECUTTER_CONFIG"] = str(config)


@pytest.fixture(scope="session", params=variants_of_this_run(), ids=name_of)
def variant(request: pytest.FixtureRequest) -> dict[str, bool]:
    """Each combination of features."""
    answers: dict[str, bool] = request.param
    return answers


@pytest.fixture(scope="session")
def project(variant: dict[str, bool], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered project of each combination of features, with its .venv."""
    return install(render(tmp_path_factory.mktemp("project"), **variant), tmp_path_factory)


def install(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project a .venv with what its tests need: the one of all projects that need the same."""
    base = tmp_path_factory.getbasetemp()
    of_all_processes = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    requirements = (project / "requirements-dev.txt").read_bytes()
    shared = of_all_processes / f"venv-{hashlib.sha256(requirements).hexdigest()}"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            venv.create(shared, symlinks=True)
        (project / ".venv").symlink_to(shared)
        make(project, ".venv/dev")
    return project


def make(
    project: Path, *targets: str, check: bool = True, timeout: float = 3600, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run make in a rendered project and return what it printed; with check, fail when it does."""
    tools = [f"PYTHON={sys.executable}", f"UV={Path(sys.executable).parent / 'uv'}"]
    done = subprocess.run(
        ["make", *targets, *tools],
        cwd=project,
        env={**clean_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def options_for_tests(variant: Mapping[str, Any]) -> str:
    """Return what to leave out of the tests of a variant: those of the load test are the same in every one."""
    return "" if is_fullest(variant) else "--ignore-glob=tests/test_loadtest*.py"


def docker_is_there() -> bool:
    """Whether a Docker Engine answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    program = find_browser()
    if program is None:
        pytest.skip("Chromium is missing: no page was looked at")
    return Browser(program, tmp_path, timeout=PATIENCE)


@pytest.fixture(scope="session")
def docker() -> None:
    """Skip without a Docker Engine, or fail where CI promises one."""
    if docker_is_there():
        return
    if os.environ.get("CI") == "true":
        pytest.fail("CI needs Docker: start a Docker Engine")
    pytest.skip("Docker is not there: the full stack was not tested")


@pytest.fixture(scope="module", params=docker_variants(), ids=name_of)
def answers(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each combination of features, for Docker."""
    answers: dict[str, Any] = request.param
    return answers


@pytest.fixture(scope="module")
def docker_project(answers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered project of each combination of features, for Docker, with its .venv."""
    slug = f"stack-{name_of(answers).replace('+', '-').replace('_', '-')}"
    project = render(tmp_path_factory.mktemp("docker"), project_slug=slug, **answers)
    secrets = project / ".env"
    secrets.write_text(secrets.read_text().replace("_PASSWORD=", "_PASSWORD=P@ss/w0rd#1:%"))
    # So a strict umask leaves what is checked out.
    subprocess.run(["chmod", "-R", "go=", "app", "alembic.ini", "gunicorn.conf.py"], cwd=project, check=True)
    return install(project, tmp_path_factory)


def clean_environment() -> dict[str, str]:
    """Return the environment of a user whose shell sets nothing for the service."""
    ours = ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "ENVIRONMENT", "VIRTUAL_ENV")
    of_tools = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONDONTWRITEBYTECODE")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in (*ours, *of_tools) and not name.startswith("TEST_")
    }


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def environment_of(**settings: Any) -> dict[str, str]:
    """Return the environment with settings for the service."""
    return clean_environment() | {name: str(value) for name, value in settings.items()}


HOLD = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"


@contextmanager
def servers_of(project: Path) -> Iterator[Urls]:
    """Run the servers of a project as `make test-stack` does, and yield their addresses."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stack", sys.executable, "-c", HOLD],
        cwd=project,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        told = next((line for line in process.stdout if line.startswith("{")), "{}")
        addresses = json.loads(told)
        yield {
            name.removeprefix("TEST_"): url for name, url in addresses.items() if re.fullmatch("TEST_[A-Z]+_URL", name)
        }
