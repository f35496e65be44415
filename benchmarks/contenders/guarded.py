"""The service with a guard on every route of its items, which looks at a header field that the whole load sends."""

from app.config import load_settings
from app.highload.reads.dependencies import Granted, Guard
from app.main import create_app
from app.routes import items
from fastapi import Depends, HTTPException
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from starlette.requests import HTTPConnection


def anybody_with_a_host(connection: HTTPConnection) -> Granted:
    """Grant a partition to whoever names a host."""
    if "host" not in connection.headers:
        raise HTTPException(401)
    return Granted(partition="all")


guard = Guard(APIKeyHeader(name="Host"), anybody_with_a_host)
for route in items.router.routes:
    assert isinstance(route, APIRoute)
    route.dependencies.append(Depends(guard))
app = create_app(load_settings())
