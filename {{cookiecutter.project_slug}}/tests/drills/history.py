"""What clients asked, what they were answered, and when: a history, which tests/drills/linearizability.py judges.

A row is told by its text. The text that creates it is its key; a change writes the key with a number behind it.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

from loadtest import resource
from tests.drills.client import Reply

type Kind = Literal["create", "change", "delete", "fetch", "list", "stored"]

IDEMPOTENCY_KEY = "Idempotency-Key"
# The service does not share what somebody asks with credentials: such a read goes to the database.
AROUND_THE_CACHE = {"Authorization": "Basic ZHJpbGw6ZHJpbGw="}
CHANGES = count(1)


class Shown(NamedTuple):
    """A row in an answer."""

    value: str
    id: str
    created_at: str = ""


class Record(NamedTuple):
    """A request and its answer; `start` and `end` are seconds of one monotonic clock.

    `status` is None where no answer came, and `source` is what the answer says of where it comes from (`X-Cache`). The
    kind "stored" is a look into the database.
    """

    kind: Kind
    start: float
    end: float
    status: int | None
    key: str = ""
    value: str = ""
    rows: tuple[Shown, ...] = ()
    keyed: bool = False
    cached: bool = False
    source: str = ""


class Ask(NamedTuple):
    """A request that is to be recorded."""

    kind: Kind
    method: str
    path: str = resource.PATH
    key: str = ""
    value: str = ""
    headers: Mapping[str, str] = {}

    @property
    def body(self) -> bytes:
        """The content, as JSON."""
        return resource.body(self.value).encode() if self.value else b""

    def record(self, start: float, end: float, reply: Reply | None) -> Record:
        """Return what is to be remembered of this request and its answer, if there was one."""
        status = None if reply is None else reply.status
        return Record(
            self.kind,
            start,
            end,
            status,
            self.key,
            self.value,
            rows_in(reply.body) if reply and status in (200, 201, 202) else (),
            keyed=IDEMPOTENCY_KEY in self.headers,
            cached=self.method == "GET" and not self.headers,
            source=reply.headers.get("x-cache", "") if reply else "",
        )


def create(key: str, *, keyed: bool) -> Ask:
    """Ask for a new row."""
    return Ask("create", "POST", key=key, value=key, headers={IDEMPOTENCY_KEY: key} if keyed else {})


def page(*, around_the_cache: float = 0.25) -> Ask:
    """Ask for the newest rows; so many of these go around the cache."""
    return Ask("list", "GET", headers=some_headers(around_the_cache))


def anything(known: Mapping[str, str]) -> Ask:
    """Fetch, change or delete one of the rows whose ids are known by their keys."""
    key = random.choice(list(known))
    path = f"{resource.PATH}/{known[key]}"
    kind = random.choices(("fetch", "change", "delete"), (5, 4, 1))[0]
    if kind == "fetch":
        return Ask("fetch", "GET", path, key, headers=some_headers(0.25))
    if kind == "change":
        return Ask("change", "PATCH", path, key, f"{key}/{next(CHANGES)}")
    return Ask("delete", "DELETE", path, key)


def some_headers(around_the_cache: float) -> Mapping[str, str]:
    """Return headers that let this share of reads go around the cache."""
    return AROUND_THE_CACHE if random.random() < around_the_cache else {}


def key_of(value: str) -> str:
    """Return the key of the row that has or had this text."""
    return value.partition("/")[0]


@lru_cache(maxsize=64)
def rows_in(body: bytes) -> tuple[Shown, ...]:
    """Return the rows in an answer, which is a page or a row."""
    content: dict[str, Any] = json.loads(body)
    rows = content.get(resource.ROWS, [content])
    return tuple(Shown(row[resource.NAME], row["id"], row["created_at"]) for row in rows)


def dump(history: Iterable[Record], path: Path) -> None:
    """Write a history, a JSON object in each line."""
    path.write_text("".join(f"{json.dumps(record._asdict())}\n" for record in history), encoding="utf-8")


def load(path: Path) -> Sequence[Record]:
    """Read what `dump` has written."""
    objects = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Record(**fields | {"rows": tuple(Shown(*row) for row in fields["rows"])}) for fields in objects]
