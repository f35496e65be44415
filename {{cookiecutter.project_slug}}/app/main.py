"""The application: settings in, routes and layers wired, what opens and closes."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app import crud, db
from app.config import Settings, load_settings
from app.highload.http import health
from app.highload.service import Service
from app.highload.writes.group_commit import Writer

# {%- if cookiecutter.queued_writes +%}
from app.highload.writes.publisher import open_publisher
from app.highload.writes.queued import QueuedWriter

# {%- endif +%}
from app.routes import items
from app.schemas import NewItem

LOG_FORMAT = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"


def create_app(settings: Settings) -> Service:
    """Return the application; connections open when its lifespan begins and close when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        logging.basicConfig(level=settings.log_level.upper(), format=LOG_FORMAT)
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(db.open_database(settings, pool_size=settings.db_pool_size))
            checks: dict[str, Callable[[], Awaitable[None]]] = {"database": database.ping}
            on_change: list[Callable[[], Awaitable[None]]] = []
            # {% if cookiecutter.caching %}
            if settings.redis_url:
                app.reads.cache = await stack.enter_async_context(db.open_response_cache(settings.redis_url, settings))
                checks["cache"] = app.reads.cache.ping
                on_change.append(app.reads.cache.invalidate)
            # {% endif %}
            direct_writer = crud.item_writer(database, on_change, max_waiting=settings.max_waiting)
            writer: Writer[NewItem] = direct_writer
            # {% if cookiecutter.queued_writes %}
            if settings.broker_url:
                publisher = await stack.enter_async_context(
                    open_publisher(settings.broker_url, db.ITEM_QUEUE, deadline=settings.broker_deadline)
                )
                checks["broker"] = publisher.ping
                writer = QueuedWriter(publisher, direct_writer, max_waiting=settings.max_waiting)
            # {% endif %}
            stack.push_async_callback(writer.drain)
            yield {
                "checks": checks,
                "reader": crud.item_reader(database, max_waiting=settings.max_waiting),
                "direct_writer": direct_writer,
                "writer": writer,
            }

    app = Service(
        title="{{ cookiecutter.__project_name }}",
        description="{{ cookiecutter.__description }}",
        lifespan=lifespan,
        redirect_slashes=False,
        limit_concurrency=settings.limit_concurrency,
        max_body_bytes=settings.max_body_bytes,
        max_waiting=settings.max_waiting,
        public_url=settings.public_url,
        always=[health.LIVEZ],
    )
    app.include_flat(items.router)
    app.include_flat(health.router)
    return app


app = create_app(load_settings())
