"""`make load` of a rendered project, and its page in a browser."""

import json
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from tests.browser import DARK, LIGHT, Browser, top_left
from tests.conftest import environment_of, make
from tests.test_variants import serving
from tests.variants import is_fullest

WIDTHS = (390, 1280)
KEY = "key_of_the_load_test"
RATE = 50


@pytest.fixture(scope="module")
def reports(project: Path, variant: dict[str, bool], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The pages after two runs against the service on SQLite, and after one with an open loop."""
    if not is_fullest(variant):
        pytest.skip("the load test is the same in every variant")
    place = tmp_path_factory.mktemp("load")
    settings = {
        "DATABASE_URL": f"sqlite+aiosqlite:///{place / 'items.db'}",
        "WEB_CONCURRENCY": "1",
        "API_KEYS_FILE": str(place / "keys"),
    }
    (place / "keys").write_text(f"load {sha256(KEY.encode()).hexdigest()} read,write")
    subprocess.run(
        [str(project / ".venv/bin/alembic"), "upgrade", "head"], cwd=project, env=environment_of(**settings), check=True
    )
    with serving(project, "gunicorn app.main:app --bind 0.0.0.0:8000", place / "log", **settings) as client:
        options = ("load", "SECONDS=1", "CONNECTIONS=10", f"PORT={client.base_url.port}", f"API_KEY={KEY}")
        first, second = make(project, *options), make(project, *options)
        closed = tmp_path_factory.mktemp("page") / "closed.html"
        shutil.copy(project / "loadtest/report.html", closed)
        make(project, *options, f"RATE={RATE}")
        listed = client.get("/items", headers={"Authorization": f"Bearer {KEY}"}).json()["items"]
    for done in (first, second):
        lines = re.findall(
            r"^\r?(\w+ \S+) +[\d,]+ requests/s +0\s% errors +p50 .* max .* (\w+)$", done.stdout, re.MULTILINE
        )
        tools = [tool if shutil.which(tool) else "Python" for tool in ("wrk", "wrk", "hey")]
        assert lines == list(zip(["GET /items", "GET /items/{id}", "POST /items"], tools, strict=True)), done.stdout
        assert "The report is loadtest/report.html." in done.stdout
    assert len(listed) == 100
    results = sorted((project / "loadtest/results").glob("*.json"))
    assert len(results) == 3
    assert_compared(closed, *results[:2])
    assert_open(project / "loadtest/report.html", results[2])
    return closed, project / "loadtest/report.html"


@pytest.fixture(scope="module")
def report(reports: tuple[Path, Path]) -> Path:
    """The page of two runs of a closed loop."""
    return reports[0]


@pytest.fixture(scope="module")
def open_loop(reports: tuple[Path, Path]) -> Path:
    """The page of an open loop, in the project."""
    return reports[1]


def assert_open(report: Path, result: Path) -> None:
    """Check the page of an open loop against the kept result, and what it tells of the service."""
    run = json.loads(result.read_text())
    assert run["rate"] == RATE
    assert [measurement["schedule"]["due"] for measurement in run["measurements"]] == [RATE] * 3
    text = report.read_text()
    assert text.count(f"{RATE} requests were due.") == 3
    assert f"{RATE} requests a second, at most 10 connections" in text
    assert "<h1>Load test of Highload Service</h1>" in text
    assert "<dt>Workers</dt><dd>1</dd>" in text
    assert "<dt>Commit</dt><dd>no commit" in text
    assert "Compared with" not in text, "there is no other run of its kind"
    assert text.count("The slowest answers over time") == 3


def assert_compared(report: Path, before: Path, now: Path) -> None:
    """Check the ratios on the page against the kept results."""
    old, new = (json.loads(path.read_text())["measurements"] for path in (before, now))
    ratios = re.findall(r"requests/s</th><td>[\d,.]+</td><td>[\d,.]+</td><td>([\d.]+)</td>", report.read_text())
    for then, later, ratio in zip(old, new, ratios, strict=True):
        rates = [measurement["answers"] / measurement["seconds"] for measurement in (then, later)]
        assert float(ratio) == pytest.approx(rates[1] / rates[0], abs=0.006)


def test_results_and_page_stay_out_of_git_and_of_the_image(open_loop: Path) -> None:
    project = open_loop.parent.parent
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    done = subprocess.run(
        ["git", "status", "--short", "--untracked-files=all", "loadtest"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "loadtest/report.py" in done.stdout
    assert "report.html" not in done.stdout
    assert "results/" not in done.stdout
    assert (project / ".dockerignore").read_text().splitlines()[0] == "*"
    assert "loadtest" not in (project / ".dockerignore").read_text()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("URL=http://example.org", "http://example.org is not on this machine"),
        ("RATE=a few", "RATE=a few is not a whole number of requests a second from 1 to 100000.\n"),
    ],
)
def test_make_load_refuses_in_one_sentence(option: str, sentence: str, open_loop: Path) -> None:
    done = make(open_loop.parent.parent, "load", option, check=False)
    assert done.returncode != 0
    assert sentence in done.stdout
    assert "usage:" not in done.stdout


def test_the_page_in_a_browser(report: Path, open_loop: Path, browser: Browser, tmp_path: Path) -> None:
    corners = {}
    for scheme, page in ((DARK, report), (LIGHT, open_loop)):
        picture = tmp_path / f"{scheme}.png"
        options = (f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1280,2600")
        _, messages, asked = browser.show(page.as_uri(), *options, f"--screenshot={picture}")
        assert (messages, asked) == ([], [])
        corners[scheme] = top_left(picture)
    assert max(corners[DARK]) < 64
    assert min(corners[LIGHT]) > 192


def test_a_page_that_needs_more_would_be_noticed(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="http://example.org/picture.png"><script>console.error("broken")</script>')
    _, messages, asked = browser.show(page.as_uri(), f"--screenshot={tmp_path / 'page.png'}")
    assert len(messages) == 1
    assert "broken" in messages[0]
    assert asked == ["http://example.org/picture.png"]


def test_the_page_never_scrolls_sideways(report: Path, open_loop: Path, browser: Browser, tmp_path: Path) -> None:
    """On a phone and on a desk, with an arrow and with the widest numbers as well."""
    row = r"(<td>)[^<]*(</td><td>)[^<]*(</td><td>)[^<]*(</td><td class=\"change\">).*?(</td>)"
    arrow = '<span class="worse"><span aria-hidden="true">↑</span> <span class="spoken">higher, </span>worse</span>'
    wide = tmp_path / "wide.html"
    wide.write_text(re.sub(row, rf"\g<1>100,504\g<2>100,504\g<3>1,117.98\g<4>{arrow}\g<5>", report.read_text()))
    assert wide.read_text().count(arrow) >= 3
    pages = [page.as_uri() for page in (report, open_loop, wide)]
    frames = tmp_path / "frames.html"
    measure = "this.parentNode.append(`[${this.width}: ${this.contentDocument.documentElement.scrollWidth}]`)"
    frames.write_text(
        "".join(
            f'<p><iframe src="{page}" width="{width}" height="800" style="border: 0" onload="{measure}"></iframe></p>'
            for page in pages
            for width in WIDTHS
        )
    )
    document, messages, _ = browser.show(frames.as_uri(), "--dump-dom")
    assert messages == []
    measured = re.findall(r"\[(\d+): (\d+)\]", document)
    assert [int(width) for width, _ in measured] == list(WIDTHS) * len(pages), document[-2000:]
    for width, needed in measured:
        assert int(needed) <= int(width)
