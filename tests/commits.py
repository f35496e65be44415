"""A repository of Git whose commits are checked by hooks."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import clean_environment

HOOKS = ["prek", "pre-commit"]
AUTHOR = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")


def commit_all(directory: Path) -> None:
    """Commit all that Git does not ignore."""
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--allow-empty", "--message", "x"]):
        subprocess.run(["git", *AUTHOR, *command], cwd=directory, env=clean_environment(), check=True)


class Repository:
    """A repository of Git, in which a tool runs its hooks, without a network."""

    def __init__(self, directory: Path, tool: str, **environment: str) -> None:
        """Commit what is there, and install the hooks."""
        self.directory = directory
        nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
        homes = dict.fromkeys(("PREK_HOME", "PRE_COMMIT_HOME"), f"{directory}.{Path(tool).name}")
        author = {
            f"GIT_{who}_{what}": "ada@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        self.environment = clean_environment() | nowhere | homes | author | path | environment
        self.run("git", "init", "--quiet")
        (directory / ".git/info/exclude").write_text(".venv\n")
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", "x")
        self.run(tool, "install")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command, which may fail without check."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done

    def commit(self, path: str, text: str) -> subprocess.CompletedProcess[str]:
        """Append a text to a file, and commit it."""
        file = self.directory / path
        source = file.read_text(encoding="utf-8")
        file.write_text(source + text, encoding="utf-8")
        done = self.run("git", "commit", "--message", "y", path, check=False)
        file.write_text(source, encoding="utf-8")
        return done
