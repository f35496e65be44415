"""Whether a history is linearizable: each request took effect at one moment between its begin and its answer.

Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", 1990. A history is linearizable
when that of each object is (their locality), so every row is a register of its own: absent, or a text. A list is a
read of each row that it shows, and of each that it does not show although it reaches back so far.

The search is that of Wing and Gong, "Testing and Verifying Concurrent Objects", 1993, with what Lowe, "Testing for
linearizability", 2017, adds: it remembers what it has tried, and an operation happens only when an answer needs that.

What docs/promises.md promises decides what an operation may do:

- A write without an answer, or with a 5xx, happens at any time from its begin on, or never.
- A 202 is stored at any time from its begin on, and before the system has come to rest. What was seen stays.
- 404 says that the row is not there, for a write as for a read. Any other refusal says nothing of the row.
- A read through the cache sees what the last answered write has left, or a write that had no answer yet when the read
  began. So it may see less than another read before it, and no less than what was answered: a regular register
  (Lamport, "On interprocess communication", 1986). While the cache is away, it may be as old as `oldest` says.
- A row that was queued comes back when it is deleted before its message arrives.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Literal, NamedTuple

from tests.drills.history import Record, key_of

# The text of a row, or None where there is none.
type State = str | None
# Which of the open operations have happened, a bit for each, and the states since the last answered write, each with
# the bit of the write that made it.
type Configuration = tuple[int, tuple[tuple[int, State], ...]]

OPTIONAL = math.inf
LINES = 12


class Operation(NamedTuple):
    """An operation on one row; one that ends at OPTIONAL may never have happened.

    `value` is what it writes or has read, `answer` what the answer to a create has shown. A `cached` read may see the
    state before a write that had no answer when the read began.
    """

    kind: Literal["create", "change", "delete", "read"]
    start: float
    end: float
    value: State = None
    answer: State = None
    cached: bool = False
    record: Record | None = None


class Verdict(NamedTuple):
    """How much was looked at, and why it cannot be; without a `reason` the history is linearizable."""

    operations: int
    objects: int
    reason: str = ""


def examine(history: Sequence[Record], *, caching: bool = True, oldest: float = 0.0, queued: bool = False) -> Verdict:
    """Return whether there is an order that explains all answers.

    Without `caching` every read is one of the database; with it, a read through the cache may be `oldest` seconds old.
    `queued` says that rows go through a queue.
    """
    if not caching:
        history = [record._replace(cached=False) for record in history]
    objects = operations_of(history, oldest=oldest, queued=queued)
    for key, operations in objects.items():
        if first_impossible(operations) is not None:
            began = min(record.start for record in history)
            return Verdict(len(history), len(objects), explanation(key, fewest(operations), began))
    return Verdict(len(history), len(objects))


def first_impossible(operations: Sequence[Operation]) -> Operation | None:
    """Return the first operation on a row whose answer no order explains, or None when there is an order."""
    known = {value for operation in operations if operation.kind != "change" for value in operation[3:5]}
    # A change that nobody has seen need not have happened.
    operations = [each for each in operations if each.kind != "change" or each.end < OPTIONAL or each.value in known]
    writes: dict[int, Operation] = {}
    reads: defaultdict[State, int] = defaultdict(int)
    bits: dict[int, int] = {}
    free: list[int] = []
    configurations: set[Configuration] = {(0, ((0, None),))}
    for _, answered, number in moments(operations):
        operation = operations[number]
        if not answered:
            bit = bits[number] = free.pop() if free else 1 << len(bits)
            if operation.kind == "read":
                reads[operation.value] |= bit
                configurations = {(done | bit * sees(operation, trail), trail) for done, trail in configurations}
            else:
                writes[bit] = operation
            continue
        bit = bits.pop(number)
        configurations = happened(configurations, bit, writes, reads)
        if not configurations:
            return operation
        free.append(bit)
        if writes.pop(bit, None) is None:
            reads[operation.value] ^= bit
    return None


def moments(operations: Sequence[Operation]) -> Sequence[tuple[float, bool, int]]:
    """Return when operations begin and are answered; what meets in one moment overlaps."""
    begins = [(operation.start, False, number) for number, operation in enumerate(operations)]
    ends = [(operation.end, True, number) for number, operation in enumerate(operations) if operation.end < OPTIONAL]
    return sorted(begins + ends)


def happened(
    configurations: Collection[Configuration], bit: int, writes: Mapping[int, Operation], reads: Mapping[State, int]
) -> set[Configuration]:
    """Return the configurations in which an open operation has happened, after as many other writes as it takes.

    A read changes nothing, so it happens as soon as it can.
    """
    found: set[Configuration] = set()
    tried = set(configurations)
    left = list(configurations)
    while left:
        done, trail = left.pop()
        if done & bit:
            found.add((done ^ bit, since(bit, trail)))
            continue
        for other, state in possible(done, trail[-1][1], writes):
            new = done | other | reads.get(state, 0), (*trail, (other, state))
            if new not in tried:
                tried.add(new)
                left.append(new)
    return found


def possible(done: int, state: State, writes: Mapping[int, Operation]) -> Iterator[tuple[int, State]]:
    """Yield the open writes that may happen next, and the state after each."""
    alike = set()
    for bit, write in writes.items():
        if done & bit:
            continue
        if write.kind == "create":
            after = write.value if state is None else state
            if write.answer not in (None, after):
                continue
        elif state is None:
            continue
        else:
            after = write.value
        if write.end == OPTIONAL:
            # What changes nothing need not happen, and of several alike the earliest is as good as any.
            if after == state or (write.kind, after) in alike:
                continue
            alike.add((write.kind, after))
        yield bit, after


def sees(read: Operation, trail: Sequence[tuple[int, State]]) -> bool:
    """Whether a read that begins now may have happened already."""
    return read.value in (state for _, state in (trail if read.cached else trail[-1:]))


def since(bit: int, trail: tuple[tuple[int, State], ...]) -> tuple[tuple[int, State], ...]:
    """Return a trail from an answered write on."""
    for number, (other, state) in enumerate(trail):
        if other == bit:
            return ((0, state), *trail[number + 1 :])
    return trail


def operations_of(
    history: Sequence[Record], *, oldest: float = 0.0, queued: bool = False
) -> dict[str, list[Operation]]:
    """Return the operations on each row that somebody wanted to create."""
    rest = min((record.start for record in history if record.kind == "stored"), default=OPTIONAL)
    begun: dict[str, float] = {}
    for record in history:
        if record.kind == "create":
            begun[record.key] = min(record.start, begun.get(record.key, math.inf))
    objects: dict[str, list[Operation]] = {key: [] for key in begun}
    in_reach = reach(history, begun)
    for record in history:
        start = record.start - oldest * record.cached
        if record.key in objects:
            objects[record.key] += operations_on_one(record, start, rest=rest, queued=queued)
        elif not record.key and record.status == 200:
            shown = {key_of(row.value): row.value for row in record.rows}
            for key in (shown.keys() & begun.keys()) | set(in_reach(record)):
                read = Operation("read", start, record.end, shown.get(key), cached=record.cached, record=record)
                objects[key].append(read)
    return objects


def reach(history: Sequence[Record], begun: Mapping[str, float]) -> Callable[[Record], Iterator[str]]:
    """Return what tells which rows a list shows if they are there: those that are not older than its last one.

    A row that nobody had asked for when the list was answered is not among them.
    """
    rows = {key_of(row.value): row for record in history for row in record.rows if row.created_at}
    position = {key: (datetime.fromisoformat(row.created_at), row.id) for key, row in rows.items()}
    keys = sorted(begun.keys() & position.keys(), key=lambda name: position[name])
    positions = [position[key] for key in keys]
    # Of each row and those behind it, when the first was asked for.
    first_begun = list(accumulate((begun[key] for key in reversed(keys)), min))[::-1]

    def in_reach(record: Record) -> Iterator[str]:
        first = 0
        if record.kind == "list" and record.rows:
            first = bisect_left(positions, position[key_of(record.rows[-1].value)])
        near = keys[first : bisect_left(first_begun, record.end)] if record.kind == "list" else begun
        return (key for key in near if begun[key] < record.end)

    return in_reach


def operations_on_one(record: Record, start: float, *, rest: float, queued: bool) -> Iterator[Operation]:
    """Yield what a request did to its row."""
    kind, _, end, status, _, value = record[:6]
    shown = record.rows[0].value if record.rows else None
    unclear = status is None or status >= 500
    if kind == "create" and (unclear or status in (201, 202)):
        if status == 202:
            # Not at the moment of rest, but before it.
            end = math.nextafter(rest, start)
        answer = shown if status == 201 else None
        yield Operation("create", start, OPTIONAL if unclear else end, value, answer, record=record)
        if queued and not (record.keyed and status == 201):
            yield Operation("create", start, OPTIONAL, value, record=record)
    elif kind == "change" and (unclear or status == 200):
        yield Operation("change", start, OPTIONAL if unclear else end, value, record=record)
    elif kind == "delete" and (unclear or status == 204):
        yield Operation("delete", start, OPTIONAL if unclear else end, record=record)
    elif status == 404 or (kind == "fetch" and status == 200):
        yield Operation("read", start, end, shown, cached=record.cached, record=record)


def fewest(operations: Sequence[Operation]) -> list[Operation]:
    """Return operations that cannot be explained either, with few reads: what a read forbids, it forbids alone, too."""
    last = first_impossible(operations)
    assert last
    left = [operation for operation in operations if operation.start <= last.end]
    size = len(left)
    while size:
        for begin in range(len(left) - size, -1, -size):
            kept = [each for each in left[begin : begin + size] if each.kind != "read"]
            fewer = [*left[:begin], *kept, *left[begin + size :]]
            if len(fewer) < len(left) and first_impossible(fewer) is not None:
                left = fewer
        size //= 2
    return left


def explanation(key: str, operations: Sequence[Operation], began: float) -> str:
    """Return the sentence that says which answer cannot be, and after what."""
    last = first_impossible(operations)
    assert last
    others = sorted({each.record for each in operations if each.record not in (None, last.record)}, key=begin_of)
    lines = [sentence(key, record, began) for record in others]
    if len(lines) > LINES:
        lines[LINES // 2 : -LINES // 2] = [f"and {len(lines) - LINES} more"]
    return "\n    ".join([f"no order explains that {sentence(key, last.record, began)}, with", *lines])


def begin_of(record: Record) -> float:
    """Return when a request began."""
    return record.start


def sentence(key: str, record: Record | None, began: float) -> str:
    """Say when something was asked of a row, and what was answered."""
    if record is None:
        return f"something was asked of {key}"
    asked = f"{record.kind} {record.value or key} ({record.start - began:.3f} to {record.end - began:.3f} s)"
    if record.cached:
        asked += f" through the cache ({record.source})"
    if record.status is None:
        return f"{asked} got no answer"
    shown = [row.value for row in record.rows if key_of(row.value) == key]
    if record.status == 200 and record.kind in ("fetch", "list", "stored"):
        return f"{asked} showed {shown[0] if shown else 'no such row'}"
    return f"{asked} got {record.status}"
