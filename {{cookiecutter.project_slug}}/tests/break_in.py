"""Ways to get in without the right key, as bytes on a connection, and what each of them must be answered.

SECURITY.md shows the same table.
"""

import asyncio
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2

from app.highload.http.keys import line_of, moment_of, new_key
from tests.waiting import PATIENCE

BOTH, READER, WRITER, STALE = (new_key("tests") for _ in range(4))
STRANGER = new_key("tests")
PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
TELLS_TOO_MUCH = {"etag", "x-cache", "allow", "location", "set-cookie"}
MOST_SHOWN = 3
LIVES = 200, b'{"status":"ok"}'


def write_keys(file: Path) -> Path:
    """Write the file of the keys that are tried."""
    past = moment_of("2001-01-01T00:00:00Z")
    lines = [
        line_of(BOTH, name="both", scopes=["read", "write"]),
        line_of(READER, name="reader", scopes=["read"], expires=moment_of("2999-01-01T00:00:00Z")),
        line_of(WRITER, name="writer", scopes=["write"]),
        line_of(STALE, name="stale", scopes=["read", "write"], expires=past),
    ]
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


class Case(NamedTuple):
    """What was tried, the bytes, the statuses of all answers to them, and whether the connection ends after them.

    A case that leaves a request unfinished says so; nothing can be asked behind it.
    """

    tried: str
    data: bytes
    statuses: Sequence[int] = (401,)
    closes: bool = False
    unfinished: bool = False
    to_head: bool = False

    @property
    def answered(self) -> str:
        """What must be answered, in words."""
        return in_words(self.statuses, ends=self.closes)


def in_words(statuses: Sequence[int], *, ends: bool) -> str:
    """Return what is answered, in words."""
    alike = len(statuses) > MOST_SHOWN and len(set(statuses)) == 1
    times = f"{len(statuses)} times {statuses[0]}" if alike else ", ".join(map(str, statuses))
    return f"{times}, and the connection ends" if ends else times


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes


