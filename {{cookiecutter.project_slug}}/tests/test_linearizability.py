"""The judgement on histories: it accepts what a service may have done, and nothing else."""

import itertools
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drills import history
from tests.drills.history import Kind, Record, Shown
from tests.drills.linearizability import OPTIONAL, Operation, State, examine, first_impossible

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def shown(value: str, second: int = 0) -> Shown:
    return Shown(value, history.key_of(value), (BEGAN + timedelta(seconds=second)).isoformat())


def create(start: float, end: float, status: int | None = 201, *, key: str = "a", keyed: bool = False) -> Record:
    rows = (shown(key),) if status in (201, 202) else ()
    return Record("create", start, end, status, key, key, rows, keyed=keyed)


def change(start: float, end: float, value: str = "a/1", status: int | None = 200) -> Record:
    rows = (shown(value),) if status == 200 else ()
    return Record("change", start, end, status, history.key_of(value), value, rows)


def delete(start: float, end: float, status: int | None = 204) -> Record:
    return Record("delete", start, end, status, "a")


def fetch(start: float, end: float, value: str | None, *, cached: bool = False) -> Record:
    rows = (shown(value),) if value else ()
    source = "hit" if cached else "bypass"
    return Record("fetch", start, end, 200 if value else 404, "a", rows=rows, cached=cached, source=source)


def page(start: float, end: float, *rows: Shown, cached: bool = False) -> Record:
    return Record("list", start, end, 200, rows=rows, cached=cached)


def stored(start: float, *values: str) -> Record:
    return Record("stored", start, start + 1, 200, rows=tuple(map(shown, values)))


NEW = create(0, 1)
OLD = [create(0, 1, key=key) for key in "abc"]

