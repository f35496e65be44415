"""The machine and the versions behind the numbers."""

import asyncio
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aio_pika
from redis.asyncio import Redis

from benchmarks import service

PACKAGES = (
    "aio-pika",
    "asyncpg",
    "celery",
    "fastapi",
    "gunicorn",
    "httptools",
    "redis",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "uvloop",
)
COMMITS = 100


def describe() -> dict[str, Any]:
    """Return what a reader needs to know to compare the numbers with others."""
    return {
        "processor": processor(),
        "cpus": os.process_cpu_count(),
        "memory, GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "PostgreSQL": service.sql("db", "SHOW server_version")[0],
        "PostgreSQL, fsync": service.sql("db", "SHOW fsync")[0],
        "PostgreSQL, synchronous_commit": service.sql("db", "SHOW synchronous_commit")[0],
        "PostgreSQL, microseconds for a sync to disk": round(asyncio.run(microseconds_of_a_sync())),
        "Redis": asyncio.run(redis_version()),
        "RabbitMQ": asyncio.run(rabbitmq_version()),
    }


def processor() -> str:
    """Return the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


async def microseconds_of_a_sync() -> float:
    """Return what a sync of the write-ahead log takes on average: a few microseconds where the storage is memory."""
    async with service.connected("writes") as connection:
        await connection.execute("SET track_wal_io_timing = on")
        await connection.execute("SELECT pg_stat_reset_shared('io')")
        for _ in range(COMMITS):
            await connection.execute("INSERT INTO naive_items (name) VALUES ('x')")
        await connection.execute("SELECT pg_stat_force_next_flush()")
        return float(
            await connection.fetchval(
                "SELECT 1000 * sum(fsync_time) / sum(fsyncs) FROM pg_stat_io "
                "WHERE object = 'wal' AND backend_type = 'client backend'"
            )
        )


async def redis_version() -> str:
    """Return the version of the Redis server."""
    async with Redis.from_url(os.environ["TEST_REDIS_URL"]) as redis:
        return str((await redis.info("server"))["redis_version"])


async def rabbitmq_version() -> str:
    """Return the version of the RabbitMQ server."""
    async with await aio_pika.connect(os.environ["TEST_BROKER_URL"]) as connection:
        transport: Any = connection.transport
        return str(transport.connection.server_properties["version"])
