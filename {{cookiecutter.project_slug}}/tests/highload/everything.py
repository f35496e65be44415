"""A resource with every type of column, and two that refer to each other, for the engine's own tests."""

import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, ForeignKey, Integer, LargeBinary, Numeric, SmallInteger, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.highload.columns import StoredRow, array
from app.highload.http.changes import Changes
from app.highload.resource import Resource
from tests.highload.notes import Base


class Color(enum.Enum):
    RED = "red of the flag"
    GREEN = "green of the grass"


class Thing(StoredRow, Base):
    __tablename__ = "highload_things"

    number: Mapped[int] = mapped_column(Integer)
    small: Mapped[int] = mapped_column(SmallInteger)
    big: Mapped[int] = mapped_column(BigInteger)
    ratio: Mapped[float]
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    flag: Mapped[bool]
    code: Mapped[str] = mapped_column(String(5))
    words: Mapped[str] = mapped_column(Text)
    day: Mapped[date]
    hour: Mapped[time]
    moment: Mapped[datetime]
    pause: Mapped[timedelta]
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    owner: Mapped[UUID]
    color: Mapped[Color]
    tags: Mapped[list[str]]
    sizes: Mapped[list[int]]
    codes: Mapped[list[str | None]] = mapped_column(array(String(5)))
    document: Mapped[dict[str, Any]]
    maybe_number: Mapped[int | None]
    maybe_price: Mapped[Decimal | None] = mapped_column(Numeric(15, 4))
    maybe_moment: Mapped[datetime | None]
    maybe_color: Mapped[Color | None]
    maybe_tags: Mapped[list[str] | None]
    maybe_document: Mapped[dict[str, Any] | None]
    maybe_raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    made: Mapped[int] = mapped_column(default=7)
    called: Mapped[list[str]] = mapped_column(default=lambda: ["called"])
    ranked: Mapped[int] = mapped_column(server_default=text("3"))


class ThingCreate(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    number: int
    small: int
    big: int
    ratio: float
    price: Decimal
    flag: bool
    code: str
    words: str
    day: date
    hour: time
    moment: datetime
    pause: timedelta
    raw: bytes
    owner: UUID
    color: Color
    tags: list[str]
    sizes: list[int]
    codes: list[str | None]
    document: dict[str, Any]
    maybe_number: int | None = None
    maybe_price: Decimal | None = None
    maybe_moment: datetime | None = None
    maybe_color: Color | None = None
    maybe_tags: list[str] | None = None
    maybe_document: dict[str, Any] | None = None
    maybe_raw: bytes | None = None


class ThingRead(ThingCreate):
    id: UUID
    created_at: datetime
    made: int
    called: list[str]


THINGS = Resource(Thing, create=ThingCreate, change=ThingCreate, read=ThingRead)


class RankedRead(BaseModel):
    """Shows nothing that the database would write in its own way, but what it makes."""

    id: UUID
    ranked: int


RANKED = Resource(Thing, create=ThingCreate, change=ThingCreate, read=RankedRead, queued=False)


class PlainRead(BaseModel):
    """Shows columns of each type that PostgreSQL writes in JSON as pydantic does."""

    id: UUID
    number: int
    small: int
    big: int
    flag: bool
    code: str
    words: str = Field(serialization_alias='in "words"')
    day: date
    moment: datetime
    owner: UUID
    maybe_number: int | None = None
    maybe_moment: datetime | None
    created_at: datetime


PLAIN = Resource(Thing, create=ThingCreate, change=ThingCreate, read=PlainRead)


class Parent(StoredRow, Base):
    __tablename__ = "highload_parents"

    name: Mapped[str] = mapped_column(String(20), unique=True)


class Child(StoredRow, Base):
    __tablename__ = "highload_children"

    parent_id: Mapped[UUID] = mapped_column(ForeignKey("highload_parents.id"))


class ParentCreate(BaseModel):
    name: str


class ParentUpdate(Changes):
    name: str = ""


class ParentRead(ParentCreate):
    id: UUID


class ChildCreate(BaseModel):
    parent_id: UUID


class ChildUpdate(Changes):
    parent_id: UUID = Field(default_factory=uuid4)


class ChildRead(ChildCreate):
    id: UUID


PARENTS = Resource(Parent, create=ParentCreate, change=ParentUpdate, read=ParentRead)
CHILDREN = Resource(Child, create=ChildCreate, change=ChildUpdate, read=ChildRead)
