"""A route class that serves what most routes declare without FastAPI's general machinery, with the same answers.

FastAPI finds out anew for each request what the parameters of a route are, and that takes most of its time. Here it is
found out once. Only a valid request to a route that declares nothing unusual is served so: everything else, every
refusal and every error is left to FastAPI's own handler, before a dependency was called.

What this relies on was tested with the release of FastAPI that `TESTED_WITH` names; under another one every request
goes FastAPI's way.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from copy import copy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from inspect import getattr_static, isclass, iscoroutinefunction, signature, unwrap
from types import FunctionType, NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, cast, get_args, get_origin
from uuid import UUID

import fastapi
from fastapi import Request, routing
from fastapi.dependencies import utils
from fastapi.dependencies.models import Dependant
from fastapi.params import Body, Header, Path, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel, Json
from starlette.responses import JSONResponse, Response

from app.highload.replaced import replaced_by

logger = logging.getLogger(__name__)

type Handler = Callable[[Request], Coroutine[Any, Any, Response]]
type Validate = Callable[[Any], tuple[Any, Collection[Any]]]

TESTED_WITH = "0.165."
# Values of these have no parts that FastAPI would look for in a request, and are never changed.
SCALARS = (str, int, float, bool, UUID, Decimal, datetime, date, time, timedelta, NoneType)
# FastAPI reads the others, too; it may take them for JSON or not.
JSON = frozenset(["application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"])
NO_CONTENT = 204
# What FastAPI's handler calls, and what some agents replace to look at each request.
NAMES = vars(routing)
SOLVE = NAMES.get("solve_dependencies")
RUN = NAMES.get("run_endpoint_function")
telemetry_of: Callable[[], object | None] = NAMES.get("get_telemetry_data", lambda: None)
# In the scope of a request: what an endpoint has returned, and what answers a request that was begun on the lean way.
RETURNED = "highload.returned"
LEFT = "highload.left"
REQUIRED = object()


class LeanRoute(APIRoute):
    """A route that is served the lean way where it can be: `APIRouter(route_class=LeanRoute)`.

    It can when its function is `async` and returns a Response, or None with 204, and takes only: scalar path, query and
    header parameters, one JSON body that is a model, the request, and `async` dependencies without `yield` that take
    the same but no body. `why_not_lean` tells of a route what stands against it.

    Parameters are validated before the dependencies are called, so validators must not look at what those change.
    """

    # What serves the route by itself; a router that includes it may add to what it declares.
    lean: "Lean | None" = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.app_as_made = self.app

    def get_route_handler(self) -> Handler:
        """Return what serves a request: the lean way, or FastAPI's."""
        general = super().get_route_handler()
        declared = declared_by(self)
        if why_not_lean(self) is not None or not is_of_fastapi(general):
            return general
        lean = Lean(declared, general, handler_of_results(self, declared))
        if declared is self:
            self.lean = lean
        return lean


class Parameter(NamedTuple):
    """A parameter: its name in the function and in a request, what checks it, and what it is without a value."""

    name: str
    alias: str
    validate: Validate
    default: Any


class Call(NamedTuple):
    """A call of a dependency or of the endpoint, which comes last; `results` are the numbers of calls before it."""

    function: Callable[..., Awaitable[Any]]
    path: list[Parameter]
    query: list[Parameter]
    headers: list[Parameter]
    body: Parameter | None
    connection: list[str]
    results: dict[str, int]


class NotValid(Exception):
    """A request is not valid: FastAPI says why."""


class Unreadable(Request):
    """A request whose body could not be read, so that FastAPI answers that."""

    def __init__(self, request: Request, error: Exception) -> None:
        super().__init__(request.scope, request.receive)
        self._error = error

    async def body(self) -> bytes:
        """Raise what was raised when it was read."""
        raise self._error