GOOD = {
    "a read sees what was written": [NEW, fetch(2, 3, "a"), change(4, 5), fetch(6, 7, "a/1"), delete(8, 9)],
    "a read that overlaps a write sees it or not": [NEW, change(2, 9), fetch(3, 4, "a"), fetch(5, 6, "a/1")],
    "writes at the same time have any order": [NEW, change(2, 5, "a/1"), change(3, 4, "a/2"), fetch(6, 7, "a/1")],
    "no answer: it happens late": [NEW, change(2, 3, "a/1", None), fetch(4, 5, "a"), fetch(6, 7, "a/1")],
    "no answer: it never happens": [NEW, delete(2, 3, 503), fetch(4, 5, "a")],
    "no answer to a create, and the row is there": [create(0, 1, None), fetch(2, 3, None), page(4, 5, shown("a"))],
    "a refusal changes nothing": [NEW, change(2, 3, "a/1", 422), fetch(4, 5, "a")],
    "a queued row is stored later": [create(0, 1, 202), fetch(2, 3, None), delete(4, 5, 404), stored(9, "a")],
    "a queued row is deleted": [create(0, 1, 202), fetch(2, 3, "a"), delete(4, 5), stored(9)],
    "a repetition creates nothing": [
        create(0, 1, 503, keyed=True),
        create(2, 3, keyed=True),
        delete(4, 5),
        stored(9),
    ],
    "a first try may come after the deletion": [
        create(0, 1, None, keyed=True),
        create(2, 3, keyed=True),
        delete(4, 5),
        fetch(6, 7, None),
        stored(9, "a"),
    ],
    "a list ends before an older row": [
        *OLD,
        page(2, 3, shown("c", 2), shown("b", 1)),
        page(4, 5, shown("c", 2), shown("b", 1), shown("a", 0)),
    ],
    "a kept answer is from before a write without an answer": [
        NEW,
        change(2, 9),
        fetch(3, 4, "a/1"),
        fetch(5, 6, "a", cached=True),
    ],
    "rows of others": [page(0, 1, shown("z")), NEW, page(2, 3, shown("z", 2), shown("a"))],
}
BAD = {
    "a lost row": [NEW, fetch(2, 3, None)],
    "a lost change": [NEW, change(2, 3), fetch(4, 5, "a")],
    "a change that is undone": [NEW, change(2, 3, "a/1"), change(4, 5, "a/2"), fetch(6, 7, "a/1")],
    "a read goes back in time": [NEW, change(2, 9), fetch(3, 4, "a/1"), fetch(5, 6, "a")],
    "two readers see two orders": [
        *(NEW, change(2, 9, "a/1"), change(2, 9, "a/2")),
        *(fetch(3, 4, "a/1"), fetch(5, 6, "a/2"), fetch(7, 8, "a/1")),
    ],
    "a deleted row is there": [NEW, delete(2, 3), fetch(4, 5, "a")],
    "a deletion happens twice": [NEW, delete(2, 3), delete(4, 5)],
    "a change of what was deleted": [NEW, delete(2, 3), change(4, 5)],
    "a deletion that finds nothing": [NEW, delete(2, 3, 404)],
    "a write without an answer happens once": [
        *(NEW, change(2, 3, "a/1", None), fetch(4, 5, "a/1"), change(6, 7, "a/2"), fetch(8, 9, "a/1")),
    ],
    "a refusal changes something": [NEW, change(2, 3, "a/1", 422), fetch(4, 5, "a/1")],
    "a row that nobody has created yet": [fetch(0, 1, "a"), create(2, 3)],
    "a queued row vanishes": [create(0, 1, 202), fetch(2, 3, "a"), fetch(4, 5, None), stored(9, "a")],
    "a queued row is never stored": [create(0, 1, 202), stored(9)],
    "a repetition shows what is no more": [NEW, change(2, 3), create(4, 5)],
    "a list lacks a row": [*OLD, page(2, 3, shown("c", 2), shown("b", 1), shown("a")), page(4, 5, shown("a"))],
    "an empty list lacks a row": [*OLD, page(2, 3, shown("c", 2), shown("b", 1), shown("a")), page(4, 5)],
    "a list shows a deleted row": [NEW, delete(2, 3), page(4, 5, shown("a"))],
    "a list shows an old text": [NEW, change(2, 3), page(4, 5, shown("a"))],
    "a kept answer is from before an answered write": [
        NEW,
        change(2, 9, "a/1"),
        change(3, 4, "a/2"),
        fetch(5, 6, "a", cached=True),
    ],
    "the database does not hold what was answered": [NEW, change(2, 3), stored(9, "a")],
}


@pytest.mark.parametrize("records", GOOD.values(), ids=GOOD)
def test_what_may_be_is_accepted(records: Sequence[Record]) -> None:
    assert examine(records) == (len(records), len({record.key for record in records if record.kind == "create"}), "")


