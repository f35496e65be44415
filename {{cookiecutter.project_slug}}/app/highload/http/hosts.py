"""The hosts for which a service answers, so that a made-up `Host` reaches nothing that believes in it."""

import re
from collections.abc import Collection
from functools import lru_cache
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from app.highload.http.problems import problem
from app.highload.outside import ANY

# RFC 9110, section 7.2, with the host of RFC 3986, section 3.2.2.
FIELD = re.compile(rb"(?P<host>\[[\da-f:.]+\]|[\w.~!$&'()*+,;=%-]+)(?::\d*)?", re.ASCII | re.IGNORECASE)
# A client can make up any number of hosts.
REMEMBERED = 1024

BAD = HTTPStatus.BAD_REQUEST
OTHER = HTTPStatus.MISDIRECTED_REQUEST
SENTENCES = {
    BAD: "Send exactly one Host, of the form host or host:port.",
    OTHER: "This service does not answer for the host that the request names.",
}
WITHOUT_HOST = ("0.9", "1.0")


class AllowedHosts:
    """Tells whether a request names a host of the service, with any port.

    The probes of an orchestrator know an address only: the paths in `any_host` are let in whatever they name.
    """

    def __init__(self, patterns: Collection[str], *, any_host: Collection[str] = ()) -> None:
        self._any = ANY in patterns
        self._names = frozenset(pattern for pattern in patterns if not pattern.startswith("*."))
        self._parents = tuple(pattern[1:] for pattern in patterns if pattern.startswith("*."))
        self._any_host = frozenset(any_host)
        self._status_of = lru_cache(REMEMBERED)(self._find_status)

    def refusal(self, scope: Scope) -> HTTPStatus | None:
        """Return the status with which a request is refused, or None.

        400 is for a request without a host, with two, or with what is none (RFC 9112, section 3.2). 421 is for
        another host: the service is no origin for it (RFC 9110, sections 7.4 and 15.5.20). HTTP/1.0 may have no host.
        """
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) == 1:
            status = self._status_of(hosts[0])
        elif hosts or scope["http_version"] not in WITHOUT_HOST:
            status = BAD
        else:
            status = None if self._any else OTHER
        return None if status and scope["path"] in self._any_host else status

    def _find_status(self, field: bytes) -> HTTPStatus | None:
        match = FIELD.fullmatch(field)
        if match is None:
            return BAD
        # A dot at the end names the root of all domains.
        host = match["host"].decode().lower().removesuffix(".")
        return None if self._any or host in self._names or host.endswith(self._parents) else OTHER


class HostsLayer:
    """ASGI middleware that refuses requests for other hosts."""

    def __init__(self, app: ASGIApp, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        status = self._hosts.refusal(scope) if scope["type"] == "http" else None
        if status is None:
            await self._app(scope, receive, send)
        else:
            await problem(status, SENTENCES[status])(scope, receive, send)
