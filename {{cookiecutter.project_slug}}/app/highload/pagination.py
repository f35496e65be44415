"""Keyset pagination: a cursor names the last row of a page, so every page costs the same however deep it lies."""

import base64
import binascii
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# The parameter of a page.
CURSOR = "cursor"


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


# The cursors of the pages that a run has asked for, or None for the last page.
announced: ContextVar[list[str | None] | None] = ContextVar("pages", default=None)


def announce_next(cursor: str | None) -> None:
    """Say which page follows the one that this run has asked for."""
    pages = announced.get()
    if pages is not None:
        pages.append(cursor)


def listen_for_pages() -> list[str | None]:
    """Collect what is announced in this context from now on."""
    pages: list[str | None] = []
    announced.set(pages)
    return pages


def link_to_next(pages: list[str | None], query: str) -> str | None:
    """Return the value of a `Link` (RFC 8288) to the page that follows a single one, if one does.

    It is relative to the address of the request, so it is right behind any prefix. The other parameters stay.
    """
    if len(pages) != 1 or pages[0] is None:
        return None
    others = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != CURSOR]
    return f'<?{urlencode([*others, (CURSOR, pages[0])])}>; rel="next"'


# Parameters of a route that answers with a page.
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows on a page")]
Cursor = Annotated[str, AfterValidator(check_cursor), Query(description="`next_cursor` of the page before")]
