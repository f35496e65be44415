"""The OpenAPI document, completed by what the engine does for the routes."""

from collections.abc import Sequence
from typing import Any

from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.routing import BaseRoute

from app.highload.etags import DOCUMENTATION, IF_MATCH
from app.highload.http.expectations import MERGE_PATCH, body_type, compares_tags, types_of
from app.highload.http.problems import problem_responses
from app.highload.pagination import CURSOR
from app.highload.reads.shared import MARK, dependants_in

LINK = {"Link": {"description": 'The page that follows, as `rel="next"` (RFC 8288)', "schema": {"type": "string"}}}
CACHE_CONTROL = {"Cache-Control": {"description": "What others may do with the answer", "schema": {"type": "string"}}}
ACCEPT_PATCH = {"Accept-Patch": {"description": "The types that are taken", "schema": {"type": "string"}}}
PRECONDITION = {
    "name": IF_MATCH,
    "in": "header",
    "required": False,
    "description": "The `ETag` that the row must have; a list, or `*` for any",
    "schema": {"type": "string"},
}
REFUSED = problem_responses(
    _400="The request cannot be read",
    _412="The row has another `ETag` than `If-Match` names",
)


def complete(document: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Add to a document: the header fields of shared answers, `If-Match` with its answers, and merge patches."""
    for context in iter_route_contexts(routes):
        if not isinstance(context.original_route, APIRoute):
            continue
        for method in context.methods or ():
            operation = document["paths"].get(context.path_format, {}).get(method.lower())
            if operation is not None:
                complete_operation(operation, method, context)


def complete_operation(operation: dict[str, Any], method: str, route: RouteContext) -> None:
    """Add to the documentation of one method of a route."""
    responses: dict[str, Any] = operation["responses"]
    if method == "GET" and hasattr(route.endpoint, MARK):
        names = {field.alias for one in dependants_in(route.dependant) for field in one.query_params}
        headers = DOCUMENTATION | CACHE_CONTROL | (LINK if CURSOR in names else {})
        add_headers(responses.get("200"), headers)
        responses.setdefault("304", {"description": "As `If-None-Match` names it", "headers": DOCUMENTATION})
    if compares_tags(route.dependant):
        operation.setdefault("parameters", []).append(PRECONDITION)
        for status, response in REFUSED.items():
            responses.setdefault(str(status), response)
        add_headers(responses.get("200"), DOCUMENTATION)
    declared = body_type(route)
    if method == "PATCH" and declared is not None and MERGE_PATCH in types_of(method, declared):
        content: dict[str, Any] = operation["requestBody"]["content"]
        content.setdefault(MERGE_PATCH, content[declared])
        add_headers(responses.get("415"), ACCEPT_PATCH)


def add_headers(response: dict[str, Any] | None, headers: dict[str, Any]) -> None:
    """Document header fields of an answer, if there is one."""
    if response is not None:
        response["headers"] = headers | response.get("headers", {})
