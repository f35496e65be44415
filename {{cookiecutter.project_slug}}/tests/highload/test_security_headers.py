"""Each answer tells browsers to make no more of it than it is."""

from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.highload.http.security_headers import SecurityHeaders
from app.highload.reads.shared import shared
from app.highload.service import Service
from tests.conftest import Serve, running
from tests.highload.counting import get, started
from tests.highload.notes import router

USUAL = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
DATA = USUAL | {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
PAGE = USUAL | {"content-security-policy": "frame-ancestors 'none'"}
HTTPS = {"strict-transport-security": "max-age=31536000"}
NAMES = (DATA | HTTPS).keys()

extra = APIRouter()


@extra.get("/page")
@shared
async def get_page() -> Response:
    return HTMLResponse("<script>1</script>")


@extra.get("/own")
@shared
async def get_own() -> Response:
    return Response("{}", headers={"Referrer-Policy": "origin", "Content-Security-Policy": "default-src 'self'"})


@extra.get("/fails")
async def get_failure() -> Response:
    raise RuntimeError("broken")


async def raw(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Referrer-Policy", b"origin")]})
    await send({"type": "http.response.body", "body": b""})


def service(**options: Any) -> Service:
    app = Service(limit_concurrency=100, max_body_bytes=100, max_waiting=100, **options)
    app.include_flat(extra)
    app.mount("/raw", raw)
    return app


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/page", PAGE),
        ("/own", USUAL | {"referrer-policy": "origin", "content-security-policy": "default-src 'self'"}),
        ("/unknown", DATA),
        ("/openapi.json", DATA),
        ("/docs", PAGE),
        ("/docs/oauth2-redirect", PAGE),
        ("/redoc", PAGE),
        ("/raw/x", DATA | {"referrer-policy": "origin"}),
    ],
)
async def test_each_answer_has_them_once(path: str, fields: dict[str, str]) -> None:
    async with started(service()) as app:
        reply = await get(app, path)
    assert {name.lower(): value for name, value in reply.items() if name.lower() in NAMES} == fields


async def test_only_a_service_that_is_behind_https_asks_for_it() -> None:
    async with started(service(public_url="https://example.com")) as app:
        reply = await get(app, "/page")
    assert {name: value for name, value in reply.items() if name in NAMES} == PAGE | HTTPS


def test_what_has_not_changed_gets_no_policy() -> None:
    """It would take the place of the policy of the page that the client has."""
    fields = SecurityHeaders(https=False).missing(304, [(b"etag", b'"x"')])
    assert {name.decode(): value.decode() for name, value in fields.fields} == USUAL
    assert fields.wire == b"x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n"


async def test_a_failure_has_them_too(serve: Serve, log: list[str]) -> None:
    async with running(service()) as client:
        reply = await client.get("/fails")
    assert reply.status_code == 500
    assert DATA.items() <= dict(reply.headers).items()
    assert any("broken" in line for line in log)


async def test_a_shared_answer_has_them_on_the_short_way(serve: Serve) -> None:
    async with serve(routers=[router, extra], public_url="https://example.com") as client:
        notes, page, own = [(await client.get(path)).headers for path in ("/notes", "/page", "/own")]
    assert (DATA | HTTPS).items() <= dict(notes).items()
    assert (PAGE | HTTPS).items() <= dict(page).items()
    assert own.get_list("content-security-policy") == ["default-src 'self'"]
    assert own.get_list("strict-transport-security") == ["max-age=31536000"]
