"""What other programs leave of the machine."""

import os
import subprocess
import sys

SPIN = """
import time
end = time.monotonic() + 0.5
while time.monotonic() < end:
    pass
print(time.process_time() / 0.5)
"""


def share_of_a_cpu() -> float:
    """Return how much of a CPU a program gets that wants all of it, where one runs for each CPU."""
    spinning = [
        subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE, text=True)
        for _ in range(os.cpu_count() or 1)
    ]
    return min(float(process.communicate()[0]) for process in spinning)
