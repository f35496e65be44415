"""The page that shows the OpenAPI document, and the address of the service."""

import json
from collections.abc import AsyncGenerator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from app.highload.http import docs
from app.highload.http.access import Access
from app.highload.http.keys import ApiKeys
from app.highload.service import Service
from tests.conftest import running

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
WANT_A_PAGE = (
    BROWSER,
    "text/html",
    "TEXT/HTML;level=1",
    "text/*",
    "text/html, */*;q=0.99",
    "application/json;q=0.5, text/html;q=0.6",
)
WANT_NO_PAGE = (
    "",
    "*/*",
    "application/json",
    "application/*, text/html;q=0.9",
    "application/json, text/plain, */*",
    "text/html;q=0, */*;q=0.1",
    "text/html, application/json",
    "text/html;q=2",
    "text/html;q=x",
    "image/png",
    ",;,",
)
FILES = {
    "docs.svg": "image/svg+xml",
    "swagger-ui/swagger-ui.css": "text/css; charset=utf-8",
    "docs.css": "text/css; charset=utf-8",
    "swagger-ui/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
}


def service(**options: Any) -> Service:
    bounds = {"limit_concurrency": 10, "max_body_bytes": 10, "max_waiting": 10}
    app = Service(**(bounds | {"docs_url": None, "redoc_url": None} | options))
    app.include_flat(docs.router)
    return app


@pytest.fixture
async def client() -> AsyncGenerator[httpx2.AsyncClient]:
    async with running(service()) as client:
        yield client


class Page(HTMLParser):
    """What a page loads and what it holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.options: dict[str, Any] = {}
        self.tags: list[str] = []
        self.inline = ""
        self.title = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            if name in {"src", "href"}:
                self.addresses.append(value or "")
            if name == "data-options":
                self.options = json.loads(value or "")

    def handle_data(self, data: str) -> None:
        if self.lasttag in {"script", "style"}:
            self.inline += data.strip()
        if self.lasttag == "title":
            self.title += data.strip()


async def test_a_client_that_wants_a_page_is_led_to_it(client: httpx2.AsyncClient) -> None:
    for accept in WANT_A_PAGE:
        for answer in [await client.request(method, "/", headers={"Accept": accept}) for method in ("GET", "HEAD")]:
            assert (accept, answer.status_code, answer.headers["location"]) == (accept, 303, "/docs")
            assert answer.headers["vary"] == "Accept"


async def test_a_program_is_told_where_the_document_is(client: httpx2.AsyncClient) -> None:
    del client.headers["accept"]
    for accept in (None, *WANT_NO_PAGE):
        answer = await client.get("/", headers=None if accept is None else {"Accept": accept})
        assert (accept, answer.status_code, answer.headers["vary"]) == (accept, 200, "Accept")
        assert answer.json() == {"openapi": "/openapi.json", "docs": "/docs"}
        assert answer.headers["link"].split(", ") == [
            '</openapi.json>; rel="service-desc"; type="application/json"',
            '</docs>; rel="service-doc"; type="text/html"',
        ]
    assert (await client.get("/openapi.json")).json()["paths"] == {}


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_the_page_and_all_that_it_loads_come_from_the_service(prefix: str) -> None:
    """Whether or not a proxy takes the root path off."""
    title = "Nuts & <bolts>"
    async with running(service(title=title, root_path="/api", swagger_ui_parameters={"filter": "</'\""})) as client:
        led = await client.get(f"{prefix}/", headers={"Accept": BROWSER})
        assert led.headers["location"] == "/api/docs"
        assert (await client.get(f"{prefix}/")).json() == {"openapi": "/api/openapi.json", "docs": "/api/docs"}
        answer = await client.get(f"{prefix}/docs")
        page = Page(answer.text)
        assert page.title == title
        assert page.inline == ""
        assert page.tags.count("script") == 2
        assert page.options["url"] == "/api/openapi.json"
        assert page.options["filter"] == "</'\""
        for address, (name, media_type) in zip(page.addresses, FILES.items(), strict=True):
            assert urlsplit(address)[:2] == ("", "")
            assert address.startswith("/api/docs/static/")
            assert address.endswith(f"/{name}")
            file = await client.get(address.removeprefix("/api") if not prefix else address)
            assert (file.status_code, file.headers["content-type"]) == (200, media_type)
            assert file.headers["cache-control"] == "max-age=31536000, immutable"
            assert file.content == (docs.FILES / name).read_bytes()


async def test_the_policy_of_the_page_allows_the_service_alone(client: httpx2.AsyncClient) -> None:
    for answer in (await client.get("/docs"), await client.head("/docs")):
        assert answer.status_code == 200
        assert answer.headers.get_list("content-security-policy") == [
            "default-src 'none'; base-uri 'none'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
            "img-src 'self' data:; script-src 'self'; style-src 'self'"
        ]
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_file_is_sent_once(client: httpx2.AsyncClient) -> None:
    address = urljoin("/docs", Page((await client.get("/docs")).text).addresses[0])
    first = await client.get(address)
    head = await client.head(address)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(first.content)), b"")
    again = await client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.headers["cache-control"]) == (304, "max-age=31536000, immutable")


async def test_what_another_release_asks_for_is_not_kept(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/docs/static/0123456789abcdef/docs.js")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


async def test_nothing_else_is_sent(client: httpx2.AsyncClient) -> None:
    for path in ("", "nothing.js", "swagger-ui", "..%2fdocs.py", "%2e%2e/docs.py", "%2fetc%2fpasswd", "%00"):
        answer = await client.get(f"/docs/static/{docs.fingerprint()}/{path}")
        assert (path, answer.status_code) == (path, 404)
        assert answer.headers["content-type"] == "application/problem+json"


def test_the_licence_goes_with_the_files() -> None:
    place = docs.FILES / "swagger-ui"
    component = json.loads((place / "component.cdx.json").read_text(encoding="utf-8"))
    assert component["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert "Apache License" in (place / "LICENSE").read_text(encoding="utf-8")
    assert "SmartBear" in (place / "NOTICE").read_text(encoding="utf-8")


async def test_a_service_without_a_document_has_no_page() -> None:
    async with running(service(openapi_url=None)) as client:
        for path in ("/", "/docs", f"/docs/static/{docs.fingerprint()}/docs.js"):
            assert (await client.get(path)).status_code == 404


async def test_the_page_is_guarded_as_everything_else() -> None:
    async with running(service(access=Access(keys=ApiKeys({})))) as client:
        for path in ("/", "/docs", f"/docs/static/{docs.fingerprint()}/docs.js"):
            assert (await client.get(path)).status_code == 401


async def test_there_is_one_page(client: httpx2.AsyncClient) -> None:
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert (await client.get(path)).status_code == 404
