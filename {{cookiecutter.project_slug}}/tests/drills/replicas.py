"""Drills of several replicas: they are killed, replaced and scaled down behind nginx, with PgBouncer before PostgreSQL.

No read fails. A write that a killed replica has not answered ends in 502, unless its `Idempotency-Key` lets nginx send
it to another one. Everything else is as in `make drill`.
"""

import argparse
import sys

from tests.drills.__main__ import holds, say
from tests.drills.drill import HEADER
from tests.drills.faults import REPLICATED
from tests.drills.stack import PROJECT, REPLICAS, Stack


def main() -> int:
    """Run the drills that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="make drill-replicas", description=__doc__)
    parser.add_argument("fault", nargs="*", choices=[*REPLICATED, []], help="some of these; all without an argument")
    parser.add_argument("--port", type=int, default=8900, help="port of the drill's proxy")
    arguments = parser.parse_args()
    stack = Stack(f"{PROJECT.name}-drill", arguments.port, replicas=REPLICAS)
    try:
        stack.up("--build")
        with (PROJECT / "drill-report.txt").open("w", encoding="utf-8") as report:
            say(report, HEADER)
            return min(1, sum(not holds(stack, [name], report, REPLICATED) for name in arguments.fault or REPLICATED))
    finally:
        stack.remove()


if __name__ == "__main__":
    sys.exit(main())
