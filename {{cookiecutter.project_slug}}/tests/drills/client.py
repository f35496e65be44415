"""A connection of HTTP/1.1 that tells how far a request got when it gets no answer."""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

# Seconds. The address of a container that is away may leave its clients without a word.
CONNECT_TIMEOUT = 1.0


class Refused(Exception):
    """There was no connection, so nothing was sent."""


class Broken(Exception):
    """The request was sent and the connection ended before the answer was complete.

    `reused` tells that the connection was idle before: then its end and the request may have crossed on the way, which
    RFC 9112, section 9.3.1, lets a client answer by a repetition.
    """

    def __init__(self, *, reused: bool) -> None:
        super().__init__()
        self.reused = reused


class Silent(Exception):
    """The request was sent and no answer came in time."""


class Reply(NamedTuple):
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One connection, made when it is needed; one that `keeps` is used again while the server lets it."""

    def __init__(
        self,
        address: Callable[[], tuple[str, int]],
        *,
        timeout: float,
        keeps: bool,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._keeps = keeps
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(
        self, method: str, path: str, *, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request and return the answer.

        Raises Refused, Broken or Silent.
        """
        try:
            async with asyncio.timeout(self._timeout):
                reused = self._streams is not None
                reader, writer = self._streams or await self._connect()
                try:
                    writer.write(render(method, path, headers or {}, body))
                    await writer.drain()
                    reply = await read_reply(reader)
                except (ConnectionError, asyncio.IncompleteReadError) as error:
                    self.close()
                    raise Broken(reused=reused) from error
        except TimeoutError as error:
            self.close()
            raise Silent from error
        if not self._keeps or reply.headers.get("connection") == "close":
            self.close()
        return reply

    def close(self) -> None:
        """Close the connection; the next request makes another one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self._connect_timeout):
                self._streams = await asyncio.open_connection(*self._address())
        except OSError as error:
            raise Refused from error
        return self._streams


def render(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the bytes of a request; one that announces a body, even an empty one, would go around the cache."""
    content = {"Content-Type": "application/json", "Content-Length": str(len(body))} if body else {}
    fields = {"Host": "drill", **content, **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """Read an answer whose length is declared, as all of this service are.

    Raises asyncio.IncompleteReadError when the connection ends first.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in head[1:]:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Reply(int(head[0].split()[1]), headers, body)
