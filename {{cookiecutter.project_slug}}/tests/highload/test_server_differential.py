"""A connection answers as Uvicorn's own protocol does, byte by byte, also where it takes the short way.

The same bytes go to the same service behind three protocols: `Connection`, the one that it is made of, and Uvicorn's
other one, which reads requests with another parser (h11). What all of them could get wrong alike is in the tables:
which answers come, in which order, and whether the connection ends.
"""

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from itertools import pairwise, zip_longest
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import httpx2
import hypothesis
import pytest
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from fastapi.security import APIKeyHeader
from hypothesis import strategies as st
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.highload.http import health
from app.highload.reads.dependencies import Granted, Guard, Partition
from app.highload.reads.shared import shared
from app.highload.reads.sharing import LONGEST_KEY
from app.highload.server import LONGEST_HEAD, PIECE, Connection, http_protocol, say_once
from app.highload.service import Service
from tests.conftest import in_database, lines_of, running
from tests.highload import lean_routes
from tests.highload.notes import Base, creation_held, insert_notes, new_note, notes_service, router
from tests.waiting import eventually, settle

EXAMPLES = int(os.environ.get("EXAMPLES", "100"))
PROTOCOLS = (Connection, HttpToolsProtocol, H11Protocol)
# Seconds in which an answer is there, or never.
PATIENCE = 20
# Seconds in which no idle connection ends by itself.
KEEP_ALIVE = 60
PROBE = b"GET /livez?probe HTTP/1.1\r\nHost: x\r\n\r\n"
NOTE = UUID(int=1)
NO_NOTE = UUID(int=9)
LARGE_BODY = b"x" * 400_000


class By(Enum):
    """Who gives an answer behind a `Connection`: itself, the application, or Uvicorn without asking it."""

    SERVER = 1
    APPLICATION = 2
    UVICORN = 3
    # The server, unless the client reads too slowly or its refusal is left to the application.
    EITHER = 4


class Expected(NamedTuple):
    """An answer, who gives it, and the status of that which comes instead when the service is full."""

    status: int
    by: By
    to_head: bool = False
    when_full: int = 503


class Step(NamedTuple):
    """Bytes, in the segments in which they are sent, and the answers that come before the next step."""

    segments: Sequence[bytes]
    expected: Sequence[Expected]

    def __repr__(self) -> str:
        """Return what a person can read of it."""
        return f"<{len(self.expected)} answers to {[bytes(segment[:300]) for segment in self.segments]}>"


class Case(NamedTuple):
    """What is sent on a connection, and whether it ends it; some of it h11 reads in another way than httptools.

    What a full service answers in other steps, or in another way than Uvicorn, has a row of its own.
    """

    steps: Sequence[Step]
    closes: bool = False
    like_h11: bool = True
    closes_when_full: bool | None = None
    like_when_full: bool = True

    @property
    def expected(self) -> list[Expected]:
        return [expected for step in self.steps for expected in step.expected]

    def when_full(self) -> "Case":
        """Return the same for a service that is full."""
        steps = [Step(step.segments, [*map(refused, step.expected)]) for step in self.steps]
        closes = self.closes if self.closes_when_full is None else self.closes_when_full
        return self._replace(steps=steps, closes=closes)

    def after_an_answer(self) -> "Case":
        return self._replace(steps=[Step([request("/livez")], [let_in()]), *self.steps])


class Answer(NamedTuple):
    """The bytes of an answer, but for what differs with the time, and what they mean."""

    raw: bytes
    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes


class Outcome(NamedTuple):
    """All answers, and what becomes of the connection after them."""

    answers: list[Answer]
    end: str


def short(status: int = 200) -> Expected:
    return Expected(status, By.SERVER)


def long(status: int = 200) -> Expected:
    return Expected(status, By.APPLICATION)


def let_in(status: int = 200) -> Expected:
    """Return what is answered however full the service is."""
    return Expected(status, By.APPLICATION, when_full=status)


def to_head(status: int) -> Expected:
    return Expected(status, By.APPLICATION, to_head=True)


def by_uvicorn(status: int) -> Expected:
    return Expected(status, By.UVICORN, when_full=status)


def refused(expected: Expected) -> Expected:
    """Return what a full service answers instead."""
    return Expected(expected.when_full, By.EITHER, expected.to_head)


