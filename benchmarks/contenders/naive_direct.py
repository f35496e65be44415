"""A small service as tutorials write it: an ORM session for each request, and a commit for each item."""

import os
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, String, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ["DATABASE_URL"])
make_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


class Base(DeclarativeBase):
    """The parent of all models."""


class Item(Base):
    """An item."""

    __tablename__ = "items"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(String)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))


class ItemCreate(BaseModel):
    """A new item."""

    name: str
    description: str | None = None


class ItemRead(ItemCreate):
    """A stored item."""

    model_config = ConfigDict(from_attributes=True)

    id: uuid.UUID
    created_at: datetime


async def session() -> AsyncGenerator[AsyncSession]:
    """Yield a session."""
    async with make_session() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]


@app.get("/items", response_model=list[ItemRead])
async def list_items(db: Session, limit: int = 100) -> Any:
    """List items, newest first."""
    newest_first = select(Item).order_by(Item.created_at.desc(), Item.id.desc())
    return (await db.scalars(newest_first.limit(limit))).all()


@app.get("/items/{item_id}", response_model=ItemRead)
async def get_item(db: Session, item_id: uuid.UUID) -> Any:
    """Fetch an item."""
    item = await db.get(Item, item_id)
    if item is None:
        raise HTTPException(404)
    return item


@app.post("/items", status_code=201, response_model=ItemRead)
async def create_item(db: Session, body: ItemCreate) -> Any:
    """Store an item."""
    item = Item(**body.model_dump())
    db.add(item)
    await db.commit()
    return item
