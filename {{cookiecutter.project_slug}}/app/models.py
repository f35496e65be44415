"""Tables."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import DateTime, Dialect, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from app.db import Base


class SQLiteUTC(TypeDecorator[datetime]):
    """A moment in SQLite, which knows no time zones: kept in UTC."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Drop the time zone after a change to UTC."""
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Name the time zone again."""
        return value and value.replace(tzinfo=UTC)


class Item(Base):
    """An item. Its id and its creation time are made by the API, so that storing it twice changes nothing."""

    __tablename__ = "items"
    __table_args__ = (Index("ix_items_created_at_id", "created_at", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True).with_variant(SQLiteUTC(), "sqlite"))
    fingerprint: Mapped[str | None] = mapped_column(
        String(32), comment="Digest of the request that came with an idempotency key"
    )
