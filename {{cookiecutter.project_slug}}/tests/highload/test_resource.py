"""Every type of column goes through both databases and the queue, or is refused at import."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, computed_field
from sqlalchemy import ARRAY, JSON, DateTime, Enum, ForeignKey, Integer, Interval, Numeric, String, Time, text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.highload.columns import ANNOTATIONS, MOMENT, StoredRow, array
from app.highload.database import ContentRefused, open_database
from app.highload.etags import PreconditionFailed, Preconditions, bytes_of, entity_tag
from app.highload.generations import Source
from app.highload.idempotency import fingerprint_of
from app.highload.repository import Repository, Storage
from app.highload.resource import CannotStore, Resource
from tests.highload.everything import RANKED, THINGS, Color, RankedRead, Thing, ThingCreate, ThingRead
from tests.highload.notes import NAME, NOTES, NoteCreate, storage_of
from tests.waiting import PATIENCE

PLUS_TWO = timezone(timedelta(hours=2))
HOSTILE = "a\"b\\c,{}' NULL ü\n"


def thing(**fields: Any) -> ThingCreate:
    """Return what creates a thing, with values at the edges of their types."""
    values: dict[str, Any] = {
        "number": -(2**31),
        "small": 32_767,
        "big": 2**63 - 1,
        "ratio": 0.1 + 0.2,
        "price": Decimal("9999999999.99"),
        "flag": False,
        "code": "abcde",
        "words": HOSTILE,
        "day": date(2024, 2, 29),
        "hour": time(23, 59, 59, 999_999),
        "moment": datetime(2024, 7, 1, 12, 0, 0, 1, tzinfo=PLUS_TWO),
        "pause": timedelta(days=400, microseconds=1),
        "raw": bytes(range(256)),
        "owner": uuid4(),
        "color": Color.GREEN,
        "tags": [HOSTILE, "", "NULL"],
        "sizes": [1, -(2**62)],
        "codes": [None, "abcde"],
        "document": {"a": [1, None, {"b": HOSTILE}], "__type__": "uuid", "__value__": "x"},
    }
    return ThingCreate(**(values | fields))


FULL = {
    "maybe_number": 1,
    "maybe_price": Decimal("-12345678901.2345"),
    "maybe_moment": datetime(2024, 1, 1, tzinfo=UTC),
    "maybe_color": Color.RED,
    "maybe_tags": [],
    "maybe_document": {},
    "maybe_raw": b"",
}


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


@asynccontextmanager
async def opened(database_url: str) -> AsyncGenerator[Storage]:
    async with open_database(database_url, name=NAME, pool_size=2, timeout=PATIENCE) as database:
        yield storage_of(database)


def created(body: ThingCreate, read: ThingRead) -> bool:
    return read.model_dump() == {
        **body.model_dump(),
        "id": read.id,
        "created_at": read.created_at,
        "made": 7,
        "called": ["called"],
    }


async def test_every_type_is_inserted_fetched_and_listed(database_url: str) -> None:
    async with opened(database_url) as storage:
        things = storage.open(THINGS)
        for body in (thing(), thing(**FULL), thing(number=0, document={}, tags=[], pause=timedelta(0))):
            answer, stored = await things.create(body)
            assert stored
            assert created(body, answer)
            fetched = await things.one(answer.id)
            assert fetched == answer
            assert bytes_of(fetched) == bytes_of(answer), "so the entity tag is the same, too"
            page, _ = await things.page(limit=1)
            assert page == [answer]


@pytest.mark.parametrize("name", [name for name in ThingCreate.model_fields if name != "owner"])
async def test_every_type_is_changed(database_url: str, name: str) -> None:
    new = thing(
        **FULL
        | {"number": 5, "small": 5, "big": 5, "ratio": 5.0, "price": Decimal(5), "flag": True, "code": "b", "words": ""}
        | {"day": date(1, 1, 1), "hour": time(0), "moment": datetime(1970, 1, 1, tzinfo=UTC), "pause": timedelta(1)}
        | {"raw": b"\0", "color": Color.RED, "tags": ["b"], "sizes": [], "codes": [], "document": {"b": 1}}
    )
    changes = ThingCreate.model_construct(_fields_set={name}, **{name: getattr(new, name)})
    async with opened(database_url) as storage:
        things = storage.open(THINGS)
        before = (await things.create(thing())).row
        as_it_was = Preconditions(frozenset([entity_tag(bytes_of(before))]), None)
        after = await things.change(before.id, changes, only_if=as_it_was)
        assert after == before.model_copy(update={name: getattr(new, name)})
        fetched = await things.one(before.id)
        assert fetched == after
        assert bytes_of(fetched) == bytes_of(after)
        with pytest.raises(PreconditionFailed):
            await things.change(before.id, changes, only_if=as_it_was)


async def test_every_type_is_a_condition_and_a_row_is_deleted(database_url: str) -> None:
    async with opened(database_url) as storage:
        things = storage.open(THINGS)
        row = (await things.create(thing(**FULL))).row
        other = (await things.create(thing(code="other"))).row
        columns = THINGS.table.c
        for name in ("number", "big", "price", "flag", "code", "day", "hour", "moment", "pause", "raw", "color"):
            page, _ = await things.page(columns[name] == getattr(row, name), columns.code == "abcde", limit=10)
            assert page == [row], name
        assert not await things.delete(row.id, columns.code == "other")
        assert await things.delete(row.id, columns.code == "abcde")
        assert not await things.delete(row.id)
        assert await things.one(row.id) is None
        assert (await things.page(limit=10))[0] == [other]


async def test_pages_under_a_condition_follow_each_other(database_url: str) -> None:
    async with opened(database_url) as storage:
        things = storage.open(THINGS)
        for number in range(7):
            await things.create(thing(number=number, flag=number % 2 == 0))
        numbers, cursor = [], None
        while True:
            page, cursor = await things.page(Thing.flag.is_(True), limit=3, cursor=cursor)
            numbers += [row.number for row in page]
            if cursor is None:
                break
        assert numbers == [6, 4, 2, 0]


async def test_every_type_survives_the_queue(database_url: str) -> None:
    """Celery's serializer turns some values of JSON into others, so it gets the rows as one text."""
    bodies = [thing(), thing(**FULL), thing(ratio=float("inf"))]
    rows = [THINGS.new_row(body, None, service=NAME) for body in bodies]
    assert THINGS.rows_of(THINGS.message(rows)) == rows
    async with opened(database_url) as storage:
        things = storage.open(THINGS)
        for row in THINGS.rows_of(THINGS.message(rows)):
            await things.direct.create(row)
        for row, body in zip(rows, bodies, strict=True):
            stored = await things.one(row["id"])
            assert stored
            assert created(body, stored)