class Lean:
    """Serves a route; `general` is FastAPI's way, and `finish` FastAPI's way for a result that is no response."""

    def __init__(self, route: APIRoute, general: Handler, finish: Handler) -> None:
        dependants = (route.dependant, *dependencies_in(route.dependant))
        self._general = general
        self._finish = finish
        self._calls: list[Call] = []
        add_calls(route.dependant, self._calls, {})
        self._declared = [(one, one.call, list(one.dependencies)) for one in dependants]
        self._has_body = route.body_field is not None
        self._status_code = route.status_code
        self._provider = route.dependency_overrides_provider

    async def __call__(self, request: Request) -> Response:
        """Answer a request, or let FastAPI end what was begun before it came to FastAPI's own layers."""
        result = request.scope.pop(LEFT, None) or await self.answer(request)
        return result if isinstance(result, Response) else await result(request)

    async def answer(self, request: Request) -> Response | Handler:
        """Return the answer to a request, or what answers it on FastAPI's way.

        Raises what the endpoint or a dependency raises.
        """
        if self._is_looked_at():
            return self._general
        arguments = await self._arguments(request)
        if isinstance(arguments, Exception):
            return partial(self._refuse, arguments)
        results: list[Any] = []
        for call, named in zip(self._calls, arguments, strict=True):
            for name, number in call.results.items():
                named[name] = results[number]
            results.append(await call.function(**named))
        result = results[-1]
        if isinstance(result, Response):
            return result
        if result is None and self._status_code == NO_CONTENT:
            response = JSONResponse(None, NO_CONTENT)
            response.body = b""
            return response
        request.scope[RETURNED] = result
        return self._finish

    async def _refuse(self, error: Exception, request: Request) -> Response:
        return await self._general(request if isinstance(error, NotValid) else Unreadable(request, error))

    def _is_looked_at(self) -> bool:
        """Whether somebody has changed what the route depends on, or wants to see how FastAPI serves the request."""
        if self._provider is not None and self._provider.dependency_overrides:
            return True
        if NAMES.get("solve_dependencies") is not SOLVE or NAMES.get("run_endpoint_function") is not RUN:
            return True
        for dependant, call, dependencies in self._declared:
            if dependant.call is not call or dependant.dependencies != dependencies:
                return True
        return telemetry_of() is not None

    async def _arguments(self, request: Request) -> list[dict[str, Any]] | Exception:
        """Return the arguments of each call, or what was raised when the body was read, or NotValid."""
        body = None
        if self._has_body:
            try:
                await request.body()
            except Exception as error:  # noqa: BLE001 - FastAPI tells them apart
                return error
        try:
            if self._has_body:
                body = await json_of(request)
            return [arguments_of(call, request, body) for call in self._calls]
        except Exception:  # noqa: BLE001 - FastAPI finds it again
            return NotValid()


async def json_of(request: Request) -> Any:
    """Return a body that is JSON without a doubt.

    Raises NotValid, and what the parser raises.
    """
    if request.headers.get("content-type") not in JSON:
        raise NotValid
    return await request.json()


def arguments_of(call: Call, request: Request, body: Any) -> dict[str, Any]:
    """Return the arguments of a call, but for the results of others.

    Raises NotValid, and what a validator raises.
    """
    arguments: dict[str, Any] = {}
    if call.path:
        take(call.path, request.path_params, arguments)
    if call.query:
        take(call.query, request.query_params, arguments)
    if call.headers:
        take(call.headers, request.headers, arguments)
    if call.body:
        arguments[call.body.name] = valid(call.body, body)
    for name in call.connection:
        arguments[name] = request
    return arguments


def take(parameters: list[Parameter], received: Mapping[str, Any], arguments: dict[str, Any]) -> None:
    """Take parameters out of a part of a request.

    Raises NotValid, and what a validator raises.
    """
    for parameter in parameters:
        value = received.get(parameter.alias)
        if value is not None:
            arguments[parameter.name] = valid(parameter, value)
        elif parameter.default is not REQUIRED:
            arguments[parameter.name] = parameter.default
        else:
            raise NotValid


