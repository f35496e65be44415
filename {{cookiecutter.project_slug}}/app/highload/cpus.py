"""How many CPUs there are for a process."""

import os
from pathlib import Path


def available_cpus() -> int:
    """CPUs that this process may use: its affinity, bounded by the quota of its control group, rounded up."""
    cpus = os.process_cpu_count() or 1
    for quota_file, period_file in (
        ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu.max"),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            quota = Path(quota_file).read_text().split()[0]
            period = Path(period_file).read_text().split()[-1]
        except FileNotFoundError:
            continue
        if quota not in ("max", "-1"):
            return max(1, min(cpus, -(-int(quota) // int(period))))
    return cpus
