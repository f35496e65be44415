"""A TCP proxy that can play a dead or a frozen server, so that outages need no control over the real one."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Passes bytes on to a server until it is told not to."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._server: asyncio.Server
        # A bound socket that does not listen: while the proxy is stopped, nobody else gets its port.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self._port: int = self._place.getsockname()[1]
        self._flowing = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._forsaken: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Accept connections (again)."""
        self._flowing.set()
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", self._port, reuse_port=True)

    async def stop(self) -> None:
        """Break all connections and refuse new ones, as a stopped server does."""
        self._server.close()
        for writer in self._writers | self._forsaken:
            writer.transport.abort()
        await self._server.wait_closed()

    async def close(self) -> None:
        """Stop for good."""
        self.thaw()
        await self.stop()
        self._place.close()

    def forsake(self) -> None:
        """Break all connections for the clients, and let the server believe that they are there."""
        for client, server in self._clients.items():
            self._forsaken.add(server)
            client.transport.abort()

    def freeze(self) -> None:
        """Keep connections open and answer nothing, as a hanging server does."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Go on as if nothing had happened."""
        self._flowing.set()

    def replace_address(self, url: str) -> str:
        """Return a URL of the server with the address of the proxy in it."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, server_writer}
        self._clients[writer] = server_writer
        await asyncio.gather(self._copy(reader, server_writer), self._copy(server_reader, writer))
        self._writers -= {writer, server_writer}
        del self._clients[writer]

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65_536):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
        except (OSError, RuntimeError):
            # The latter is how uvloop refuses to write into what was aborted.
            pass
        finally:
            if writer not in self._forsaken:
                writer.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncGenerator[tuple[str, Proxy]]:
    """Yield the URL of a server behind a proxy, and the proxy."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = Proxy(parts.hostname, parts.port)
    await proxy.start()
    try:
        yield proxy.replace_address(url), proxy
    finally:
        await proxy.close()
