"""Who may use the service, and how often: API keys (RFC 6750) and rates."""

import time
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.highload.http.keys import READ, WRITE, ApiKey, ApiKeys
from app.highload.http.problems import problem, problem_responses
from app.highload.http.rates import Buckets, Rate, client_of, seconds_until
from app.highload.metrics.refusals import refusals

# In the scope of a request: who was asked about it and let it in, and with which key.
LET_IN = "highload.let_in"
KEY = "highload.key"

REFUSED = {401: refusals("key"), 403: refusals("scope"), 429: refusals("rate")}
SAFE_METHODS = frozenset(["GET", "HEAD", "OPTIONS"])
SCHEME = "ApiKey"
POLICY = '"default"'


class Access:
    """Decides about each request before anything else looks at it, but for the paths in `open_paths`.

    With `keys`, a request needs a key: one with the scope `read` for GET, HEAD and OPTIONS, and one with the scope
    `write` for everything else. Without, everybody may do everything. A `rate` holds for each name of a key, or, where
    there are no keys, for each address of a client.
    """

    def __init__(
        self,
        *,
        keys: ApiKeys | None = None,
        rate: Rate | None = None,
        realm: str = "api",
        open_paths: Collection[str] = (),
    ) -> None:
        self.keys = keys
        self._rate = rate
        self._buckets = None if rate is None else Buckets(rate)
        self._open_paths = frozenset(open_paths)
        self._refusals = Refusals(realm)

    @property
    def is_open(self) -> bool:
        """Whether nobody is ever refused."""
        return self.keys is None and self._rate is None

    @property
    def asks_for_addresses(self) -> bool:
        """Whether it matters from which address a request comes."""
        return self.keys is None and self._rate is not None

    def ask(self, scope: Scope) -> Response | None:
        """Return the refusal of a request, or None when it is let in, which its scope remembers."""
        path: str = scope["path"]
        # As the router does.
        if root_path := scope.get("root_path", ""):
            path = path.removeprefix(root_path)
        refusal = None if path in self._open_paths else self._refusal_of(scope)
        if refusal is None:
            scope[LET_IN] = self
        return refusal

    def _refusal_of(self, scope: Scope) -> Response | None:
        if self.keys is None:
            return self._take(address_of(scope))
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        # Several fields are one with a list (RFC 9110, section 5.3), which is no key.
        credentials: bytes = values[0] if len(values) == 1 else b", ".join(values)
        key = self.keys.find(credentials)
        if key is None:
            return self._refusals.of_credentials(credentials)
        if key.expires <= time.time():
            return self._refusals.expired
        # A WebSocket has no method and may do anything.
        needed = READ if scope.get("method") in SAFE_METHODS else WRITE
        if needed not in key.scopes:
            return self._refusals.of_scope[needed]
        scope[KEY] = key
        return self._take(key.name)

    def _take(self, client: str) -> Response | None:
        if self._buckets is None:
            return None
        wait = self._buckets.take(client)
        return too_many(self._buckets.rate, seconds_until(wait)) if wait else None

    def in_words(self) -> str:
        """Return how open the service is, as the end of a sentence."""
        if self.keys is None:
            who = "open to everybody who reaches it"
        else:
            number, expired = len(self.keys), self.keys.expired
            who = f"guarded by {number} API key{'' if number == 1 else 's'}"
            if expired:
                who += f", of which {expired} {'has' if expired == 1 else 'have'} expired"
        if self._rate is None:
            return who
        whose = "an address" if self.keys is None else "a key"
        rate = f"{self._rate.requests} requests in {self._rate.seconds} s"
        return f"{who}, and each worker takes {rate} from {whose}"

    def document(self, openapi: dict[str, Any]) -> None:
        """Add keys and refusals to an OpenAPI document."""
        responses: dict[str, Any] = {}
        if self.keys is not None:
            schemes = openapi.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes[SCHEME] = {"type": "http", "scheme": "bearer", "description": "An API key"}
            responses |= in_document(
                problem_responses(_401="There is no valid API key", _403="The API key does not allow this")
            )
            for code in ("401", "403"):
                responses[code]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        if self._rate is not None:
            responses |= in_document(problem_responses(_429="Too many requests; `Retry-After` says when"))
            responses["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        for path, operations in openapi.get("paths", {}).items():
            if path in self._open_paths:
                continue
            for operation in operations.values():
                operation["responses"] = responses | operation.get("responses", {})
                if self.keys is not None:
                    operation["security"] = [one | {SCHEME: []} for one in operation.get("security") or [{}]]


class AccessLayer:
    """ASGI middleware that asks about each request which the server has not asked about."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "lifespan" or scope.get(LET_IN) is self._access:
            await self._app(scope, receive, send)
            return
        refusal = self._access.ask(scope)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        count_refusal(refusal.status_code)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)


class Refusals:
    """The answers to those who may not, made once."""

    def __init__(self, realm: str) -> None:
        self._realm = realm
        # RFC 6750, section 3.1: whoever sends nothing, or something else, is told how, and of no error.
        self.missing = self._refuse(401, "Send an API key: Authorization: Bearer KEY.")
        self.invalid = self._refuse(401, "This is no API key of this service; send one that is.", "invalid_token")
        self.expired = self._refuse(401, "This API key has expired; send another one.", "invalid_token")
        self.of_scope = {
            needed: self._refuse(
                403, f"This API key lacks the scope {needed}.", "insufficient_scope", f', scope="{needed}"'
            )
            for needed in (READ, WRITE)
        }

    def of_credentials(self, credentials: bytes) -> Response:
        """Return the refusal of what is no key."""
        return self.invalid if credentials.lstrip(b" \t")[:6].lower() == b"bearer" else self.missing

    def _refuse(self, status: int, detail: str, error: str | None = None, more: str = "") -> Response:
        challenge = f'Bearer realm="{self._realm}"'
        if error is not None:
            challenge += f', error="{error}"{more}'
        return problem(status, detail, headers={"WWW-Authenticate": challenge})


@lru_cache(maxsize=128)
def too_many(rate: Rate, seconds: int) -> Response:
    """Return the refusal of a client that has no token (draft-ietf-httpapi-ratelimit-headers-11)."""
    return problem(
        429,
        f"More than {rate.requests} requests in {rate.seconds} s are too many; repeat this one after the delay.",
        headers={
            "Retry-After": str(seconds),
            "RateLimit-Policy": f"{POLICY};q={rate.requests};w={rate.seconds}",
            "RateLimit": f"{POLICY};r=0;t={seconds}",
        },
    )


def count_refusal(status: int) -> None:
    """Count a refusal that is sent."""
    REFUSED[status].add()


def address_of(scope: Scope) -> str:
    """Return whose address a request comes from; all who come through a Unix socket are one."""
    client = scope.get("client")
    return client_of(client[0]) if client else ""


def api_key_of(connection: HTTPConnection) -> ApiKey | None:
    """Return the API key with which a request came, or None where the service is open.

    For guards and for routes that are not shared; a shared run has no client.
    """
    key: ApiKey | None = connection.scope.get(KEY)
    return key


def in_document(responses: Mapping[int | str, dict[str, Any]]) -> dict[str, Any]:
    """Return the documentation of responses as it stands in an OpenAPI document."""
    return {str(status): documentation for status, documentation in responses.items()}
