"""Tables."""

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.highload.columns import StoredRow


class Item(StoredRow, Base):
    """An item; its id and its creation time are columns of every record."""

    __tablename__ = "items"

    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(Text)
