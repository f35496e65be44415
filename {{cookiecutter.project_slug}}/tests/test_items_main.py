"""The application is an ordinary FastAPI application, whatever is added to it."""

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.middleware.cors import CORSMiddleware

from app.config import Settings
from app.highload.lean import LeanRoute, why_not_lean
from app.highload.reads.dependencies import Opened
from app.highload.service import Service
from app.main import app as served
from app.main import create_app
from app.models import Base
from app.routes import items
from tests.conftest import empty_tables, in_database


@pytest.fixture
def app(migrated_database_url: str) -> Service:
    database_url = migrated_database_url
    asyncio.run(in_database(database_url, lambda connection: empty_tables(connection, Base.metadata)))
    return create_app(Settings(_env_file=None, database_url=database_url, web_concurrency=1, log_level="warning"))


@pytest.fixture
def client(app: Service) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def test_what_is_served_is_a_fastapi_application() -> None:
    assert isinstance(served, FastAPI)


def test_every_route_is_served_lean() -> None:
    functions = [
        items.list_items,
        items.create_item,
        items.get_item,
        items.update_item,
        items.delete_item,
    ]
    own = [route for route in served.routes if isinstance(route, APIRoute) and route.endpoint in functions]
    assert len(own) == len(functions)
    for route in own:
        assert isinstance(route, LeanRoute), route.name
        assert why_not_lean(route) is None, route.name


def test_a_test_client_reads_and_writes(client: TestClient) -> None:
    item = client.post("/items", json={"name": "x"}).json()
    assert client.get(f"/items/{item['id']}").json() == item
    assert client.get("/items").json()["items"] == [item]


def test_a_test_client_without_its_block_is_told_what_to_write(app: Service) -> None:
    with pytest.raises(RuntimeError, match=r"write `with TestClient\(app\) as client:`"):
        TestClient(app).get("/items")


def test_a_service_that_has_ended_serves_nothing(app: Service) -> None:
    with TestClient(app) as client:
        assert client.get("/items").status_code == 200
    with pytest.raises(RuntimeError, match="has not started"):
        client.get("/items")
    with TestClient(app) as client:
        assert client.get("/items").status_code == 200


@pytest.fixture
def behind_a_proxy(migrated_database_url: str) -> Service:
    settings: dict[str, Any] = {"root_path": "/api", "allowed_hosts": "example.com", "log_level": "warning"}
    return create_app(Settings(_env_file=None, database_url=migrated_database_url, web_concurrency=1, **settings))


def test_items_are_found_below_a_root_path(behind_a_proxy: Service) -> None:
    with TestClient(behind_a_proxy, base_url="http://example.com") as client:
        for prefix in ("", "/api"):
            created = client.post(f"{prefix}/items", json={"name": "x"})
            location = created.headers["location"]
            assert location == f"/api/items/{created.json()['id']}"
            # One key, whether or not the proxy takes the prefix off.
            found = [client.get(location.removeprefix(taken_off)) for taken_off in ("", "/api")]
            assert [one.json() for one in found] == [created.json()] * 2
            client.delete(location)
            assert [client.get(location.removeprefix(taken_off)).status_code for taken_off in ("", "/api")] == [404] * 2


def test_only_probes_may_name_another_host(behind_a_proxy: Service) -> None:
    with TestClient(behind_a_proxy, base_url="http://10.0.0.7:8000") as client:
        assert [client.get(path).status_code for path in ("/livez", "/api/livez", "/readyz")] == [200] * 3
        refused = client.get("/items")
        assert (refused.status_code, refused.headers["content-type"]) == (421, "application/problem+json")


def test_a_router_and_an_application_are_added(app: Service) -> None:
    router = APIRouter()
    mounted = FastAPI()

    @router.get("/hello")
    @mounted.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.get("/bye")
    async def bye(greeting: Annotated[object, Depends(Opened("items"))]) -> bool:
        return greeting is not None

    app.include_router(router, prefix="/v1")
    app.mount("/mounted", mounted)
    app.state.answer = 42
    with TestClient(app) as client:
        assert client.get("/v1/hello").json() == client.get("/mounted/hello").json() == "hello"
        assert client.get("/bye").json() is True
        assert client.get("/items").headers["x-cache"] == "miss"
    assert app.state.answer == 42
    ours = {"/items", "/items/{item_id}"}
    assert ours | {"/livez", "/readyz", "/v1/hello", "/bye"} <= set(app.openapi()["paths"])
    assert app.url_path_for("get_item", item_id="1") == "/items/1"


def test_middleware_is_added(app: Service) -> None:
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example"])
    with TestClient(app) as client:
        for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None)):
            answer = client.get("/items", headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") == allowed


def test_a_dependency_is_overridden(app: Service) -> None:
    class NoItems:
        async def page_as_json(self, **_: object) -> tuple[list[object], None]:
            return [], None

    with TestClient(app) as client:
        client.post("/items", json={"name": "x"})
        app.dependency_overrides[Opened("items")] = NoItems
        assert client.get("/items").json() == {"items": [], "next_cursor": None}
        app.dependency_overrides.clear()
        assert len(client.get("/items").json()["items"]) == 1


def test_a_dependency_of_all_routes_is_heeded() -> None:
    async def deny() -> None:
        raise HTTPException(403, "denied")

    app = Service(limit_concurrency=10, max_body_bytes=100, max_waiting=10, dependencies=[Depends(deny)])
    app.include_flat(items.router)
    with TestClient(app) as client:
        assert client.get("/items").status_code == 403
        assert client.post("/items", json={"name": "x"}).status_code == 403
