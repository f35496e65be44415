"""The id of a request, by which its answer and its lines in the log are found together."""

import re
from functools import partial

from starlette.types import Message, Scope, Send
from uuid_utils import uuid7

from app.highload.logs import REQUEST_ID

FIELD = b"x-request-id"
SAFE = re.compile(rb"[\w.:~+/=@-]{1,128}", re.ASCII)
# Where the server that takes a request puts its id.
KEY = "highload.request_id"


def request_id_of(headers: list[tuple[bytes, bytes]], *, trusted: bool) -> bytes:
    """Return the id that a trusted proxy gave to a request, or else a new one."""
    if trusted:
        for name, value in headers:
            if name == FIELD and SAFE.fullmatch(value):
                return value
    return uuid7().hex.encode()


def identified(scope: Scope, send: Send) -> Send:
    """Let the log name this request until its task ends, and return a `send` that adds its id to the answer."""
    request_id: bytes = scope.get(KEY) or request_id_of([], trusted=False)
    # It is not taken back: the server logs what failed after the application has ended.
    REQUEST_ID.set(request_id.decode())
    return partial(_send, send, request_id)


async def _send(send: Send, request_id: bytes, message: Message) -> None:
    if message["type"] == "http.response.start":
        headers = list(message.get("headers", ()))
        if all(name.lower() != FIELD for name, _ in headers):
            message = {**message, "headers": [*headers, (FIELD, request_id)]}
    await send(message)
