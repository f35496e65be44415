from pathlib import Path

import pytest

from app.highload import cpus
from app.highload.cpus import available_cpus


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({}, 8),
    ],
)
def test_the_quota_of_the_container_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def path(name: str) -> Path:
        return tmp_path / name.removeprefix("/sys/fs/cgroup/")

    monkeypatch.setattr(cpus, "Path", path)
    monkeypatch.setattr("os.process_cpu_count", lambda: 8)
    assert available_cpus() == expected
