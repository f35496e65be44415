"""Clients that mean no good: slow, silent, deaf and greedy ones."""

import asyncio
import random
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from loadtest.resource import PATH
from tests.drills.stack import LIMIT_CONCURRENCY, WORKERS, Stack

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
type Deed = Callable[[Streams], Awaitable[None]]

GET = f"GET {PATH} HTTP/1.1\r\nHost: drill\r\n".encode()
POST = f"POST {PATH} HTTP/1.1\r\nHost: drill\r\nContent-Type: application/json\r\n".encode()
PAGE = f"GET {PATH}?limit=1000 HTTP/1.1\r\nHost: drill\r\n\r\n".encode()
LONG_KEY = f"GET {PATH}/{'x' * 60_000} HTTP/1.1\r\nHost: drill\r\n\r\n".encode()
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
FIELD = b"X-Greedy: " + b"y" * 10_000 + b"\r\n"
# Seconds between two things that a greedy client sends: an uplink of a few megabytes a second.
GREEDY_PAUSE = 0.02


def slow(start: bytes) -> Deed:
    """Return the deed to begin a request, and to send a byte of it now and then."""

    async def be_slow(streams: Streams) -> None:
        streams[1].write(start)
        while True:
            await asyncio.sleep(random.uniform(0.2, 1))
            streams[1].write(b"x")
            await streams[1].drain()

    return be_slow


def greedy(start: bytes, part: bytes) -> Deed:
    """Return the deed to send something without end."""

    async def be_greedy(streams: Streams) -> None:
        streams[1].write(start)
        while True:
            streams[1].write(part)
            await streams[1].drain()
            await asyncio.sleep(GREEDY_PAUSE)

    return be_greedy


def deaf(requests: bytes) -> Deed:
    """Return the deed to ask for much, and to read nothing of it."""

    async def be_deaf(streams: Streams) -> None:
        streams[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        streams[1].transport.pause_reading()  # type: ignore[attr-defined]
        streams[1].write(requests)
        await streams[1].wait_closed()

    return be_deaf


async def leave_a_pipeline(streams: Streams) -> None:
    """Send many requests at once, and go away."""
    streams[1].write(b"GET / HTTP/1.1\r\nHost: drill\r\n\r\n" * 20_000)
    await asyncio.sleep(1)


async def be_silent(streams: Streams) -> None:
    """Say nothing."""
    await streams[0].read()


async def ask_for_long_keys(streams: Streams) -> None:
    """Ask for what has a long name, which could fill a cache."""
    for _ in range(10):
        streams[1].write(LONG_KEY)
        await streams[0].readuntil(b"\r\n\r\n")
        await asyncio.sleep(GREEDY_PAUSE)


PLACES = WORKERS * LIMIT_CONCURRENCY
# What they do, and how many do it: the slow ones alone could take all places.
DEEDS: list[tuple[Deed, int]] = [
    (slow(GET + b"X-Slow: "), PLACES // 2),
    (slow(POST + b"Content-Length: 1000\r\n\r\n{"), PLACES),
    (be_silent, PLACES // 2),
    (deaf(PAGE * 20), 60),
    (greedy(POST + b"Content-Length: 99999999999\r\n\r\n", b"x" * 0x10000), 2),
    (greedy(POST + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK), 2),
    (greedy(GET, FIELD), 2),
    (greedy(GET + b"X-Greedy: ", b"y" * 10_000), 2),
    (leave_a_pipeline, 2),
    (ask_for_long_keys, 5),
]


@asynccontextmanager
async def bad_clients(stack: Stack) -> AsyncGenerator[None]:
    """Let all of them connect, and go on during the block; who loses a connection makes another one."""
    clients = [asyncio.create_task(repeat(stack, deed)) for deed, count in DEEDS for _ in range(count)]
    await asyncio.sleep(2)
    try:
        yield
    finally:
        for client in clients:
            client.cancel()
        await asyncio.wait(clients)


async def repeat(stack: Stack, deed: Deed) -> None:
    """Do something on one connection after another."""
    while True:
        with suppress(OSError, EOFError, RuntimeError):
            streams = await asyncio.open_connection(*stack.address)
            try:
                await deed(streams)
            finally:
                streams[1].transport.abort()
        await asyncio.sleep(0.1)
