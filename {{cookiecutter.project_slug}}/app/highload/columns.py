"""The types of columns that PostgreSQL, SQLite and the queue keep alike, and the columns that every resource has."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Base64UrlBytes
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Index,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Text,
    Time,
    Uuid,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, declared_attr, mapped_column
from sqlalchemy.types import TypeEngine

from app.highload.sqlite import SQLiteUTC

# SQLite keeps a number in a double, which holds that many decimal digits (IEEE 754).
EXACT_DIGITS = 15

MOMENT = DateTime(timezone=True).with_variant(SQLiteUTC(), "sqlite")
DOCUMENT = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def array(of: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of an array of texts, numbers or truth values, which SQLite keeps as JSON."""
    return ARRAY(of, dimensions=1).with_variant(JSON(none_as_null=True), "sqlite")


# What `Mapped[...]` means on a model, where the model does not say more.
ANNOTATIONS: dict[Any, TypeEngine[Any]] = {
    datetime: MOMENT,
    dict[str, Any]: DOCUMENT,
    list[str]: array(Text()),
    list[int]: array(BigInteger()),
    list[float]: array(Float()),
    list[bool]: array(Boolean()),
}


class StoredRow:
    """The columns that every resource has; a model inherits them and adds its own.

    The service makes all three, so that storing a row twice changes nothing. `fingerprint` is the digest of the
    request that came with an idempotency key, and None without such a key.
    """

    __tablename__: str

    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-1)
    created_at: Mapped[datetime] = mapped_column(MOMENT, sort_order=1)
    fingerprint: Mapped[str | None] = mapped_column(
        String(32), sort_order=1, comment="Digest of the request that came with an idempotency key"
    )

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> tuple[Any, ...]:
        """Keep an index in the order of the pages; a model with arguments of its own adds them to these."""
        return (Index(f"ix_{cls.__tablename__}_created_at_id", "created_at", "id"),)


ARRAYS_OF = (String, Integer, Float, Boolean)
TRIED = (ARRAY, Boolean, Date, DateTime, Float, Integer, Interval, JSON, LargeBinary, Numeric, String, Time, Uuid)
STAMPS = ("id", "created_at", "fingerprint")
# What is stored in these comes back as the same text of JSON. A moment changes its time zone, a number its digits, a
# document the order of its keys.
KEPT_AS_GIVEN = (BigInteger, Boolean, Date, Enum, Integer, LargeBinary, SmallInteger, String, Text, Uuid)


def reason_to_refuse(column: Column[Any]) -> str | None:
    """Return what to write instead of a type that the databases and the queue would not keep alike."""
    kept_by_sqlite = column.type.dialect_impl(sqlite.dialect())
    instead: str | None = None
    match column.type:
        case DateTime() if not isinstance(kept_by_sqlite, SQLiteUTC):
            instead = "a moment needs a time zone: use MOMENT"
        case Time(timezone=True):
            instead = "SQLite keeps no time zone: use Time() or MOMENT"
        case ARRAY(item_type=Enum()):
            instead = "use array(Text())"
        case ARRAY() if not isinstance(kept_by_sqlite, JSON) or not isinstance(column.type.item_type, ARRAYS_OF):
            instead = "use array(...) of texts, numbers or truth values, or DOCUMENT"
        case Numeric(asdecimal=True, precision=precision) if not precision or precision > EXACT_DIGITS:
            instead = (
                f"SQLite keeps {EXACT_DIGITS} digits exactly: use Numeric({EXACT_DIGITS}, 2) or less, or an integer"
            )
        case JSON(none_as_null=False):
            instead = "None would be two things: use DOCUMENT, or JSON(none_as_null=True)"
        case _ if not isinstance(column.type, TRIED):
            instead = "use one that was tried on both databases and in the queue (app/highload/columns.py)"
        case _:
            pass
    return instead


def comes_back_as_given(column: Column[Any]) -> bool:
    """Whether a stored value is shown as it was before it was stored."""
    return column.name in STAMPS or type(column.type) in KEPT_AS_GIVEN


def python_type(column_type: TypeEngine[Any]) -> Any:
    """Return the type of a column's values, for a message of the queue."""
    match column_type:
        case JSON():
            return Any
        case ARRAY():
            of: Any = column_type.item_type.python_type
            return list[of | None]
        case LargeBinary():
            return Base64UrlBytes
    return column_type.python_type


def array_of(column_type: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of an array parameter with the values of a column.

    Text instead of VARCHAR(n), because a cast to the latter cuts what is too long without an error. And text instead
    of an array, because arrays of arrays have one length (`array_literal`).
    """
    if isinstance(column_type, ARRAY) or (isinstance(column_type, String) and not isinstance(column_type, Enum)):
        return ARRAY(Text())
    return ARRAY(column_type)


def array_literal(values: Sequence[Any] | None) -> str | None:
    """Return an array as PostgreSQL's text for it (manual, section 8.15.2)."""
    if values is None:
        return None
    escaped = [str(value).replace("\\", "\\\\").replace('"', '\\"') for value in values]
    return (
        "{"
        + ",".join("NULL" if value is None else f'"{text}"' for value, text in zip(values, escaped, strict=True))
        + "}"
    )
