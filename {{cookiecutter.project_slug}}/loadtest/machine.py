"""Where a load test runs: the machine, what else it does, and the state of the project."""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[1]
NO_COMMIT = "no commit"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the load and the service ran; `memory` is in bytes. What is empty or zero is not known."""

    cpus: int = field(default_factory=lambda: os.process_cpu_count() or 1)
    system: str = field(default_factory=platform.platform)
    python: str = field(default_factory=platform.python_version)
    cpu: str = ""
    memory: int = 0


def this_machine() -> Machine:
    """Return all that is known of this machine."""
    return Machine(cpu=cpu_model(), memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def cpu_model() -> str:
    """Return the name of the CPU, or that of its architecture."""
    if sys.platform == "darwin":
        name = output_of("sysctl", "-n", "machdep.cpu.brand_string")
    else:
        cpus = Path("/proc/cpuinfo")
        lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return name or platform.machine()


def load_average() -> float:
    """Return how many threads ran or waited for a CPU, on the average of the last minute."""
    return os.getloadavg()[0]


def commit(directory: Path = PROJECT) -> str:
    """Return the commit of a directory, marked as dirty when files differ from it."""
    return output_of("git", "-C", str(directory), "describe", "--always", "--dirty") or NO_COMMIT


def output_of(*command: str) -> str:
    """Return the line that a program prints, or nothing when it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
