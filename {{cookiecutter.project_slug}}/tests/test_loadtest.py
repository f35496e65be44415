"""The load test: what it reads from its tools, what it refuses, and its page."""

import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest

from loadtest import client as python_client
from loadtest import hey, plots, process, service, wrk
from loadtest.machine import NO_COMMIT, Machine, commit, load_average, this_machine
from loadtest.report import STYLE, page
from loadtest.results import (
    QUANTILES,
    Answer,
    CannotLoad,
    Measurement,
    Run,
    Schedule,
    Service,
    last,
    latency_of,
    measure,
    save,
    timeline_of,
)
from loadtest.service import Workload, address_of, expect_success
from loadtest.text import duration, percent, ratio, significant
from tests.conftest import PROJECT

# What wrk and hey printed: with this service, and with a server that also refuses, hangs and closes connections.
OUTPUTS = Path(__file__).parent / "load_outputs"
LIST = Workload("Hot list", "GET /items", "GET", ["/items"])
NEW = Workload("New items", "POST /items", "POST", ["/items"], service.NEW_ITEM)


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def ignore(_: float) -> None:
    """Take no notice of the progress."""


def output(name: str) -> str:
    return (OUTPUTS / name).read_text(encoding="utf-8")


def test_wrk_is_read() -> None:
    found = wrk.parse(output("wrk.txt"), LIST)
    assert (found.request, found.tool, found.answers, found.errors) == ("GET /items", "wrk", 5081, {})
    assert "Requests/sec:   2420.04" in output("wrk.txt")
    assert found.rate == pytest.approx(2420.04, abs=0.01)
    assert found.percentiles == pytest.approx({"50": 0.003889, "90": 0.004854, "99": 0.006588, "100": 0.011357})
    assert found.timeline == [2004, 2508, 2692, 2706]
    assert len(found.quantiles) == QUANTILES
    assert found.quantiles == sorted(found.quantiles)
    assert found.quantiles[QUANTILES // 2] == pytest.approx(found.percentiles["50"], rel=0.01)


def test_the_errors_of_wrk_are_read() -> None:
    text = output("wrk-errors.txt")
    assert "Socket errors: connect 0, read 59, write 0, timeout 12" in text
    assert "Non-2xx or 3xx responses: 89" in text
    found = wrk.parse(text, LIST)
    assert found.errors == {"status 4xx or 5xx": 89, "read failed": 59, "timeout": 12}
    assert found.answers == 956 - 89 - 12


def test_hey_is_read() -> None:
    found = hey.parse(output("hey.txt"), NEW)
    assert (found.tool, found.answers, found.errors) == ("hey", 60, {})
    assert found.rate == pytest.approx(60 / 0.042382332)
    assert found.percentiles["50"] <= found.percentiles["90"] <= found.percentiles["99"] <= found.percentiles["100"]
    assert found.percentiles["100"] == max(float(line.split()[2]) for line in output("hey.txt").splitlines()[1:-1])


def test_what_hey_forgets_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hey, "MOST_ANSWERS", 60)
    text = output("hey.txt").replace("total 0.042382332", "total 99.0")
    assert hey.parse(text, NEW).seconds == pytest.approx(0.042, abs=0.001)


def test_the_errors_of_hey_are_read() -> None:
    found = hey.parse(output("hey-errors.txt"), NEW)
    assert found.errors == {
        "status 503": 10,
        "EOF": 7,
        "context deadline exceeded (Client.Timeout exceeded while awaiting headers)": 2,
    }
    assert found.answers + sum(found.errors.values()) == 120


def test_reasons_do_not_differ_by_address() -> None:
    reset = 'Post "http://127.0.0.1:1/x": read tcp 127.0.0.1:{}->127.0.0.1:1: read: connection reset by peer'
    text = f"total 1.0\nerror 2 {reset.format(40000)}\nerror 3 {reset.format(40001)}\n"
    assert hey.parse(text, NEW).errors == {"connection reset by peer": 5}


