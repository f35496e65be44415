"""A finished answer of the application, as a value that can be shared and kept."""

import asyncio
import logging
import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from itertools import chain
from typing import NamedTuple, Self

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Scope

from app.highload.etags import entity_tag

OK = 200
ETAG = b"etag"
LINK = b"link"
STATUSES = range(200, 600)

logger = logging.getLogger(__name__)

type RawHeader = tuple[bytes, bytes]

# An answer with one of these is meant for one client only (RFC 9110, RFC 6265).
PERSONAL_HEADERS = frozenset([b"set-cookie", b"www-authenticate"])

# They say how the application sent the body, which is whole now, and what becomes of the connection, which is the
# server's (RFC 9112, sections 6 and 9); or which request it answered, and now it answers many.
FRAMING_HEADERS = frozenset([b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"x-request-id"])
WITHOUT_BODY = frozenset([204, 304])
# Of a body that is not there nothing is said (RFC 9110, sections 8.3 and 8.6).
NO_CONTENT = 204
NEVER_KEPT = (FRAMING_HEADERS | PERSONAL_HEADERS) - {b"content-length"}
NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
UNSAFE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Answer(NamedTuple):
    """A response with all its bytes. The first header of a 200 is its entity tag."""

    status: int
    headers: list[RawHeader]
    body: bytes

    def with_default(self, name: bytes, value: bytes) -> Self:
        """Return the same answer with a header field, unless it has one of this name."""
        if name in [own for own, _ in self.headers]:
            return self
        # The link comes right behind the tag: what differs from answer to answer is first, the rest is remembered.
        place = 1 if name == LINK else len(self.headers)
        return self._replace(headers=[*self.headers[:place], (name, value), *self.headers[place:]])

    def is_personal(self, key: Collection[bytes]) -> bool:
        """Whether it is meant for one client only, although all of them have sent the same header fields of `key`."""
        for name, value in self.headers:
            if name in PERSONAL_HEADERS:
                return True
            if name == b"cache-control" and (b"private" in value.lower() or b"no-store" in value.lower()):
                return True
            if name == b"vary" and not all(field.strip().lower() in key for field in value.split(b",")):
                return True
        return False

    @classmethod
    def of(cls, response: Response) -> Self:
        """Return the answer that a response is."""
        return cls(response.status_code, response.raw_headers, bytes(response.body))

    def dump(self) -> bytes:
        """Return the bytes that `load` makes the same answer of; the status is always 200."""
        return b"\r\n".join([*(name + b": " + value for name, value in self.headers), b"", self.body])

    @classmethod
    def load(cls, kept: bytes, start: int = 0) -> Self | None:
        """Return the answer that was dumped to the bytes from `start` on, or None for what `dump` does not make.

        Others may write to where it was kept: its head cannot end early, and its body is as long as it says.
        """
        end = kept.find(b"\r\n\r\n", start)
        first, _, rest = kept[start:end].partition(b"\r\n")
        own = [kept_field(first)]
        if rest.startswith(LINK + b": "):
            link, _, rest = rest.partition(b"\r\n")
            own.append(kept_field(link))
        fields = kept_fields(rest)
        tag = own[0]
        if end < 0 or tag is None or tag[0] != ETAG or None in own or fields is None:
            return None
        body = kept[end + 4 :]
        lengths = [value for name, value in fields if name == b"content-length"]
        return cls(OK, [*filter(None, own), *fields], body) if lengths == [b"%d" % len(body)] else None


def kept_field(line: bytes) -> RawHeader | None:
    """Return a header field of a kept answer, or None for what no answer is kept with."""
    name, colon, value = line.partition(b": ")
    if not colon or not NAME.fullmatch(name) or UNSAFE.search(value) or name in NEVER_KEPT:
        return None
    return name, value


# Most answers of a route are kept with the same fields but for their tags.
@lru_cache(maxsize=256)
def kept_fields(lines: bytes) -> tuple[RawHeader, ...] | None:
    """Return the header fields of a kept answer, or None where one of them is none."""
    fields = [kept_field(line) for line in lines.split(b"\r\n")]
    return None if None in fields else tuple(field for field in fields if field)


async def answer_of(app: ASGIApp, scope: Scope) -> Answer:
    """Run an application for a request without a body and return its whole answer.

    Raises what the application raises, and RuntimeError when its answer is not whole or its fields are not safe.
    """
    status = 0
    headers: list[RawHeader] = []
    chunks: list[bytes] = []
    complete = False

    requests: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if requests:
            return requests.pop()
        # Those who share the answer do not go away together, so the application never hears of one who does.
        disconnect: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await disconnect

    async def send(message: Message) -> None:
        nonlocal status, headers, complete
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message["headers"])
        if message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))
            complete = not message.get("more_body", False)

    try:
        await app(scope, receive, send)
    except Exception:
        # Starlette answers 500 and raises again, for the log.
        if not complete:
            raise
        logger.exception("the application failed at %s", scope["path"])
    if not complete or status not in STATUSES:
        raise RuntimeError("the application ended without a whole answer")
    return finished(status, headers, b"".join(chunks))


def finished(status: int, headers: Iterable[RawHeader], body: bytes) -> Answer:
    """Return the answer that an application has sent; a 200 gets the entity tag of its bytes.

    Raises RuntimeError for header fields that are not safe.
    """
    body = b"" if status in WITHOUT_BODY else body
    fields = fields_of(status, headers, body)
    if status == OK:
        # The tag of these bytes, whatever the application has said.
        fields = [(ETAG, entity_tag(body).encode()), *[field for field in fields if field[0] != ETAG]]
    return Answer(status, fields, body)


def whole_answer(response: Response) -> Answer | None:
    """Return the answer that a response is, if the server sends nothing else of it.

    None is for one whose fields say more of the connection than the length of the body, or are not safe.
    """
    status, body = response.status_code, bytes(response.body)
    headers = [(name.lower(), value) for name, value in response.raw_headers]
    lengths = [value for name, value in headers if name in FRAMING_HEADERS]
    if lengths != ([] if status in WITHOUT_BODY else [b"%d" % len(body)]) or (body and status in WITHOUT_BODY):
        return None
    if status not in STATUSES or UNSAFE.search(b"".join(chain.from_iterable(headers))):
        return None
    return Answer(status, headers, body) if are_names(*[name for name, _ in headers]) else None


@lru_cache(maxsize=256)
def are_names(*names: bytes) -> bool:
    """Whether these are names of header fields."""
    return all(NAME.fullmatch(name) for name in names)


def fields_of(status: int, headers: Iterable[RawHeader], body: bytes) -> list[RawHeader]:
    """Return the header fields of an answer whose body is whole, ready to be sent as they are.

    Raises RuntimeError for a character that would end a field (RFC 9110, section 5.5).
    """
    fields = [(name.lower(), value) for name, value in headers if name.lower() not in FRAMING_HEADERS]
    if UNSAFE.search(b"".join(chain.from_iterable(fields))):
        raise RuntimeError("the application sent a header field with a control character")
    if status == NO_CONTENT:
        return [field for field in fields if field[0] != b"content-type"]
    if status in WITHOUT_BODY:
        return fields
    return [(b"content-length", b"%d" % len(body)), *fields]
