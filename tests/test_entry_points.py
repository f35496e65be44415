"""The rendered application is a FastAPI application for whatever starts it or watches it."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, environment_of, make
from tests.test_variants import drive, serving
from tests.variants import render

TOOLS = Path(sys.executable).parent
# What a user may add; no variant needs it.
WATCHERS = [
    "fastapi-cli>=0.0.34,<0.1",
    "opentelemetry-instrumentation-fastapi>=0.66b2,<0.67",
    "opentelemetry-sdk>=1.45,<2",
    "prometheus-fastapi-instrumentator>=8.1,<9",
    "sentry-sdk>=2.75,<3",
]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered project of the default answers, with its database and what may watch it."""
    project = render(tmp_path_factory.mktemp("watched"))
    make(project, ".venv/dev")
    uv = [str(TOOLS / "uv"), "pip", "install", "--quiet", "--python", ".venv/bin/python", *WATCHERS]
    subprocess.run(uv, cwd=project, check=True)
    subprocess.run([project / ".venv/bin/alembic", "upgrade", "head"], cwd=project, env=environment_of(), check=True)
    return project


@pytest.mark.parametrize(
    "command",
    [
        "fastapi run --host 127.0.0.1 --port PORT",
        "fastapi dev --host 127.0.0.1 --port PORT",
        "uvicorn app.main:app --reload --host 127.0.0.1 --port PORT",
        "uvicorn app.main:app --http h11 --host 127.0.0.1 --port PORT",
    ],
)
def test_the_service_starts_as_any_fastapi_application(watched: Path, tmp_path: Path, command: str) -> None:
    log = tmp_path / "log"
    with serving(watched, command, log, WEB_CONCURRENCY=1) as client:
        drive(client)
    assert "Traceback" not in log.read_text()


def test_a_server_with_reload_serves_what_was_written(watched: Path, tmp_path: Path) -> None:
    module = watched / "app/main.py"
    source = module.read_text()
    command = "uvicorn app.main:app --reload --host 127.0.0.1 --port PORT"
    try:
        with serving(watched, command, tmp_path / "log", WEB_CONCURRENCY=1) as client:
            assert client.get("/new").status_code == 404
            module.write_text(f'{source}\n\n@app.get("/new")\nasync def new() -> str:\n    return "new"\n')
            deadline = time.monotonic() + PATIENCE
            while client.get("/new").status_code == 404:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert client.get("/new").json() == "new"
    finally:
        module.write_text(source)


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("opentelemetry_spans", "{'GET /items': 40}"),
        ("prometheus_metrics", """['http_requests_total{handler="/items",method="GET",status="2xx"} 40.0']"""),
        ("sentry_events", "500\n{'transaction /items': 40, 'error /broken': 1, 'transaction /broken': 1}"),
    ],
)
def test_who_watches_the_service_sees_every_request(watched: Path, program: str, printed: str) -> None:
    done = subprocess.run(
        [watched / ".venv/bin/python", "-m", f"entry_points.{program}"],
        cwd=watched,
        env=environment_of(PYTHONPATH=Path(__file__).parent, LOG_LEVEL="error", WEB_CONCURRENCY=1),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == printed
