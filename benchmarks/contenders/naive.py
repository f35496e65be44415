"""The same service in the manner of the usual tutorial.

A connection to Redis for each call, answers decoded and validated again, invalidation by KEYS, `.delay()` inside the
async route, an engine for each task, one commit for each item, no publisher confirm.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from celery import Celery
from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy import Integer, String, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DATABASE_URL = os.environ["DATABASE_URL"]
REDIS_URL = os.environ["REDIS_URL"]

engine = create_async_engine(DATABASE_URL)
make_session = async_sessionmaker(engine, expire_on_commit=False)
celery = Celery("naive", broker=os.environ["BROKER_URL"])
celery.conf.task_default_queue = "naive"
app = FastAPI()


class Base(DeclarativeBase):
    """The parent of all models."""


class Item(Base):
    """An item."""

    __tablename__ = "naive_items"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String)
    description: Mapped[str | None] = mapped_column(String)


class ItemCreate(BaseModel):
    """A new item."""

    name: str
    description: str | None = None


class ItemRead(ItemCreate):
    """A stored item."""

    model_config = ConfigDict(from_attributes=True)

    id: int


async def session() -> AsyncGenerator[AsyncSession]:
    """Yield a session."""
    async with make_session() as opened:
        yield opened


@app.get("/items", response_model=list[ItemRead])
async def list_items(db: Annotated[AsyncSession, Depends(session)], limit: int = 100) -> Any:
    """List items, from the cache if they are there."""
    redis = Redis.from_url(REDIS_URL)
    cached = await redis.get(f"naive:{limit}")
    if cached:
        await redis.aclose()
        return [ItemRead.model_validate(item) for item in json.loads(cached)]
    items = (await db.scalars(select(Item).order_by(Item.id.desc()).limit(limit))).all()
    answer = [ItemRead.model_validate(item).model_dump() for item in items]
    await redis.set(f"naive:{limit}", json.dumps(answer), ex=60)
    await redis.aclose()
    return answer


@app.post("/items", status_code=201)
async def create_item(item: ItemCreate) -> dict[str, str]:
    """Queue an item."""
    store_item.delay(item.model_dump())
    return {"status": "queued"}


@celery.task
def store_item(item: dict[str, Any]) -> None:
    """Store an item."""
    asyncio.run(store(item))


async def store(item: dict[str, Any]) -> None:
    """Store an item and forget what is cached."""
    own_engine = create_async_engine(DATABASE_URL)
    async with async_sessionmaker(own_engine)() as db:
        db.add(Item(**item))
        await db.commit()
    await own_engine.dispose()
    redis = Redis.from_url(REDIS_URL)
    for key in await redis.keys("naive:*"):
        await redis.delete(key)
    await redis.aclose()