def request(target: str, *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    head = "\r\n".join([f"{method} {target} HTTP/{version}", "Host: x", *fields, "", ""])
    return head.encode("latin-1") + body


def chunked(*chunks: bytes) -> bytes:
    return b"".join([*(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"])


def patch(content_type: str, body: bytes) -> bytes:
    """Return a change to a note that is not there."""
    fields = (f"Content-Type: {content_type}", f"Content-Length: {len(body)}")
    return request(f"/notes/{NO_NOTE}", *fields, method="PATCH", body=body)


def lean(kind: str = "plain", *fields: str, text: bytes = b"x", encoding: str = "utf-8") -> bytes:
    """Return a POST to a lean route."""
    body = (b'{"text": "%b"}' % text).decode().encode(encoding)
    fields = ("Content-Type: application/json", f"Content-Length: {len(body)}", *fields)
    return request(f"/lean?kind={kind.replace(' ', '%20')}", *fields, method="POST", body=body)


BAD_HOSTS = ["", " a b", " a/b", " a@b", " a, b", " a:b", " [::1", " a:80:80"]
CHUNKED = "Transfer-Encoding: chunked"
EXPECTS = "Expect: 100-continue"
GARBAGE = b"\0garbage\r\n\r\n"
# It repeats a POST, so that the table stays as it is.
KEY = "Idempotency-Key: x"
POST_HEAD = request("/notes", KEY, "Content-Length: 1", method="POST")
POST = POST_HEAD + b"x"
LONG_TEXT = b"".join(b"%d " % number for number in range(80))
POST_LONG = request("/notes", "Idempotency-Key: long", f"Content-Length: {len(LONG_TEXT)}", method="POST")

# What may stand for a path and a query, and the answer to a GET of it.
TARGETS = {
    "/notes": short(),
    "/notes?": short(),
    "/notes??limit=1": short(),
    "/notes?limit=1": short(),
    "/notes?limit=1&limit=2": short(),
    "/notes?limit=%31": short(),
    "/notes?limit=x": short(422),
    '/notes?unknown="<>': short(),
    f"/notes?unknown={'y' * 5000}": short(),
    f"/notes/{NOTE}": short(),
    f"/notes/{NO_NOTE}": short(404),
    "/notes/x": short(422),
    f"/notes/{'y' * LONGEST_KEY}": long(422),
    "/notes/%00": short(422),
    "/notes/%0d%0a": short(422),
    "/notes/%zz": short(422),
    "/notes/%ff": short(422),
    "/n%6ftes": short(),
    f"/notes%2F{NOTE}": short(),
    "/notes/": long(307),
    "//notes": long(404),
    "/Notes": long(404),
    "/unknown": long(404),
    "*": long(404),
    "/livez": let_in(),
    "/%6civez": let_in(),
    "/livez?a=b": let_in(),
    "/openapi.json": long(),
    "/personal": long(),
    "/broken": short(500),
    "/empty": short(204),
    "/moved": short(307),
    "/fields": short(),
    "/large": short(),
    "/lean/7": short(),
    "/lean/7?kind=page": short(),
    "/lean/x": long(422),
    "/lean/7/tasks": long(),
}
# The same where h11 has no idea of URLs.
URLS = {
    "http://x/notes": short(),
    "http://other:81/notes?limit=1": short(),
    "http://x/livez": let_in(),
    "/notes?limit=1#fragment": short(),
}
# Header fields of a GET of all notes.
FIELDS = {
    "If-None-Match: *": short(304),
    'If-None-Match: "other"': short(),
    "Authorization: x": long(),
    "Range: bytes=0-1": long(),
    "Content-Length: 0": long(),
    "Cookie: a=b": short(),
    "Accept-Encoding: gzip": short(),
    "Connection: keep-alive": short(),
    "Connection: TE\r\nTE: trailers": short(),
    "Expect: 100-continue": short(),
    "Expect: something": short(),
    "Upgrade: h2c": short(),
    "Connection: Upgrade\r\nUpgrade: h2c": short(),
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA": short(),
    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https": short(),
    "X-Empty:": short(),
    "X-Latin:  \t\xe9 ": short(),
    "\r\n".join(f"X-{number}: y" for number in range(200)): short(),
}
MALFORMED = {
    "a path with a space": request("/no tes"),
    "a path with a control character": request("/n\x01otes"),
    "a path with a letter that is not ASCII": request("/n\xf6tes"),
    "no protocol": GARBAGE,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a space before a colon": request("/notes", "A : b"),
    "no colon": request("/notes", "A"),
    "no name": request("/notes", ": b"),
    "a zero in a field": request("/notes", "A: \0"),
    "two lengths": request("/notes", "Content-Length: 1", "Content-Length: 2", method="POST", body=b"xx"),
    "a negative length": request("/notes", "Content-Length: -1", method="POST"),
}
# What h11 takes.
MALFORMED_FOR_HTTPTOOLS = {
    "a method in lower case": request("/notes", method="get"),
    "an unknown method": request("/notes", method="FOO"),
    "a path without a slash": request("notes"),
    "a URL without a path": request("http://x"),
    "a URL with a port that is none": request("http://x:99999/notes"),
    # A head of this length comes in at most two pieces, of which the last has its end.
    "a URL that is too long": request("/notes?x=" + "y" * 65_530),
    "CONNECT to another server": request("a:1", method="CONNECT"),
    "an unknown version": request("/notes", version="1.2"),
    "the beginning of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lines without a carriage return": request("/notes").replace(b"\r\n", b"\n"),
    "a folded field": request("/notes", "A: b\r\n c"),
    "a length and chunks": request("/notes", "Content-Length: 1", CHUNKED, method="POST", body=chunked(b"x")),
}
# Requests with a body.
BODIES = {
    "POST": (POST, long(201)),
    "POST of chunks": (request("/notes", CHUNKED, KEY, method="POST", body=chunked(b"x")), long(201)),
    "POST with an extension and a trailer": (
        request("/notes", CHUNKED, KEY, method="POST", body=b"1;a=b\r\nx\r\n0\r\nA: b\r\n\r\n"),
        long(201),
    ),
    "POST with space behind the key": (
        request("/notes", f"{KEY} \t", "Content-Length: 1", method="POST", body=b"x"),
        long(201),
    ),
    "POST with the key of another": (request("/notes", KEY, "Content-Length: 2", method="POST", body=b"xx"), long(422)),
    "POST that is too large": (
        request("/notes", "Content-Length: 400000", method="POST", body=LARGE_BODY),
        long(413),
    ),
    "POST of chunks that is too large": (
        request("/notes", CHUNKED, method="POST", body=chunked(*[b"x" * 10_000] * 40)),
        long(413),
    ),
    "PATCH of text": (patch("text/plain", b'{"text": "x"}'), long(415)),
    "PATCH in UTF-16": (patch("application/json", '{"text": "x"}'.encode("utf-16")), long(400)),
    "PATCH of nothing": (patch("application/json", b'{"text": "x"}'), long(404)),
    "PUT that nobody reads": (request("/notes", "Content-Length: 60000", method="PUT", body=b"x" * 60_000), long(405)),
    "GET with a body": (request("/notes", "Content-Length: 3", body=b"abc"), long()),
    "GET with a body of chunks": (request("/notes", CHUNKED, body=chunked(b"abc")), long()),
    "GET with a body that is too large": (request("/notes", "Content-Length: 400000", body=LARGE_BODY), long(413)),
    "HEAD with a body": (request("/notes", "Content-Length: 3", method="HEAD", body=b"abc"), to_head(200)),
}
# Requests to lean routes, and whether they end the connection.
LEAN = {
    "POST": (lean(), short(201)),
    "tagged": (lean("tagged"), short()),
    "cacheable": (lean("cacheable"), short()),
    "page": (lean("page"), short()),
    "policy": (lean("policy"), short()),
    "upper": (lean("upper"), short()),
    "error": (lean("error"), short(418)),
    "nothing": (lean("nothing"), short(204)),
    "not modified": (lean("not modified"), short(304)),
    "named": (lean("named"), long()),
    "background": (lean("background"), long()),
    "stream": (lean("stream"), long()),
    "no length": (lean("no length"), long()),
    "no kind": (lean("unknown"), long(500)),
    "shared": (request("/lean/7/shared"), short()),
    "shared, and asked for alone": (request("/lean/7/shared", "Range: bytes=0-1"), long()),
    "DELETE": (request("/lean/0", method="DELETE"), short(204)),
    "DELETE of what is in use": (request("/lean/1", method="DELETE"), long(409)),
    "DELETE that fails": (request("/lean/2", method="DELETE"), long(500)),
    "DELETE of no number": (request("/lean/x", method="DELETE"), long(422)),
    "PUT": (lean().replace(b"POST /lean?kind=plain", b"PUT /lean/1"), short()),
    "PATCH": (request("/lean/1", method="PATCH"), short()),
    "PATCH for a proxy": (
        request("/lean/1", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https", method="PATCH"),
        short(),
    ),
    "OPTIONS": (request("/lean/1", method="OPTIONS"), long(405)),
    "If-Match": (lean("plain", 'If-Match: "x"'), long(412)),
    "another type": (lean().replace(b"application/json", b"application/problem+json"), long(415)),
    "a zero": (lean(text=b"\0"), long(400)),
    "in UTF-16": (lean(encoding="utf-16"), long(400)),
    "no JSON": (lean(text=b'"'), long(422)),
    "an umlaut": (lean(text="\xfc".encode()), short(201)),
    "two types": (lean("plain", "Content-Type: application/json"), long(201)),
    "too large": (lean(text=b"x" * 70_000), long(413)),
}
READ = request("/notes"), short()
TEN_KINDS = [
    READ,
    (request("/notes/x"), short(422)),
    (request("/personal"), long()),
    (request("/unknown"), long(404)),
    (POST, long(201)),
    (request(f"/notes/{NOTE}"), short()),
    (request("/notes", method="HEAD"), to_head(200)),
    (request("/livez"), let_in()),
    (request("/notes", "If-None-Match: *"), short(304)),
    (request("/broken"), short(500)),
]


def once(data: bytes, *expected: Expected, closes: bool = False, like_h11: bool = True) -> Case:
    return Case([Step([data], expected)], closes, like_h11)


def pipeline(requests: Iterable[tuple[bytes, Expected]]) -> tuple[bytes, list[Expected]]:
    data, expected = zip(*requests, strict=True)
    return b"".join(data), list(expected)


def cases() -> Iterator[tuple[str, Case]]:
    yield from heads()
    yield from bad_requests()
    yield from bodies()
    yield from pipelines()
    yield from lean_cases()


def heads() -> Iterator[tuple[str, Case]]:
    for target, expected in (TARGETS | URLS).items():
        like_h11 = target in TARGETS
        # Nothing is sent on the short way that ends the connection.
        last = expected._replace(by=By.APPLICATION)
        yield f"GET {target:.30}", once(request(target), expected, like_h11=like_h11)
        data = request(target, "Connection: close")
        yield f"GET {target:.30} and close", once(data, last, closes=True, like_h11=like_h11)
        data = request(target, version="1.0")
        yield f"GET {target:.30} of HTTP/1.0", once(data, last, closes=True, like_h11=like_h11)
        data = request(target, "Connection: keep-alive", version="1.0")
        yield f"GET {target:.30} of HTTP/1.0 and keep-alive", once(data, last, closes=True, like_h11=like_h11)
    for fields, expected in FIELDS.items():
        step = Step([request("/notes", fields)], [expected])
        yield f"GET with {fields:.60}", Case([step, step])
    for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "CONNECT"):
        yield method, once(request("/notes", method=method), long(405))
    yield "DELETE", once(request(f"/notes/{NO_NOTE}", method="DELETE"), long(204))
    for target in ("/notes", "/notes/x", "/unknown", "/large", "/livez"):
        answer = TARGETS[target]._replace(by=By.APPLICATION, to_head=True)
        yield f"HEAD {target}", once(request(target, method="HEAD"), answer)
        data = request(target, "Connection: close", method="HEAD")
        yield f"HEAD {target} and close", once(data, answer, closes=True)
    yield "POST /livez", once(request("/livez", "Content-Length: 1", method="POST", body=b"x"), let_in(405))
    personal = once(request("/personal-last"), long(), closes=True)
    yield "a personal answer and close", personal._replace(closes_when_full=False)
    yield "chunks of an answer", once(request("/stream"), long())
    yield "chunks of an answer and close", once(request("/stream", "Connection: close"), long(), closes=True)
    error = once(request("/fails"), long(500), closes=True)
    yield "an error of the application", error._replace(closes_when_full=False)
    yield "HTTP/2.0", once(request("/notes", version="2.0"), long(), closes=True, like_h11=False)
    yield "HTTP/0.9", once(b"GET /notes\r\n\r\n", long(), closes=True, like_h11=False)
    yield "no host", once(b"GET /notes HTTP/1.1\r\n\r\n", long(400), like_h11=False)
    yield "no host of HTTP/1.0", once(b"GET /notes HTTP/1.0\r\n\r\n", long(), closes=True, like_h11=False)
    yield "two hosts", once(request("/notes", "Host: x"), long(400), like_h11=False)
    for host in BAD_HOSTS:
        yield (
            f"the host {host!r}",
            once(f"GET /notes HTTP/1.1\r\nHost:{host}\r\n\r\n".encode(), long(400), like_h11=False),
        )
    yield "empty lines before a request", once(b"\r\n\r\n" + READ[0], READ[1], like_h11=False)


def bad_requests() -> Iterator[tuple[str, Case]]:
    for name, data in (MALFORMED | MALFORMED_FOR_HTTPTOOLS).items():
        like_h11 = name in MALFORMED
        bad = Step([data], [by_uvicorn(400)])
        yield name, Case([bad], closes=True, like_h11=like_h11)
        yield f"a read, and {name}", Case([Step([READ[0]], [READ[1]]), bad], closes=True, like_h11=like_h11)
    # Uvicorn hangs up at once, also on what it has not answered yet.
    garbage = once(READ[0] + GARBAGE, by_uvicorn(400), closes=True, like_h11=False)
    yield "a read with garbage", garbage._replace(like_when_full=False)


def bodies() -> Iterator[tuple[str, Case]]:
    read = Step([READ[0]], [READ[1]])
    for name, (data, expected) in BODIES.items():
        yield f"{name}, and a read", once(data + READ[0], expected, READ[1])
        yield f"{name} between reads", once(READ[0] + data + READ[0], READ[1], expected, READ[1])
        head, _, body = data.partition(b"\r\n\r\n")
        segments = [head, b"\r\n\r\n", *pieces(body)]
        yield f"{name} between reads, in pieces", Case([read, Step(segments, [expected]), read])
    long_post = Step([POST_LONG, *pieces(LONG_TEXT, 20)], [long(201)])
    yield "a body that the application gets in pieces", Case([long_post, read])
    refused = Step([request("/notes", "Content-Length: 400000", method="POST")], [long(413)])
    yield "a body after its refusal, in pieces", Case([refused, Step([*pieces(LARGE_BODY), READ[0]], [READ[1]])])
    yield "a body after its refusal", Case([refused, Step([LARGE_BODY + READ[0]], [READ[1]])])
    yield "a body after its refusal, and reads", Case([refused, Step([LARGE_BODY], []), read, read])
    told = Step([request("/notes", KEY, "Content-Length: 1", EXPECTS, method="POST")], [by_uvicorn(100)])
    then = Step([b"x" + READ[0]], [long(201), READ[1]])
    yield "100-continue", Case([told, then], like_when_full=False)
    told = Step([request("/notes", KEY, CHUNKED, EXPECTS, method="POST")], [by_uvicorn(100)])
    then = Step([chunked(b"x") + READ[0]], [long(201), READ[1]])
    yield "100-continue for chunks", Case([told, then], like_when_full=False)


def pieces(data: bytes, size: int = 50_000) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def pipelines() -> Iterator[tuple[str, Case]]:
    kinds_of = {"reads": [READ], "posts": [(POST, long(201))], "ten kinds": TEN_KINDS}
    for name, kinds in kinds_of.items():
        for length in (2, 10 if name == "posts" else 50):
            data, expected = pipeline(kinds[place % len(kinds)] for place in range(length))
            yield f"{length} of {name}, twice", Case([Step([data], expected)] * 2)
            last = request("/notes", "Connection: close")
            yield f"{length} of {name}, and close", once(data + last, *expected, long(), closes=True)
            ignored = data + last + PROBE
            yield f"{length} of {name}, close, and one more", once(ignored, *expected, long(), closes=True)
    data, expected = pipeline([(request("/large"), Expected(200, By.EITHER)), (request("/livez"), let_in())] * 10)
    yield "more than all buffers hold", once(data, *expected)
    for data, answer in TEN_KINDS[::2]:
        cut = [Step([data[:place], data[place:]], [answer]) for place in range(1, len(data))]
        yield f"cut everywhere: {data[:30]!r}", Case([*cut, Step([bytes([byte]) for byte in data], [answer])])


def lean_cases() -> Iterator[tuple[str, Case]]:
    for name, (data, expected) in LEAN.items():
        fails = expected.status == 500
        if fails:
            yield f"lean: {name}", once(data, expected, closes=True)._replace(closes_when_full=False)
            continue
        yield f"lean: {name}, between reads", once(READ[0] + data + READ[0], READ[1], expected, READ[1])
        yield f"lean: {name}, twice", once(data * 2, expected, expected)
        last = data.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
        ends = once(last, expected._replace(by=By.APPLICATION), closes=True)
        yield f"lean: {name} and close", ends._replace(like_when_full=name != "too large")
        head, _, body = data.partition(b"\r\n\r\n")
        yield f"lean: {name}, in pieces", Case([Step([head, b"\r\n\r\n", *pieces(body, 5)], [expected])])
    yield "lean: last", once(lean("last"), long(), closes=True)._replace(closes_when_full=False)


CASES = list(cases())
REFUSED = short(503)
CASES_OF_REFUSALS = [
    ("a body after its refusal", Case([Step([POST_HEAD], [REFUSED]), Step([b"x" + READ[0]], [REFUSED])])),
    ("500 reads behind what is let in", once(request("/livez") + READ[0] * 500, let_in(), *[REFUSED] * 500)),
    ("reads between what is let in", once((READ[0] + request("/livez")) * 10, *[REFUSED, let_in()] * 10)),
]


def full_cases() -> Iterator[tuple[str, Case]]:
    """Yield what a full service gets; from the second request of a connection on the server refuses by itself."""
    for name, case in heads():
        yield f"{name}, at first", case.when_full()
    for name, case in CASES + CASES_OF_REFUSALS:
        if case.like_when_full:
            yield name, case.when_full().after_an_answer()


OFFER = "Connection: Upgrade\r\nUpgrade: h2c"
LONG_HEAD = request("/notes", *(f"X-{number}: {'y' * 1000}" for number in range(90)))
TRAILERS = LONG_HEAD.split(b"\r\n", 2)[2]


class Difference(NamedTuple):
    """What is answered in another way than by plain Uvicorn, and why.

    Each row says statuses, with a plus for `Connection: close`, and how the connection ends. `rest` is sent where it
    stays open.
    """

    why: str
    sent: bytes
    ours: str
    httptools: str
    h11: str
    rest: bytes = b""
    when_full: bool = False


EXPECTATION = "the client may send the body or not, so what it sends next may be anything (RFC 9110, section 10.1.1)"
UPGRADE = "a server may leave an offer aside, and takes the request as it is then (RFC 9110, section 7.8)"
DIFFERENCES = {
    "too large, and waits for 100": Difference(
        EXPECTATION,
        request("/notes", EXPECTS, "Content-Length: 400000", method="POST"),
        rest=LARGE_BODY,
        ours="413+ closed",
        httptools="413 open",
        h11="413 open",
    ),
    "of no use, and waits for 100": Difference(
        EXPECTATION,
        request("/notes", EXPECTS, CHUNKED, method="PUT"),
        rest=chunked(b"x"),
        ours="405+ closed",
        httptools="405 open",
        h11="405 open",
    ),
    "refused, and waits for 100": Difference(
        EXPECTATION,
        request("/notes", EXPECTS, "Content-Length: 1", method="POST"),
        rest=b"x",
        ours="503+ closed",
        httptools="503 open",
        h11="503 open",
        when_full=True,
    ),
    "an offer of another protocol, and a read": Difference(
        UPGRADE,
        request("/notes", OFFER) + READ[0],
        ours="200 200 open",
        httptools="200 open",
        h11="200 200 open",
    ),
    "an offer of another protocol, with a body": Difference(
        UPGRADE,
        request("/notes", OFFER, KEY, "Content-Length: 1", method="POST", body=b"x"),
        ours="201 open",
        httptools="422 open",
        h11="201 open",
    ),
    "an offer of another protocol, with a body of chunks, and a read": Difference(
        UPGRADE,
        request("/notes", OFFER, KEY, CHUNKED, method="POST", body=chunked(b"x")) + READ[0],
        ours="201 200 open",
        httptools="422 open",
        h11="201 200 open",
    ),
    "a head without end": Difference(
        "each client could fill the memory",
        LONG_HEAD[: LONGEST_HEAD + PIECE],
        rest=LONG_HEAD[LONGEST_HEAD + PIECE :],
        ours="431+ closed",
        httptools="200 open",
        h11="400+ closed",
    ),
    "trailers without end": Difference(
        "each client could fill the memory, and what comes next cannot be found",
        request("/notes", KEY, CHUNKED, method="POST", body=b"1\r\nx\r\n0\r\n" + TRAILERS),
        ours="closed",
        httptools="201 open",
        h11="201 open",
    ),
    "a host among the trailers": Difference(
        "what comes behind a body is no field of the request, and could make a proxy tell of another client",
        request("/notes", KEY, CHUNKED, method="POST", body=b"1\r\nx\r\n0\r\nHost: x\r\n\r\n"),
        ours="201 open",
        httptools="400 open",
        h11="201 open",
    ),
    "a refusal, and garbage": Difference(
        "a refusal is sent when its head is read, so it is there before what follows",
        READ[0] + GARBAGE,
        ours="503 400+ closed",
        httptools="400+ closed",
        h11="503 400+ closed",
        when_full=True,
    ),
}


class Sent(NamedTuple):
    """A request of a random sequence, and the answers that come to it, of which nothing else is known.

    One that is `alone` is sent when all before it are answered, and nothing else is before its own answer. What is
    `broken` is not cut, because the server does not wait for the rest.
    """

    data: bytes
    answers: Sequence[Expected]
    alone: bool = False
    broken: bool = False
    closes: bool = False
    like_h11: bool = True


ANY = Expected(0, By.EITHER)
# Of a request: in a header field, and twice in the problem of an unexpected error.
MADE_ID = re.compile(rb'(?:(?<=x-request-id: )|(?<=request_id":")|(?<=with request_id ))[0-9a-f]{32}\b')
ANY_TO_HEAD = ANY._replace(to_head=True)
PLAIN_FIELDS = [field for field in FIELDS if not any(word in field for word in ("Upgrade", "Length", "100-continue"))]
# Where these are not shared, an error of the application or the application itself ends the connection.
LEFT_OPEN = [target for target in TARGETS if target not in ("/broken", "/fields")]
METHODS = ["GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "QUERY"]
SIZES = st.sampled_from([0, 1, 3, 100, 60_000, 70_000])
LAST_FIELDS = {"1.1": "Connection: close", "1.0": "Connection: keep-alive"}


def framed(size: int | None, chunk: int) -> tuple[str, bytes]:
    """Return the header field and the bytes of a body of so many bytes, or of none; in chunks unless that is 0."""
    if size is None:
        return "X-No: body", b""
    if chunk == 0:
        return f"Content-Length: {size}", b"x" * size
    return CHUNKED, chunked(*pieces(b"x" * size, max(chunk, size // 20)))


BODY = st.builds(framed, st.none() | SIZES, st.sampled_from([0, 0, 1, 7, 1000]))
FIELD = st.lists(st.sampled_from(PLAIN_FIELDS), max_size=3, unique=True)


# A failure is made smaller when EXAMPLES asks for it: who waits for an answer that never comes waits for long.
PHASES = list(hypothesis.Phase) if "EXAMPLES" in os.environ else [hypothesis.Phase.reuse, hypothesis.Phase.generate]
RANDOMLY = hypothesis.settings(
    max_examples=EXAMPLES,
    phases=PHASES,
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """Draw a request behind which others may come."""
    method = draw(st.sampled_from(METHODS))
    target = draw(st.sampled_from([*LEFT_OPEN, *URLS]))
    field, body = draw(BODY)
    fields = [KEY, field, *draw(FIELD)]
    answer = ANY_TO_HEAD if method == "HEAD" else ANY
    return Sent(request(target, *fields, method=method, body=body), [answer], like_h11=target in TARGETS)


@st.composite
def offers(draw: st.DrawFn) -> Sent:
    """Draw a request whose parser takes what follows for another protocol."""
    target = draw(st.sampled_from(LEFT_OPEN))
    fields = draw(FIELD)
    if draw(st.booleans()):
        return Sent(request(target, OFFER, *fields), [ANY], alone=True)
    return Sent(request(target, *fields, method="CONNECT"), [ANY], alone=True)


@st.composite
def expecting(draw: st.DrawFn, *fields: str) -> Sent:
    """Draw a request whose body the application asks for."""
    field, body = framed(draw(st.sampled_from([1, 3, 60_000])), draw(st.sampled_from([0, 1, 1000])))
    data = request("/notes", KEY, EXPECTS, field, *fields, method="POST", body=body)
    return Sent(data, [ANY, ANY], closes="Connection: close" in fields)


@st.composite
def last_requests(draw: st.DrawFn) -> Sent:
    """Draw a request that ends its connection; it has no body, because an early answer would not wait for it."""
    method = draw(st.sampled_from(METHODS))
    version = draw(st.sampled_from(sorted(LAST_FIELDS)))
    fields = [KEY, LAST_FIELDS[version], *draw(FIELD | st.just([OFFER]))]
    data = request(draw(st.sampled_from(LEFT_OPEN)), *fields, method=method, version=version)
    return Sent(data, [ANY_TO_HEAD if method == "HEAD" else ANY], alone=OFFER in fields, closes=True)


def broken(name: str) -> Sent:
    """Return what is no request."""
    return Sent(BROKEN[name], [ANY], alone=True, broken=True, closes=True, like_h11=name not in MALFORMED_FOR_HTTPTOOLS)


BAD_CHUNKS = {
    f"a chunk of {size!r}": request("/notes", CHUNKED, method="POST", body=b"1\r\nx\r\n" + size)
    for size in (b"z\r\n", b"-1\r\n", b"\r\n\r\n", b"1\r\nxx", b"f" * 30 + b"\r\n")
}
BROKEN = MALFORMED | MALFORMED_FOR_HTTPTOOLS | BAD_CHUNKS
BROKEN_HEADS = [*MALFORMED, *MALFORMED_FOR_HTTPTOOLS]


@st.composite
def sequences(draw: st.DrawFn, *, when_full: bool) -> Case:
    """Draw what is sent on a connection, and how it is cut into pieces."""
    one = requests() | requests() | requests() | offers()
    last = last_requests() | last_requests() | st.builds(broken, st.sampled_from(BROKEN_HEADS))
    # A full service refuses a request before it has read the body (see the differences).
    if not when_full:
        one |= expecting()
        last |= expecting("Connection: close") | st.builds(broken, st.sampled_from(sorted(BAD_CHUNKS)))
    sent = draw(st.lists(one, min_size=1, max_size=6))
    if draw(st.integers(0, 3)):
        sent.append(draw(last))
    groups: list[list[Sent]] = [[]]
    for this in sent:
        if groups[-1] and (this.alone or groups[-1][-1].alone or draw(st.integers(0, 3)) == 0):
            groups.append([])
        groups[-1].append(this)
    return Case(
        [step_of(group, draw(st.lists(st.integers(0, 100_000), max_size=6))) for group in groups],
        closes=sent[-1].closes,
        like_h11=all(this.like_h11 for this in sent),
    )


def step_of(sent: Sequence[Sent], cuts: Sequence[int]) -> Step:
    """Return requests as one step, cut at some places."""
    data = b"".join(one.data for one in sent)
    places = {0, len(data)}
    if not sent[-1].broken:
        places |= {cut % len(data) for cut in cuts}
    segments = [data[start:end] for start, end in pairwise(sorted(places))]
    return Step(segments, [answer for one in sent for answer in one.answers])


class Line:
    """A connection to a server, on which requests are bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *segments: bytes) -> None:
        for segment in segments:
            if self._writer.transport.is_closing():
                return
            self._writer.write(segment)
            # The server reads it before the next one comes.
            await settle()

    async def answer(self, *, to_head: bool = False) -> Answer:
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readuntil(b"\r\n\r\n")
            head = re.sub(rb"date: [^\r]*\r\n", b"", head)
            # Each request has one of its own.
            head = MADE_ID.sub(b"any", head)
            head = re.sub(rb"x-cache: (hit|miss|shared)\r\n", b"x-cache: any\r\n", head)
            status_line, *lines = head.split(b"\r\n")[:-2]
            status = int(status_line.split()[1])
            fields = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
            body, content = b"", b""
            if not to_head and status not in (100, 204, 304):
                body, content = [MADE_ID.sub(b"any", data) for data in await self._body(dict(fields))]
        return Answer(head + body, status, sorted(fields), content)

    async def _body(self, fields: dict[bytes, bytes]) -> tuple[bytes, bytes]:
        """Return the bytes of a body, and what they mean."""
        if b"content-length" in fields:
            body = await self._reader.readexactly(int(fields[b"content-length"]))
            return body, body
        if fields.get(b"transfer-encoding") != b"chunked":
            body = await self._reader.read()
            return body, body
        parts: list[bytes] = []
        content: list[bytes] = []
        while not parts or content[-1]:
            size = await self._reader.readuntil(b"\r\n")
            chunk = await self._reader.readexactly(int(size, 16) + 2)
            parts += [size, chunk]
            content.append(chunk[:-2])
        return b"".join(parts), b"".join(content)

    async def end(self, *, closes: bool) -> str:
        """Tell what becomes of the connection; an open one still answers, and nothing else comes before."""
        try:
            if not closes:
                await self.send(PROBE)
                probe = await self.answer()
                return "open" if probe.body == b'{"status":"ok"}' else f"another answer: {probe}"
            async with asyncio.timeout(PATIENCE):
                rest = await self._reader.read()
        except (EOFError, ConnectionError):
            return "closed"
        except TimeoutError:
            return "stays open" if closes else "no answer any more"
        return f"more: {rest!r}" if rest else "closed"


@asynccontextmanager
async def connected(to: httpx2.AsyncClient) -> AsyncGenerator[Line]:
    reader, writer = await asyncio.open_connection(to.base_url.host, to.base_url.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


async def words(server: httpx2.AsyncClient, difference: Difference, expected: str) -> str:
    """Return what a server does, in the words of the row, which says how much is awaited."""
    *answers, end = expected.split()
    said: list[str] = []
    async with connected(server) as line:
        if difference.when_full:
            await line.send(request("/livez"))
            await line.answer()
        await line.send(difference.sent, difference.rest if end == "open" else b"")
        for _ in answers:
            answer = await line.answer()
            said.append(f"{answer.status}+" if (b"connection", b"close") in answer.fields else str(answer.status))
        return " ".join([*said, await line.end(closes=end == "closed")])


async def outcome(server: httpx2.AsyncClient, case: Case) -> Outcome:
    answers: list[Answer] = []
    async with connected(server) as line:
        try:
            for step in case.steps:
                await line.send(*step.segments)
                for expected in step.expected:
                    answer = await line.answer(to_head=expected.to_head)
                    answers.append(answer)
        except (EOFError, ConnectionError, TimeoutError) as error:
            return Outcome(answers, f"{type(error).__name__} instead of an answer")
        return Outcome(answers, await line.end(closes=case.closes))


def assert_same(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Fail with the first difference, cut short: pytest would compare large bodies for hours."""
    for number, (our, their) in enumerate(zip_longest(map(repr, ours), map(repr, theirs), fillvalue="nothing")):
        if our != their:
            place = next(place for place, (one, other) in enumerate(zip_longest(our, their)) if one != other)
            start = max(0, place - 40)
            pytest.fail(f"answer {number}: {our[start : place + 200]} and not {their[start : place + 200]}")


def statuses(outcome: Outcome) -> list[int]:
    return [answer.status for answer in outcome.answers]


def exactly(outcome: Outcome) -> list[Any]:
    return [*outcome.answers, outcome.end]


def meaning(outcome: Outcome) -> list[Any]:
    """Return what an outcome means, which is the same for servers that write it in another way."""
    answers = [(answer.status, fields_that_count(answer), answer.body) for answer in outcome.answers]
    return [*answers, outcome.end]


def fields_that_count(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return all header fields, but for those that only httptools writes when it cannot read a request."""
    framing = {b"server", b"content-length", b"transfer-encoding"} if answer.status == 400 else set()
    return [(name, value) for name, value in answer.fields if name not in framing]


extra = APIRouter()


@extra.get("/personal")
@shared
async def get_personal() -> Response:
    return Response("for you", headers={"Set-Cookie": "a=b"})


@extra.get("/personal-last")
@shared
async def get_personal_last() -> Response:
    return Response("for you", headers={"Set-Cookie": "a=b", "Connection": "close"})


@extra.get("/broken")
@shared
async def get_broken() -> Response:
    raise RuntimeError("broken")


@extra.get("/empty")
@shared
async def get_empty() -> Response:
    return Response(status_code=204)


@extra.get("/moved")
@shared
async def get_moved() -> Response:
    return RedirectResponse("/notes")


@extra.get("/fields")
@shared
async def get_fields() -> Response:
    return StreamingResponse(iter([b"a", b"b"]), headers={"X-UPPER": "A", "X-Empty": "", "Connection": "close"})


@extra.get("/large")
@shared
async def get_large() -> Response:
    return Response(b"x" * 1_000_000)


@extra.get("/fails")
async def get_failure() -> Response:
    raise RuntimeError("broken")


@extra.get("/stream")
async def get_stream() -> Response:
    return StreamingResponse(iter([b"a", b"b" * 1000, b"c"]))


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The loop of production, one for all tests of this module and their servers."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module")
async def filled_database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a database with five notes, which nothing here changes."""
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('database') / 'notes.db'}"
    await in_database(url, lambda connection: connection.run_sync(Base.metadata.create_all))
    rows = [
        new_note(f"note {number}") | {"id": UUID(int=number), "created_at": datetime(2024, 1, number, tzinfo=UTC)}
        for number in (1, 2, 3)
    ]
    await in_database(url, lambda connection: insert_notes(connection, rows))
    async with running(notes_service(database_url=url)) as client, connected(client) as line:
        for post in (POST, POST_LONG + LONG_TEXT):
            await line.send(post)
            assert (await line.answer()).status == 201
    return url


@asynccontextmanager
async def behind_each(database_url: str, **options: Any) -> AsyncGenerator[dict[type, httpx2.AsyncClient]]:
    async with AsyncExitStack() as stack:
        yield {
            http: await stack.enter_async_context(
                running(service(database_url, **options), http=http, keep_alive=KEEP_ALIVE)
            )
            for http in PROTOCOLS
        }


@pytest.fixture(scope="module")
async def servers(filled_database_url: str) -> AsyncGenerator[dict[type, httpx2.AsyncClient]]:
    """The service behind each protocol."""
    async with behind_each(filled_database_url) as servers:
        yield servers


@pytest.fixture(scope="module")
async def full_servers(filled_database_url: str) -> AsyncGenerator[dict[type, httpx2.AsyncClient]]:
    """The same, with a place for nobody."""
    async with behind_each(filled_database_url, limit_concurrency=0) as servers:
        yield servers


def service(database_url: str, *routers: APIRouter, **options: Any) -> Service:
    return notes_service(
        database_url=database_url, routers=[router, health.router, extra, lean_routes.router, *routers], **options
    )


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES])
async def test_answers_are_those_of_the_plain_protocol(
    servers: dict[type, httpx2.AsyncClient], asked: list[Scope], case: Case
) -> None:
    ours = await outcome(servers[Connection], case)
    reached = len(asked)
    assert statuses(ours) == [expected.status for expected in case.expected]
    assert ours.end == ("closed" if case.closes else "open")
    assert ours == await outcome(servers[HttpToolsProtocol], case)
    if case.like_h11:
        assert meaning(ours) == meaning(await outcome(servers[H11Protocol], case))
    for answer, expected in zip(ours.answers, case.expected, strict=True):
        assert expected.by is By.UVICORN or (b"x-content-type-options", b"nosniff") in answer.fields
    givers = [expected.by for expected in case.expected]
    if By.EITHER not in givers:
        probes = 0 if case.closes else 1
        assert reached == givers.count(By.APPLICATION) + probes


@pytest.mark.parametrize("kind", ["two lines", "no name"])
async def test_an_answer_that_is_none_ends_the_connection(servers: dict[type, httpx2.AsyncClient], kind: str) -> None:
    case = Case([Step([lean(kind, text=b"xx")], [])], closes=True)
    ours = await outcome(servers[Connection], case)
    assert (ours.answers, ours.end) == ([], "closed")
    assert ours == await outcome(servers[HttpToolsProtocol], case)


@asynccontextmanager
async def behind(
    http: type[asyncio.Protocol], app: ASGIApp, *, trusted: str | None = None
) -> AsyncGenerator[Callable[[bytes], Coroutine[Any, Any, Answer]]]:
    """Serve an application, and yield what sends it a request on a connection of its own."""
    async with running(app, http=http, trusted=trusted) as client:

        async def ask(data: bytes) -> Answer:
            async with connected(client) as line:
                await line.send(data)
                return await line.answer()

        yield ask


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in full_cases()])
async def test_a_full_service_refuses_as_the_plain_protocol_does(
    full_servers: dict[type, httpx2.AsyncClient], case: Case
) -> None:
    ours = await outcome(full_servers[Connection], case)
    assert statuses(ours) == [expected.status for expected in case.expected]
    assert ours.end == ("closed" if case.closes else "open")
    assert ours == await outcome(full_servers[HttpToolsProtocol], case)
    if case.like_h11:
        assert meaning(ours) == meaning(await outcome(full_servers[H11Protocol], case))


@RANDOMLY
@hypothesis.given(case=sequences(when_full=False))
async def test_random_sequences_are_answered_as_by_the_plain_protocol(
    servers: dict[type, httpx2.AsyncClient], case: Case
) -> None:
    await compare(servers, case)


@RANDOMLY
@hypothesis.given(case=sequences(when_full=True))
async def test_random_sequences_are_refused_as_by_the_plain_protocol(
    full_servers: dict[type, httpx2.AsyncClient], case: Case
) -> None:
    await compare(full_servers, case)


async def compare(servers: dict[type, httpx2.AsyncClient], case: Case) -> None:
    """Send a random sequence to each server."""
    ours = await outcome(servers[Connection], case)
    assert_same(exactly(ours), exactly(await outcome(servers[HttpToolsProtocol], case)))
    assert ours.end == ("closed" if case.closes else "open")
    if case.like_h11:
        assert_same(meaning(ours), meaning(await outcome(servers[H11Protocol], case)))


@pytest.mark.parametrize("difference", DIFFERENCES.values(), ids=DIFFERENCES)
async def test_a_difference_from_the_plain_protocol_is_meant(
    servers: dict[type, httpx2.AsyncClient], full_servers: dict[type, httpx2.AsyncClient], difference: Difference
) -> None:
    where = full_servers if difference.when_full else servers
    for http, expected in zip(PROTOCOLS, (difference.ours, difference.httptools, difference.h11), strict=True):
        assert (http, await words(where[http], difference, expected)) == (http, expected)


@pytest.mark.parametrize("http", PROTOCOLS)
async def test_who_is_inside_gives_the_place_to_the_next_one_of_its_pipeline(
    filled_database_url: str, http: Any
) -> None:
    app = service(filled_database_url, limit_concurrency=1)
    with creation_held() as held:
        async with running(app, http=http) as client, connected(client) as inside, connected(client) as outside:
            await inside.send(POST)

            async def is_full() -> bool:
                return app.admission.full

            await eventually(is_full, within=PATIENCE)
            await outside.send(READ[0])
            assert (await outside.answer()).status == 503
            await inside.send(READ[0] + POST + READ[0])
            held.set()
            assert [(await inside.answer()).status for _ in range(4)] == [201, 200, 201, 200]
            assert app.admission._inside == 0


@pytest.mark.parametrize("http", [Connection, HttpToolsProtocol])
async def test_a_pipeline_does_not_stand_in_its_own_way(filled_database_url: str, http: Any) -> None:
    data, expected = pipeline(TEN_KINDS * 5)
    app = service(filled_database_url, limit_concurrency=1)
    async with running(app, http=http) as client:
        got = await outcome(client, once(data, *expected))
    assert statuses(got) == [answer.status for answer in expected]
    assert got.end == "open"


class Stamp:
    """ASGI middleware that leaves its mark on each answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-stamp", scope["path"].encode())]
            await send(message)

        await self._app(scope, receive, stamped)


class Spans(trace.TracerProvider):
    """OpenTelemetry's tracing; it remembers the names of spans."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        names = self.names

        class Tracer(trace.NoOpTracer):
            def start_span(self, name: str, *_: Any, **__: Any) -> trace.Span:
                names.append(name)
                return trace.INVALID_SPAN

        return Tracer()


type Build = Callable[[str, pytest.MonkeyPatch], ASGIApp]


def with_middleware(database_url: str, _: pytest.MonkeyPatch) -> ASGIApp:
    app = service(database_url)
    app.add_middleware(Stamp)
    return app


def with_a_patched(owner: type) -> Build:
    def build(database_url: str, monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
        """Do what agents do that look at each request."""
        app = service(database_url)
        call = owner.__dict__["__call__"]

        async def watched(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
            async def original(scope: Scope, receive: Receive, send: Send) -> None:
                await call(self, scope, receive, send)

            await Stamp(original)(scope, receive, send)

        monkeypatch.setattr(owner, "__call__", watched)
        return app

    return build


class Wrapped:
    """What the wrappers of some agents are: it passes for the function that it wraps."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.__code__ = call.__code__

    def __get__(self, instance: Any, owner: type) -> Any:
        return partial(self, instance)

    async def __call__(self, instance: Any, scope: Scope, receive: Receive, send: Send) -> None:
        async def original(scope: Scope, receive: Receive, send: Send) -> None:
            await self._call(instance, scope, receive, send)

        await Stamp(original)(scope, receive, send)


def with_a_wrapped_method(database_url: str, monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
    app = service(database_url)
    monkeypatch.setattr(Starlette, "__call__", Wrapped(Starlette.__call__))
    return app


class StampedService(Service):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Stamp(super().__call__)(scope, receive, send)


def with_a_class_of_its_own(database_url: str, monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
    monkeypatch.setattr("tests.highload.notes.Service", StampedService)
    return service(database_url)


def with_other_layers(database_url: str, monkeypatch: pytest.MonkeyPatch) -> ASGIApp:
    app = service(database_url)
    build = app.build_middleware_stack
    monkeypatch.setattr(app, "build_middleware_stack", lambda: Stamp(build()))
    return app


def with_a_wrapper(database_url: str, _: pytest.MonkeyPatch) -> ASGIApp:
    return Stamp(service(database_url))


def with_a_root_path(database_url: str, _: pytest.MonkeyPatch) -> ASGIApp:
    app = service(database_url)
    # As the option does, with which FastAPI warns.
    app.root_path = "/api"
    return app


def with_telemetry(database_url: str, _: pytest.MonkeyPatch) -> ASGIApp:
    return service(database_url, telemetry={"tracer_provider": Spans()})


LONG_WAYS: dict[str, tuple[Build, str]] = {
    "a middleware": (with_middleware, "the middleware Stamp runs for each request"),
    "a patched Starlette": (with_a_patched(Starlette), f"{__file__} has replaced a method of Starlette"),
    "a patched FastAPI": (with_a_patched(FastAPI), f"{__file__} has replaced a method of FastAPI"),
    "a patched Service": (with_a_patched(Service), f"{__file__} has replaced a method of Service"),
    "a wrapped method": (with_a_wrapped_method, f"{__name__} has replaced a method of Starlette"),
    "a class of its own": (with_a_class_of_its_own, "StampedService has a __call__ of its own"),
    "other layers": (with_other_layers, "something else has built the layers of the application"),
    "a wrapper": (with_a_wrapper, "the application that is served is no Service but a Stamp"),
    "a root path": (with_a_root_path, "FastAPI was given a root_path; give it to the server"),
    "telemetry": (with_telemetry, "FastAPI writes telemetry"),
}
SOME_READS = [
    request(target, *fields)
    for target in ("/notes", "/notes?limit=1", f"/notes/{NO_NOTE}", "/api/notes", "/personal", "/livez")
    for fields in ((), ("If-None-Match: *",))
]


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the server says about the way that shared reads take."""
    logger = logging.getLogger("app.highload.server")
    before = logger.level
    logger.setLevel(logging.INFO)
    say_once.cache_clear()
    with lines_of(logger.name, level=logging.INFO) as lines:
        yield lines
    logger.setLevel(before)


@pytest.mark.parametrize("way", LONG_WAYS)
async def test_what_looks_at_each_request_sees_each(
    filled_database_url: str, monkeypatch: pytest.MonkeyPatch, asked: list[Scope], told: list[str], way: str
) -> None:
    build, reason = LONG_WAYS[way]
    answers = []
    for http in (Connection, HttpToolsProtocol):
        with monkeypatch.context() as patch:
            async with behind(http, build(filled_database_url, patch)) as ask:
                asked.clear()
                answers.append([await ask(data) for data in SOME_READS])
                assert len(asked) == len(SOME_READS)
    assert answers[0] == answers[1]
    # It is said once, and not for each connection.
    assert told == [f"Shared reads take the long way, because {reason}."]


async def test_a_personal_answer_takes_one_run_to_find_out_and_one_of_its_own(
    filled_database_url: str, asked: list[Scope]
) -> None:
    runs: list[str | None] = []
    personal = APIRouter()

    @personal.get("/personal-runs")
    @shared
    async def get_personal_runs(x_name: Annotated[str | None, Header()] = None) -> Response:
        runs.append(x_name)
        return Response(headers={"Set-Cookie": "a=b"})

    async with behind(Connection, service(filled_database_url, personal)) as ask:
        assert (b"x-cache", b"bypass") in (await ask(request("/personal-runs", "X-Name: a"))).fields
    assert runs == ["a", "a"]
    assert len(asked) == 1


async def test_nothing_is_said_about_the_short_way(
    filled_database_url: str, asked: list[Scope], told: list[str]
) -> None:
    async with behind(Connection, service(filled_database_url)) as ask:
        assert [(await ask(data)).status for data in SOME_READS[:4]] == [200, 304, 200, 304]
    assert not asked
    assert not told


async def test_telemetry_counts_each_request(filled_database_url: str) -> None:
    spans = Spans()
    async with behind(Connection, service(filled_database_url, telemetry={"tracer_provider": spans})) as ask:
        for _ in range(3):
            assert (await ask(READ[0])).status == 200
    assert len(spans.names) >= 3


@pytest.mark.parametrize("http", [Connection, HttpToolsProtocol])
async def test_each_request_is_in_the_access_log(
    filled_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[Scope],
    told: list[str],
    http: type[asyncio.Protocol],
) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "isEnabledFor", lambda _: True)
    async with behind(http, service(filled_database_url)) as ask:
        with lines_of("uvicorn.access", level=logging.INFO) as lines:
            for data in SOME_READS:
                await ask(data)
    paths = [data.split()[1].decode() for data in SOME_READS]
    assert [line.split('"')[1] for line in lines] == [f"GET {path} HTTP/1.1" for path in paths]
    assert len(asked) == len(SOME_READS)
    if http is Connection:
        assert told == ["Shared reads take the long way, because the access log is on."]


def with_option(http: Any, name: str, value: Any) -> type[asyncio.Protocol]:
    """Return a protocol with an option of Uvicorn."""

    class WithOption(http):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            setattr(self, name, value)

    return WithOption


async def test_a_root_path_of_the_server_is_no_obstacle(filled_database_url: str, asked: list[Scope]) -> None:
    answers = []
    for http in (Connection, HttpToolsProtocol):
        async with behind(with_option(http, "root_path", "/api"), service(filled_database_url)) as ask:
            asked.clear()
            answers.append([await ask(data) for data in SOME_READS])
            if http is Connection:
                assert "/api/notes" not in [scope["path"] for scope in asked]
    assert answers[0] == answers[1]
    assert answers[0][0].status == 200


async def test_what_exceeds_a_limit_of_uvicorn_itself_gets_its_answer(filled_database_url: str) -> None:
    answers = []
    for http in (Connection, HttpToolsProtocol):
        async with behind(with_option(http, "limit_concurrency", 1), service(filled_database_url)) as ask:
            answers.append([await ask(data) for data in SOME_READS])
    assert answers[0] == answers[1]
    assert {(answer.status, answer.body) for answer in answers[0]} == {(503, b"Service Unavailable")}


@pytest.mark.parametrize("version", ["0.53.9", "0.540.0", "0.55.0", "1.0.0"])
def test_another_uvicorn_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, log: list[str], version: str) -> None:
    monkeypatch.setattr(uvicorn, "__version__", version)
    assert http_protocol() is HttpToolsProtocol
    assert log == [
        "Shared reads take the long way, because their short way was tested with Uvicorn 0.54.*, "
        f"and this is {version}."
    ]


@pytest.mark.parametrize("version", ["0.54.0", "0.54.3"])
def test_the_tested_uvicorn_has_the_short_way(monkeypatch: pytest.MonkeyPatch, log: list[str], version: str) -> None:
    monkeypatch.setattr(uvicorn, "__version__", version)
    assert http_protocol() is Connection
    assert not log


def tenant_of(connection: HTTPConnection) -> Granted:
    kind, _, tenant = connection.headers.get("x-key", "").partition(" ")
    if kind != "tenant":
        raise HTTPException(401, "Send a key.", headers={"WWW-Authenticate": "Key"})
    return Granted(partition=tenant)


async def tenant_of_later(connection: HTTPConnection) -> Granted:
    await asyncio.sleep(0)
    return tenant_of(connection)


def address_of(connection: HTTPConnection) -> Granted:
    """Tell clients apart by what the proxy says about them."""
    assert connection.client
    return Granted(partition=f"{connection.url.scheme} {connection.client.host}")


class Guarded:
    """A shared route with a guard; it answers with the partition, and with how often it ran."""

    def __init__(self, check: Any) -> None:
        self.runs = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.router = APIRouter()
        guard = Guard(APIKeyHeader(name="X-Key"), check)

        @self.router.get("/guarded")
        @shared
        async def get_guarded(partition: Annotated[str, Depends(Partition(guard))]) -> dict[str, Any]:
            self.runs += 1
            run = self.runs
            await self.gate.wait()
            return {"partition": partition, "run": run}


def guarded(*fields: str) -> bytes:
    return request("/guarded", *fields)


@pytest.mark.parametrize("check", [tenant_of, tenant_of_later])
async def test_a_guard_is_asked_on_both_ways(filled_database_url: str, asked: list[Scope], check: Any) -> None:
    requests = [guarded(), guarded("X-Key: wrong a"), guarded("X-Key: tenant a"), guarded("X-Key: tenant b")]
    answers = []
    for http in (Connection, HttpToolsProtocol):
        async with behind(http, service(filled_database_url, Guarded(check).router)) as ask:
            asked.clear()
            answers.append([await ask(data) for data in requests])
            if http is Connection:
                # What is refused, and what has to wait for a guard, is left to the application.
                assert len(asked) == (2 if check is tenant_of else 4)
    assert answers[0] == answers[1]
    assert [answer.status for answer in answers[0]] == [401, 401, 200, 200]
    assert (b"www-authenticate", b"Key") in answers[0][0].fields
    assert [answer.body for answer in answers[0][2:]] == [b'{"partition":"a","run":1}', b'{"partition":"b","run":2}']


async def test_an_answer_is_shared_within_a_partition_only(filled_database_url: str, asked: list[Scope]) -> None:
    route = Guarded(tenant_of)
    route.gate.clear()
    app = service(filled_database_url, route.router)
    async with behind(Connection, app) as ask:
        asking = [asyncio.create_task(ask(guarded(f"X-Key: tenant {tenant}"))) for tenant in "aaabbb"]

        async def all_wait() -> bool:
            return app.admission._inside == len(asking)

        await eventually(all_wait, within=PATIENCE)
        route.gate.set()
        bodies = [answer.body for answer in await asyncio.gather(*asking)]
    assert not asked
    assert all(b'"partition":"a"' in body for body in bodies[:3])
    assert all(b'"partition":"b"' in body for body in bodies[3:])
    # The first of a partition may run before the others are there, which then share a run.
    assert route.runs <= 4


# What a proxy says, and what a guard sees.
FORWARDED = (
    ((), b"http 127.0.0.1"),
    (("X-Forwarded-For: 192.0.2.7",), b"http 192.0.2.7"),
    (("X-Forwarded-For: 192.0.2.6, 192.0.2.7",), b"http 192.0.2.7"),
    (("X-Forwarded-For: 192.0.2.6", "X-FORWARDED-FOR: 192.0.2.8"), b"http 192.0.2.8"),
    (("X-Forwarded-For: 192.0.2.7, 127.0.0.1",), b"http 192.0.2.7"),
    (("X-Forwarded-For: 127.0.0.1, 127.0.0.1",), b"http 127.0.0.1"),
    (("X-FORWARDED-PROTO: https",), b"https 127.0.0.1"),
    (("X-Forwarded-Proto: gopher", "X-Forwarded-Host: y", "X-Forwarded-Prefix: /y"), b"http 127.0.0.1"),
)


async def test_a_guard_sees_the_client_behind_a_proxy(filled_database_url: str, asked: list[Scope]) -> None:
    """Uvicorn takes the address from the proxy (`proxy_headers`), around the application."""
    answers = []
    for http in (Connection, HttpToolsProtocol):
        async with behind(http, service(filled_database_url, Guarded(address_of).router)) as ask:
            asked.clear()
            answers.append([await ask(guarded(*fields)) for fields, _ in FORWARDED])
            if http is Connection:
                assert not asked
    assert answers[0] == answers[1]
    for (_, partition), answer in zip(FORWARDED, answers[0], strict=True):
        assert b'"partition":"%b"' % partition in answer.body


async def test_a_guard_sees_who_is_connected_where_no_proxy_is_trusted(filled_database_url: str) -> None:
    answers = []
    for http in (Connection, HttpToolsProtocol):
        app = service(filled_database_url, Guarded(address_of).router)
        async with behind(http, app, trusted="192.0.2.0/24") as ask:
            answers.append([await ask(guarded(*fields)) for fields, _ in FORWARDED])
    assert answers[0] == answers[1]
    assert all(b'"partition":"http 127.0.0.1"' in answer.body for answer in answers[0])


HOSTS = {
    "example.com": 200,
    "EXAMPLE.com:8000": 200,
    "example.com.": 200,
    "api.example.com": 421,
    "example.com.evil.test": 421,
    "a.example.org": 200,
    "b.a.example.org:1": 200,
    "example.org": 421,
    "badexample.org": 421,
    "[::1]:8000": 200,
    "[::2]": 421,
    "192.0.2.1": 421,
    "example.com@evil.test": 400,
    "evil.test/example.com": 400,
}


async def test_another_host_is_refused_on_both_ways(filled_database_url: str, asked: list[Scope]) -> None:
    answers = []
    for http in (Connection, HttpToolsProtocol):
        app = service(filled_database_url, allowed_hosts=["example.com", "*.example.org", "[::1]"], any_host=["/livez"])
        async with behind(http, app) as ask:
            asked.clear()
            answers.append([await ask(request("/notes").replace(b"x", host.encode(), 1)) for host in HOSTS])
            if http is Connection:
                assert len(asked) == len([*HOSTS.values()]) - [*HOSTS.values()].count(200)
            assert (await ask(request("/livez"))).status == 200
            assert (await ask(request("/notes", "Content-Length: 1", method="POST", body=b"x"))).status == 421
            assert (await ask(b"GET /notes HTTP/1.0\r\n\r\n")).status == 421
    assert answers[0] == answers[1]
    assert dict(zip(HOSTS, [answer.status for answer in answers[0]], strict=True)) == HOSTS
    refused = answers[0][[*HOSTS].index("example.org")]
    assert (b"content-type", b"application/problem+json") in refused.fields
    assert b"example.org" not in refused.body


async def test_a_root_path_counts_whether_or_not_a_proxy_takes_it_off(
    filled_database_url: str, asked: list[Scope]
) -> None:
    answers = []
    reads = [data for data in SOME_READS if b"/api/" not in data]
    for http in (Connection, HttpToolsProtocol):
        async with behind(http, service(filled_database_url, root_path="/api")) as ask:
            asked.clear()
            taken_off = [await ask(data) for data in reads]
            kept = [await ask(data.replace(b"GET ", b"GET /api")) for data in reads]
            assert taken_off == kept
            assert (await ask(request("/api"))).status == (await ask(request("/apinotes"))).status == 404
            answers.append(kept)
            if http is Connection:
                assert {scope["path"] for scope in asked} == {"/api/personal", "/api/livez", "/api", "/api/apinotes"}
                assert {scope["root_path"] for scope in asked} == {"/api"}
    assert answers[0] == answers[1]
    assert [answer.status for answer in answers[0][:2]] == [200, 304]


async def test_what_is_always_let_in_is_let_in_below_a_root_path(filled_database_url: str) -> None:
    for http in (Connection, HttpToolsProtocol):
        app = service(
            filled_database_url, root_path="/api", limit_concurrency=0, allowed_hosts=["y"], any_host=["/livez"]
        )
        async with running(app, http=http) as client, connected(client) as line:
            for target, status in (("/livez", 200), ("/api/livez", 200), ("/notes", 503), ("/api/notes", 503)):
                await line.send(request(target))
                assert (await line.answer()).status == status
