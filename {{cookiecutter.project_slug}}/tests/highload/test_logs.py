"""What a line of the log holds, and which request it is about."""

import asyncio
import json
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Response
from fastapi.exceptions import ResponseValidationError
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.highload import logs
from app.highload.database import ContentRefused, DatabaseUnavailable
from app.highload.http.request_id import FIELD
from app.highload.reads.shared import shared
from app.highload.reads.sharing import Read, SharedReads
from tests.conftest import Serve, lines_of
from tests.waiting import PATIENCE

NAME = FIELD.decode()
GIVEN = {NAME: "of-the-proxy:1"}


MARK = "what-a-client-sends"

type Raised = tuple[type[BaseException], BaseException, TracebackType | None]


def record_of(
    text: str,
    *,
    logger: str = "app.orders",
    error: Raised | None = None,
    **extra: object,
) -> logging.LogRecord:
    return logging.getLogger(logger).makeRecord(logger, logging.ERROR, "x.py", 1, text, (), error, extra=extra)


def failed() -> Raised:
    return raised(lambda: int("broken\nin two"))


@pytest.mark.parametrize("text", ["plain", 'two\nlines\r and a "quote"', "a lone \ud800 surrogate", "\x1b[31m"])
def test_a_record_is_one_line_of_json(text: str) -> None:
    line = logs.JsonFormatter().format(record_of(text, error=failed(), order=5, at=...))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    document = json.loads(line)
    assert document["message"] == text
    assert (document["level"], document["logger"], document["order"]) == ("ERROR", "app.orders", 5)
    assert document["time"].endswith("Z")
    assert document["exception"].endswith("\nValueError: (not shown)")


def raised(work: Callable[[], object]) -> Raised:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - each is another one
        work()
    return caught.type, caught.value, caught.tb


def refuse(error: BaseException, cause: BaseException | None = None) -> Any:
    raise error from cause


class Amount(BaseModel):
    amount: int


DRIVER = IntegrityError("INSERT", {}, Exception(f"Key (name)=({MARK}) already exists."), hide_parameters=True)
QUOTING: dict[str, Callable[[], object]] = {
    "a number": lambda: int(MARK),
    "a key": lambda: dict[str, str]()[MARK],
    "a schema": lambda: Amount.model_validate({"amount": MARK}),
    "an answer": lambda: refuse(ResponseValidationError([{"input": MARK}])),
    "a database": lambda: refuse(DRIVER),
    "a cause": lambda: refuse(RuntimeError("it failed"), DRIVER),
    "a refusal": lambda: refuse(ContentRefused(MARK, "ck_name")),
    "a group": lambda: refuse(ExceptionGroup("several", [ValueError(MARK), KeyError(MARK)])),
}


@pytest.mark.parametrize("work", QUOTING.values(), ids=QUOTING)
@pytest.mark.parametrize("formatter", [logs.JsonFormatter(), logs.TextFormatter()], ids=["json", "text"])
def test_what_an_exception_quotes_is_not_shown(formatter: logging.Formatter, work: Callable[[], object]) -> None:
    """Neither do messages show it that repeat the exception, as asyncio's and Celery's do."""
    error = raised(work)
    for text in ("it failed", f"future: {error[1]!r} failed", f"raised unexpected: {error[1]}"):
        record = record_of("%s", error=error)
        record.args = (text,)
        line = formatter.format(record)
        assert MARK not in line
        assert "Traceback (most recent call last):" in line
        assert error[0].__name__ in line
        assert ", in raised" in line


def test_text_for_a_developer_shows_it() -> None:
    line = logs.TextFormatter(quotes=True).format(record_of("it failed", error=raised(lambda: int(MARK))))
    assert line.endswith(f"ValueError: invalid literal for int() with base 10: '{MARK}'")


def test_what_quotes_nothing_is_shown() -> None:
    error = raised(lambda: refuse(RuntimeError("the parts do not fit"), DatabaseUnavailable("no answer")))
    exception = json.loads(logs.JsonFormatter().format(record_of("x", error=error)))["exception"]
    assert exception.splitlines()[0] == "Traceback (most recent call last):"
    assert "\napp.highload.database.DatabaseUnavailable: no answer\n" in f"\n{exception}"
    assert exception.endswith("\nRuntimeError: the parts do not fit")


def test_exceptions_in_a_circle_end() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first
    assert logs.JsonFormatter().format(record_of("x", error=(ValueError, first, None))).count("Traceback") == 2


def test_what_a_library_adds_to_a_record_is_not_shown() -> None:
    """Some add what clients sent, such as the arguments of a task."""
    record = record_of("received", logger="library.worker", data={"args": "of a client"})
    assert "of a client" not in logs.JsonFormatter().format(record)


def test_a_line_of_text_is_not_taken_for_two() -> None:
    line = logs.TextFormatter().format(record_of("sent\n2026-01-01 forged", order=5))
    assert [part[:4] for part in line.splitlines()][1:] == ["    "]
    assert line.endswith(" order=5")


