"""What a request expects of a route that writes, and the framework does not check: media type and preconditions."""

from collections.abc import Sequence
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.params import Form
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from app.highload.etags import ANY, IF_MATCH, preconditions_of
from app.highload.http.problems import problem, unsupported_media_type
from app.highload.reads.shared import dependants_in

WRITING = ("POST", "PUT", "PATCH", "DELETE")
JSON = "application/json"
# RFC 7396, section 4.
MERGE_PATCH = "application/merge-patch+json"


class Expectations:
    """ASGI middleware that refuses what a route would take for something else.

    The framework reads a body of any type that ends with `+json`, so JSON Patch would be taken for the document itself:
    415, unless the route declares the type. And a route that cannot see `If-Match` would ignore it: 412, because what
    it writes has no entity tag (RFC 9110, section 13.1.1).
    """

    def __init__(self, app: ASGIApp, router: Router) -> None:
        self._app = app
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] == "http" and scope["method"] in WRITING:
            for name, value in scope["headers"]:
                refusal = None
                if name == b"content-type" and b"+json" in value:
                    refusal = self._judge_type(scope, value)
                elif name == b"if-match" and value.strip() != ANY.encode():
                    refusal = self._judge_precondition(scope)
                if refusal is not None:
                    await refusal(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _judge_type(self, scope: Scope, value: bytes) -> Response | None:
        declared = body_type(route_of(self._router.routes, scope))
        given = value.decode("latin-1").partition(";")[0].strip().lower()
        if declared is None or given in types_of(scope["method"], declared):
            return None
        return unsupported_media_type(scope["method"])

    def _judge_precondition(self, scope: Scope) -> Response | None:
        route = route_of(self._router.routes, scope)
        if route is None or sees_if_match(route.dependant):
            return None
        return problem(412, f"This does not compare entity tags: send the request without {IF_MATCH}.")


def types_of(method: str, declared: str) -> Sequence[str]:
    """Return the media types of a body that a route takes, where it declares one."""
    return (declared, MERGE_PATCH) if method == "PATCH" and declared == JSON else (declared,)


def route_of(routes: Sequence[BaseRoute], scope: Scope) -> RouteContext | None:
    """Return the route that will answer a request, if it can be told by its path and method."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    for context in iter_route_contexts(routes):
        pattern = getattr(context, "path_regex", None)
        methods = context.methods
        if pattern is not None and pattern.match(path) and (methods is None or scope["method"] in methods):
            return context if isinstance(context.original_route, APIRoute) else None
    return None


def compares_tags(dependant: Dependant) -> bool:
    """Whether a route takes `OnlyIf`."""
    return any(one.call is preconditions_of for one in dependants_in(dependant))


def sees_if_match(dependant: Dependant) -> bool:
    """Whether a route may look at the field, and compare itself."""
    return any(
        one.call is preconditions_of
        or one.request_param_name is not None
        or any(field.alias.lower() == IF_MATCH.lower() for field in one.header_params)
        for one in dependants_in(dependant)
    )


def body_type(route: Any) -> str | None:
    """Return the media type of the body that a route declares, if it takes one that is no form."""
    field = getattr(route, "body_field", None)
    if field is None or isinstance(field.field_info, Form):
        return None
    return str(getattr(field.field_info, "media_type", JSON))
