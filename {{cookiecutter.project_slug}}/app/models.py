"""Tables."""

from sqlalchemy import String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.highload.columns import ANNOTATIONS, StoredRow


class Base(DeclarativeBase):
    """The parent of all models."""

    type_annotation_map = ANNOTATIONS


class Item(StoredRow, Base):
    """An item; its id and its creation time are columns of every record."""

    __tablename__ = "items"

    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(Text)
