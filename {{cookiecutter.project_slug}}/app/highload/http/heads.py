"""What goes over the wire before the body of an answer."""

from collections.abc import Sequence
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.highload.http.request_id import FIELD
from app.highload.http.security_headers import RawHeader, SecurityHeaders


class Head(NamedTuple):
    """A head without the id of the request, and the header fields that it was made of."""

    headers: Sequence[RawHeader]
    server_headers: Sequence[RawHeader]
    wire: bytes


class Heads:
    """Makes the heads of the answers of a worker, and keeps the newest one of each status.

    Those who share an answer get the same head but for the id of the request, and so do those who are refused. To
    join the fields anew for each of them would be a fifth of what a refusal costs.
    """

    def __init__(self, security: SecurityHeaders | None) -> None:
        self._security = security
        self._newest: dict[int, Head] = {}

    def of(
        self, status: int, headers: Sequence[RawHeader], server_headers: Sequence[RawHeader], request_id: bytes
    ) -> bytes:
        """Return a head (RFC 9112, section 2.1); `headers` never change."""
        head = self._newest.get(status)
        if head is None or head.headers is not headers or head.server_headers != server_headers:
            head = self._newest[status] = self._make(status, headers, server_headers)
        return b"%s%s\r\n\r\n" % (head.wire, request_id)

    def _make(self, status: int, headers: Sequence[RawHeader], server_headers: Sequence[RawHeader]) -> Head:
        fields = [b"%s: %s\r\n" % field for field in (*server_headers, *headers)]
        security = self._security.missing(status, headers).wire if self._security else b""
        return Head(headers, [*server_headers], b"".join([STATUS_LINE[status], *fields, security, FIELD, b": "]))
