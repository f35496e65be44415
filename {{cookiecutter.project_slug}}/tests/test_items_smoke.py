"""`make smoke` tells a service that works from one that does not."""

import asyncio
import json
import socket
import sys

import httpx2
import pytest

from loadtest import smoke
from loadtest.service import NEW_ITEM
from loadtest.smoke import WrongAnswer

ROW = {"id": "1", **json.loads(NEW_ITEM)}

type Answers = list[tuple[str, int, object]]

# What a service answers to each request, in turn.
RIGHT: Answers = [
    ("GET /readyz", 200, {}),
    ("POST /items", 202, ROW),
    ("GET /items/1", 200, ROW),
    ("GET /items", 200, {"items": [ROW]}),
    ("DELETE /items/1", 204, None),
    ("GET /items/1", 404, {}),
]


def ask(answers: Answers, patience: float = 0) -> None:
    """Ask a service that gives these answers."""
    left = iter(answers)

    def next_answer(request: httpx2.Request) -> httpx2.Response:
        expected, status, body = next(left)
        assert f"{request.method} {request.url.path}" == expected
        return httpx2.Response(status, json=body, headers={"location": "/items/1"})

    with httpx2.Client(base_url="http://x", transport=httpx2.MockTransport(next_answer)) as client:
        smoke.smoke(client, patience)
    assert not list(left)


def test_a_queued_item_has_a_while_to_appear() -> None:
    ready, created, found, listed, *rest = RIGHT
    early: Answers = [
        ("GET /items/1", 404, {}),
        found,
        ("GET /items", 200, {"items": []}),
    ]
    ask([ready, created, *early, listed, *rest], patience=60)


@pytest.mark.parametrize(
    ("place", "status", "body", "sentence"),
    [
        (0, 503, {"status": "database"}, "GET http://x/readyz answers 503 instead of 200: .*database"),
        (1, 422, {"detail": "name"}, "POST http://x/items answers 422 instead of 201 or 202: .*name"),
        (2, 404, {}, "GET http://x/items/1 answers 404 instead of 200: "),
        (2, 200, ROW | {"id": "2"}, "GET /items/1 answers another item: "),
        (3, 200, {"items": []}, "GET /items does not list /items/1, which GET finds."),
        (4, 403, {}, "DELETE http://x/items/1 answers 403 instead of 204: "),
        (5, 200, ROW, "GET http://x/items/1 answers 200 instead of 404: "),
    ],
)
def test_a_wrong_answer_is_one_sentence(place: int, status: int, body: object, sentence: str) -> None:
    with pytest.raises(WrongAnswer, match=sentence):
        ask([*RIGHT[:place], (RIGHT[place][0], status, body)])


def run(url: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["smoke", url])
    return smoke.main()


async def test_a_service_that_works_is_left_as_it_was(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(run, str(client.base_url), monkeypatch) == 0
    said = capsys.readouterr().out
    assert said == f"{client.base_url} is ready: an item was created, read, listed and deleted.\n"
    assert (await client.get("/items")).json()["items"] == []


async def test_a_service_that_is_not_ready_is_told(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(run, f"{client.base_url}/livez", monkeypatch) == 1
    assert "/livez/readyz answers 404 instead of 200: " in capsys.readouterr().err


def test_a_service_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert run(url, monkeypatch) == 1
    assert capsys.readouterr().err.startswith(f"Nothing answers at {url}: start the service, or say where it is, ")
