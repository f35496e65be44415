"""What FastAPI costs: routes that answer constant bytes, and a POST that validates its item and stores nothing."""

import os
from datetime import UTC, datetime
from pathlib import Path

from app.schemas import ItemCreate, ItemRead
from fastapi import FastAPI, Response
from uuid_utils.compat import uuid7

BODY = Path(os.environ["BENCH_BODY"]).read_bytes()

app = FastAPI()


@app.get("/items")
async def list_items() -> Response:
    """Answer constant bytes."""
    return Response(BODY, media_type="application/json")


@app.get("/items/{item_id}")
async def get_item(item_id: str) -> Response:
    """Answer constant bytes."""
    assert item_id
    return Response(BODY, media_type="application/json")


@app.post("/items", status_code=201)
async def create_item(body: ItemCreate) -> ItemRead:
    """Answer what a service that stores would answer."""
    return ItemRead(id=uuid7(), name=body.name, description=body.description, created_at=datetime.now(UTC))
