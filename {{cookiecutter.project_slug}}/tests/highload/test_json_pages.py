"""A page that PostgreSQL writes has the bytes of one that pydantic writes, and is the same page."""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from app.highload.etags import bytes_of
from app.highload.generations import Announced, listen
from app.highload.json_pages import Encoded, JSONPages, represent_page
from app.highload.pagination import Position, encode_cursor, listen_for_pages
from app.highload.repository import Repository
from app.highload.resource import Resource
from tests.highload.everything import PLAIN, THINGS, PlainRead, Thing, ThingCreate, ThingRead
from tests.highload.test_resource import FULL, HOSTILE, opened, thing

type Things = Repository[Any, Any, Any]
type Seen = tuple[bytes, str | None, set[Announced], list[str | None]]

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5) | st.just(HOSTILE[:5])
MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)
PLAIN_FIELDS = st.fixed_dictionaries(
    {
        "number": st.integers(-(2**31), 2**31 - 1),
        "small": st.integers(-(2**15), 2**15 - 1),
        "big": st.integers(-(2**63), 2**63 - 1),
        "flag": st.booleans(),
        "code": TEXTS,
        "words": TEXTS,
        "day": st.dates(),
        "moment": MOMENTS,
        "maybe_number": st.none() | st.integers(-9, 9),
        "maybe_moment": st.none() | MOMENTS,
    }
)


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


async def seen(ask: Callable[..., Awaitable[tuple[Any, str | None]]], *conditions: Any, **page: Any) -> Seen:
    """Return the bytes of a page, its cursor, and what the run has announced."""
    places, pages = listen(), listen_for_pages()
    rows, cursor = await ask(*conditions, **page)
    body = rows if isinstance(rows, Encoded) else b"[" + b",".join(map(bytes_of, rows)) + b"]"
    return body, cursor, places, pages


@given(st.lists(PLAIN_FIELDS, min_size=1, max_size=40))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_whoever_writes_a_row_writes_the_same_bytes(database_url: str, rows: list[dict[str, Any]]) -> None:
    async with opened(database_url) as storage:
        things = storage.open(PLAIN)
        owner = uuid4()
        receipts = [(await things.create(thing(**fields, owner=owner))).row for fields in rows]
        listed, _ = await things.page_as_json(Thing.owner == owner, limit=100)
        assert listed == b"[" + b",".join(bytes_of(row) for row in reversed(receipts)) + b"]"
        fetched = await things.one(receipts[0].id)
        assert fetched is not None
        assert bytes_of(fetched) == bytes_of(receipts[0])
        number = {"number": rows[0]["number"]}
        changed = await things.change(receipts[0].id, ThingCreate.model_construct(_fields_set={*number}, **number))
        assert changed is not None
        assert bytes_of(changed) == bytes_of(receipts[0])


async def test_every_type_is_shown_alike(database_url: str) -> None:
    async with opened(database_url) as storage:
        things = storage.open(THINGS)
        receipts = [(await things.create(body)).row for body in (thing(), thing(**FULL))]
        listed, _ = await things.page_as_json(limit=2)
        assert listed == b"[" + b",".join(bytes_of(row) for row in reversed(receipts)) + b"]"


async def test_pages_are_the_same_however_they_are_made(database_url: str) -> None:
    async with opened(database_url) as storage:
        things: Things = storage.open(PLAIN)
        for number in range(7):
            await things.create(thing(number=number, flag=number % 2 == 0))
        for conditions in ((), (Thing.flag.is_(True),), (Thing.number > 9,)):
            for limit in (1, 2, 3, 4, 6, 7, 8):
                cursor: str | None = None
                for _ in range(9):
                    expected = await seen(things.page, *conditions, limit=limit, cursor=cursor)
                    assert await seen(things.page_as_json, *conditions, limit=limit, cursor=cursor) == expected
                    cursor = expected[1]
                    if cursor is None:
                        break
                assert cursor is None
        (oldest, *_), _ = await things.page(Thing.number == 0, limit=1)
        made_up = encode_cursor(Position(oldest.created_at + timedelta(microseconds=1), oldest.id))
        last = encode_cursor(Position(oldest.created_at, oldest.id))
        for cursor in (made_up, last):
            expected = await seen(things.page, limit=3, cursor=cursor)
            assert await seen(things.page_as_json, limit=3, cursor=cursor) == expected
        with pytest.raises(ValueError, match="next_cursor"):
            await things.page_as_json(limit=1, cursor="x")