@pytest.mark.parametrize("parse", [wrk.parse, hey.parse])
@pytest.mark.parametrize("text", ["", "Usage: ...\n"])
def test_an_unexpected_output_is_shown(parse: Callable[[str, Workload], Measurement], text: str) -> None:
    with pytest.raises(CannotLoad, match=f"something unexpected: {text.strip()}"):
        parse(text, LIST)


def test_a_load_without_an_answer_has_no_latencies() -> None:
    found = measure("", "", "hey", seconds=1.0, answers=[], unanswered=Counter({"EOF": 3}))
    assert (found.rate, found.errors, found.percentiles, found.quantiles) == (0, {"EOF": 3}, {}, [])


def test_percentiles_are_nearest_ranks() -> None:
    latencies = [float(number) for number in range(1, 101)]
    assert [latency_of(latencies, share) for share in (0.001, 0.5, 0.9, 0.99, 1)] == [1, 50, 90, 99, 100]
    assert latency_of([7.0], 0.5) == 7


def test_the_timeline_counts_good_answers_when_they_arrive() -> None:
    answers = [Answer(0.0, 0.1, 200), Answer(0.4, 0.2, 200), Answer(0.6, 0.1, 503), Answer(0.9, 0.2, 200)]
    assert timeline_of(answers, 1.2) == [2, 2]


@pytest.mark.parametrize(
    ("connections", "cpus", "threads"), [(100, 4, 4), (100, 3, 2), (1, 8, 1), (7, 4, 1), (1000, 16, 10)]
)
def test_every_thread_of_wrk_gets_equally_many_connections(connections: int, cpus: int, threads: int) -> None:
    assert wrk.thread_count(connections, cpus) == threads


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_this_machine_may_be_loaded(url: str, address: str) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://10.0.0.1:8000",
        "http://127.0.0.1@example.org",
        "http://127.0.0.1.example.org",
        "http://127.0.0.1:eight",
        "https://127.0.0.1",
        "127.0.0.1:8000",
        "",
    ],
)
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(CannotLoad, match=r"is not on this machine: load only http://127\.0\.0\.1"):
        address_of(url)


