"""Errors as problem details, application/problem+json (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from app.highload.batching import Overloaded
from app.highload.database import Conflict, ContentRefused, DatabaseUnavailable, MissingReference
from app.highload.idempotency import IdempotencyKeyReused
from app.highload.logs import REQUEST_ID
from app.highload.metrics.refusals import WAITING

RETRY_AFTER = {"Retry-After": "1"}
TOO_MANY_WAIT = "Too many requests wait already; repeat this one after the delay."


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
    request_id: str | None = None


def problem(
    status: int,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response for an error; `detail` is a sentence for the person who reads it."""
    phrase = HTTPStatus(status).phrase
    document = Problem(title=phrase, status=status, detail=detail, errors=errors, request_id=request_id)
    return Response(document.model_dump_json(exclude_none=True), status, headers, media_type="application/problem+json")


def problem_responses(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of problems: a description for each `_status`."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        int(status.removeprefix("_")): {"description": description, "content": content}
        for status, description in descriptions.items()
    }


def overloaded() -> Response:
    """Return the response for a request that would have to wait behind too many others."""
    return problem(503, TOO_MANY_WAIT, headers=RETRY_AFTER)


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of the application leave as problem details."""
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Overloaded, on_overloaded)
    app.add_exception_handler(DatabaseUnavailable, on_database_unavailable)
    app.add_exception_handler(ContentRefused, on_content_refused)
    app.add_exception_handler(IdempotencyKeyReused, on_idempotency_key_reused)
    app.add_exception_handler(Exception, on_unexpected_error)


async def on_invalid_request(_: Request, error: Exception) -> Response:
    """Name every part of the request that is wrong, or say that its body is of another type (RFC 9110, 15.5.16)."""
    error = cast(RequestValidationError, error)
    # The framework leaves a body as it came when its Content-Type is not that of JSON.
    if isinstance(error.body, bytes) and any(part["loc"] == ("body",) for part in error.errors()):
        return problem(415, "The body is not JSON: send it with Content-Type: application/json.")
    errors = [
        {"in": ".".join(map(str, part["loc"])), "detail": part["msg"].removeprefix("Value error, ")}
        for part in error.errors()
    ]
    sentences = "; ".join(f"{part['in']}: {part['detail']}" for part in errors)
    return problem(422, sentences, errors=errors)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Keep the status and the headers of an HTTP exception."""
    error = cast(HTTPException, error)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = ", ".join(allowed_methods(request))
        return problem(405, f"Use one of these methods here: {methods}.", headers={"Allow": methods})
    return problem(error.status_code, error.detail, headers=error.headers)


def allowed_methods(request: Request) -> list[str]:
    """Return every method of a path (RFC 9110, section 10.2.1); the framework knows each route's own only."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    routes = iter_route_contexts(request.app.routes)
    at_path = [route for route in routes if route.path and compile_path(route.path)[0].match(path)]
    methods = {method for route in at_path for method in route.methods or ()}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def on_overloaded(_: Request, __: Exception) -> Response:
    """Ask the client to come back."""
    WAITING.add()
    return overloaded()


async def on_database_unavailable(_: Request, __: Exception) -> Response:
    """Ask the client to come back."""
    return problem(503, "The database does not answer; repeat the request after the delay.", headers=RETRY_AFTER)


async def on_content_refused(_: Request, error: Exception) -> Response:
    """Say which rule of the database the request breaks, and nothing about the rows that are there."""
    constraint = cast(ContentRefused, error).constraint
    rule = f" ({constraint})" if constraint else ""
    match error:
        case Conflict():
            return problem(409, f"Another row does not allow this{rule}; change the request, or that row first.")
        case MissingReference():
            return problem(422, f"The request refers to a row that does not exist{rule}.")
        case _:
            return problem(422, f"The database does not allow a value of this request{rule}.")


async def on_idempotency_key_reused(_: Request, __: Exception) -> Response:
    """Refuse the second meaning of a key."""
    return problem(422, "This Idempotency-Key came before with another body; use a new key for a new request.")


async def on_unexpected_error(_: Request, __: Exception) -> Response:
    """Tell nothing about the inside; the log has the traceback."""
    return unexpected_error()


def unexpected_error() -> Response:
    """Return the response for an error that nobody expects."""
    own = REQUEST_ID.get()
    under = "" if own is None else f" with request_id {own}"
    return problem(500, f"The service failed to handle this request; the error is in its log{under}.", request_id=own)
