"""A worker that is told to stop answers every request that is on its way, and only then closes connections."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from app.config import Settings
from app.highload.writes.group_commit import MAX_BATCH
from app.main import create_app
from app.schemas import ItemCreate
from tests.conftest import PROJECT
from tests.waiting import PATIENCE, eventually, settle

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
JSON_HEAD = b"Host: x\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n"
POST_HEAD = b"POST /items HTTP/1.1\r\n" + JSON_HEAD
POST_BODY = b'{"name":"x"}'


@contextmanager
def gunicorn(
    port: int, database_url: str, log: Path, *, directory: Path = PROJECT, workers: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service of a directory as production does."""
    command = [sys.executable, "-m", "gunicorn", "app.main:app", "--bind", f"127.0.0.1:{port}"]
    settings = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": str(workers), "DB_TIMEOUT": str(PATIENCE)}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=directory, env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Return the status of an answer, and whether it says that it is the last one."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    (length,) = [line.split(b": ")[1] for line in head.splitlines() if line.startswith(b"content-length: ")]
    await reader.readexactly(int(length))
    return int(head.split()[1]), b"\r\nconnection: close\r\n" in head


async def test_a_stopping_worker_answers_what_is_on_its_way(database_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    log = tmp_path / "gunicorn.log"
    with gunicorn(port, database_url, log) as process:

        async def serves() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            return "Application startup complete" in log.read_text()

        await eventually(serves)
        fresh, idle, busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        idle[1].write(GET)
        assert await answer(idle[0]) == (200, False)
        busy[1].write(POST_HEAD)
        await asyncio.sleep(0)
        process.send_signal(signal.SIGTERM)

        async def stops() -> bool:
            return "Shutting down\n" in log.read_text()

        await eventually(stops)
        fresh[1].write(GET)
        idle[1].write(GET)
        busy[1].write(POST_BODY)
        for reader, writer in (fresh, idle):
            assert await answer(reader) == (200, True)
            assert await reader.read() == b""
            writer.close()
        assert await answer(busy[0]) == (201, True)
        assert await busy[0].read() == b""
        busy[1].close()
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    assert "Traceback" not in log.read_text()


async def test_a_shutdown_waits_for_what_was_accepted(database_url: str) -> None:
    settings = Settings(_env_file=None, database_url=database_url, web_concurrency=1)
    lifespan = LifespanOn(uvicorn.Config(create_app(settings), log_config=None))
    await lifespan.startup()
    create = lifespan.state["items"].create
    creating = [asyncio.create_task(create(ItemCreate(name="x"))) for _ in range(3 * MAX_BATCH)]
    await settle()
    await lifespan.shutdown()
    await settle()
    unfinished = sum(not task.done() for task in creating)
    assert unfinished == 0
    assert all(receipt.stored for receipt in await asyncio.gather(*creating))