def load(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", *arguments],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_service_that_is_not_there_is_one_sentence(unused_port: int) -> None:
    done = load("--url", f"http://127.0.0.1:{unused_port}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Nothing answers at http://127.0.0.1:{unused_port}: start the service with `make run` or "
        "`docker compose up --build -d --wait`, or name its port, `make load PORT=8001`.\n"
    )


@pytest.mark.parametrize("option", ["--seconds", "--connections"])
def test_nothing_to_send_is_refused(option: str) -> None:
    done = load(option, "0")
    assert done.returncode == 2
    assert f"argument {option}: invalid" in done.stderr


def test_another_answer_is_refused() -> None:
    response = httpx2.Response(503, request=httpx2.Request("GET", "http://127.0.0.1:8000/items"))
    with pytest.raises(CannotLoad, match=r"GET http://127\.0\.0\.1:8000/items answers 503"):
        expect_success(response)


async def test_python_counts_what_is_not_answered(unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}"
    found = await python_client.send(url, LIST, connections=2, seconds=0.2, tick=ignore)
    assert found.answers == 0
    assert found.errors.keys() == {"ConnectError"}


def test_a_program_does_not_outlive_an_interruption(tmp_path: Path) -> None:
    written = tmp_path / "pid"
    program = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid()) + '\\n'); time.sleep(60)"

    def interrupt(_: float) -> None:
        if written.exists() and written.read_text().endswith("\n"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.output_of([sys.executable, "-c", program, str(written)], seconds=60, tick=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(written.read_text()), 0)


def test_a_program_that_does_not_stop_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TIMEOUT", 0.1)
    with pytest.raises(CannotLoad, match="did not stop within 0 seconds"):
        process.output_of([sys.executable, "-c", "import time; time.sleep(60)"], seconds=0.1, tick=ignore)


def test_the_complaint_of_a_program_is_shown() -> None:
    with pytest.raises(CannotLoad, match="failed: no more connections"):
        process.output_of([sys.executable, "-c", "import sys; sys.exit('no more connections')"], seconds=1, tick=ignore)


MACHINE = Machine(cpu="A CPU", memory=8 * 2**30)
SERVICE = Service("Notes", "1.2.3", 4)


def run_of(
    *measurements: Measurement, began: datetime, connections: int = 100, seconds: int = 10, rate: int | None = None
) -> Run:
    return Run(
        began,
        "http://127.0.0.1:8000",
        connections,
        seconds,
        MACHINE,
        list(measurements),
        rate,
        SERVICE,
        "1a2b3c4-dirty",
        [0.25, 3.5],
    )


NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def answered_in(milliseconds: float, *, rate: int = 500, failed: int = 0, late: int = 0) -> Measurement:
    """Return what an open loop of ten seconds measured."""
    answers = [
        Answer(number / rate, milliseconds * (1 + number % 7 / 100) / 1000, 503 if number < failed else 200)
        for number in range(10 * rate)
    ]
    schedule = Schedule(len(answers), late, late / 1000, 0)
    return measure(
        "Hot list",
        "GET /items",
        "Python",
        seconds=10,
        answers=answers,
        unanswered=Counter(),
        schedule=schedule,
    )


def test_wrk_tells_the_thousandth_slowest_of_ten_thousand() -> None:
    text = output("wrk.txt").replace('"requests":5081', '"requests":10000').replace('"p99":', '"p99.9":9000,"p99":')
    assert wrk.parse(text, LIST).percentiles["99.9"] == pytest.approx(0.009)


@pytest.mark.parametrize(("answers", "told"), [(9_999, False), (10_000, True)])
def test_the_thousandth_slowest_needs_ten_thousand_answers(answers: int, told: bool) -> None:
    found = measure("", "", "hey", seconds=1.0, answers=[Answer(0.1, 0.1, 200)] * answers, unanswered=Counter())
    assert ("99.9" in found.percentiles) is told
    assert set(found.percentiles) - {"99.9"} == {"50", "90", "99", "100"}


def test_an_older_result_is_read(tmp_path: Path) -> None:
    old = """{"began": "2030-01-02T03:04:05+00:00", "url": "http://127.0.0.1:8000", "connections": 100, "seconds": 10,
    "machine": {"cpus": 2, "system": "Linux", "python": "3.13.0"}, "measurements": [{"title": "Hot list",
    "request": "GET /items", "tool": "wrk",
    "seconds": 2.0, "answers": 4000, "errors": {}, "percentiles":
    {"50": 0.004, "90": 0.005, "99": 0.006, "100": 0.1}, "quantiles": [0.004], "timeline": [1000, 1000]}]}"""
    (tmp_path / "old.json").write_text(old)
    found = last(tmp_path)
    assert found is not None
    assert (found.commit, found.rate, found.measurements[0].rate) == ("", None, 2000)
    text = page(TRUE_RUN, found)
    assert "Not the same in both: machine, tools." in text
    assert page(found, None)
    known = replace(found, machine=Machine(MACHINE.cpus, MACHINE.system, MACHINE.python), measurements=[])
    assert "Not the same in both: tools." in page(TRUE_RUN, known), "what the older one does not tell is no difference"


def test_a_run_is_compared_with_one_of_its_kind(tmp_path: Path) -> None:
    closed, opened = run_of(began=NOW), run_of(answered_in(5), began=NOW + timedelta(hours=1), rate=500)
    save(closed, tmp_path)
    save(opened, tmp_path)
    assert (last(tmp_path), last(tmp_path, open_loop=True)) == (closed, opened)


TRUE_RUN = run_of(wrk.parse(output("wrk.txt"), LIST), hey.parse(output("hey-errors.txt"), NEW), began=NOW)


def slower(measurement: Measurement) -> Measurement:
    """Return a measurement of half the throughput and twice the latency."""
    return Measurement(
        measurement.title,
        measurement.request,
        measurement.tool,
        measurement.seconds,
        measurement.answers // 2,
        {},
        {name: 2 * latency for name, latency in measurement.percentiles.items()},
        [2 * latency for latency in measurement.quantiles],
        [rate / 2 for rate in measurement.timeline],
    )


def test_the_last_run_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "results"
    assert last(directory) is None
    save(TRUE_RUN, directory)
    save(run_of(began=NOW - timedelta(days=1)), directory)
    assert last(directory) == TRUE_RUN


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"began": 1}'])
def test_a_file_that_is_no_result_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(CannotLoad, match=r"x\.json is not the result of a run: delete it"):
        last(tmp_path)


