"""The open loop: when requests are due, what counts as their latency, and what is said of the client."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from loadtest import open_loop
from loadtest.__main__ import HIGHEST_RATE, rate_of
from loadtest.results import CannotLoad, Measurement, Schedule
from loadtest.service import Workload
from loadtest.text import behind, punctuality

READ = Workload("Reads", "GET /", "GET", ["/"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

type Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ignore(_: float) -> None:
    """Take no notice of the progress."""


def answering(*answers: bytes, pause: float = 0.0) -> Answering:
    """Return a server's part of a connection: so many answers, the last again and again, each after a pause."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(pause)
                writer.write(left[0])
                if len(left) > 1:
                    left.pop(0)
                if not left[0]:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    return answer


@asynccontextmanager
async def server(answer: Answering) -> AsyncGenerator[str]:
    """Serve on this machine; the address is yielded."""
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def send(
    url: str,
    *,
    rate: int = 100,
    connections: int = 10,
    seconds: float = 0.1,
    tick: Callable[[float], None] = ignore,
    workload: Workload = READ,
) -> Measurement:
    return await open_loop.send(url, workload, rate=rate, connections=connections, seconds=seconds, tick=tick)


async def test_a_latency_counts_from_the_time_at_which_its_request_was_due() -> None:
    pause, rate, seconds = 0.05, 40, 0.5
    async with server(answering(OK, pause=pause)) as url:
        found = await send(url, rate=rate, connections=1, seconds=seconds)
    number = round(rate * seconds)
    assert found.answers == number
    # The last of those that stood in line: no machine is so fast that it could have come sooner.
    assert found.percentiles["100"] >= number * pause - (number - 1) / rate
    assert found.percentiles["50"] >= number / 2 * pause - number / 2 / rate
    assert found.rate <= 1 / pause, "what comes after the end does not count"
    assert found.schedule is not None
    assert (found.schedule.due, found.schedule.waited) == (number, number - 1)


async def test_all_that_was_due_is_sent() -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            seen.append(line)
            if line == b"\r\n":
                body = await reader.readexactly(2)
                seen.append(body)
                writer.write(OK)
        writer.close()

    workload = Workload("Writes", "POST /x", "POST", ["/x"], "{}")
    async with server(answer) as url:
        found = await send(url, rate=300, seconds=0.5, workload=workload)
    assert (found.answers, found.errors, found.tool) == (150, {}, "Python")
    assert found.seconds >= 0.5
    assert seen.count(b"POST /x HTTP/1.1\r\n") == seen.count(b"{}") == seen.count(b"Content-Length: 2\r\n") == 150


async def test_a_client_that_is_late_says_so() -> None:
    held: list[float] = []

    def hold_the_loop(passed: float) -> None:
        if not held:
            held.append(passed)
            time.sleep(0.1)

    async with server(answering(OK)) as url:
        found = await send(url, seconds=0.5, tick=hold_the_loop)
    schedule = found.schedule
    assert schedule is not None
    assert held
    assert schedule.late >= 5
    assert 0.05 <= schedule.latest <= found.percentiles["100"]
    assert "The client fell behind" in behind(schedule)
    assert found.answers == 50, "none is left out"


def test_few_late_requests_do_not_reach_the_99th_percentile() -> None:
    assert behind(Schedule(due=1000, late=10, latest=0.02, waited=0)) == ""
    assert "name a lower RATE" in behind(Schedule(due=1000, late=11, latest=0.02, waited=0))
    assert punctuality(Schedule(due=1000, late=11, latest=0.02, waited=250)).replace("\N{NO-BREAK SPACE}", " ") == (
        "1,000 requests were due. The client sent 1.1 % of them a millisecond late or more, the latest by 20.0 ms; "
        "25.0 % waited for a free connection."
    )


@pytest.mark.parametrize(
    ("answers", "errors"),
    [
        ([b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"], {"status 503"}),
        ([b"nonsense\r\n\r\n"], {"an answer that is not HTTP"}),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", b""], {"connection closed"}),
    ],
)
async def test_errors_are_counted_by_reason(answers: list[bytes], errors: set[str]) -> None:
    async with server(answering(*answers)) as url:
        found = await send(url)
    assert (found.answers, found.failed) == (0, 10)
    assert found.errors.keys() == errors
    assert found.error_rate == 1


@pytest.mark.parametrize(
    "last", [OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), OK], ids=["told", "untold"]
)
async def test_a_closed_connection_is_opened_anew(last: bytes) -> None:
    async with server(answering(last, b"")) as url:
        found = await send(url, rate=20, connections=1, seconds=0.5)
    assert found.answers + found.failed == 10
    assert found.answers >= 2


async def test_a_connection_that_is_closed_at_once_is_an_error() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with server(answer) as url:
        found = await send(url)
    assert (found.answers, found.failed) == (0, 10)


async def test_a_refused_connection_is_an_error() -> None:
    async with server(answering(OK)) as url:
        pass
    assert (await send(url)).errors == {"ConnectionRefusedError": 10}


async def test_what_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "TIMEOUT", 0.2)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    async with server(hang) as url:
        found = await send(url, connections=2)
    assert found.errors == {"timeout": 10}


def test_a_loop_of_its_own_ends_with_the_load() -> None:
    async def look() -> None:
        began = time.monotonic()
        await asyncio.sleep(0.0003)
        assert time.monotonic() - began >= 0.0003

    with asyncio.Runner(loop_factory=open_loop.precise_loop) as runner:
        runner.run(look())


@pytest.mark.parametrize("text", ["0", "-5", "1.5", "many", "100001", "1" * 5000, "1 2"])
def test_a_wrong_rate_is_one_sentence(text: str) -> None:
    with pytest.raises(
        CannotLoad, match=rf"^RATE={text} is not a whole number of requests a second from 1 to 100000\.$"
    ):
        rate_of(text)


def test_a_rate_makes_an_open_loop() -> None:
    assert [rate_of(text) for text in ("", "1", "500", str(HIGHEST_RATE))] == [None, 1, 500, HIGHEST_RATE]
