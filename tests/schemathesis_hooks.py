"""Hooks for schemathesis: what an OpenAPI document cannot say about valid requests."""

from typing import Any
from uuid import uuid4

import schemathesis
from schemathesis import GenerationMode


@schemathesis.hook
def before_call(_: Any, case: Any, **__: Any) -> None:
    """Let valid requests use a cursor that a page gave, or none, a new idempotency key each, and no precondition."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if case.query:
        case.query.pop("cursor", None)
    for name in [name for name in case.headers or () if name.lower() == "idempotency-key"]:
        case.headers[name] = str(uuid4())
    for name in [name for name in case.headers or () if name.lower() == "if-match"]:
        case.headers.pop(name)
