"""The body of a PATCH: what is left out stays (RFC 7396)."""

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator


class Changes(BaseModel):
    """Changes to a row; at least one field is given.

    A field that may be left out but not be null has a default that nobody sees: `Field(default_factory=str)`.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def ask_for_a_change(self) -> Self:
        """Refuse an empty document."""
        if not self.model_fields_set:
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self