def request(target: str, *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: x", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}"


def cases(path: str, row: str) -> Iterator[Case]:
    """Yield all cases for a list at a path, and one of its rows."""
    yield from credentials(path)
    yield from places(path)
    yield from paths(path)
    yield from methods(path, row)
    yield from scopes(path, row)
    yield from protocols(path)
    yield from framing(path)
    yield from sizes(path)
    yield from pipelines(path)


def credentials(path: str) -> Iterator[Case]:
    yield Case("no key", request(path))
    for tried, value in {
        "a key that nobody has": f"Bearer {STRANGER}",
        "a key that has expired": f"Bearer {STALE}",
        "a key without its last character": f"Bearer {BOTH[:-1]}",
        "a key with one character more": f"Bearer {BOTH}0",
        "a key in capitals": f"Bearer {BOTH.upper()}",
        "a key with `=` behind it": f"Bearer {BOTH}=",
        "the digest of a key": f"Bearer {sha256(BOTH.encode()).hexdigest()}",
        "the name of a key": "Bearer both",
        "an empty field": "",
        "a scheme without a key": "Bearer",
        "a scheme with a space and no key": "Bearer ",
        "a key without a scheme": BOTH,
        "a scheme and a key without a space": f"Bearer{BOTH}",
        "a tab between scheme and key": f"Bearer\t{BOTH}",
        "a colon behind the scheme": f"Bearer: {BOTH}",
        "a key in quotes": f'Bearer "{BOTH}"',
        "a key as a parameter": f"Bearer token={BOTH}",
        "two keys in a field": f"Bearer {BOTH} {BOTH}",
        "two credentials in a field": f"Bearer {BOTH}, Bearer {BOTH}",
        "another scheme": f"Token {BOTH}",
        "another scheme that begins alike": f"BearerX {BOTH}",
        "a key as the password of Basic": "Basic Om" + BOTH,
        "a letter behind a key that is not ASCII": f"Bearer {BOTH}\xe9",
        "a wildcard": "Bearer *",
        "a statement of SQL": "Bearer '%20OR%201=1--",
    }.items():
        yield Case(tried, request(path, f"Authorization: {value}"))
    yield Case("two fields with a key", request(path, bearer(BOTH), bearer(BOTH)))
    yield Case("a field with a key, and one without", request(path, bearer(BOTH), "Authorization: x"))
    yield Case("a field without a key, and one with", request(path, "Authorization: x", bearer(BOTH)))
    yield Case("a zero in a key", request(path, f"Authorization: Bearer {BOTH}\0"), (400,), closes=True)
    for tried, value in {
        "the scheme in lower case, which is allowed": f"bearer {BOTH}",
        "the scheme in capitals, which is allowed": f"BEARER {BOTH}",
        "more spaces before a key, which are allowed": f"Bearer   {BOTH}",
        "space around a key, which is allowed": f" \tBearer {BOTH} \t",
    }.items():
        yield Case(tried, request(path, f"Authorization:{value}"), (200,))


def places(path: str) -> Iterator[Case]:
    """Yield keys where no key belongs."""
    for name in ("access_token", "api_key", "key", "Authorization"):
        yield Case(f"a key in the query, `{name}`", request(f"{path}?{name}={BOTH}"))
    yield Case("a key in a cookie", request(path, f"Cookie: access_token={BOTH}; Authorization=Bearer {BOTH}"))
    for name in ("X-API-Key", "Proxy-Authorization", "X-Authorization", "X-Forwarded-Authorization", "Authentication"):
        yield Case(f"a key in `{name}`", request(path, f"{name}: Bearer {BOTH}"))
    yield Case("a key as user of the URL", request(f"http://{BOTH}@x{path}"))
    form = f"access_token={BOTH}".encode()
    content_type = "Content-Type: application/x-www-form-urlencoded"
    yield Case("a key in a form", request(path, content_type, method="POST", body=form))
    trailer = f"1\r\nx\r\n0\r\n{bearer(BOTH)}\r\n\r\n".encode()
    yield Case("a key in a trailer", request(path, "Transfer-Encoding: chunked", method="POST") + trailer)
    for field in ("X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1", "Via: 1.1 proxy"):
        yield Case(f"`{field}`", request(path, field))
    for field in ("X-Original-URL: /livez", "X-Rewrite-URL: /livez", "X-Forwarded-Prefix: /livez"):
        yield Case(f"`{field}`", request(path, field))
    yield Case("two hosts", request(path, "Host: livez"), (400,))
    yield Case("no host", request(path).replace(b"Host: x\r\n", b""), (400,))
    yield Case(
        "an address with a key as the host", request(path).replace(b"Host: x", f"Host: {BOTH}@x".encode()), (400,)
    )


def paths(path: str) -> Iterator[Case]:
    name = path[1:]
    for tried, target in {
        "two slashes before a path": f"/{path}",
        "a slash behind a path": f"{path}/",
        "a dot as a segment": f"/.{path}",
        "two dots as a segment": f"/..{path}",
        "two dots in hexadecimal": f"/%2e%2e{path}",
        "two dots behind a path": f"{path}/%2e%2e",
        "a semicolon behind a path": f"{path};x",
        "a semicolon in hexadecimal": f"{path}%3Bx",
        "a slash in hexadecimal": f"{path}%2F",
        "a letter in hexadecimal": f"/%{ord(name[0]):02x}{name[1:]}",
        "a letter twice in hexadecimal": f"/%25{ord(name[0]):02x}{name[1:]}",
        "a path in capitals": path.upper(),
        "a zero behind a path": f"{path}%00",
        "a space behind a path": f"{path}%20",
        "a line end in a path": f"{path}%0d%0aAuthorization:%20Bearer%20{BOTH}",
        "a query behind a path": f"{path}?limit=1",
        "a fragment behind a path": f"{path}#livez",
        "the absolute form": f"http://x{path}",
        "the absolute form with another host": f"http://livez{path}",
        "from an open path to a guarded one": f"/livez/..{path}",
        "the same in hexadecimal": f"/livez%2f..{path.replace('/', '%2f')}",
        "a guarded path behind an open one": f"/livez{path}",
        "a semicolon behind an open path": "/livez;x",
        "a slash behind an open path": "/livez/",
        "two slashes before an open path": "//livez",
        "an open path in capitals": "/LIVEZ",
        "a zero behind an open path": "/livez%00",
        "a space behind an open path": "/livez%20",
        "an open path in a query": f"{path}?/livez",
        "an asterisk": "*",
        "the documentation": "/docs",
        "the OpenAPI document": "/openapi.json",
        "a path that is not there": "/nothing",
        "a file of secrets": "/.env",
        "a file of the system": "/..%2f..%2f..%2fetc%2fpasswd",
    }.items():
        yield Case(f"{tried}, no key", request(target))
    yield Case("a path without a slash, no key", request(name), (400,), closes=True)
    yield Case("a port that is none, no key", request(f"http://x:99999{path}"), (400,), closes=True)
    for tried, target in {
        "an open path": "/livez",
        "the other open path": "/readyz",
        "an open path with a letter in hexadecimal": "/%6civez",
        "an open path in the absolute form": "http://x/livez",
    }.items():
        yield Case(f"{tried}, no key, which is allowed", request(target), (200,))
    yield Case("a path that is not there, with a key", request("/nothing", bearer(BOTH)), (404,))


def methods(path: str, row: str) -> Iterator[Case]:
    for method in ("OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "QUERY"):
        yield Case(f"{method}, no key", request(row, method=method))
    yield Case("HEAD, no key", request(path, method="HEAD"), to_head=True)
    yield Case("POST, no key", request(path, method="POST", body=b'{"name":"x","text":"x"}'))
    preflight = ("Origin: https://evil.example", "Access-Control-Request-Method: DELETE")
    yield Case("a preflight of CORS, no key", request(path, *preflight, method="OPTIONS"))
    yield Case("a method in lower case, no key", request(path, method="get"), (400,), closes=True)
    yield Case("a method that is none, no key", request(path, method="FOO"), (400,), closes=True)
    yield Case("CONNECT to another server, no key", request("a:1", method="CONNECT"), (400,), closes=True)
    for field in ("X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE", "X-HTTP-Method: DELETE"):
        yield Case(
            f"GET with `{field}` and the scope read, which stays GET", request(row, field, bearer(READER)), (200,)
        )
        override = field.replace("DELETE", "GET")
        data = request(row, override, bearer(READER), method="DELETE")
        yield Case(f"DELETE with `{override}` and the scope read", data, (403,))
    target = f"{path}?_method=POST"
    yield Case("GET with `_method=POST` in the query, which stays GET", request(target, bearer(READER)), (200,))


def scopes(path: str, row: str) -> Iterator[Case]:
    for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "QUERY"):
        yield Case(f"{method} with the scope read", request(row, bearer(READER), method=method), (403,))
    for method in ("GET", "OPTIONS"):
        yield Case(f"{method} with the scope write", request(path, bearer(WRITER), method=method), (403,))
    data = request(path, bearer(WRITER), method="HEAD")
    yield Case("HEAD with the scope write", data, (403,), to_head=True)
    data = request("/nothing", bearer(READER), method="POST")
    yield Case("a path that is not there, with the wrong scope", data, (403,))
    for method in ("TRACE", "CONNECT"):
        yield Case(f"{method} with both scopes", request(path, bearer(BOTH), method=method), (405,))
    data = request(path, bearer(STALE), method="POST", body=b"x")
    yield Case("POST with a key that has expired", data)
    yield Case("a kept answer, with a key and no scope", request(path, bearer(WRITER), "If-None-Match: *"), (403,))


def protocols(path: str) -> Iterator[Case]:
    websocket = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
    yield Case("a WebSocket, no key", request(path, *websocket))
    yield Case("a WebSocket, with a key, which stays a GET", request(path, *websocket, bearer(READER)), (200,))
    h2c = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    yield Case("HTTP/2 by an upgrade, no key", request(path, *h2c))
    yield Case("a request behind an upgrade, no key", request(path, *h2c, bearer(READER)) + request(path), (200, 401))
    yield Case("HTTP/2 by its preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400,), closes=True)
    yield Case("HTTP/1.0, no key", request(path, version="1.0"), closes=True)
    yield Case("HTTP/0.9, no key", f"GET {path}\r\n\r\n".encode(), closes=True)
    yield Case("the last request of a connection, no key", request(path, "Connection: close"), closes=True)
    data = request(path, "Connection: close, Authorization", bearer(STRANGER))
    yield Case("`Connection: Authorization`, a key that nobody has", data, closes=True)
    yield Case("`If-None-Match: *`, no key", request(path, "If-None-Match: *"))
    yield Case("`Range`, no key", request(path, "Range: bytes=0-9"))
    yield Case(
        "`Expect: 100-continue`, no key",
        request(path, "Expect: 100-continue", "Content-Length: 5", method="POST"),
        closes=True,
    )
    yield Case("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,), closes=True)


def framing(path: str) -> Iterator[Case]:
    inner = request(path, bearer(STRANGER))
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    for tried, fields in {
        "a length and chunks": ("Content-Length: 4", "Transfer-Encoding: chunked"),
        "chunks and a length": ("Transfer-Encoding: chunked", "Content-Length: 4"),
        "two lengths": ("Content-Length: 4", "Content-Length: 5"),
        "a length with a sign": ("Content-Length: +4",),
        "a length with a comma": ("Content-Length: 4, 4",),
        "a negative length": ("Content-Length: -1",),
        "a length in hexadecimal": ("Content-Length: 0x4",),
        "chunks that are not the last coding": ("Transfer-Encoding: chunked, identity",),
        "a space before a colon": ("Content-Length : 4",),
        "a folded field": ("X-A: b\r\n Content-Length: 4",),
        "a line without a carriage return": ("X-A: b\nContent-Length: 4",),
        "a carriage return alone": ("X-A: b\rContent-Length: 4",),
        "a field without a name": (": 4",),
    }.items():
        data = request(path, *fields, bearer(BOTH), method="POST")
        yield Case(f"{tried}, with a key", data + chunks, (400,), closes=True)
    yield Case(
        "lines without carriage returns", request(path, bearer(BOTH)).replace(b"\r\n", b"\n"), (400,), closes=True
    )
    yield Case("a key on a folded line", request(path, f"Authorization: Bearer\r\n {BOTH}"), (400,), closes=True)
    yield Case(
        "a key behind a space before a colon", request(path, f"Authorization : Bearer {BOTH}"), (400,), closes=True
    )
    data = request(path, method="POST", body=request(path, bearer(BOTH)))
    yield Case("a request with a key in the body of one without", data)
    data = request(path, "Transfer-Encoding: chunked", method="POST") + chunks.replace(inner, inner)
    yield Case("a request in the chunks of another, no key", data)
    data = request(path, bearer(READER), body=request(path))
    yield Case("a request without a key in the body of one with", data, (200,))


def sizes(path: str) -> Iterator[Case]:
    yield Case("a key of 60,000 characters", request(path, bearer("x" * 60_000)))
    yield Case("200 fields, no key", request(path, *(f"X-{number}: y" for number in range(200))))
    long_head = request(path, *(f"X-{number}: {'y' * 1000}" for number in range(90)))
    yield Case("a head of 90,000 bytes", long_head, (431,), closes=True)
    yield Case("a query of 60,000 characters, no key", request(f"{path}?x={'y' * 60_000}"))
    yield Case("a body of 400,000 bytes, no key", request(path, method="POST", body=b"x" * 400_000))
    chunks = b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000) * 4 + b"0\r\n\r\n"
    yield Case("chunks of 400,000 bytes, no key", request(path, "Transfer-Encoding: chunked", method="POST") + chunks)
    announced = request(path, f"Content-Length: {10**12}", method="POST")
    yield Case("a body of a terabyte that is announced, no key", announced, unfinished=True)
    yield Case(
        "a body of 400,000 bytes, with a key", request(path, bearer(BOTH), method="POST", body=b"x" * 400_000), (413,)
    )


def pipelines(path: str) -> Iterator[Case]:
    with_key, without = request(path, bearer(READER)), request(path)
    yield Case("a request behind one with a key, no key", with_key + without, (200, 401))
    yield Case("a request before one with a key, no key", without + with_key, (401, 200))
    yield Case("a request between two with a key, no key", with_key + without + with_key, (200, 401, 200))
    yield Case("a request behind an open path, no key", request("/livez") + without, (200, 401))
    data = with_key + request(path, bearer(READER), method="POST", body=b"x") + with_key
    yield Case("a wrong scope between two right ones", data, (200, 403, 200))
    yield Case("2000 requests at once, no key", without * 2000, (401,) * 2000)


async def try_case(client: httpx2.AsyncClient, case: Case) -> tuple[list[Answer], bool]:
    """Send the bytes of a case, and return the answers, and whether the connection ends behind them."""
    url = urlsplit(str(client.base_url))
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        sending = asyncio.create_task(send(writer, case.data))
        answers: list[Answer] = []
        try:
            while len(answers) < len(case.statuses):
                answers.append(await answer(reader, to_head=case.to_head))
            if case.unfinished:
                return answers, False
            if not case.closes:
                writer.write(PROBE)
            probed = await answer(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return answers, True
        else:
            return (answers, False) if (probed.status, probed.body) == LIVES else ([*answers, probed], False)
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            writer.close()


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def answer(reader: asyncio.StreamReader, *, to_head: bool = False) -> Answer:
    """Read an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.strip().split("\r\n")
    named = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
    length = 0 if to_head else int(named.get("content-length", "0"))
    return Answer(int(line.split()[1]), named, await reader.readexactly(length))


async def break_in(client: httpx2.AsyncClient, path: str, row: str, secret: bytes) -> None:
    """Try all cases, where the list and the row hold a secret."""
    for case in cases(path, row):
        answers, ends = await try_case(client, case)
        answered = in_words([one.status for one in answers], ends=ends)
        assert answered == case.answered, (case.tried, answered)
        for one in answers:
            if one.status in (401, 403):
                assert secret not in one.body, case.tried
                assert not TELLS_TOO_MUCH & one.fields.keys(), case.tried
                assert one.fields["content-type"] == "application/problem+json", case.tried
                challenge = one.fields["www-authenticate"]
                assert challenge.startswith('Bearer realm="'), case.tried
                assert ('error="insufficient_scope"' in challenge) is (one.status == 403), case.tried
