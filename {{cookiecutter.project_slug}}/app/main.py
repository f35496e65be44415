"""The application: settings in, routes and layers wired, what opens and closes."""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from app import crud, db
from app.config import NAME, Settings, configure_log, load_settings
from app.highload.http import docs, health, metrics
from app.highload.http.access import Access
from app.highload.repository import Storage
from app.highload.schema import Schema
from app.highload.service import Service

# {%- if cookiecutter.queued_writes +%}
from app.highload.writes.publisher import open_publisher

# {%- endif +%}
from app.routes import items

# {%- if cookiecutter.observability +%}
from app.tracing import open_traces, sampling

# {%- endif +%}

# Whoever asks for these needs no API key and may name any host.
OPEN = [health.LIVEZ, health.READYZ, metrics.METRICS]

logger = logging.getLogger(__name__)


def create_app(settings: Settings) -> Service:
    """Return the application; connections open when its lifespan begins and close when it ends.

    Raises ConfigurationError when the API keys cannot be read.
    """
    access = Access(keys=settings.read_api_keys(), rate=settings.rate, realm=NAME, open_paths=OPEN)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        configure_log(settings)
        logger.info("It answers for these hosts: %s.", ", ".join(settings.hosts))
        for sentence in settings.warnings:
            logger.warning(sentence)
        if settings.production or not access.is_open:
            level = logging.WARNING if access.keys is None else logging.INFO
            logger.log(level, "The service is %s.", access.in_words())
        async with AsyncExitStack() as stack:
            # {% if cookiecutter.observability %}
            await stack.enter_async_context(open_traces(settings))
            # {% endif %}
            database = await stack.enter_async_context(db.open_database(settings, pool_size=settings.db_pool_size))
            schema = Schema(database, db.ALEMBIC)
            await schema.warn()
            checks: dict[str, Callable[[], Awaitable[None]]] = {"database": database.ping, "schema": schema.check}
            storage = Storage(database, name=NAME, max_waiting=settings.max_waiting)
            # {% if cookiecutter.caching %}
            if settings.redis_url:
                storage.cache = await stack.enter_async_context(db.open_response_cache(settings.redis_url, settings))
                checks["cache"] = storage.cache.ping
                app.reads.cache = storage.cache
            # {% endif %}
            # {% if cookiecutter.queued_writes %}
            if settings.broker_url:
                storage.publisher = await stack.enter_async_context(
                    open_publisher(settings.broker_url, db.QUEUE, deadline=settings.broker_deadline)
                )
                checks["broker"] = storage.publisher.ping
            # {% endif %}
            stack.push_async_callback(storage.drain)
            yield {"checks": checks, "items": storage.open(crud.ITEMS)}

    app = Service(
        title="{{ cookiecutter.__project_name }}",
        description="{{ cookiecutter.__description }}",
        lifespan=lifespan,
        redirect_slashes=False,
        # The page of the engine takes the place of FastAPI's, which load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        limit_concurrency=settings.limit_concurrency,
        max_body_bytes=settings.max_body_bytes,
        max_waiting=settings.max_waiting,
        public_url=settings.public_url,
        always=[health.LIVEZ, metrics.METRICS],
        access=access,
        allowed_hosts=settings.hosts,
        any_host=OPEN,
        root_path=settings.root_path,
        # {% if cookiecutter.observability %}
        sampling=sampling(settings, never=OPEN),
        # {% endif %}
    )
    app.include_flat(items.router)
    app.include_flat(docs.router)
    app.include_flat(health.router)
    app.include_flat(metrics.router)
    return app


app = create_app(load_settings())
