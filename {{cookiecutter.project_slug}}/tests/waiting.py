import asyncio
from collections.abc import Awaitable, Callable


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], Awaitable[bool]], *, within: float = 60) -> None:
    """Return when a condition holds; raise TimeoutError when it does not in so many seconds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - the condition lies outside of this process
            await asyncio.sleep(0.02)
