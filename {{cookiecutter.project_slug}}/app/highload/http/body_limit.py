"""A bound on request bodies, so that a huge one costs nothing."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.highload.http.problems import problem


class BodyLimit:
    """ASGI middleware that refuses bodies of more than `limit` bytes with 413 (RFC 9110, section 15.5.14).

    A declared length is judged before anything is read; a chunked body is counted while it arrives.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"content-length" and int(value) > self._limit:
                    await problem(413, self._sentence())(scope, receive, send)
                    return
                if name == b"transfer-encoding":
                    receive = self._count(receive)
        await self._app(scope, receive, send)

    def _count(self, receive: Receive) -> Receive:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413, self._sentence())
            return message

        return counted

    def _sentence(self) -> str:
        return f"The body is too large: send at most {self._limit} bytes."
