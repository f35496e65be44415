"""What a line of the log holds, and which request it is about."""

import asyncio
import json
import logging
import sys
from types import TracebackType

import httpx2
import pytest
from fastapi import APIRouter, Response

from app.highload import logs
from app.highload.http.request_id import FIELD
from app.highload.reads.shared import shared
from tests.conftest import Serve, lines_of
from tests.waiting import PATIENCE

NAME = FIELD.decode()
GIVEN = {NAME: "of-the-proxy:1"}


def record_of(
    text: str,
    *,
    logger: str = "app.orders",
    error: tuple[type[BaseException], BaseException, TracebackType | None] | None = None,
    **extra: object,
) -> logging.LogRecord:
    return logging.getLogger(logger).makeRecord(logger, logging.ERROR, "x.py", 1, text, (), error, extra=extra)


def failed() -> tuple[type[BaseException], BaseException, TracebackType | None]:
    try:
        int("broken\nin two")
    except ValueError as error:
        return ValueError, error, sys.exc_info()[2]
    pytest.fail("that is no number")


@pytest.mark.parametrize("text", ["plain", 'two\nlines\r and a "quote"', "a lone \ud800 surrogate", "\x1b[31m"])
def test_a_record_is_one_line_of_json(text: str) -> None:
    line = logs.JsonFormatter().format(record_of(text, error=failed(), order=5, at=...))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    document = json.loads(line)
    assert document["message"] == text
    assert (document["level"], document["logger"], document["order"]) == ("ERROR", "app.orders", 5)
    assert document["time"].endswith("Z")
    assert document["exception"].endswith("'broken\\nin two'")


def test_what_a_library_adds_to_a_record_is_not_shown() -> None:
    """Some add what clients sent, such as the arguments of a task."""
    record = record_of("received", logger="library.worker", data={"args": "of a client"})
    assert "of a client" not in logs.JsonFormatter().format(record)


def test_a_line_of_text_is_not_taken_for_two() -> None:
    line = logs.TextFormatter().format(record_of("sent\n2026-01-01 forged", order=5))
    assert [part[:4] for part in line.splitlines()][1:] == ["    "]
    assert line.endswith(" order=5")


def test_libraries_stay_quiet_while_the_service_is_debugged() -> None:
    """SQLite's driver and RabbitMQ's would print each value."""
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
    (line,) = map(json.loads, lines)
    assert line["request_id"] == GIVEN[NAME]
    assert line["exception"].endswith("RuntimeError: broken")
