"""The header fields that every answer of the application leaves with."""

from collections.abc import Sequence

from starlette.types import Message, Send

NO_CONTENT = 204
FIRST_ERROR = 400
READING = ("GET", "HEAD")
# Of a body that is not there nothing is said (RFC 9110, sections 8.3 and 8.6).
OF_A_BODY = (b"content-type", b"content-length")
NO_STORE = (b"cache-control", b"no-store")


def finish[F: Sequence[tuple[bytes, bytes]]](method: str, status: int, headers: F) -> F | list[tuple[bytes, bytes]]:
    """Return the header fields of an answer to a method.

    Nobody stores an error or the answer to a write, unless the application says otherwise (RFC 9111, section 5.2.2.5).
    """
    finished: F | list[tuple[bytes, bytes]] = headers
    if status == NO_CONTENT:
        finished = [field for field in headers if field[0].lower() not in OF_A_BODY]
    if (status >= FIRST_ERROR or method not in READING) and NO_STORE[0] not in [name.lower() for name, _ in headers]:
        finished = [*finished, NO_STORE]
    return finished


async def send_finished(send: Send, method: str, message: Message) -> None:
    """Send a message of an answer to a method."""
    if message["type"] == "http.response.start":
        headers = finish(method, message["status"], message["headers"])
        if headers is not message["headers"]:
            message = {**message, "headers": headers}
    await send(message)
