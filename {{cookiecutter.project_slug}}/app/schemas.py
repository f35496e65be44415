"""What goes over the wire. The fields of a resource are columns of its table."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.highload.http.changes import Changes

# PostgreSQL stores every character but NUL.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=255)]


class ItemCreate(BaseModel):
    """A new item."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    description: Text | None = None


class ItemUpdate(Changes):
    """Changes to an item."""

    name: Name = Field(default_factory=str)
    description: Text | None = None


class ItemRead(BaseModel):
    """A stored or accepted item."""

    id: UUID
    name: str
    description: str | None
    created_at: datetime


class ItemPage(BaseModel):
    """Items, newest first; `next_cursor` leads to the next page, and is null on the last."""

    items: list[ItemRead]
    next_cursor: str | None
