import asyncio
import os
from collections.abc import Awaitable, Callable

# Seconds in which what a test waits for comes, however busy the machine is. It only bounds a hang.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "60"))


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], Awaitable[bool]], *, within: float = PATIENCE) -> None:
    """Return when a condition holds; raise TimeoutError when it does not in so many seconds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - the condition lies outside of this process
            await asyncio.sleep(0.02)


async def said(lines: list[str], words: str) -> None:
    """Wait until a line that was logged in this process holds some words."""

    async def is_there() -> bool:
        return any(words in line for line in lines)

    await eventually(is_there)
