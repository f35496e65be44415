"""The application: settings in, routes and layers wired."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from app import health, routes
from app.admission import Admission
from app.body_limit import BodyLimit

# {%- if cookiecutter.queued_writes +%}
from app.broker import open_publisher

# {%- endif +%}
# {%- if cookiecutter.caching +%}
from app.cache import ResponseCache, open_cache

# {%- endif +%}
from app.config import Settings, load_settings
from app.db import open_database
from app.problems import add_problem_handlers

# {%- if cookiecutter.queued_writes +%}
from app.queued_writes import QueuedWriter

# {%- endif +%}
from app.reads import ItemReader, SharedReads
from app.writes import DirectWriter, Writer

LOG_FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"


def create_app(settings: Settings) -> ASGIApp:
    """Return the application; connections open when its lifespan begins and close when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(settings, pool_size=settings.db_pool_size))
            checks: dict[str, Callable[[], Awaitable[None]]] = {"database": database.ping}
            on_change: list[Callable[[], Awaitable[None]]] = []
            # {% if cookiecutter.caching %}
            cache: ResponseCache | None = None
            if settings.redis_url:
                cache = await stack.enter_async_context(open_cache(settings.redis_url, settings))
                checks["cache"] = cache.ping
                on_change.append(cache.invalidate)
            # {% endif %}
            direct_writer = DirectWriter(database, on_change, max_waiting=settings.max_waiting)
            writer: Writer = direct_writer
            # {% if cookiecutter.queued_writes %}
            if settings.broker_url:
                publisher = await stack.enter_async_context(
                    open_publisher(settings.broker_url, deadline=settings.broker_deadline)
                )
                checks["broker"] = publisher.ping
                writer = QueuedWriter(publisher, direct_writer, max_waiting=settings.max_waiting)
            # {% endif %}
            stack.push_async_callback(writer.drain)
            yield {
                "checks": checks,
                "reader": ItemReader(database, max_waiting=settings.max_waiting),
                # {% if cookiecutter.caching %}
                "cache": cache,
                # {% endif %}
                "direct_writer": direct_writer,
                "writer": writer,
            }

    api = FastAPI(
        # Flat: a router that is included costs every request a second round of matching.
        routes=[*routes.router.routes, *health.router.routes],
        title="{{ cookiecutter.__project_name }}",
        description="{{ cookiecutter.__description }}",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    api.add_middleware(BodyLimit, limit=settings.max_body_bytes)
    add_problem_handlers(api)
    reads = SharedReads(api, routes.SHARED_ROUTES, max_waiting=settings.max_waiting)
    return Admission(reads, settings.limit_concurrency, always=[health.LIVEZ])


app = create_app(load_settings())