@pytest.mark.parametrize("records", BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused(records: Sequence[Record]) -> None:
    assert examine(records).reason
    # Without the answer that cannot be, the others can.
    assert not examine([record for record in records if record.kind == "create" and record.status == 201]).reason


def test_a_reason_names_what_cannot_be_ordered() -> None:
    records = [
        *(create(10, 11), create(10, 11, key="b"), fetch(11.5, 12, "a"), change(12, 13)),
        *(page(13.5, 13.6, shown("a/1")), fetch(14, 14.25, "a", cached=True), fetch(15, 16, "a/1")),
    ]
    assert examine(records).reason == (
        "no order explains that fetch a (4.000 to 4.250 s) through the cache (hit) showed a, with\n"
        "    create a (0.000 to 1.000 s) got 201\n"
        "    change a/1 (2.000 to 3.000 s) got 200"
    )


def test_a_long_reason_is_cut() -> None:
    changes = [change(2 * number, 2 * number + 1, f"a/{number}") for number in range(1, 30)]
    lines = examine([NEW, *changes, fetch(99, 100, "a")]).reason.splitlines()
    assert len(lines) == 14
    assert "    and 18 more" in lines


@pytest.mark.parametrize(("oldest", "good"), [(0, False), (1, False), (1.5, True)])
def test_while_redis_is_away_a_kept_answer_may_be_old(oldest: float, good: bool) -> None:
    records = [NEW, change(2, 3), fetch(4.25, 5, "a", cached=True), page(4.25, 5, shown("a"), cached=True)]
    assert (not examine(records, oldest=oldest).reason) == good
    assert examine([NEW, change(2, 3), fetch(4.25, 5, "a")], oldest=9).reason, "around the cache nothing is old"
    assert examine(records, caching=False, oldest=9).reason, "there is no cache"


@pytest.mark.parametrize(
    ("first", "good"),
    [
        (create(0, 1, 202), True),
        (create(0, 1, 201), True),
        # It was stored directly, so there is no message.
        (create(0, 1, 201, keyed=True), False),
        (create(0, 1, 422), False),
    ],
)
def test_a_message_that_arrives_after_a_deletion_brings_its_row_back(first: Record, good: bool) -> None:
    records = [first, fetch(2, 3, "a"), delete(4, 5), fetch(6, 7, None), fetch(8, 9, "a")]
    assert (not examine(records, queued=True).reason) == good
    assert examine(records).reason
    assert examine([*records, delete(10, 11), fetch(12, 13, "a")], queued=True).reason, "once"


def test_many_tries_without_an_answer_are_judged_soon() -> None:
    tries = [create(number, number + 0.5, 503, keyed=True) for number in range(40)]
    changes = [change(50, 51, f"a/{number}", 503) for number in range(40)]
    deletions = [delete(50, 51, 503) for _ in range(5)]
    records = [*tries, create(40, 41, keyed=True), *changes, *deletions]
    assert not examine([*records, fetch(60, 61, "a/7"), fetch(62, 63, None), fetch(64, 65, "a")]).reason
    assert examine([*records, fetch(60, 61, "a/7"), fetch(62, 63, "a/8"), fetch(64, 65, "a/7")]).reason


@st.composite
def executions(draw: st.DrawFn) -> list[Record]:
    """Requests that took effect one after another, each at a moment of its own, with answers before and after it."""
    now: dict[str, str] = {}
    created: dict[str, Shown] = {}
    # When writes were answered, and what was there after each.
    writes = [(-math.inf, now)]
    records = []
    kinds: st.SearchStrategy[Kind] = st.sampled_from(["create", "change", "delete", "fetch", "list"])
    for number in range(draw(st.integers(1, 25))):
        moment = 10.0 * number
        start, end = moment - draw(st.integers(0, 60)), moment + float(draw(st.integers(0, 60)))
        kind = draw(kinds)
        answered = draw(st.booleans())
        happens = answered or draw(st.booleans())
        new = str(number) if kind == "create" or not created else draw(st.sampled_from(sorted(created)))
        key = draw(st.sampled_from([new, *created])) if kind == "create" else new
        if kind in ("fetch", "list"):
            cached = draw(st.booleans())
            last = max(index for index, (until, _) in enumerate(writes) if until < start)
            seen = draw(st.sampled_from([there for _, there in writes[last:]])) if cached else now
            if kind == "fetch":
                rows = (shown(seen[key]),) if key in seen else ()
                records.append(Record("fetch", start, end, 200 if rows else 404, key, rows=rows, cached=cached))
            else:
                there = [created[key]._replace(value=value) for key, value in seen.items()]
                there.sort(key=lambda row: (row.created_at, row.id), reverse=True)
                records.append(page(start, end, *there[: draw(st.integers(2, 30))], cached=cached))
            continue
        status = {"create": draw(st.sampled_from([201, 202])), "change": 200, "delete": 204}[kind]
        value = f"{key}/{number}" if kind == "change" else key
        if kind == "create":
            created.setdefault(key, shown(key, draw(st.integers(0, 5))))
        if kind != "create" and key not in now:
            status = 404
        elif happens:
            now = now | {key: now.get(key, key) if kind == "create" else value}
            if kind == "delete":
                del now[key]
        rows = (created[key]._replace(value=now[key] if status == 201 else value),) if status < 203 and answered else ()
        given = status if answered else draw(st.sampled_from([None, 503]))
        if answered and status == 202:
            end = float(draw(st.integers(int(start), int(end))))
        records.append(Record(kind, start, end, given, key, value, rows))
        if happens and status != 404:
            writes.append((end if answered and status != 202 else math.inf, now))
    records.append(stored(9999, *now.values()))
    return draw(st.permutations(records))


@given(executions())
def test_every_execution_is_accepted(records: list[Record]) -> None:
    assert not examine(records).reason


VALUES = st.sampled_from(["a", "b"])
STATES = st.sampled_from(["a", "b", None])


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    kind = draw(st.sampled_from(["create", "change", "delete", "read", "read"]))
    start = draw(st.integers(0, 8))
    end = start + draw(st.integers(0, 5))
    if kind == "read":
        return Operation("read", start, end, draw(STATES), cached=draw(st.booleans()))
    until = draw(st.sampled_from([end, end, OPTIONAL]))
    if kind == "create":
        return Operation("create", start, until, draw(VALUES), draw(STATES) if until < OPTIONAL else None)
    return Operation("change", start, until, draw(VALUES)) if kind == "change" else Operation("delete", start, until)


def precedes(earlier: Operation, later: Operation) -> bool:
    return earlier.end < later.start and not (earlier.kind == "read" and later.cached)


def is_explained(order: Sequence[Operation]) -> bool:
    """Whether operations may have happened in this order."""
    if any(precedes(later, earlier) for earlier, later in itertools.combinations(order, 2)):
        return False
    state: State = None
    for operation in order:
        if operation.kind == "create":
            state = operation.value if state is None else state
            explained = operation.answer in (None, state)
        elif operation.kind == "read":
            explained = operation.value == state
        else:
            explained, state = state is not None, operation.value
        if not explained:
            return False
    return True


def has_an_order(some: Sequence[Operation]) -> bool:
    """Whether any order of any of those that may happen, with all that must, explains the answers."""
    optional = [number for number, operation in enumerate(some) if operation.end == OPTIONAL]
    return any(
        is_explained(order)
        for size in range(len(optional) + 1)
        for left_out in itertools.combinations(optional, size)
        for order in itertools.permutations([each for number, each in enumerate(some) if number not in left_out])
    )


@given(st.lists(operations(), max_size=5))
def test_the_verdict_is_that_of_all_orders(some: list[Operation]) -> None:
    assert (first_impossible(some) is None) == has_an_order(some)


def test_a_hundred_thousand_operations_take_less_than_a_minute() -> None:
    records = []
    for number in range(1000):
        key = f"{number:04}"
        begin = 0.1 * number
        records += [create(begin, begin + 1, key=key), change(begin + 5, begin + 9, f"{key}/1")]
        records += [
            Record("fetch", begin + 1 + each / 8, begin + 1.5 + each / 8, 200, key, rows=(shown(key),), cached=True)
            for each in range(48)
        ]
        records += [
            Record("fetch", begin + 9 + each / 8, begin + 9.5 + each / 8, 200, key, rows=(shown(f"{key}/1"),))
            for each in range(50)
        ]
    assert len(records) == 100_000
    started = time.process_time()
    assert not examine(records, oldest=5).reason
    assert time.process_time() - started < 60


def test_a_history_can_be_read_again(tmp_path: Path) -> None:
    records = [NEW, change(2, 3, status=None), page(4, 5, shown("a/1", 3), cached=True), stored(9, "a")]
    history.dump(records, tmp_path / "history.jsonl")
    assert history.load(tmp_path / "history.jsonl") == records
