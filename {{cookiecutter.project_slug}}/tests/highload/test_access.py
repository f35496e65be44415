"""API keys and rates: the file of keys, buckets, refusals, and what is shared among those who may."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.highload.http import health, keys
from app.highload.http.access import Access, api_key_of
from app.highload.http.keys import ApiKey, ApiKeys, KeysRefused, line_of, moment_of, new_key, read_keys
from app.highload.http.rates import Buckets, Rate, client_of
from app.highload.reads.dependencies import Granted, Guard, Partition
from app.highload.reads.shared import shared
from tests.break_in import BOTH, READER, Case, bearer, request, try_case, write_keys
from tests.conftest import running
from tests.highload.notes import Nothing, notes_service
from tests.waiting import eventually

OPEN = [health.LIVEZ, health.READYZ]
DIGEST = sha256(b"a key").hexdigest()
KEY = "tests_0123456789abcdef"


def as_one_with(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def read(tmp_path: Path, text: str) -> ApiKeys:
    file = tmp_path / "keys"
    file.write_text(text, encoding="utf-8")
    return read_keys(file)


def test_a_file_of_keys_is_read(tmp_path: Path) -> None:
    text = (
        "# who          digest   scopes\n"
        f"billing\t{DIGEST}  read,write  2999-01-01T00:00:00+02:00 # asked for by Ada\r\n"
        "\n"
        f"  billing {sha256(b'its next key').hexdigest().upper()} write"
    )
    found = read(tmp_path, text)
    assert len(found) == 2
    expires = datetime(2998, 12, 31, 22, tzinfo=UTC).timestamp()
    assert found.find(b"Bearer key") is None
    assert found.find(b"Bearer a key") is None
    line = line_of(KEY, name="n", scopes=["read"], expires=moment_of("2999-01-01T00:00:00+02:00"))
    assert read(tmp_path, line).find(f"Bearer {KEY}".encode()) == ApiKey("n", frozenset(["read"]), expires)
    # Whoever withdraws the last key may not find that the old ones go on.
    assert len(read(tmp_path, "# nobody\n")) == 0


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"name {DIGEST}", "write `name sha256 scopes"),
        (f"name:{DIGEST}:read", "write `name sha256 scopes"),
        (f"name {DIGEST} read 2999-01-01 00:00:00Z", "write `name sha256 scopes"),
        (f"na/me {DIGEST} read", "the name has up to 64 letters"),
        (f"{'n' * 65} {DIGEST} read", "the name has up to 64 letters"),
        (f"name {KEY} read", "the second word is no SHA-256"),
        (f"name {DIGEST[1:]} read", "the second word is no SHA-256"),
        (f"name {DIGEST} reed", "the scopes are read, write, or read,write"),
        (f"name {DIGEST} read,", "the scopes are read, write, or read,write"),
        (f"name {DIGEST} read,read", "the scopes are read, write, or read,write"),
        (f"name {DIGEST} READ", "the scopes are read, write, or read,write"),
        (f"name {DIGEST} read 2999-01-01", "the key expires at a moment"),
        (f"name {DIGEST} read 2999-01-01T00:00:00", "the key expires at a moment"),
        (f"name {DIGEST} read 2999-02-30T00:00:00Z", "the key expires at a moment"),
        (f"first {DIGEST} read", "this key is in a line above"),
    ],
)
def test_a_bad_line_is_named_and_not_shown(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(KeysRefused) as refused:
        read(tmp_path, f"first {DIGEST} read\n# comment\n{line}\n")
    sentence = str(refused.value)
    assert sentence.startswith(f"line 3 of {tmp_path / 'keys'}: {why}")
    assert not any(secret in sentence for secret in (DIGEST, DIGEST[1:], KEY))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysRefused, match=r"missing cannot be read \(No such file or directory\)"):
        read_keys(tmp_path / "missing")
    (tmp_path / "keys").write_bytes(b"\xff\xfe\0")
    with pytest.raises(KeysRefused, match="keys is no text"):
        read_keys(tmp_path / "keys")


def test_a_new_key_is_new_and_says_what_it_is_for() -> None:
    first, second = new_key("shop-service"), new_key("shop-service")
    assert first != second
    prefix, _, random = first.rpartition("_")
    assert prefix == "shop_service"
    assert len(bytes.fromhex(random)) == 32


def test_spellings_of_a_key_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST_REMEMBERED", 3)
    found = read(tmp_path, line_of(KEY, name="n", scopes=["read"]))
    for spaces in range(1, 10):
        assert found.find(b"Bearer" + b" " * spaces + KEY.encode()) is not None
        assert found.find(b"Bearer" + b" " * spaces + b"wrong") is None
        assert len(found._remembered) <= 3
    found._remembered.clear()
    assert found.find(b"Bearer" + b" " * 60_000 + KEY.encode()) is not None
    assert not found._remembered


def scope_of(path: str = "/notes", *, method: str = "GET", root_path: str = "", **fields: str) -> Scope:
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    return {"type": "http", "path": path, "root_path": root_path, "method": method, "headers": headers}


def test_a_key_ends_while_it_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(KEY, name="n", scopes=["read"], expires=moment_of("2030-01-01T00:00:00Z"))
    access = Access(keys=read(tmp_path, line))
    end = datetime(2030, 1, 1, tzinfo=UTC).timestamp()
    statuses = []
    for now in (end - 1, end - 0.001, end, end + 1):
        monkeypatch.setattr("time.time", lambda now=now: now)
        refusal = access.ask(scope_of(authorization=f"Bearer {KEY}"))
        statuses.append(refusal and refusal.headers["www-authenticate"])
    assert statuses == [None, None, *['Bearer realm="api", error="invalid_token"'] * 2]


@pytest.mark.parametrize(
    ("field", "challenge"),
    [
        (None, 'Bearer realm="api"'),
        ("Basic eA==", 'Bearer realm="api"'),
        ("", 'Bearer realm="api"'),
        ("Bearer", 'Bearer realm="api", error="invalid_token"'),
        ("bearer wrong", 'Bearer realm="api", error="invalid_token"'),
        (f"Bearer {READER}", 'Bearer realm="api", error="insufficient_scope", scope="write"'),
    ],
)
def test_a_refusal_says_what_was_wrong(tmp_path: Path, field: str | None, challenge: str) -> None:
    """RFC 6750, section 3.1: no error for those who sent no key."""
    access = Access(keys=read_keys(write_keys(tmp_path / "keys")))
    refusal = access.ask(scope_of(method="POST", **({} if field is None else {"authorization": field})))
    assert refusal
    assert refusal.headers["www-authenticate"] == challenge


def test_open_paths_are_open_behind_a_prefix(tmp_path: Path) -> None:
    access = Access(keys=read_keys(write_keys(tmp_path / "keys")), open_paths=OPEN)
    assert access.ask(scope_of("/api/livez", root_path="/api")) is None
    assert access.ask(scope_of("/api/notes", root_path="/api"))
    assert access.ask(scope_of("/api/api/livez", root_path="/api"))
    assert access.ask(scope_of("/api/livez"))


def test_a_websocket_needs_a_key_that_may_write(tmp_path: Path) -> None:
    app = notes_service(
        database_url=f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}",
        access=Access(keys=read_keys(write_keys(tmp_path / "keys"))),
    )

    @app.websocket("/talk")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("let in")
        await websocket.close()

    with TestClient(app) as client:
        for key in (READER, "wrong"):
            with (
                pytest.raises(WebSocketDisconnect) as refused,
                client.websocket_connect("/talk", headers=as_one_with(key)),
            ):
                pass
            assert refused.value.code == 1008
        with client.websocket_connect("/talk", headers=as_one_with(BOTH)) as talking:
            assert talking.receive_text() == "let in"


def test_a_bucket_fills_evenly() -> None:
    now = 1000.0
    buckets = Buckets(Rate(10, 60), clock=lambda: now)
    assert [buckets.take("a") for _ in range(10)] == [0] * 10
    assert buckets.take("a") == pytest.approx(6)
    assert buckets.take("b") == 0
    now += 5.9
    assert buckets.take("a") == pytest.approx(0.1)
    # What was refused cost nothing.
    now += 0.1
    assert buckets.take("a") == 0
    assert buckets.take("a") == pytest.approx(6)
    now += 3600
    assert [buckets.take("a") > 0 for _ in range(11)] == [False] * 10 + [True]


@pytest.mark.parametrize("rate", [Rate(1, 1), Rate(3, 1), Rate(7, 60), Rate(100, 1), Rate(1000, 3600)])
def test_as_many_as_the_rate_are_let_in(rate: Rate) -> None:
    now = 1e7
    buckets = Buckets(rate, clock=lambda: now)
    assert sum(buckets.take("a") == 0 for _ in range(2 * rate.requests)) == rate.requests
    let_in = 0
    steps = 10 * rate.requests
    for _ in range(steps):
        now += rate.seconds / steps
        let_in += buckets.take("a") == 0
    assert let_in in (rate.requests - 1, rate.requests)


def test_clients_do_not_fill_the_memory() -> None:
    buckets = Buckets(Rate(1, 60), most_clients=3, clock=lambda: 0.0)
    for client in ("a", "b", "c", "d", "e"):
        assert buckets.take(client) == 0
        assert len(buckets) <= 3
    assert buckets.take("e")
    # Forgotten, as the one that has asked for nothing for the longest.
    assert buckets.take("a") == 0


def test_a_network_of_ipv6_is_one_client() -> None:
    assert client_of("2001:db8:1:2::1") == client_of("2001:db8:1:2:ffff::9") != client_of("2001:db8:1:3::1")
    assert client_of("192.0.2.1") == client_of("::ffff:192.0.2.1") != client_of("192.0.2.2")
    assert client_of("fe80::1%eth0") == client_of("fe80::2")
    assert client_of("x" * 60_000) == client_of("unknown") == client_of("")


@pytest.mark.parametrize("text", ["", "0/s", "10", "10/d", "10/sec", "-1/s", "1.5/s", "10 / s", "1e3/s", "٣/s"])
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number of requests in a second, minute or hour"):
        Rate.of(text)


def test_a_rate_is_read() -> None:
    assert [Rate.of(text) for text in ("100/s", "6000/min", "9/h")] == [Rate(100, 1), Rate(6000, 60), Rate(9, 3600)]


@pytest.mark.parametrize("way", ["short", "long"])
async def test_who_asks_too_often_waits(database_url: str, tmp_path: Path, asked: list[Scope], way: str) -> None:
    found = read_keys(write_keys(tmp_path / "keys"))
    app = notes_service(database_url=database_url, access=Access(keys=found, rate=Rate(3, 3600), open_paths=OPEN))
    if way == "long":
        app.add_middleware(Nothing)
    async with running(app) as client:
        # What is refused for another reason costs no token, and neither does an open path.
        for headers, path in ((as_one_with("wrong"), "/notes"), ({}, "/livez"), ({}, "/readyz")):
            for _ in range(5):
                await client.get(path, headers=headers)
        assert (await client.post("/notes", headers=as_one_with(READER))).status_code == 403
        asked.clear()
        answers = [await client.get("/notes", headers=as_one_with(READER)) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        # Other keys have buckets of their own.
        assert (await client.get("/notes", headers=as_one_with(BOTH))).status_code == 200
        assert (len(asked) == 0) is (way == "short")
        fields = answers[-1].headers
        assert fields["content-type"] == "application/problem+json"
        assert fields["ratelimit-policy"] == '"default";q=3;w=3600'
        assert fields["ratelimit"] == f'"default";r=0;t={fields["retry-after"]}'
        assert 0 < int(fields["retry-after"]) <= 1200
        assert (await client.post("/notes", headers=as_one_with(BOTH), content="x")).status_code == 201
        # A personal answer is asked about once, although it goes both ways.
        assert (await client.head("/notes", headers=as_one_with(BOTH))).status_code == 200
        assert (await client.post("/notes", headers=as_one_with(BOTH), content="x")).status_code == 429


async def test_a_read_that_is_run_alone_costs_one_token(database_url: str, asked: list[Scope]) -> None:
    router = APIRouter()

    @router.get("/personal")
    @shared
    async def get_personal() -> Response:
        return Response(headers={"Set-Cookie": "a=b"})

    app = notes_service(database_url=database_url, routers=[router], access=Access(rate=Rate(2, 3600)))
    async with running(app) as client:
        assert [(await client.get("/personal")).status_code for _ in range(3)] == [200, 200, 429]
    assert len(asked) == 2


async def test_addresses_have_a_rate_without_keys(database_url: str) -> None:
    """Uvicorn takes the address from a proxy on this machine."""
    app = notes_service(database_url=database_url, access=Access(rate=Rate(2, 3600), open_paths=OPEN))
    async with running(app) as client:
        for address in ("192.0.2.1", "2001:db8::1", None):
            headers = {} if address is None else {"X-Forwarded-For": address}
            statuses = [(await client.get("/notes", headers=headers)).status_code for _ in range(3)]
            assert statuses == [200, 200, 429], address
        neighbour = {"X-Forwarded-For": "2001:db8::2"}
        assert (await client.get("/notes", headers=neighbour)).status_code == 429


async def test_all_who_may_read_share_one_answer(database_url: str, tmp_path: Path, asked: list[Scope]) -> None:
    runs = 0
    gate = asyncio.Event()
    router = APIRouter()

    @router.get("/counted")
    @shared
    async def get_counted() -> int:
        nonlocal runs
        runs += 1
        await gate.wait()
        return runs

    app = notes_service(
        database_url=database_url,
        routers=[router],
        access=Access(keys=read_keys(write_keys(tmp_path / "keys"))),
    )
    async with running(app) as client:
        headers = [as_one_with(BOTH), as_one_with(READER), {"Authorization": f"bearer  {READER}"}] * 10
        asking = [asyncio.create_task(client.get("/counted", headers=one)) for one in headers]

        async def all_wait() -> bool:
            return app.admission._inside == len(asking)

        await eventually(all_wait)
        refused = await client.get("/counted")
        gate.set()
        answers = await asyncio.gather(*asking)
    assert refused.status_code == 401
    assert {answer.status_code for answer in answers} == {200}
    # The first may begin before the others are there, which share the next run.
    assert runs <= 2
    assert not asked


def tenant_of(connection: HTTPConnection) -> Granted:
    key = api_key_of(connection)
    assert key is not None
    return Granted(principal=key.name, partition=key.name)


async def try_tenants(**options: Any) -> set[str]:
    """Ask as two tenants, one after the other and at the same time, and return where the answers came from."""
    came_from: set[str] = set()
    tenants = {name: new_key("tests") for name in ("north", "south")}
    found = ApiKeys({sha256(key.encode()).digest(): ApiKey(name, frozenset(["read"])) for name, key in tenants.items()})
    guard = Guard(HTTPBearer(), tenant_of)
    router = APIRouter()

    @router.get("/mine")
    @shared
    async def get_mine(tenant: Annotated[str, Depends(Partition(guard))]) -> str:
        await asyncio.sleep(0)
        return f"of {tenant}"

    app = notes_service(routers=[router], access=Access(keys=found), **options)
    async with running(app) as client:
        for _ in range(3):
            for name, key in tenants.items():
                asking = [client.get("/mine", headers=as_one_with(key)) for _ in range(5)]
                others = [client.get("/mine", headers=as_one_with(tenants["north"])) for _ in range(5)]
                answers = await asyncio.gather(*asking, *others)
                assert [answer.json() for answer in answers] == [f"of {name}"] * 5 + ["of north"] * 5
                came_from |= {answer.headers["x-cache"] for answer in answers}
        # Nothing else that a client says makes it another tenant.
        headers = as_one_with(tenants["south"]) | {"X-Tenant": "north", "Cookie": "tenant=north"}
        assert (await client.get("/mine?tenant=north&partition=north", headers=headers)).json() == "of south"
        assert (await client.get("/mine")).status_code == 401
    return came_from


async def test_a_tenant_never_gets_what_is_of_another(database_url: str) -> None:
    assert await try_tenants(database_url=database_url) == {"miss", "shared"}


async def test_a_refusal_leaves_a_pipeline_in_order(database_url: str, tmp_path: Path) -> None:
    access = Access(keys=read_keys(write_keys(tmp_path / "keys")), rate=Rate(2, 3600), open_paths=OPEN)
    reads = request("/notes", bearer(READER)) * 4 + request("/livez") + request("/notes")
    case = Case("", reads, (200, 200, 429, 429, 200, 401))
    async with running(notes_service(database_url=database_url, access=access)) as client:
        answers, ends = await try_case(client, case)
    assert tuple(answer.status for answer in answers) == case.statuses
    assert not ends


def test_the_document_tells_of_keys_and_rates(tmp_path: Path) -> None:
    found = read_keys(write_keys(tmp_path / "keys"))
    url = f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
    document = notes_service(database_url=url, access=Access(keys=found, rate=Rate(1, 1), open_paths=OPEN)).openapi()
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    get, livez = document["paths"]["/notes"]["get"], document["paths"]["/livez"]["get"]
    assert get["security"] == [{"ApiKey": []}]
    assert {"401", "403", "429"} <= get["responses"].keys()
    assert "security" not in livez
    assert not {"401", "403", "429"} & livez["responses"].keys()
    plain = notes_service(database_url=url, access=Access()).openapi()
    assert plain == notes_service(database_url=url).openapi()
    assert "securitySchemes" not in plain["components"]


def test_the_log_is_told_how_open_the_service_is(tmp_path: Path) -> None:
    found = read_keys(write_keys(tmp_path / "keys"))
    assert Access().in_words() == "open to everybody who reaches it"
    assert Access(keys=found).in_words() == "guarded by 4 API keys, of which 1 has expired"
    assert Access(rate=Rate(5, 60)).in_words() == (
        "open to everybody who reaches it, and each worker takes 5 requests in 60 s from an address"
    )
    one = ApiKeys({b"": ApiKey("n", frozenset())})
    assert Access(keys=one).in_words() == "guarded by 1 API key"
