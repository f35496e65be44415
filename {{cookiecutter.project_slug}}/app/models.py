"""Tables."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.highload.sqlite import SQLiteUTC


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