async def test_postgresql_writes_the_page_itself(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def show_all(*_: object) -> None:
        raise AssertionError("a row became an object of Python")

    async with opened(database_url) as storage:
        things: Things = storage.open(PLAIN)
        await things.create(thing())
        monkeypatch.setattr(Resource, "show_all", show_all)
        if database_url.startswith("sqlite"):
            with pytest.raises(AssertionError):
                await things.page_as_json(limit=1)
        else:
            assert (await things.page_as_json(limit=1))[0]


class Shown(BaseModel):
    id: UUID


class Plain(Shown):
    """A model that copies."""

    model_config = ConfigDict(title="x", from_attributes=True, frozen=True, extra="forbid", populate_by_name=True)

    code: str = Field(description="x", alias="the code", examples=["x"])
    maybe_number: int | None = 5


class Checked(Shown):
    code: str = Field(max_length=5)


class Stripped(Shown):
    code: Annotated[str, StringConstraints(strip_whitespace=True)]


class Chosen(Shown):
    code: Literal["a", "b"]


class Converted(Shown):
    number: str


class Hidden(Shown):
    code: str = Field(exclude=True)


class Computed(Shown):
    @computed_field
    def double(self) -> str:
        return str(self.id) * 2


class Serialized(Shown):
    code: str

    @field_serializer("code")
    def louder(self, code: str) -> str:
        return code.upper()


class SerializedAsWhole(Shown):
    @model_serializer
    def nothing(self) -> dict[str, str]:
        return {}


class SerializedByType(Shown):
    code: Annotated[str, PlainSerializer(str.upper)]


class Validated(Shown):
    code: Annotated[str, AfterValidator(str.upper)]


class ValidatedByMethod(Shown):
    code: str

    @field_validator("code")
    @classmethod
    def louder(cls, code: str) -> str:
        return code.upper()


class ValidatedAsWhole(Shown):
    @model_validator(mode="after")
    def nothing(self) -> "ValidatedAsWhole":
        return self


class Initialized(Shown):
    def model_post_init(self, _: object) -> None:
        pass


class Configured(Shown):
    model_config = ConfigDict(str_to_upper=True)

    code: str


class Referring(Shown):
    code: str
    other: "Referring | None" = None


def resource_of(read: type[BaseModel]) -> Resource[Any, Any, Any]:
    return Resource(Thing, create=ThingCreate, change=ThingCreate, read=read, queued=False)


@pytest.mark.parametrize("read", [Shown, Plain, PlainRead])
def test_a_schema_that_copies_needs_no_python(read: type[BaseModel]) -> None:
    assert JSONPages(resource_of(read)).possible


@pytest.mark.parametrize(
    "read",
    [
        *(Checked, Stripped, Chosen, Converted, Hidden, Computed, Serialized, SerializedAsWhole, SerializedByType),
        *(Validated, ValidatedByMethod, ValidatedAsWhole, Initialized, Configured, ThingRead),
    ],
)
def test_a_schema_that_does_more_is_left_to_pydantic(read: type[BaseModel]) -> None:
    assert not JSONPages(resource_of(read)).possible


@pytest.mark.parametrize(
    "name", ["ratio", "price", "hour", "pause", "raw", "color", "tags", "sizes", "codes", "document", "maybe_raw"]
)
def test_a_column_that_postgresql_writes_in_its_own_way_is_left_to_pydantic(name: str) -> None:
    annotation: Any = ThingRead.model_fields[name].annotation
    read = type("Read", (Shown,), {"__annotations__": {name: annotation}, "__module__": __name__})
    assert not JSONPages(resource_of(read)).possible


class Page(BaseModel):
    """A page."""

    things: list[Plain] = Field(serialization_alias="the things")
    next_cursor: str | None
    day: date | None = None
    total: Annotated[int, PlainSerializer(str)]


def test_a_page_is_what_pydantic_would_make_of_it() -> None:
    row = Plain.model_validate({"id": uuid4(), "the code": HOSTILE})
    others: dict[str, Any] = {"next_cursor": "x", "day": date(2024, 2, 29), "total": 3}
    page = Page(things=[row], **others)
    answer = represent_page(Page, things=Encoded(b"[" + bytes_of(row) + b"]"), **others)
    assert answer.body == bytes_of(page)
    assert answer.headers["content-type"] == "application/json"


def test_a_page_has_the_fields_of_its_schema() -> None:
    complete: dict[str, Any] = {"things": [], "next_cursor": None, "day": None, "total": 1}
    for fields in ({"things": Encoded(b"[]")}, complete | {"more": 1}):
        with pytest.raises(TypeError, match="each field of Page"):
            represent_page(Page, **fields)
    with pytest.raises(TypeError, match="Computed"):
        represent_page(Computed, id=uuid4())