class Document(HTMLParser):
    """A page: its tags must balance; collects attributes, and the text of tables by row."""

    VOID = frozenset(["meta", "link", "br"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1].append(data)


def test_the_page_needs_nothing_else() -> None:
    text = page(TRUE_RUN, None)
    document = Document(text)
    assert "://" not in text.replace("http://127.0.0.1:8000", "")
    assert "@import" not in text
    assert "url(" not in text
    assert "<script" not in text
    loaded = {value for _, name, value in document.attributes if name in ("src", "srcset", "href", "data")}
    assert loaded == {"data:,"}


def test_the_page_is_accessible() -> None:
    text = page(TRUE_RUN, TRUE_RUN)
    attributes = Document(text).attributes
    assert ("html", "lang", "en") in attributes
    assert "<title>Load test of Notes, 2030-01-02, 03:04 UTC</title>" in text
    assert text.count("<svg") == text.count("<figure>") == text.count("<figcaption>") == 4
    assert text.count('role="img"') == text.count("aria-label=") == 4
    assert all(value for _, name, value in attributes if name == "aria-label")
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for _, name, value in attributes if name == "aria-labelledby"} == set(ids)


def cells(text: str, name: str) -> list[str]:
    """Return the first row of a page that begins with a name."""
    return next(row for row in Document(text).rows if row and row[0] == name)


def test_the_page_says_what_changed_beyond_the_noise() -> None:
    before = run_of(answered_in(5, rate=1000), began=NOW - timedelta(days=1), rate=1000)
    slow, same = (run_of(answered_in(time, rate=1000), began=NOW, rate=1000) for time in (5.5, 5))
    text = page(slow, before)
    assert cells(text, "p50")[4:] == ["↑", " ", "higher, ", "worse"]
    assert cells(text, "p99")[4:] == ["↑", " ", "higher, ", "worse"]
    assert cells(text, "p99.9")[3:] == ["1.10"], "its noise is not known"
    assert cells(text, "max")[3:] == ["1.10"]
    assert ("span", "aria-hidden", "true") in Document(text).attributes
    assert cells(page(before, slow), "p50")[4:] == ["↓", " ", "lower, ", "better"]
    assert cells(page(same, before), "p50")[4:] == ["within noise"]
    assert cells(page(same, before), "requests/s")[4:] == ["within noise"]
    halved = run_of(answered_in(5, rate=500), began=NOW, rate=500)
    text = page(halved, before)
    assert cells(text, "requests/s")[1:] == ["1,000", "500", "0.50", "↓", " ", "lower, ", "worse"]
    assert "Not the same in both: rate." in text


def test_the_rate_of_errors_stands_beside_the_throughput() -> None:
    before, now = run_of(answered_in(5), began=NOW, rate=500), run_of(answered_in(5, failed=25), began=NOW, rate=500)
    text = page(now, before)
    assert cells(text, "errors")[1:3] == ["0\N{NO-BREAK SPACE}%", "0.50\N{NO-BREAK SPACE}%"]
    assert re.search(r"requests/s</dt><dd>497.*\n.*errors</dt><dd>0\.50\N{NO-BREAK SPACE}%</dd>", text)


