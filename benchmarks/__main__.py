"""Render the variants, start their servers, and run a benchmark on them: python -m benchmarks quick."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cookiecutter.main import cookiecutter

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "build/bench"
# Of a contender (benchmarks/contenders/raw.py).
SERIALIZER = "msgspec>=0.22,<0.23"
VARIANTS = ("full", "caching", "queued", "plain")


def main() -> int:
    """Run the benchmark that is named, and return its exit status."""
    shutil.rmtree(PLACE, ignore_errors=True)
    started = time.monotonic()
    for name, (caching, queued) in zip(VARIANTS, itertools.product([True, False], repeat=2), strict=True):
        answers = {"caching": caching, "queued_writes": queued, "project_slug": f"bench-{name}"}
        cookiecutter(str(ROOT), no_input=True, output_dir=str(PLACE), extra_context=answers)
    seconds = (time.monotonic() - started) / len(VARIANTS)
    (PLACE / "rendering.json").write_text(json.dumps({"rendering, seconds": seconds}))
    full = PLACE / "bench-full"
    uv = str(Path(sys.executable).parent / "uv")
    subprocess.run(["make", "--silent", ".venv/run", f"PYTHON={sys.executable}", f"UV={uv}"], cwd=full, check=True)
    python = str(full / ".venv/bin/python")
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, SERIALIZER], check=True)
    command = [python, "-m", "tests.stack", python, "-m", f"benchmarks.{sys.argv[1]}"]
    # The tests of the variant, not those of the template, hold the stack.
    environment = os.environ | {"PYTHONPATH": f"{full}{os.pathsep}{ROOT}"}
    return subprocess.run(command, cwd=full, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
