"""What a process says of itself once in a second: its gauges, its CPU time and its memory."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from app.highload.metrics.instruments import counter, gauge

# Seconds between two looks.
PERIOD = 1.0
STATM = Path("/proc/self/statm")

WORKERS = gauge("highload_workers", "Processes that serve now.")
CPU = counter("process_cpu_seconds_total", "CPU time in seconds, of all processes and of those that they succeed.")
MEMORY = gauge("process_resident_memory_bytes", "Resident memory of all processes; what they share counts in each.")

# What is asked for gauges; it belongs to what is open.
looks: list[Callable[[], None]] = []


class Clock:
    """The CPU time of this process since the last look."""

    def __init__(self) -> None:
        self._last = 0.0

    def since_last(self) -> float:
        """Return seconds."""
        before, self._last = self._last, time.process_time()
        return self._last - before


clock = Clock()


@contextmanager
def looked_at(look: Callable[[], None]) -> Iterator[None]:
    """Let something set its gauges once in a second, while it is open."""
    looks.append(look)
    try:
        yield
    finally:
        looks.remove(look)


@asynccontextmanager
async def observed_process() -> AsyncGenerator[None]:
    """Observe this process while it serves."""
    observing = asyncio.create_task(observe())
    try:
        yield
    finally:
        observing.cancel()
        with suppress(asyncio.CancelledError):
            await observing


async def observe() -> None:
    """Look now, and again in each second, until cancelled."""
    while True:
        CPU.add(clock.since_last())
        WORKERS.set(1)
        MEMORY.set(resident_bytes())
        for look in looks:
            look()
        await asyncio.sleep(PERIOD)


def resident_bytes() -> int:
    """Return the resident memory of this process, or 0 where the system does not tell."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
