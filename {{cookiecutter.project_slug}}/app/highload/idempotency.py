"""Idempotency keys: a client names a request, and its repetitions store one row."""

from hashlib import blake2b
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json

HEADER = "Idempotency-Key"
LONGEST_KEY = 255

# The parameter of a route in the OpenAPI document.
DOCUMENTATION: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Makes repetitions of this request store one row",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
}


class IdempotencyKeyReused(Exception):
    """The idempotency key came before, with another request."""

    def __str__(self) -> str:
        """Return the reason for the log."""
        return "its idempotency key came before with another body"


def key_of(request: Request) -> str | None:
    """Return the key of a request, if it has one.

    It is not a parameter of the route: to ask the framework for a header takes a tenth of the time of a POST.

    Raises RequestValidationError.
    """
    key = request.headers.get(HEADER)
    # The parser of the server leaves space behind a value, which is no part of it (RFC 9110, section 5.5).
    key = key and key.strip(" \t")
    if key is not None and not 1 <= len(key) <= LONGEST_KEY:
        detail = f"Value should have 1 to {LONGEST_KEY} characters"
        raise RequestValidationError([{"loc": ("header", HEADER.lower()), "msg": detail}])
    return key


def id_of(key: str, resource: str) -> UUID:
    """Return the id of the row that the requests with a key store: a UUIDv5 (RFC 9562), so that they all meet at it."""
    return uuid5(uuid5(NAMESPACE_URL, f"{resource}/idempotency-key"), key)


def fingerprint_of(body: BaseModel) -> str:
    """Return the digest that tells a repetition of a request from another use of its key.

    Defaults do not count, so that a field that a later release adds leaves the digests of earlier requests alone.
    """
    given = body.model_dump(exclude_defaults=True)
    text = to_json(given, bytes_mode="base64", inf_nan_mode="strings")
    return blake2b(text, digest_size=16).hexdigest()
