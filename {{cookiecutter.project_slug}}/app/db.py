"""Where the service keeps things: its database, and what it has beside."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from app.config import NAME, Settings
from app.highload import database
from app.highload.database import Database

# {%- if cookiecutter.caching +%}
from app.highload.reads.cache import ResponseCache, open_cache

# {%- endif +%}
# {%- if cookiecutter.queued_writes +%}
from app.highload.writes.queue import RowQueue

# {%- endif +%}

ALEMBIC = Path(__file__).parent.parent / "alembic"
# {% if cookiecutter.queued_writes %}
QUEUE = RowQueue(f"{NAME}.rows", "app.tasks.store_rows")
# {% endif %}


def open_database(settings: Settings, *, pool_size: int) -> AbstractAsyncContextManager[Database]:
    """Open the configured database with a pool of connections, and close it."""
    return database.open_database(
        settings.database_url,
        name=NAME,
        pool_size=pool_size,
        timeout=settings.db_timeout,
        budget=settings.connection_budget,
    )


# {% if cookiecutter.caching %}
def open_response_cache(redis_url: str, settings: Settings) -> AbstractAsyncContextManager[ResponseCache]:
    """Open the connections to Redis, and close them."""
    return open_cache(
        redis_url,
        name=NAME,
        ttl=settings.cache_ttl,
        timeout=settings.cache_timeout,
        max_waiting=settings.max_waiting,
    )


# {% endif %}
def create_engine(settings: Settings, *, pool_size: int) -> AsyncEngine:
    """Return an engine for the configured database that holds at most `pool_size` connections."""
    return database.create_engine(settings.database_url, name=NAME, pool_size=pool_size, timeout=settings.db_timeout)
