"""The page of the first steps is what a user sees who types them into a terminal."""

import re
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment

if sys.platform == "win32":
    pytest.skip("Windows has no such terminals", allow_module_level=True)

from tools import recording

PAGE = recording.PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_a_user_sees(tmp_path: Path) -> None:
    answered = recording.session(recording.ANSWERS, tmp_path, clean_environment())
    assert [path.name for path in tmp_path.iterdir()] == [recording.SLUG]
    nothing = tmp_path / "refused"
    nothing.mkdir()
    refused = recording.session(recording.WRONG_ANSWERS, nothing, clean_environment())
    assert not list(nothing.iterdir())
    assert recording.page(answered, refused, recording.measured_before()) == PAGE, "make recording ONLY=questions"


def test_the_reasons_are_the_first_lines_after_the_last_question() -> None:
    refused = PAGE.partition("## Wrong answers\n")[2].partition(recording.MEASURED)[0]
    lines = refused.partition("[14/14]")[2].partition("(1):\n")[2].splitlines()
    ours = lines[: next(number for number, line in enumerate(lines) if line.startswith("ERROR: Stopping"))]
    assert [line.partition(" ")[0] for line in ours] == ["project_slug", "resource", "resource_plural", "workers"]
    # One sentence each.
    assert all(re.fullmatch(r"[^.]+\.", line) for line in ours), ours


def test_what_was_measured_is_within_its_bounds() -> None:
    rows = re.findall(r"^\| `(.+?)` \| .* \| ([\d.]+) \| (\d*) \|$", PAGE, re.MULTILINE)
    bounds = {command: int(bound) for command, _, bound in rows if bound}
    assert bounds == {recording.RENDER: 3, "make run": 60, "docker compose up -d --wait": 90}
    for command, seconds, bound in rows:
        assert float(seconds) <= float(bound or "inf"), command