def valid(parameter: Parameter, value: Any) -> Any:
    """Return a value as its validators make it.

    Raises NotValid, and what a validator raises.
    """
    result, errors = parameter.validate(value)
    if errors:
        raise NotValid
    return result


def add_calls(dependant: Dependant, calls: list[Call], known: dict[Any, int]) -> int:
    """Add the calls that FastAPI would make for a dependant, in its order, and return the number of the last one.

    A dependency is called once for a request, unless it says `use_cache=False`; `known` are those that are called.
    """
    results: dict[str, int] = {}
    for dependency in dependant.dependencies:
        number = add_calls(dependency, calls, known)
        if dependency.name is not None:
            results[dependency.name] = number
    if dependant.use_cache and dependant.call in known:
        return known[dependant.call]
    connection = [dependant.request_param_name, dependant.http_connection_param_name]
    calls.append(
        Call(
            cast(Callable[..., Awaitable[Any]], dependant.call),
            path=[parameter_of(field) for field in dependant.path_params],
            query=[parameter_of(field) for field in dependant.query_params],
            headers=[parameter_of(field) for field in dependant.header_params],
            body=next((parameter_of(field) for field in dependant.body_params), None),
            connection=[name for name in connection if name],
            results=results,
        )
    )
    return known.setdefault(dependant.call, len(calls) - 1)


def parameter_of(field: Any) -> Parameter:
    """Return what is looked at of a field."""
    default = REQUIRED if field.field_info.is_required() else field.field_info.default
    return Parameter(field.name, field.validation_alias or field.alias, field.validate, default)


def why_not_lean(route: APIRoute) -> str | None:
    """Return what stands against the lean way for a route, if anything does."""
    return next(objections(declared_by(route)), None)


def objections(route: APIRoute) -> Iterator[str]:
    """Yield what stands against the lean way."""
    if not fastapi.__version__.startswith(TESTED_WITH):
        yield f"it was tested with FastAPI {TESTED_WITH}*, and this is {fastapi.__version__}"
    if not answers_itself(route):
        yield "it does not return a Response, or None with 204"
    if route.body_field is not None and not is_one_model(route):
        yield "its body is not one model in JSON"
    if any(one.body_params for one in dependencies_in(route.dependant)):
        yield "a dependency takes a body"
    for one in (route.dependant, *dependencies_in(route.dependant)):
        for objection in objections_to_call(one):
            yield f"{getattr(one.call, '__name__', one.call)} {objection}"


def objections_to_call(dependant: Dependant) -> Iterator[str]:
    """Yield what stands against a call of a function without FastAPI."""
    if not is_coroutine_function(dependant.call):
        yield "is not async, or yields"
    if dependant.scope not in (None, "function") or dependant.concurrency is not None:
        yield "has a scope or a limit of its own"
    if dependant.own_oauth_scopes or dependant.parent_oauth_scopes or dependant.security_scopes_param_name:
        yield "has security scopes"
    if dependant.response_param_name or dependant.background_tasks_param_name or dependant.websocket_param_name:
        yield "takes a response, background tasks or a WebSocket"
    if dependant.cookie_params:
        yield "takes a cookie"
    kinds = (Path, dependant.path_params), (Query, dependant.query_params), (Header, dependant.header_params)
    for kind, fields in kinds:
        for field in fields:
            if type(field.field_info) is not kind or not is_plain(field):
                yield f"takes {field.name}, which is not one plain value"


def dependencies_in(dependant: Dependant) -> Iterator[Dependant]:
    """Yield all that a dependant depends on."""
    for dependency in dependant.dependencies:
        yield dependency
        yield from dependencies_in(dependency)


