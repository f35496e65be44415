"""More requests than a worker should hold: some are served, the others are told at once to come back."""

import asyncio

from starlette.types import Receive, Scope, Send

from app.highload.http.admission import Admission
from app.highload.lean import LEFT
from app.highload.reads.answers import answer_of
from tests.conftest import Serve
from tests.highload.notes import creation_held
from tests.waiting import PATIENCE, eventually, settle


class Doors:
    """An application that serves nothing until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        await self.opened.wait()
        if scope["path"] == "/broken":
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def get(path: str) -> Scope:
    return {"type": "http", "method": "GET", "path": path, "headers": []}


async def test_what_is_too_much_is_refused_and_the_rest_is_served() -> None:
    doors = Doors()
    admission = Admission(doors, 2, always=["/livez"])
    inside = [asyncio.create_task(answer_of(admission, get(path))) for path in ("/notes", "/livez")]
    await settle()
    refused = await asyncio.wait_for(answer_of(admission, get("/notes")), PATIENCE)
    assert refused.status == 503
    assert (b"retry-after", b"1") in refused.headers
    assert (b"content-type", b"application/problem+json") in refused.headers
    always = asyncio.create_task(answer_of(admission, get("/livez")))
    await settle()
    assert not always.done()
    doors.opened.set()
    assert [(await task).status for task in (*inside, always)] == [200, 200, 200]


async def test_what_the_server_has_begun_is_not_refused() -> None:
    """It may be done already."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    full = Admission(app, 0, always=[])
    scope = {"type": "http", "method": "POST", "path": "/"}
    assert (await answer_of(full, scope)).status == 503
    assert (await answer_of(full, scope | {LEFT: object()})).status == 200


async def test_a_request_leaves_room_whether_it_is_served_or_fails() -> None:
    doors = Doors()
    doors.opened.set()
    admission = Admission(doors, 1, always=[])
    for path in ("/notes", "/broken", "/notes"):
        outcome = (await asyncio.gather(answer_of(admission, get(path)), return_exceptions=True))[0]
        assert isinstance(outcome, RuntimeError) if path == "/broken" else outcome.status == 200  # type: ignore[union-attr]


async def test_idle_connections_take_no_room(serve: Serve) -> None:
    async with serve(limit_concurrency=1) as client:
        url = client.base_url
        idle = [await asyncio.open_connection(url.host, url.port) for _ in range(5)]
        assert (await client.get("/notes")).status_code == 200
        reader, writer = idle[0]
        with creation_held() as held:
            writer.write(b"POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
            # Otherwise a read that arrives at the same moment may have the place first.
            assert (await client.get("/livez")).status_code == 200

            async def full() -> bool:
                return (await client.get("/notes")).status_code == 503

            await eventually(full)
            assert (await client.get("/livez")).status_code == 200
            held.set()
            assert b" 201 " in await reader.readline()
        assert (await client.get("/notes")).status_code == 200
        for _, writer in idle:
            writer.close()