def test_libraries_stay_quiet_while_the_service_is_debugged() -> None:
    """Drivers would print each value."""
    assert logs.configuration("debug", "json")["root"]["level"] == logging.INFO
    assert logs.configuration("error", "json")["root"]["level"] == logging.ERROR


def test_a_log_that_somebody_has_set_up_stays() -> None:
    root = logging.getLogger()
    before = root.handlers
    theirs = logging.NullHandler()
    root.handlers = [theirs]
    try:
        logs.configure("info", "json")
        assert root.handlers == [theirs]
    finally:
        root.handlers = before


async def ids(client: httpx2.AsyncClient, path: str, headers: dict[str, str], *, times: int = 3) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*(client.get(path, headers=headers) for _ in range(times)))
    return [answer.headers.get_list(NAME)[0] for answer in answers if len(answer.headers.get_list(NAME)) == 1]


# The short way, the long way of a shared read, an answer of the framework, and one that no task answers.
WAYS = pytest.mark.parametrize(
    ("path", "fields"),
    [("/notes", {}), ("/notes", {"Connection": "close"}), ("/nowhere", {}), ("/livez", {})],
)


@WAYS
async def test_each_answer_has_the_id_of_its_request(serve: Serve, path: str, fields: dict[str, str]) -> None:
    async with serve() as client:
        made = await ids(client, path, fields)
        assert len(set(made)) == 3
        assert await ids(client, path, fields | GIVEN) == ["of-the-proxy:1"] * 3


@WAYS
async def test_only_a_proxy_gives_an_id(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, str]
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    async with serve() as client:
        made = await ids(client, path, fields | GIVEN)
        assert len({*made, *GIVEN.values()}) == 4


@pytest.mark.parametrize("value", ["", "x" * 129, "a b", 'x"'])
async def test_an_id_that_may_harm_a_log_is_replaced(serve: Serve, value: str) -> None:
    async with serve() as client:
        (made,) = await ids(client, "/nowhere", {NAME: value}, times=1)
        assert made.isalnum()
        assert made != value


async def test_a_refusal_has_the_id_of_its_request(serve: Serve) -> None:
    async with serve(limit_concurrency=0) as client:
        for fields in ({}, {"Connection": "close"}):
            answer = await client.get("/notes", headers=fields | GIVEN)
            assert (answer.status_code, answer.headers[NAME]) == (503, GIVEN[NAME])


own = APIRouter()


@own.get("/own")
async def answer_with_an_id() -> Response:
    return Response(headers={"X-Request-Id": "mine"})


@own.get("/own-shared")
@shared
async def share_an_id() -> Response:
    return Response(headers={"X-Request-Id": "mine"})


gate = asyncio.Event()


@own.get("/broken-shared")
@shared
async def fail_for_many() -> None:
    await gate.wait()
    raise RuntimeError("broken for many")


@own.get("/broken")
async def fail() -> None:
    raise RuntimeError("broken")


async def test_an_id_that_the_application_sets_stays_unless_many_share_it(serve: Serve) -> None:
    async with serve(routers=[own]) as client:
        assert await ids(client, "/own", GIVEN, times=1) == ["mine"]
        for fields in ({}, {"Connection": "close"}):
            assert await ids(client, "/own-shared", fields | GIVEN, times=1) == [GIVEN[NAME]]


async def test_the_log_names_the_request_that_failed(serve: Serve) -> None:
    with lines_of("uvicorn.error", level=logging.ERROR, formatter=logs.JsonFormatter()) as lines:
        async with serve(routers=[own]) as client:
            assert (await client.get("/broken", headers=GIVEN)).headers[NAME] == GIVEN[NAME]
            problem = (await client.get("/broken", headers=GIVEN)).json()
    line, _ = map(json.loads, lines)
    assert line["request_id"] == problem["request_id"] == GIVEN[NAME]
    assert problem["detail"].endswith(f"with request_id {GIVEN[NAME]}.")
    assert line["exception"].endswith("RuntimeError: broken")


@pytest.mark.parametrize("http", [None, HttpToolsProtocol], ids=["short way", "long way"])
async def test_a_run_that_many_share_has_an_id_of_its_own(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, http: Any
) -> None:
    submit = SharedReads.submit
    waiting = 0
    clients = 20

    def count(self: SharedReads, read: Read, waiter: Any) -> None:
        nonlocal waiting
        submit(self, read, waiter)
        waiting += 1
        if waiting == clients:
            gate.set()

    monkeypatch.setattr(SharedReads, "submit", count)
    gate.clear()
    given = [f"of-{number}" for number in range(clients)]
    with lines_of("app", "uvicorn.error", level=logging.ERROR, formatter=logs.JsonFormatter()) as lines:
        async with serve(routers=[own], http=http) as client, asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(*(client.get("/broken-shared", headers={NAME: one}) for one in given))
    assert [answer.headers.get_list(NAME) for answer in answers] == [[one] for one in given]
    assert {answer.headers["x-cache"] for answer in answers} == {"miss", "shared"}
    runs = {json.loads(line)["request_id"] for line in lines}
    assert not runs & {*given}
    # So the lines about an error are found by what its client was told.
    assert {answer.json()["request_id"] for answer in answers} == runs