def test_the_page_shows_the_slowest_answers_over_time() -> None:
    before, now = (run_of(answered_in(time), began=NOW, rate=500) for time in (4, 5))
    text = page(now, before)
    assert "p99 between 5.30\N{NO-BREAK SPACE}ms and 5.30\N{NO-BREAK SPACE}ms" in text
    assert "The slowest answers over time; dashed, p99 of the run before. Too few answers for p99.9." in text
    assert text.count('<circle class="slowest"') == 20 + 1
    assert "wrk does not tell" not in text
    busy = page(run_of(answered_in(5, rate=4000), began=NOW, rate=4000), None)
    assert 'class="line rare"' in busy
    assert "The slowest answers over time." in busy
    assert "wrk does not tell when each answer came" in page(TRUE_RUN, None)


def test_the_page_tells_of_an_open_loop_and_its_client() -> None:
    text = page(run_of(answered_in(5, late=51), began=NOW, rate=500), None)
    assert "500 requests a second, at most 100 connections" in text
    assert "no coordinated omission" in text
    assert '<p class="bad">5,000 requests were due.' in text
    assert "The client fell behind" in text
    punctual = page(run_of(answered_in(5), began=NOW, rate=500), None)
    assert "<p>5,000 requests were due." in punctual
    assert "fell behind" not in punctual


def test_the_page_tells_where_and_on_what_it_was_measured() -> None:
    texts = Document(page(TRUE_RUN, None)).texts
    assert "Load test of Notes" in texts
    for value in ["Notes 1.2.3", "4", "A CPU", "8.0 GiB", "0.25 before, 3.50 after", MACHINE.system]:
        assert value in texts
    assert any(text.startswith("1a2b3c4-dirty") for text in texts)
    assert "The load average was 0.2 at the begin of that run" in page(TRUE_RUN, TRUE_RUN)


def test_the_page_says_when_other_programs_wanted_the_cpus() -> None:
    busy = replace(TRUE_RUN, load_averages=[MACHINE.cpus + 0.5, MACHINE.cpus + 1.0])
    for now, before, warned in ((TRUE_RUN, TRUE_RUN, False), (busy, TRUE_RUN, True), (TRUE_RUN, busy, True)):
        assert ("an arrow may come from other programs" in page(now, before)) is warned


def test_the_machine_and_the_commit_are_known(tmp_path: Path) -> None:
    here = this_machine()
    assert here.cpu
    assert here.memory > 2**20
    assert load_average() >= 0
    assert commit(tmp_path) == NO_COMMIT


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_all_text_has_contrast(scheme: int) -> None:
    colours = re.findall(r"--(\w+): #(\w{6});", STYLE.read_text(encoding="utf-8"))
    own = dict(colours[len(colours) // 2 * scheme :][: len(colours) // 2])
    paper = luminance(own["paper"])
    for name in ("ink", "quiet", "mark", "before", "bad", "good"):
        lighter, darker = sorted((luminance(own[name]), paper), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.00001, "< 0.01 %"), (0.0013, "0.13 %"), (0.05, "5.0 %"), (0.996, "99.6 %"), (1, "100 %")],
)
def test_shares_are_in_percent(share: float, text: str) -> None:
    assert percent(share) == text.replace(" %", "\N{NO-BREAK SPACE}%")


def test_the_page_names_errors_by_status() -> None:
    texts = Document(page(TRUE_RUN, None)).texts
    assert any(text.startswith("19 requests failed.") for text in texts)
    assert "Throughput by half second." in texts
    failed = run_of(wrk.parse(output("wrk-errors.txt"), LIST), began=NOW)
    assert "Requests, failed ones among them, by half second." in Document(page(failed, None)).texts
    assert "status 503: 10" in texts
    assert "EOF: 7" in texts
    faultless = run_of(TRUE_RUN.measurements[0], began=NOW)
    assert "Every request was answered without an error." in Document(page(faultless, None)).texts


