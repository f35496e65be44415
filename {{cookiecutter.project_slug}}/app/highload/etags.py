"""Entity tags, and what a client asks of them before it writes (RFC 9110, sections 8.8 and 13)."""

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple

from fastapi import Depends
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

ACCEPTED = 202
IF_MATCH = "If-Match"
IF_NONE_MATCH = "If-None-Match"
ANY = "*"
TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
TAGS = re.compile(rf"[ \t,]*(?:{TAG}(?:[ \t]*,[ \t,]*{TAG})*)?[ \t,]*")

# The header field of an answer that shows a row, in the OpenAPI document.
DOCUMENTATION: dict[str, Any] = {
    "ETag": {"description": "The state of what is shown; that of a row is for `If-Match`", "schema": {"type": "string"}}
}


class PreconditionFailed(Exception):
    """A row is not in the state that a client asks for, so nothing was done."""


class Preconditions(NamedTuple):
    """The entity tags of a request, or None for a field that it does not have; `*` stands for any."""

    if_match: frozenset[str] | None
    if_none_match: frozenset[str] | None

    def allow(self, tag: str) -> bool:
        """Whether the request may be performed on what has this strong tag (RFC 9110, section 13.2.2)."""
        if self.if_match is not None and self.if_match.isdisjoint((ANY, tag)):
            return False
        return self.if_none_match is None or self.if_none_match.isdisjoint((ANY, tag, f"W/{tag}"))


async def preconditions_of(connection: HTTPConnection) -> Preconditions | None:
    """Return what a request asks of the state of its row, or None where it does not ask.

    Raises HTTPException.
    """
    fields: dict[bytes, list[str]] = {}
    for name, value in connection.scope["headers"]:
        if name in (b"if-match", b"if-none-match"):
            fields.setdefault(name, []).append(value.decode("latin-1"))
    if not fields:
        return None
    return Preconditions(
        tags_in(IF_MATCH, fields.get(b"if-match")),
        tags_in(IF_NONE_MATCH, fields.get(b"if-none-match")),
    )


# A parameter of a route that changes or deletes a row; hand it over as `only_if`.
OnlyIf = Annotated[Preconditions | None, Depends(preconditions_of)]


def tags_in(name: str, lines: list[str] | None) -> frozenset[str] | None:
    """Return the entity tags of a header field, which may have several lines.

    Raises HTTPException for what is no list of them.
    """
    if lines is None:
        return None
    value = ",".join(lines).strip(" \t")
    if value == ANY:
        return frozenset([ANY])
    if not TAGS.fullmatch(value):
        raise HTTPException(
            400, f'{name} is neither * nor a list of entity tags: send the ETag with its quotes, "...".'
        )
    return frozenset(re.findall(TAG, value))


def entity_tag(body: bytes) -> str:
    """Return a strong entity tag for a body (RFC 9110, section 8.8.3)."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def bytes_of(row: BaseModel) -> bytes:
    """Return a row as the framework answers it; its entity tag is made of these bytes."""
    return row.model_dump_json(by_alias=True).encode()


def represent(row: BaseModel, status_code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that shows a row, with its entity tag, so that a client can go on with `If-Match`.

    A 202 has no tag, because nothing is stored yet.
    """
    body = bytes_of(row)
    tags = {} if status_code == ACCEPTED else {"ETag": entity_tag(body)}
    return Response(body, status_code, tags | {**(headers or {})}, media_type="application/json")
