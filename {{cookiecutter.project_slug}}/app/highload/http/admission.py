"""A bound on the requests in progress: what a worker cannot serve soon, it refuses at once."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from app.highload.http.problems import overloaded


class Admission:
    """ASGI middleware that lets at most `limit` requests in and answers 503 to the next, with `Retry-After`.

    It belongs outside of everything else, so that a refusal costs next to nothing. Requests count, not connections:
    those that are idle take nothing from anybody. The paths in `always` are let in however many requests are inside.

    The server asks it, too, and counts here what it answers itself.
    """

    def __init__(self, app: ASGIApp, limit: int, *, always: Collection[str]) -> None:
        self._app = app
        self._limit = limit
        self.always = always
        self._inside = 0
        self._refusal = overloaded()

    @property
    def full(self) -> bool:
        """Whether as many requests are inside as may be."""
        return self._inside >= self._limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self.full and scope["path"] not in self.always:
            await self._refusal(scope, receive, send)
            return
        self.enter()
        try:
            await self._app(scope, receive, send)
        finally:
            self.leave()

    def enter(self) -> None:
        """Count a request that begins."""
        self._inside += 1

    def leave(self) -> None:
        """Count it no more, because it has ended."""
        self._inside -= 1
