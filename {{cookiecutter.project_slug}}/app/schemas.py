"""What goes over the wire."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

# PostgreSQL stores every character but NUL.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=255)]


class ItemCreate(BaseModel):
    """A new item."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    description: Text | None = None


class ItemUpdate(BaseModel):
    """Changes to an item: what is left out stays (RFC 7396)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    name: Name = Field(default="")
    description: Text | None = None

    @model_validator(mode="after")
    def ask_for_a_change(self) -> Self:
        """Refuse an empty document."""
        if not self.model_fields_set:
            raise ValueError("give at least one of name and description")
        return self

    def changes(self) -> dict[str, str | None]:
        """Return the fields that were given."""
        return self.model_dump(exclude_unset=True)


class ItemRead(BaseModel):
    """A stored or accepted item."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    description: str | None
    created_at: datetime


class ItemPage(BaseModel):
    """Items, newest first; `next_cursor` leads to the page that follows, and is null on the last one."""

    items: list[ItemRead]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item on its way to the table.

    `fingerprint` is the digest of the request that came with an idempotency key, and None without such a key.
    """

    id: UUID
    name: str
    description: str | None
    created_at: datetime
    fingerprint: str | None = None
