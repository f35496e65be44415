"""The HTTP client of the JDK, which offers HTTP/2 with each request, reads and writes without any setting."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, environment_of, install
from tests.test_variants import serving
from tests.variants import render

PROGRAM = Path(__file__).parent / "clients/Items.java"
ROUND = ["POST 201 HTTP_1_1", "PATCH 200 HTTP_1_1", "GET 200 HTTP_1_1", "true", "HEAD 200 HTTP_1_1"]
ROUND += ["DELETE 204 HTTP_1_1"]


def test_a_client_that_offers_http_2_writes(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    if shutil.which("java") is None:
        pytest.skip("java is missing: the client of the JDK was not tried, only its bytes")
    project = install(render(tmp_path), tmp_path_factory)
    settings = {"DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'items.db'}", "WEB_CONCURRENCY": 1}
    upgrade = [str(project / ".venv/bin/alembic"), "upgrade", "head"]
    subprocess.run(upgrade, cwd=project, env=environment_of(**settings), check=True)
    with serving(project, "gunicorn app.main:app --bind 0.0.0.0:8000", tmp_path / "log", **settings) as client:
        done = subprocess.run(
            ["java", str(PROGRAM), f"{client.base_url}/items"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.stdout.splitlines() == [*ROUND * 4, "[201]"]
