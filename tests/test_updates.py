"""A rendered project takes over what changed in the template, by cruft."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import clean_environment
from tests.variants import ROOT, SLUG, TEMPLATE

CRUFT = str(Path(sys.executable).parent / "cruft")
AUTHOR = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")


def run(directory: Path, *command: str) -> str:
    """Run a command that succeeds, and return what it prints."""
    done = subprocess.run(
        command,
        cwd=directory,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def commit(directory: Path) -> None:
    run(directory, "git", "init", "--quiet")
    run(directory, "git", "add", "--all")
    run(directory, "git", *AUTHOR, "commit", "--quiet", "--message", "x")


def test_an_update_merges_and_leaves_the_secrets_alone(tmp_path: Path) -> None:
    template = tmp_path / "template"
    shutil.copytree(ROOT, template, ignore=shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", ".*_cache"))
    commit(template)
    run(tmp_path, CRUFT, "create", str(template), "--no-input")
    project = tmp_path / SLUG
    commit(project)
    secrets = (project / ".env").read_bytes()
    assert "diff --git" not in run(project, CRUFT, "diff")

    ours, theirs = project / "Makefile", template / TEMPLATE.name / "Makefile"
    text = ours.read_text(encoding="utf-8")
    ours.write_text(text.replace("DRILL_PORT ?= 8900", "DRILL_PORT ?= 8901"), encoding="utf-8")
    commit(project)
    theirs.write_text(theirs.read_text(encoding="utf-8").replace("SECONDS ?= 10\n", "SECONDS ?= 11\n"))
    commit(template)
    run(project, CRUFT, "update", "--skip-apply-ask")
    merged = text.replace("DRILL_PORT ?= 8900", "DRILL_PORT ?= 8901").replace("SECONDS ?= 10\n", "SECONDS ?= 11\n")
    assert ours.read_text(encoding="utf-8") == merged
    assert (project / ".env").read_bytes() == secrets
    assert not list(project.rglob("*.rej"))
