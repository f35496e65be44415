"""Where the service is seen from outside: hosts, root path, proxies."""

import re
from urllib.parse import quote

import pytest

from app.highload import outside
from app.highload.http.root_path import RootPathTaken, place
from app.highload.service import Service
from tests.conftest import Serve


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Example.com, *.Example.org ,", "example.com,*.example.org"),
        ("*", "*"),
        ("localhost,10.0.0.7,[::1],a_b", "localhost,10.0.0.7,[::1],a_b"),
        ("", ""),
    ],
)
def test_hosts_are_a_list(written: str, read: str) -> None:
    assert outside.allowed_hosts(written) == read


@pytest.mark.parametrize("written", ["https://x", "x:80", "x/y", "*x", "x.*", "a b", "::1", "*.", ".x", "x..y"])
def test_what_is_no_host_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="takes hosts without scheme, port and path"):
        outside.allowed_hosts(written)


@pytest.mark.parametrize(
    "written", ["/", "api", "/api/", "//api", "/a b", "/../x", "/a/./b", "/a?b", "/%61", "http://x/api"]
)
def test_what_is_no_root_path_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="begins with / and does not end with it"):
        outside.root_path(written)


@pytest.mark.parametrize("written", ["localhost", "10.0.0.1/8", "10.0.0.0/40", "*,10.0.0.1", "10.0.0.1;10.0.0.2", "1"])
def test_what_is_no_address_of_a_proxy_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="takes addresses and networks"):
        outside.trusted_proxies(written)


def test_proxies_are_a_list() -> None:
    assert outside.trusted_proxies(" 10.0.0.7, 10.1.0.0/16 ,fd00::/8") == "10.0.0.7,10.1.0.0/16,fd00::/8"
    assert outside.trusted_proxies("*") == "*"


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://Example.com", "example.com"), ("https://example.com:8443", "example.com"), ("http://[::1]:80", "[::1]")],
)
def test_the_host_of_an_address_is_known(url: str, host: str) -> None:
    assert outside.host_of(url) == host


async def test_the_documentation_is_right_below_a_root_path(serve: Serve) -> None:
    async with serve(root_path="/api") as client:
        for prefix in ("", "/api"):
            assert "'/api/openapi.json'" in (await client.get(f"{prefix}/docs")).text.replace('"', "'")
            document = (await client.get(f"{prefix}/openapi.json")).json()
            assert document["servers"] == [{"url": "/api"}]
            assert "/notes" in document["paths"]
            allowed = await client.put(f"{prefix}/notes")
            assert (allowed.status_code, allowed.headers["allow"]) == (405, "GET, HEAD, POST")


def test_a_root_path_that_is_there_already_counts_instead() -> None:
    scope = {"root_path": "/outer", "path": "/outer/notes"}
    place(scope, "/api")
    assert scope == {"root_path": "/outer", "path": "/outer/notes"}


@pytest.mark.parametrize(
    ("path", "raw_path"), [("/a b", b"/a%20b"), ("/api/a b", b"/api/a%20b"), ("/api", b"/api"), ("/apis", None)]
)
def test_a_request_is_placed_once(path: str, raw_path: bytes | None) -> None:
    scope = {"root_path": "", "path": path, "raw_path": raw_path}
    whole = path if path.split("/")[1] == "api" else f"/api{path}"
    for _ in range(2):
        place(scope, "/api")
        assert scope == {"root_path": "/api", "path": whole, "raw_path": quote(whole).encode()}


@pytest.mark.parametrize("path", ["/api", "/api/notes", "/api/{note_id}"])
async def test_a_route_that_begins_with_the_root_path_is_refused(path: str) -> None:
    app = Service(limit_concurrency=1, max_body_bytes=1, max_waiting=1, root_path="/api")
    app.get(path)(lambda: None)
    with pytest.raises(RootPathTaken, match=re.escape(f"ROOT_PATH is /api, and the route {path} begins with it")):
        app.build_middleware_stack()


def test_a_route_that_only_looks_like_the_root_path_is_let_be() -> None:
    app = Service(limit_concurrency=1, max_body_bytes=1, max_waiting=1, root_path="/api")
    app.get("/apis/api")(lambda: None)
    app.build_middleware_stack()
