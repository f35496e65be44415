"""Programs that send the load: they are run, watched, and ended when their time is over."""

import subprocess
import time
from collections.abc import Callable, Sequence

from loadtest.results import CannotLoad

# Seconds without an answer after which the tools give a request up.
TIMEOUT = 10
# Seconds between two calls of `tick`.
PAUSE = 0.2

type Tick = Callable[[float], None]


def output_of(command: Sequence[str], *, seconds: float, tick: Tick) -> str:
    """Return what a program prints that runs for so many seconds; `tick` hears how many have passed.

    Raises CannotLoad when it fails, or when it goes on after its last request had its time. It never outlives the call.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            output, complaint = watch(process, limit=seconds + 2 * TIMEOUT, tick=tick)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise CannotLoad(f"{command[0]} failed: {(complaint or output).strip()}")
    return output


def watch(process: subprocess.Popen[str], *, limit: float, tick: Tick) -> tuple[str, str]:
    """Return what a process printed on both of its outputs, when it has ended."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < limit:
        try:
            return process.communicate(timeout=PAUSE)
        except subprocess.TimeoutExpired:
            tick(passed)
    raise CannotLoad(f"The load did not stop within {limit:.0f} seconds and was ended: look whether the service hangs.")
