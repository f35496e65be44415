"""The head and the body of an answer leave in one write.

Uvicorn writes the head of an answer, then its body. A process that is killed between the two has sent an answer without
its end; a proxy that has passed on its head can ask no other replica.
"""

import asyncio
from typing import Any


class JoinedWrites:
    """A transport whose write waits for the next one, which goes with it, or for the next turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        """Return what it does not change of the transport."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold what is written until there is more, or write it with what is held."""
        if self._held:
            self.write_now(data)
            return
        if data:
            self._held = data
            self._loop.call_soon(self.flush)

    def write_now(self, data: bytes) -> None:
        """Write what is held, and this."""
        held, self._held = self._held, b""
        self._transport.write(held + data if held else data)

    def writelines(self, lines: list[bytes]) -> None:
        """Write what is held, and these."""
        self.flush()
        self._transport.writelines(lines)

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            self.write_now(b"")

    def close(self) -> None:
        """Write what is held, and close the connection after that."""
        self.flush()
        self._transport.close()
