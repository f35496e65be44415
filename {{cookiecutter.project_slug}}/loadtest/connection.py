"""A connection of HTTP/1.1 that costs little, because it shares the CPUs of what it loads."""

import asyncio
from typing import cast

import httptools

CLOSED = "connection closed"


class Broken(Exception):
    """A request that got no answer; the message says what came instead."""


class Connection(asyncio.Protocol):
    """Sends one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._answer: asyncio.Future[int] | None = None
        self.is_open = False

    async def exchange(self, request: bytes) -> int:
        """Send a request and return the status of its answer; the connection closes when that is no longer awaited.

        Raises Broken when no answer comes.
        """
        if not self.is_open:
            raise Broken(CLOSED)
        self._parser = httptools.HttpResponseParser(self)
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._answer = None

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Read a part of the answer."""
        if self._answer is None:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("an answer that is not HTTP")
            self.close()

    def on_message_complete(self) -> None:
        """Take the status of the answer that is complete."""
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        if status >= 200 and self._answer and not self._answer.done():  # noqa: PLR2004 - the answer follows 1xx
            self._answer.set_result(status)

    def connection_lost(self, _: Exception | None) -> None:
        """Give up the request that is under way."""
        self.is_open = False
        self._fail(CLOSED)

    def _fail(self, reason: str) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(Broken(reason))
