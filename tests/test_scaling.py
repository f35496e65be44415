"""What the reckoning of docs/scaling.md says follows from what goes in."""

import json
from typing import Any

import pytest

from benchmarks.scaling import RATES, Assumptions, Demand, Limit, demand, limits, reached, thresholds
from tests.variants import ROOT

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/costs.json").read_text(encoding="utf-8"))
LIMITS = limits(Assumptions())


def test_more_requests_take_no_less_of_anything() -> None:
    before = demand(1, DOCUMENT, Assumptions())
    for power in range(1, 70):
        after = demand(1.3**power, DOCUMENT, Assumptions())
        assert all(more >= less for more, less in zip(after, before, strict=True)), (before, after)
        before = after


@pytest.mark.parametrize("limit", LIMITS, ids=[limit.name for limit in LIMITS])
def test_a_limit_is_kept_below_its_rate_and_not_above(limit: Limit) -> None:
    def at(rate: float) -> Demand:
        return demand(rate, DOCUMENT, Assumptions())

    rate = reached(limit, at)
    assert limit.needed(at(rate / 1.01)) <= limit.given < limit.needed(at(rate * 1.01))


def test_what_costs_twice_as_much_takes_twice_as_many_cpus() -> None:
    # Without writes there is no miss that depends on the number of workers.
    a = Assumptions(writes=0)
    twice = DOCUMENT | {
        "costs": {kind: {part: 2 * cost for part, cost in costs.items()} for kind, costs in DOCUMENT["costs"].items()}
    }
    for rate in RATES:
        once = demand(rate, DOCUMENT, a)
        assert demand(rate, twice, a).parts == pytest.approx([2 * part for part in once.parts])
        assert demand(2 * rate, DOCUMENT, a).parts == pytest.approx([2 * part for part in once.parts])


def test_a_smaller_part_gives_out_first() -> None:
    (_, first), *_ = thresholds(DOCUMENT, Assumptions(connections_of_postgresql=5))
    assert first.name == "connections of PostgreSQL"
    (_, first), *_ = thresholds(DOCUMENT, Assumptions(gigabits_of_one_machine=0.001))
    assert first.name == "network of one proxy"


def test_only_misses_make_a_worker_lose_time() -> None:
    a = Assumptions(writes=1e-9)
    reads = demand(10_000, DOCUMENT, a)
    costs = DOCUMENT["costs"]
    hit = (costs["list, hit"]["API"] + costs["item, hit"]["API"]) / 2 + costs["item, miss"]["API"] * 0.1 / 2
    assert reads.api == pytest.approx(10_000 * hit / 1e6 / a.busy, rel=1e-3)


def test_workers_that_only_read_lists_are_refused() -> None:
    with pytest.raises(ValueError, match="raise seconds_of_a_list"):
        demand(1_000_000, DOCUMENT, Assumptions(seconds_of_a_list=1e-6))