def is_coroutine_function(call: Any) -> bool:
    """Whether FastAPI awaits a call, whatever it looks at: the object, its class, or what it is wrapped around."""
    function = call if isinstance(call, FunctionType) else getattr_static(type(call), "__call__", None)
    # What is called in another way, or is wrapped and no function, is left to FastAPI.
    if (
        isclass(call)
        or not isinstance(function, FunctionType)
        or (function is not call and hasattr(call, "__wrapped__"))
    ):
        return False
    try:
        hash(call)
    except TypeError:
        return False
    return iscoroutinefunction(function) and iscoroutinefunction(unwrap(function))


def is_plain(field: Any) -> bool:
    """Whether a parameter is one value, which a request has under one name."""
    info = field.field_info
    return (
        isinstance(info.validation_alias, str | None)
        and not field.config
        and info.default_factory is None
        and not info.validate_default
        and (info.is_required() or isinstance(info.default, (*SCALARS, Enum)))
        and Json not in map(type, info.metadata)
        and is_scalar(info.annotation)
    )


def is_scalar(annotation: Any) -> bool:
    """Whether values of a type have no parts."""
    origin = get_origin(annotation)
    if origin is Annotated:
        first, *others = get_args(annotation)
        return is_scalar(first) and Json not in map(type, others)
    if origin in (Union, UnionType):
        return all(map(is_scalar, get_args(annotation)))
    if origin is Literal or annotation is None:
        return True
    if not isclass(annotation) or origin is not None:
        return False
    return annotation in SCALARS or (
        issubclass(annotation, Enum) and (issubclass(annotation, str) or not issubclass(annotation, Collection))
    )


def is_one_model(route: APIRoute) -> bool:
    """Whether the body is one model, which is no part of a larger object."""
    fields = route.dependant.body_params
    if len(fields) != 1 or fields[0] is not route.body_field:
        return False
    info = fields[0].field_info
    return (
        type(info) is Body
        and not info.embed
        and get_origin(info.annotation) is None
        and isclass(info.annotation)
        and issubclass(info.annotation, BaseModel)
    )


def answers_itself(route: APIRoute) -> bool:
    """Whether a function promises an answer that FastAPI sends as it is."""
    try:
        promised = signature(cast(Any, route.dependant.call), eval_str=True).return_annotation
    except (NameError, TypeError, ValueError):
        return False
    if promised is None:
        response_class = getattr(route.response_class, "value", route.response_class)
        return route.status_code == NO_CONTENT and route.response_field is None and response_class is JSONResponse
    return isclass(promised) and issubclass(promised, Response)


def declared_by(route: APIRoute) -> APIRoute:
    """Return what a route declares together with the routers that are just including it."""
    variable = NAMES.get("_effective_route_context_var")
    including = None if variable is None else variable.get()
    return cast(APIRoute, including) if including is not None and including.original_route is route else route


def is_of_fastapi(handler: Handler) -> bool:
    """Whether nothing else has put itself between FastAPI and its functions."""
    return not any(
        replaced_by(function, module_of.__name__)
        for function, module_of in ((handler, routing), (RUN, routing), (SOLVE, utils))
    )


async def returned(request: Request) -> Any:
    """Return what an endpoint has returned."""
    return request.scope.pop(RETURNED)


def handler_of_results(route: APIRoute, declared: APIRoute) -> Handler:
    """Return FastAPI's handler for what an endpoint has returned that is no Response, against its promise."""
    finished = copy(route)
    vars(finished).update(vars(declared))
    finished.dependant = Dependant(call=returned, request_param_name="request", path=declared.dependant.path)
    finished.body_field = None
    return APIRoute.get_route_handler(finished)


def warn_of_other_release() -> None:
    """Tell the log if every route goes FastAPI's way because of its release."""
    if not fastapi.__version__.startswith(TESTED_WITH):
        logger.warning(
            "Routes are served by FastAPI's own handler, as the lean one was tested with FastAPI %s*, and this is %s.",
            *(TESTED_WITH, fastapi.__version__),
        )
