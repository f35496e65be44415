"""What goes over the wire before the body of an answer."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.highload.http.request_id import FIELD
from app.highload.http.security_headers import RawHeader, SecurityHeaders

# These differ from answer to answer, and come first.
OWN = (b"etag", b"location", b"link")
# Ends of heads; those of the rows of a table differ in their length only, and so do those of its pages.
REMEMBERED = 256


class Head(NamedTuple):
    """A head without the id of the request, and the header fields that it was made of."""

    headers: Sequence[RawHeader]
    more: Sequence[RawHeader]
    server_headers: Sequence[RawHeader]
    wire: bytes


class Heads:
    """Makes the heads of the answers of a worker, and keeps the newest one of each status.

    Those who share an answer get the same head but for the id of the request, and so do those who are refused. Of
    different answers mostly the first fields differ.
    """

    def __init__(self, security: SecurityHeaders | None) -> None:
        self._security = security
        self._newest: dict[int, Head] = {}
        self._end = lru_cache(REMEMBERED)(self._make_end)

    def of(
        self,
        status: int,
        headers: Sequence[RawHeader],
        more: Sequence[RawHeader],
        server_headers: Sequence[RawHeader],
        request_id: bytes,
    ) -> bytes:
        """Return a head with `headers` and `more` (RFC 9112, section 2.1); neither of them ever changes."""
        head = self._newest.get(status)
        if (
            head is None
            or head.headers is not headers
            or head.more is not more
            or head.server_headers != server_headers
        ):
            first = 0
            while first < len(headers) and headers[first][0] in OWN:
                first += 1
            start = b"".join([b"%s: %s\r\n" % field for field in (*server_headers, *headers[:first])])
            wire = b"%s%s%s" % (STATUS_LINE[status], start, self._end(status, *headers[first:], *more))
            head = self._newest[status] = Head(headers, more, [*server_headers], wire)
        return b"%s%s\r\n\r\n" % (head.wire, request_id)

    def _make_end(self, status: int, *headers: RawHeader) -> bytes:
        fields = [b"%s: %s\r\n" % field for field in headers]
        security = self._security.missing(status, headers).wire if self._security else b""
        return b"".join([*fields, security, FIELD, b": "])
