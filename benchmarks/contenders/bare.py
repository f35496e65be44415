"""The limit of the server: an ASGI application that answers constant bytes and does nothing else."""

import os
from pathlib import Path

from starlette.types import Receive, Scope, Send

BODY = Path(os.environ["BENCH_BODY"]).read_bytes()
# As many headers as the service sends.
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"etag", b'"00000000000000000000000000000000"'),
        (b"content-length", str(len(BODY)).encode()),
        (b"content-type", b"application/json"),
        (b"x-cache", b"hit"),
    ],
}
END = {"type": "http.response.body", "body": BODY}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send(START)
    await send(END)