def test_the_page_compares_with_the_run_before() -> None:
    before = run_of(*map(slower, TRUE_RUN.measurements), began=NOW - timedelta(days=1))
    text = page(TRUE_RUN, before)
    rows = Document(text).rows
    assert [row for row in rows if row and row[0] in ("requests/s", "p99")][:2] == [
        ["requests/s", "1,210", "2,420", "2.00"],
        ["p99", "13.2\N{NO-BREAK SPACE}ms", "6.59\N{NO-BREAK SPACE}ms", "0.50"],
    ]
    assert "2030-01-01, 03:04 UTC" in text
    assert "Its settings were the same." in text
    assert text.count('class="previous"') == 4
    assert "Compared with" not in page(TRUE_RUN, None)


def test_the_page_says_which_settings_differ() -> None:
    before = run_of(*TRUE_RUN.measurements, began=NOW, connections=10, seconds=5)
    text = page(TRUE_RUN, before)
    assert "Not the same in both: connections, seconds." in text
    assert "It had 19 errors." in text


def test_the_page_escapes_what_it_did_not_write() -> None:
    hostile = "<i>&\"'"
    bad = Measurement(
        hostile, hostile, "hey", 1.0, 1, {hostile: 1}, {"50": 1, "90": 1, "99": 1, "100": 1}, [1.0], [1.0]
    )
    run = Run(NOW, hostile, 1, 1, Machine(1, hostile, hostile), [bad])
    text = page(run, run)
    assert "<i>" not in text
    assert Document(text).texts.count(hostile) >= 3
    assert f"{hostile}: 1" in Document(text).texts


def test_a_run_without_an_answer_has_a_page() -> None:
    nothing = measure("Nothing", "GET /items", "hey", seconds=1.0, answers=[], unanswered=Counter({"EOF": 3}))
    text = page(run_of(nothing, began=NOW), TRUE_RUN)
    assert "<svg" not in text
    assert "EOF: 3" in Document(text).texts


def test_the_bars_of_a_histogram_are_all_requests() -> None:
    bars = plots.latency_bars(TRUE_RUN.measurements[0].quantiles)
    assert sum(bar.value for bar in bars) == pytest.approx(100)
    assert {round(bar.end - bar.begin, 9) for bar in bars} == {0.1}
    assert plots.latency_bars([0.0])[0].value == 100


def test_the_names_of_ticks_stay_inside() -> None:
    widest_digit = 7.7
    for magnitude in range(60):
        latencies = [1e-5 * 1.2**magnitude * spread for spread in (1, 10, 180)]
        answers = [Answer(0.0, latency, 200) for latency in latencies]
        measurement = measure("", "", "hey", seconds=1.0, answers=answers, unanswered=Counter())
        svg = plots.histogram(measurement, None)
        ticks = re.findall(r'<text class="place" x="([\d.]+)" y="[\d.]+">([\d,.]+\N{NO-BREAK SPACE}\w+)<', svg)
        assert ticks
        for place, name in ticks:
            assert float(place) + len(name) * widest_digit / 2 <= plots.WIDTH


@pytest.mark.parametrize(
    ("value", "end", "step"),
    [(100, 100, 50), (42, 60, 20), (10_504, 15_000, 5_000), (0.3, 0.3, 0.1), (1, 1, 0.5), (0, 5e-10, 5e-10)],
)
def test_an_axis_ends_at_a_round_value(value: float, end: float, step: float) -> None:
    assert plots.ceiling(value) == pytest.approx((end, step))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 µs"),
        (0.0000423, "42.3 µs"),
        (0.00085, "850 µs"),
        (0.0009999, "1.00 ms"),
        (0.0109, "10.9 ms"),
        (0.304, "304 ms"),
        (0.99951, "1.00 s"),
        (12.345, "12.3 s"),
        (1234, "1,234 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text.replace(" ", "\N{NO-BREAK SPACE}")


def test_numbers_have_three_digits() -> None:
    numbers = {0.123: "0.12", 1.234: "1.23", 9.996: "10.0", 99.96: "100", 123.4: "123", 10_504.2: "10,504"}
    assert [significant(number) for number in numbers] == list(numbers.values())
    assert (ratio(3, 2), ratio(3, 0)) == ("1.50", "none")
