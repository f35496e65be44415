"""The head and the body of an answer leave in one write.

Uvicorn writes the head of an answer, then its body. A process that is killed between the two has sent an answer without
its end; a proxy that has passed on its head can ask no other replica.
"""

import asyncio
from typing import Any

# Bytes that are sent by reference; what is smaller is sent as one piece.
LARGE = 65_536


class JoinedWrites:
    """A transport whose write waits for the next one, which goes with it, or for the next turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        # It is asked several times for each request.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        """Return what it does not change of the transport."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold what is written until there is more, or write it with what is held."""
        if self._held:
            held, self._held = self._held, b""
            self._write(held, data)
            return
        if data:
            self._held = data
            self._loop.call_soon(self.flush)

    def write_whole(self, head: bytes, body: bytes) -> None:
        """Write a whole answer, after what is held."""
        if self._held:
            self.flush()
        self._write(head, body)

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def close(self) -> None:
        """Write what is held, and close the connection after that."""
        self.flush()
        self._transport.close()

    def _write(self, head: bytes, body: bytes) -> None:
        if len(body) < LARGE:
            self._transport.write(head + body)
        else:
            self._transport.writelines([head, body])
