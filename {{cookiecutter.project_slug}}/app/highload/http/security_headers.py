"""Header fields that keep browsers from making more of an answer than it is."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from starlette.types import Message, Send

POLICY = b"content-security-policy"
NOSNIFF = (b"x-content-type-options", b"nosniff")
NO_REFERRER = (b"referrer-policy", b"no-referrer")
# A year.
HTTPS_ONLY = (b"strict-transport-security", b"max-age=31536000")
PAGE = b"text/html"
NOT_MODIFIED = 304

type RawHeader = tuple[bytes, bytes]


class Fields(NamedTuple):
    """Header fields, and the same as they go over the wire."""

    fields: Sequence[RawHeader]
    wire: bytes

    @classmethod
    def of(cls, *fields: RawHeader) -> "Fields":
        """Return header fields."""
        return cls(fields, b"".join(b"%s: %s\r\n" % field for field in fields))


class SecurityHeaders:
    """What each answer gets of what OWASP's REST Security Cheat Sheet lists, unless the application has set it itself.

    - `X-Content-Type-Options: nosniff`: JSON is not taken for a script or a page.
    - `Content-Security-Policy: default-src 'none'; frame-ancestors 'none'`: opened as a document, an answer loads and
      runs nothing. A page has scripts of its own, so it gets `frame-ancestors 'none'` alone; /docs sets its own policy.
      304 gets none: it would replace the one of the answer that the client has (RFC 9111, section 3.2).
    - `Referrer-Policy: no-referrer`: no other site learns the addresses of this one, which hold ids and cursors.
    - `Strict-Transport-Security`, only where clients come by HTTPS: a year, and not for other hosts below this one, of
      which the service knows nothing (RFC 6797).

    Not sent: `X-Frame-Options`, which `frame-ancestors` replaces (CSP level 3, section 6.4.2.2), `X-XSS-Protection`,
    which browsers have removed, and `Permissions-Policy`, which says nothing about data.
    """

    def __init__(self, *, https: bool) -> None:
        usual = [NOSNIFF, NO_REFERRER, *([HTTPS_ONLY] if https else [])]
        self._usual = Fields.of(*usual)
        self._for_pages = Fields.of(*usual, (POLICY, b"frame-ancestors 'none'"))
        self._for_data = Fields.of(*usual, (POLICY, b"default-src 'none'; frame-ancestors 'none'"))
        self._names = frozenset(name for name, _ in self._for_data.fields)

    def missing(self, status: int, headers: Iterable[RawHeader]) -> Fields:
        """Return what an answer with these header fields gets; their names are in lower case."""
        given = dict(headers)
        if status == NOT_MODIFIED:
            fields = self._usual
        elif given.get(b"content-type", b"").startswith(PAGE):
            fields = self._for_pages
        else:
            fields = self._for_data
        if self._names.isdisjoint(given):
            return fields
        return Fields.of(*(field for field in fields.fields if field[0] not in given))

    def add_to(self, send: Send) -> Send:
        """Return a `send` that adds them."""
        return partial(self._send, send)

    async def _send(self, send: Send, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: list[RawHeader] = list(message.get("headers", ()))
            fields = self.missing(message["status"], [(name.lower(), value) for name, value in headers])
            message = {**message, "headers": [*headers, *fields.fields]}
        await send(message)
