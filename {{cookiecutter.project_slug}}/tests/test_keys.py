"""How the owner of the service makes keys, and is told of mistakes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import keys
from app.config import ConfigurationError, Settings
from app.highload.http.keys import read_keys
from tests.break_in import cases
from tests.conftest import PROJECT


def make_key(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["keys", *arguments])
    assert keys.main() == 0


def test_a_key_is_made_with_the_line_for_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make_key(monkeypatch, "--name", "billing", "--scopes", "write,read", "--expires", "2999-01-31T00:00:00Z")
    printed = capsys.readouterr()
    file = tmp_path / "keys"
    file.write_text(printed.out)
    (key,) = [line for line in printed.err.splitlines() if "_" in line and " " not in line]
    assert key not in printed.out
    found = read_keys(file).find(f"Bearer {key}".encode())
    assert found
    assert found.name == "billing"
    assert sorted(found.scopes) == ["read", "write"]
    assert printed.out.endswith(" read,write 2999-01-31T00:00:00Z\n")


def test_a_key_may_read_and_never_expires_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_key(monkeypatch, "--name", "billing")
    assert capsys.readouterr().out.split()[2:] == ["read"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "the following arguments are required: --name"),
        (["--name", "Ada Lovelace"], "the name has up to 64 letters"),
        (["--name", "ada", "--scopes", "admin"], "the scopes are read, write, or read,write"),
        (["--name", "ada", "--expires", "tomorrow"], "such as 2027-01-31T00:00:00Z"),
        (["--name", "ada", "--expires", "2001-01-31T00:00:00Z"], "would have expired already"),
    ],
)
def test_a_key_that_would_be_refused_is_not_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    with pytest.raises(SystemExit):
        make_key(monkeypatch, *arguments)
    printed = capsys.readouterr()
    assert why in printed.err
    assert not printed.out


def test_a_file_of_keys_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("billing\n")
    settings = Settings(_env_file=None, api_keys_file=file, web_concurrency=1)
    with pytest.raises(ConfigurationError, match=r"^API_KEYS_FILE: line 1 of .*: write `name sha256 scopes"):
        settings.read_api_keys()
    # What the first process of Gunicorn runs.
    environment = os.environ | {"API_KEYS_FILE": str(file), "WEB_CONCURRENCY": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "app.config"], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("The service does not start: API_KEYS_FILE: line 1 of ")


def test_a_rate_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match="must be a number of requests in a second, minute or hour"):
        Settings(_env_file=None, rate_limit="100", web_concurrency=1)


def test_the_table_of_security_md_is_that_of_the_tests() -> None:
    text = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
    table = text.split("| tried | answered |\n|---|---|\n")[1].split("\n\n")[0]
    expected = [f"| {case.tried} | {case.answered} |" for case in cases("/x", "/x/1")]
    assert table.splitlines() == expected
    assert len(expected) == len(set(expected)) >= 60