async def test_the_database_fills_a_column_and_the_answer_shows_it(database_url: str) -> None:
    async with opened(database_url) as storage:
        things: Repository[ThingCreate, ThingCreate, RankedRead] = storage.open(RANKED)
        receipt = await things.create(thing())
        assert receipt.row.ranked == 3
        assert await things.one(receipt.row.id) == receipt.row


async def test_a_repetition_finds_its_row(database_url: str) -> None:
    body = thing(**FULL)
    async with opened(database_url) as storage:
        things = storage.open(THINGS)
        first = await things.create(body, "key")
        assert await things.create(body, "key") == first
        assert len((await things.page(limit=10))[0]) == 1


async def test_what_is_too_long_in_an_array_is_refused_and_not_cut(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite bounds no text")
    async with opened(database_url) as storage:
        with pytest.raises(ContentRefused) as refused:
            await storage.open(THINGS).create(thing(codes=["abcdef"]))
    assert "too long" in refused.value.words


def test_keys_of_two_resources_and_two_services_are_their_own() -> None:
    ids = {
        THINGS.new_row(thing(), "key", service="a")["id"],
        NOTES.new_row(NoteCreate(text="x"), "key", service="a")["id"],
        NOTES.new_row(NoteCreate(text="x"), "key", service="b")["id"],
    }
    assert len(ids) == 3
    assert all(one.version == 5 for one in ids)


def test_a_field_that_is_added_later_leaves_fingerprints_alone() -> None:
    class Later(NoteCreate):
        color: str = "red"

    assert fingerprint_of(NoteCreate(text="x")) == fingerprint_of(Later(text="x"))
    assert fingerprint_of(Later(text="x")) == fingerprint_of(Later(text="x", color="red"))
    assert fingerprint_of(Later(text="x")) != fingerprint_of(Later(text="x", color="blue"))


def model(**columns: Any) -> type[StoredRow]:
    """Return a model of a table with a name, and these columns besides."""

    class Models(DeclarativeBase):
        type_annotation_map = ANNOTATIONS

    attributes = {"__tablename__": "tests", "name": mapped_column(String(10)), **columns}
    one: type[StoredRow] = type("Test", (StoredRow, Models), attributes)
    return one


class Create(BaseModel):
    name: str


class Read(BaseModel):
    id: UUID


class Wrong(BaseModel):
    title: str


class Computed(Read):
    name: str

    @computed_field
    def shout(self) -> str:
        return self.name.upper()


class Stamped(Create):
    created_at: datetime


class Ranked(Read):
    ranked: int


def resource(**columns: Any) -> Resource[Create, Create, Read]:
    return Resource(model(**columns), create=Create, change=Create, read=Read)


@pytest.mark.parametrize(
    ("column", "instead"),
    [
        (mapped_column(DateTime()), "use MOMENT"),
        (mapped_column(DateTime(timezone=True)), "use MOMENT"),
        (mapped_column(Time(timezone=True)), r"use Time\(\)"),
        (mapped_column(Numeric()), r"Numeric\(15, 2\)"),
        (mapped_column(Numeric(16, 2)), r"Numeric\(15, 2\)"),
        (mapped_column(JSON()), "use DOCUMENT"),
        (mapped_column(ARRAY(Integer)), r"use array\(\.\.\.\)"),
        (mapped_column(array(Interval())), r"use array\(\.\.\.\)"),
        (mapped_column(array(Enum("a", "b", name="letters"))), r"use array\(Text\(\)\)"),
        (mapped_column(INET()), "use one that was tried"),
    ],
)
def test_a_type_that_is_not_kept_alike_is_refused(column: Any, instead: str) -> None:
    with pytest.raises(CannotStore, match=rf"the type of tests\.other is not supported: .*{instead}"):
        resource(other=column)


def test_a_column_that_nobody_fills_is_refused() -> None:
    for column in (mapped_column(Integer, nullable=False), mapped_column(Integer, nullable=True)):
        with pytest.raises(CannotStore, match=r"nobody fills tests\.other when a row is created: add it"):
            resource(other=column)
    for column in (
        mapped_column(Integer, default=1),
        mapped_column(Integer, server_default=text("1")),
        mapped_column(Integer, default=text("1")),
    ):
        resource(other=column)

    class Other(Create):
        other: int | None = None

    class Seen(BaseModel):
        name: str
        other: int | None

    later = Resource(model(other=mapped_column(Integer, nullable=True)), create=Create, change=Other, read=Seen)
    row = later.new_row(Create(name="x"), None, service=NAME)
    assert later.show(row) == Seen(name="x", other=None), "it is shown before it is changed"
    with pytest.raises(CannotStore, match="nobody fills"):
        Resource(model(other=mapped_column(Integer, nullable=False)), create=Create, change=Other, read=Read)
    with pytest.raises(CannotStore, match="nobody fills"):
        Resource(
            model(other=mapped_column(Integer, nullable=False)),
            create=Create,
            change=Create,
            read=Read,
            filled_elsewhere=["other"],
        )
    with_own_sql = model(other=mapped_column(MOMENT, nullable=True))
    Resource(with_own_sql, create=Create, change=Create, read=Read, filled_elsewhere=["other"])


def test_a_field_that_is_no_column_is_refused() -> None:
    with pytest.raises(CannotStore, match=r"Wrong\.title is no column of tests: give both the same name"):
        Resource(model(), create=Wrong, change=Create, read=Read)
    with pytest.raises(CannotStore, match=r"Wrong\.title is no column of tests"):
        Resource(model(), create=Create, change=Wrong, read=Read)
    with pytest.raises(CannotStore, match=r"Wrong\.title is no column of tests"):
        Resource(model(), create=Create, change=Create, read=Wrong)
    Resource(model(), create=Create, change=Create, read=Computed)


def test_what_the_service_makes_is_not_asked_of_a_client() -> None:
    with pytest.raises(CannotStore, match=r"Stamped\.created_at is made by the service: take it out"):
        Resource(model(), create=Stamped, change=Create, read=Read)
    with pytest.raises(CannotStore, match=r"Stamped\.created_at is made by the service: take it out"):
        Resource(model(), create=Create, change=Stamped, read=Read)


def test_what_is_shown_before_it_is_stored_is_known_by_then() -> None:
    ranked = model(ranked=mapped_column(Integer, server_default=text("1")))
    with pytest.raises(CannotStore, match=r"tests\.ranked is shown before the database has filled it"):
        Resource(ranked, create=Create, change=Create, read=Ranked)
    Resource(ranked, create=Create, change=Create, read=Ranked, queued=False)


def test_another_primary_key_is_refused() -> None:
    with pytest.raises(CannotStore, match="the primary key of tests is not its id alone"):
        resource(other=mapped_column(Integer, primary_key=True, default=1))


def test_tables_whose_foreign_keys_act_on_rows_decide_about_them() -> None:
    class Models(DeclarativeBase):
        type_annotation_map = ANNOTATIONS

    class Grandparent(StoredRow, Models):
        __tablename__ = "grandparents"

    class Friend(StoredRow, Models):
        __tablename__ = "friends"

    class Parent(StoredRow, Models):
        __tablename__ = "parents"
        grandparent_id: Mapped[UUID] = mapped_column(ForeignKey("grandparents.id", ondelete="SET NULL"))

    class Child(StoredRow, Models):
        __tablename__ = "children"
        parent_id: Mapped[UUID] = mapped_column(ForeignKey("parents.id", ondelete="CASCADE"))
        friend_id: Mapped[UUID] = mapped_column(ForeignKey("friends.id", ondelete="RESTRICT"))
        child_id: Mapped[UUID | None] = mapped_column(ForeignKey("children.id", ondelete="CASCADE"))

    class ChildCreate(BaseModel):
        parent_id: UUID
        friend_id: UUID
        child_id: UUID | None = None

    children = Resource(Child, create=ChildCreate, change=ChildCreate, read=Read)
    assert children.rows == Source("children", also=("children", "grandparents", "parents"))
    assert children.row("child_id") == Source("children", "child_id", also=("children", "grandparents", "parents"))


def test_an_old_message_gets_the_defaults_of_what_it_lacks() -> None:
    row = THINGS.new_row(thing(), None, service=NAME)
    old = {name: value for name, value in row.items() if name not in ("made", "called", "maybe_number")}
    assert THINGS.rows_of(THINGS.message([old])) == [old | {"made": 7, "called": ["called"]}]
