"""The path below which a proxy shows the service, as in `https://example.com/api/`."""

from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.types import Scope


class RootPathTaken(Exception):
    """A route begins with the root path; the message is a sentence that says what to change."""


def place(scope: Scope, root_path: str) -> None:
    """Put a request below the root path, whether or not a proxy has taken that off; it may be done twice.

    So the path of the scope has the root path in front, as ASGI wants it, and so have the keys of shared answers. A
    root path that the server has set, or an application around this one, counts instead.
    """
    if not root_path or scope.get("root_path"):
        return
    scope["root_path"] = root_path
    path: str = scope["path"]
    if path != root_path and not path.startswith(f"{root_path}/"):
        scope["path"] = root_path + path
        scope["raw_path"] = root_path.encode() + (scope.get("raw_path") or quote(path).encode())


def refuse_routes_below(root_path: str, app: FastAPI) -> None:
    """Check that a request for a route is told apart from one whose root path was not taken off.

    Raises RootPathTaken.
    """
    for route in iter_route_contexts(app.routes):
        if root_path and route.path and f"{route.path}/".startswith(f"{root_path}/"):
            raise RootPathTaken(
                f"ROOT_PATH is {root_path}, and the route {route.path} begins with it: write routes without it, "
                "or leave the setting empty."
            )
