"""What a kept answer depends on, and what a write ends.

A place stands for a part of the data. In Redis it has a random token, and each write gives new tokens to the places
that it ends. An answer counts while the tokens of all its places are those that it was made with. A table has a place
for its lists, a bounded number of slots, each for the rows with one hash of their ids, and one for all rows at once.

An insert ends the lists, and no slot, because no answer that there is no such row is kept. But the id of an idempotency
key may come back after a deletion that has not told yet, so such a row ends its slot, too. A change or a deletion ends
the lists and the slot of its row.
"""

import re
from collections.abc import Collection
from contextvars import ContextVar
from typing import NamedTuple
from uuid import UUID

# For each table; two rows of one slot end each other's answers.
SLOTS = 16_384
# RFC 9562, section 4.
USUAL_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# The place that every write ends: what a route depends on that does not say what it reads.
ANYTHING = "*"


class Source(NamedTuple):
    """What a shared route reads: rows of a table, or only the one whose id is a path parameter.

    `also` are tables whose changes may reach this one, because a foreign key says so.
    """

    table: str
    parameter: str | None = None
    also: tuple[str, ...] = ()

    def places(self, value: str | None) -> tuple[str, ...]:
        """Return what an answer depends on; `value` is the text of the path parameter."""
        others = tuple(map(lists, self.also)) if self.also else ()
        if value is None:
            return (lists(self.table), *others)
        try:
            return (slot_of(self.table, value), all_rows(self.table), *others)
        except ValueError:
            return (ANYTHING,)


class Announced(NamedTuple):
    """A place of which a run has read, and its table."""

    table: str
    place: str


# Announced by a run whose answer is not kept.
NO_KEY = Announced("", "")


def lists(table: str) -> str:
    """Return the place that every write to a table ends."""
    return table


def slot(table: str, row_id: UUID) -> str:
    """Return the place of a row."""
    return f"{table}/{row_id.int % SLOTS}"


def slot_of(table: str, text: str) -> str:
    """Return the place of a row whose id is given as text.

    Raises ValueError.
    """
    if USUAL_ID.fullmatch(text):
        # What the slot depends on stands in the last four digits; to read all of them takes several times as long.
        return f"{table}/{int(text[-4:], 16) % SLOTS}"
    return slot(table, UUID(text))


def all_rows(table: str) -> str:
    """Return the place that a write to unknown rows of a table ends."""
    return f"{table}/"


def ended_by_insert(table: str, *returning: UUID) -> Collection[str]:
    """Return the places that new rows end; `returning` are the ids among them that may have been there before."""
    return (ANYTHING, lists(table), *{slot(table, row_id) for row_id in returning})


def ended_by_change(table: str, *row_ids: UUID) -> Collection[str]:
    """Return the places that end with a change or a deletion of rows, or of unknown rows where none is named."""
    rows = {slot(table, row_id) for row_id in row_ids} or {all_rows(table)}
    return (ANYTHING, lists(table), *rows)


announced: ContextVar[set[Announced] | None] = ContextVar("announced", default=None)


def announce(table: str, place: str) -> None:
    """Say that this run reads of a place."""
    reads = announced.get()
    if reads is not None:
        reads.add(Announced(table, place))


def announce_no_key() -> None:
    """Say that the answer of this run is not worth a key of its own."""
    reads = announced.get()
    if reads is not None:
        reads.add(NO_KEY)


def listen() -> set[Announced]:
    """Collect what is announced in this context from now on."""
    reads: set[Announced] = set()
    announced.set(reads)
    return reads


def unnamed(reads: Collection[Announced], places: Collection[str]) -> str | None:
    """Return a table of which a run has read more than its places say, if there is one."""
    if ANYTHING in places:
        return None
    return next((read.table for read in reads if read.place not in places and lists(read.table) not in places), None)
