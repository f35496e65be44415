"""Idempotency keys: a client names a request, and its repetitions store one item."""

from hashlib import blake2b
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from app.schemas import ItemCreate

HEADER = "Idempotency-Key"
LONGEST_KEY = 255

# UUIDv5 (RFC 9562) of a key, so that its repetitions meet at one row.
KEY_NAMESPACE = uuid5(NAMESPACE_URL, "{{ cookiecutter.project_slug }}/idempotency-key")

# The parameter of a route in the OpenAPI document.
DOCUMENTATION: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Makes repetitions of this request store one item",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
}


def key_of(request: Request) -> str | None:
    """Return the key of a request, if it has one.

    It is not a parameter of the route: to ask the framework for a header takes a tenth of the time of a POST.

    Raises RequestValidationError.
    """
    key = request.headers.get(HEADER)
    if key is not None and not 1 <= len(key) <= LONGEST_KEY:
        detail = f"Value should have 1 to {LONGEST_KEY} characters"
        raise RequestValidationError([{"loc": ("header", HEADER.lower()), "msg": detail}])
    return key


def id_of(key: str) -> UUID:
    """Return the id of the item that the requests with a key store."""
    return uuid5(KEY_NAMESPACE, key)


def fingerprint_of(body: ItemCreate) -> str:
    """Return the digest that tells a repetition of a request from another use of its key."""
    return blake2b(body.model_dump_json().encode(), digest_size=16).hexdigest()
