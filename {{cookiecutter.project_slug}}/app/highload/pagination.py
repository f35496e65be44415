"""Keyset pagination: a cursor names the last row of a page, so every page costs the same however deep it lies."""

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Position(NamedTuple):
    """Where a row stands in the order of the list."""

    created_at: datetime
    id: UUID


def encode_cursor(position: Position) -> str:
    """Return the opaque text of a position."""
    microseconds = (position.created_at - EPOCH) // MICROSECOND
    return base64.urlsafe_b64encode(microseconds.to_bytes(8) + position.id.bytes).decode()


def decode_cursor(cursor: str) -> Position:
    """Return the position that `encode_cursor` made `cursor` of.

    Raises ValueError when it did not make it.
    """
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
        position = Position(EPOCH + int.from_bytes(raw[:8]) * MICROSECOND, UUID(bytes=raw[8:]))
    except (binascii.Error, OverflowError, ValueError):
        position = None
    if position is None or encode_cursor(position) != cursor:
        raise ValueError("take the cursor from next_cursor of the page before")
    return position


def check_cursor(cursor: str) -> str:
    """Refuse a cursor that no page gave."""
    decode_cursor(cursor)
    return cursor


# Parameters of a route that answers with a page.
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows on a page")]
Cursor = Annotated[str, AfterValidator(check_cursor), Query(description="`next_cursor` of the page before")]
