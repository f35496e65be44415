"""The limit of a read that nothing has kept: asyncpg and the fastest serializer, without a framework."""

import os
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import asyncpg
import msgspec  # type: ignore[import-not-found]
from app.highload.pagination import Position, decode_cursor, encode_cursor
from starlette.types import Receive, Scope, Send

SIZE = 100
COLUMNS = "SELECT id, name, description, created_at FROM items"
ORDER = "ORDER BY created_at DESC, id DESC LIMIT $1"
FIRST_PAGE = f"{COLUMNS} {ORDER}"
NEXT_PAGE = f"{COLUMNS} WHERE (created_at, id) < ($2, $3) {ORDER}"
ROW = f"{COLUMNS} WHERE id = $1"

encode = msgspec.json.Encoder().encode
opened: list[Any] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a page or an item."""
    if scope["type"] == "lifespan":
        await run(receive, send)
        return
    pool = opened[0]
    path, query = scope["path"], scope["query_string"]
    body = await (page(pool, query) if path == "/items" else one(pool, path.removeprefix("/items/")))
    headers = [
        (b"etag", b'"00000000000000000000000000000000"'),
        (b"content-length", b"%d" % len(body)),
        (b"content-type", b"application/json"),
        (b"x-cache", b"bypass"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def run(receive: Receive, send: Send) -> None:
    """Hold as many connections as the service until the end."""
    url = os.environ["DATABASE_URL"].replace("+asyncpg", "")
    async with asyncpg.create_pool(url, min_size=5, max_size=5) as pool:
        opened.append(pool)
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def page(pool: Any, query: bytes) -> bytes:
    """Return a page, and the cursor of the next one."""
    cursors = parse_qs(query.decode()).get("cursor")
    after = decode_cursor(cursors[0]) if cursors else None
    rows = await (pool.fetch(FIRST_PAGE, SIZE + 1) if after is None else pool.fetch(NEXT_PAGE, SIZE + 1, *after))
    shown = [dict(row) for row in rows[:SIZE]]
    last = shown[-1]
    cursor = encode_cursor(Position(last["created_at"], last["id"])) if len(rows) > SIZE else None
    return bytes(encode({"items": shown, "next_cursor": cursor}))


async def one(pool: Any, row_id: str) -> bytes:
    """Return an item."""
    return bytes(encode(dict(await pool.fetchrow(ROW, UUID(row_id)))))
