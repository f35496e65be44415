"""Drills of several replicas: they are killed, replaced and scaled down behind nginx, with PgBouncer before PostgreSQL.

No read fails. A write that a killed replica has not answered ends in 502, unless its `Idempotency-Key` lets nginx send
it to another one. Everything else is as in `make drill`.
"""

import sys
from functools import partial

from tests.drills.__main__ import run_in
from tests.drills.faults import REPLICATED
from tests.drills.stack import REPLICAS, Stack


def main() -> int:
    """Run the drills that are named, or all of them."""
    return run_in(partial(Stack, replicas=REPLICAS), REPLICATED, program="make drill-replicas", about=__doc__)


if __name__ == "__main__":
    sys.exit(main())
