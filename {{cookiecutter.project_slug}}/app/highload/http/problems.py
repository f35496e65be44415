"""Errors as problem details, application/problem+json (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from app.highload.batching import Overloaded
from app.highload.database import Conflict, ContentRefused, DatabaseUnavailable, MissingReference
from app.highload.etags import PreconditionFailed
from app.highload.idempotency import IdempotencyKeyReused
from app.highload.logs import REQUEST_ID
from app.highload.metrics.refusals import WAITING

RETRY_AFTER = {"Retry-After": "1"}
TOO_MANY_WAIT = "Too many requests wait already; repeat this one after the delay."


class ProblemType(NamedTuple):
    """A kind of problem that its status alone does not tell; `reason` is the word for it."""

    reason: str
    status: int
    meaning: str

    @property
    def uri(self) -> str:
        """The reference by which a program knows it (RFC 9457, section 3.1.1); nothing has to be there."""
        return f"/problems/{self.reason}"

    @property
    def title(self) -> str:
        """The same for a person."""
        return self.reason.replace("-", " ").capitalize()


INVALID_REQUEST = ProblemType("invalid-request", 422, "A part of the request is not valid; `errors` names each")
KEY_REUSED = ProblemType(IdempotencyKeyReused.reason, 422, "The `Idempotency-Key` came before with another body")
VALUE_REFUSED = ProblemType(ContentRefused.reason, 422, "The database does not allow a value")
MISSING_REFERENCE = ProblemType(MissingReference.reason, 422, "The request refers to a row that does not exist")
CONFLICT = ProblemType(Conflict.reason, 409, "Another row does not allow this")
OVERLOADED = ProblemType("overloaded", 503, "Too many requests wait; nothing was done")
DATABASE_UNAVAILABLE = ProblemType(
    "database-unavailable", 503, "The database does not answer; a write may have been done"
)
NOT_READY = ProblemType("not-ready", 503, "`/readyz`: a part that the service needs does not answer")
# All that the engine answers with; other errors are plain statuses, and say about:blank.
TYPES = (
    INVALID_REQUEST,
    KEY_REUSED,
    VALUE_REFUSED,
    MISSING_REFERENCE,
    CONFLICT,
    OVERLOADED,
    DATABASE_UNAVAILABLE,
    NOT_READY,
)
REFUSALS = {kind.reason: kind for kind in TYPES}


class ProblemError(HTTPException):
    """A problem of a type, to be raised."""

    def __init__(self, kind: ProblemType, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(kind.status, detail, headers)
        self.kind = kind


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(
        default="about:blank",
        description="\n".join(
            [
                "What happened, for a program; `about:blank` where the status says it all:",
                *(f"- `{kind.uri}` ({kind.status}): {kind.meaning}." for kind in TYPES),
            ]
        ),
        json_schema_extra={"format": "uri-reference"},
    )
    title: str
    status: int
    detail: str
    errors: list[dict[str, Any]] | None = None
    request_id: str | None = None


def problem(
    kind: ProblemType | int,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response for an error of a type, or for one that its status tells.

    `detail` is a sentence for the person who reads it.
    """
    if isinstance(kind, ProblemType):
        document = Problem(type=kind.uri, title=kind.title, status=kind.status, detail=detail, errors=errors)
    else:
        document = Problem(title=HTTPStatus(kind).phrase, status=kind, detail=detail, errors=errors)
    document.request_id = request_id
    content = document.model_dump_json(exclude_none=True)
    return Response(content, document.status, headers, media_type="application/problem+json")


def problem_responses(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of problems: a description for each `_status`."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        int(status.removeprefix("_")): {"description": description, "content": content}
        for status, description in descriptions.items()
    }


def overloaded() -> Response:
    """Return the response for a request that would have to wait behind too many others."""
    return problem(OVERLOADED, TOO_MANY_WAIT, headers=RETRY_AFTER)


def add_problem_handlers(app: FastAPI) -> None:
    """Let every error of the application leave as problem details."""
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(Overloaded, on_overloaded)
    app.add_exception_handler(DatabaseUnavailable, on_database_unavailable)
    app.add_exception_handler(ContentRefused, on_content_refused)
    app.add_exception_handler(IdempotencyKeyReused, on_idempotency_key_reused)
    app.add_exception_handler(PreconditionFailed, on_precondition_failed)
    app.add_exception_handler(Exception, on_unexpected_error)


async def on_invalid_request(request: Request, error: Exception) -> Response:
    """Name every part of the request that is wrong, or say that its body is of another type (RFC 9110, 15.5.16)."""
    error = cast(RequestValidationError, error)
    # The framework leaves a body as it came when its Content-Type is not that of JSON.
    if isinstance(error.body, bytes) and any(part["loc"] == ("body",) for part in error.errors()):
        return unsupported_media_type(request.method)
    errors = [
        {"in": ".".join(map(str, part["loc"])), "detail": part["msg"].removeprefix("Value error, ")}
        for part in error.errors()
    ]
    sentences = "; ".join(f"{part['in']}: {part['detail']}" for part in errors)
    return problem(INVALID_REQUEST, sentences, errors=errors)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Keep the status and the headers of an HTTP exception."""
    error = cast(HTTPException, error)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = ", ".join(allowed_methods(request))
        return problem(405, f"Use one of these methods here: {methods}.", headers={"Allow": methods})
    kind = error.kind if isinstance(error, ProblemError) else error.status_code
    return problem(kind, error.detail, headers=error.headers)


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
    sentence = "The database does not answer; repeat the request after the delay."
    return problem(DATABASE_UNAVAILABLE, sentence, headers=RETRY_AFTER)


async def on_content_refused(_: Request, error: Exception) -> Response:
    """Say which rule of the database the request breaks, and nothing about the rows that are there."""
    error = cast(ContentRefused, error)
    rule = f" ({error.constraint})" if error.constraint else ""
    match error:
        case Conflict():
            sentence = f"Another row does not allow this{rule}; change the request, or that row first."
        case MissingReference():
            sentence = f"The request refers to a row that does not exist{rule}."
        case _:
            sentence = f"The database does not allow a value of this request{rule}."
    return problem(REFUSALS[error.reason], sentence)


async def on_idempotency_key_reused(_: Request, __: Exception) -> Response:
    """Refuse the second meaning of a key."""
    return problem(KEY_REUSED, "This Idempotency-Key came before with another body; use a new key for a new request.")


async def on_precondition_failed(_: Request, __: Exception) -> Response:
    """Ask the client to look first."""
    return problem(412, "The row is not in the state that the request asks for: read it again, then change it.")


def unsupported_media_type(method: str) -> Response:
    """Return the response for a body of another type than a route takes (RFC 9110, 15.5.16; RFC 5789, section 3.1)."""
    if method == "PATCH":
        types = {"Accept-Patch": "application/merge-patch+json, application/json"}
        sentence = "The body is no merge patch: send it with Content-Type: application/merge-patch+json."
        return problem(415, sentence, headers=types)
    sentence = "The body is not JSON: send it with Content-Type: application/json."
    return problem(415, sentence, headers={"Accept": "application/json"})


async def on_unexpected_error(_: Request, __: Exception) -> Response:
    """Tell nothing about the inside; the log has the traceback."""
    return unexpected_error()


def unexpected_error() -> Response:
    """Return the response for an error that nobody expects."""
    own = REQUEST_ID.get()
    under = "" if own is None else f" with request_id {own}"
    return problem(500, f"The service failed to handle this request; the error is in its log{under}.", request_id=own)
