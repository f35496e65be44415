"""The service with one middleware of a user's, which does nothing but stand between."""

from app.main import app
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["app"]


class PassOn:
    """ASGI middleware that passes everything on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        await self._app(scope, receive, send)


app.add_middleware(PassOn)
