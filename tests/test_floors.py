"""The engine stands without the service on it."""

import subprocess
from pathlib import Path

import pytest

from tests.conftest import clean_environment
from tests.test_mutations import copy_of
from tests.variants import is_fullest

ITEMS = ["crud.py", "routes/items.py", "schemas.py", "tasks.py"]
MODELS = '''"""No tables."""

from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """The parent of all models."""
'''
MAIN = '''"""A service without a resource."""

from app.config import Settings, load_settings
from app.highload.service import Service


def create_app(settings: Settings) -> Service:
    """Return the application."""
    return Service(
        limit_concurrency=settings.limit_concurrency,
        max_body_bytes=settings.max_body_bytes,
        max_waiting=settings.max_waiting,
    )


app = create_app(load_settings())
'''
# They take long, and show nothing more here.
LEFT_OUT = ["test_server.py", "test_server_differential.py", "test_sharing_properties.py"]


@pytest.mark.slow
def test_whoever_deletes_items_keeps_the_tests_of_the_engine(
    project: Path, variant: dict[str, bool], tmp_path: Path
) -> None:
    if not is_fullest(variant):
        pytest.skip("the fullest variant has every part of the engine")
    bare = copy_of(project, tmp_path)
    for name in ITEMS:
        (bare / "app" / name).unlink()
    for name, source in (("main.py", MAIN), ("models.py", MODELS)):
        (bare / "app" / name).write_text(source, encoding="utf-8")
    done = subprocess.run(
        [
            *(bare / ".venv/bin/python", "-m", "pytest", "-q", "tests/highload"),
            *(f"--ignore=tests/highload/{name}" for name in LEFT_OUT),
        ],
        cwd=bare,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
