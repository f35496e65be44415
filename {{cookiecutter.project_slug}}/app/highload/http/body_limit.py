"""A bound on request bodies, so that a huge one costs nothing."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.highload.http.problems import problem


class BodyLimit:
    """ASGI middleware that refuses bodies of more than `limit` bytes with 413 (RFC 9110, section 15.5.14).

    A declared length is judged before anything is read; a chunked body is counted while it arrives.

    JSON in another encoding than UTF-8 is refused with 400 (RFC 8259, section 8.1): Python's parser would take it.
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
                if name == b"content-type" and b"json" in value.lower():
                    receive = in_utf8(receive)
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


def in_utf8(receive: Receive) -> Receive:
    """Refuse a body with NUL: JSON in UTF-16 or UTF-32 has some, and JSON in UTF-8 has none."""

    async def checked() -> Message:
        message = await receive()
        if b"\0" in message.get("body", b""):
            raise HTTPException(400, "The body is not JSON in UTF-8.")
        return message

    return checked
