"""HEAD, for every route that answers to GET."""

from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a router adds to a request.
ROUTED = ("endpoint", "route", "root_path", "app_root_path")


class HeadAsGet:
    """ASGI middleware that answers HEAD as GET, without the body (RFC 9110, section 9.3.2).

    A route that serves HEAD itself does so.
    """

    def __init__(self, app: ASGIApp, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or self._has_route(scope):
            await self._app(scope, receive, send)
            return
        # The server looks at its own scope, and knows from it that no body is to come.
        as_get = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            # For those outside who look at it.
            scope.update((name, as_get[name]) for name in ROUTED if name in as_get)
            await send({**message, "body": b""} if "body" in message else message)

        await self._app(as_get, receive, send_head)

    def _has_route(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._router.routes)
