"""Clients that mean no good: slow ones, and some with bodies that do not end."""

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from loadtest.resource import PATH
from tests.drills.stack import LIMIT_CONCURRENCY, WORKERS, Stack

# Half of them take a place of a worker: a quarter of all places.
SLOW = WORKERS * LIMIT_CONCURRENCY // 2
HUGE = 4
POST = f"POST {PATH} HTTP/1.1\r\nHost: drill\r\nContent-Type: application/json\r\n".encode()
SLOW_STARTS = (f"GET {PATH} HTTP/1.1\r\nHost: drill\r\nX-Slow: ".encode(), POST + b"Content-Length: 1000\r\n\r\n{")
HUGE_STARTS = (POST + b"Content-Length: 99999999999\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\n")
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


@asynccontextmanager
async def bad_clients(stack: Stack) -> AsyncGenerator[None]:
    """Let them connect, and go on during the block."""
    clients = [asyncio.create_task(be_slow(stack, SLOW_STARTS[number % 2])) for number in range(SLOW)]
    clients += [asyncio.create_task(be_huge(stack, HUGE_STARTS[number % 2])) for number in range(HUGE)]
    await asyncio.sleep(1)
    try:
        yield
    finally:
        for client in clients:
            client.cancel()
        await asyncio.wait(clients)


async def be_slow(stack: Stack, start: bytes) -> None:
    """Begin a request, and send a byte of it now and then."""
    _, writer = await asyncio.open_connection(*stack.address)
    with suppress(ConnectionError):
        try:
            writer.write(start)
            while True:
                await asyncio.sleep(random.uniform(0.2, 1))
                writer.write(b"x")
                await writer.drain()
        finally:
            writer.close()


async def be_huge(stack: Stack, start: bytes) -> None:
    """Send a body without end, and begin again when the connection is closed."""
    while True:
        _, writer = await asyncio.open_connection(*stack.address)
        with suppress(ConnectionError):
            try:
                writer.write(start)
                while True:
                    writer.write(CHUNK)
                    await writer.drain()
                    # An uplink of a few megabytes a second.
                    await asyncio.sleep(0.02)
            finally:
                writer.close()
