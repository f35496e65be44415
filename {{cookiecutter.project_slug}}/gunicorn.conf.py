"""Gunicorn: how many workers, and what each of them may hold."""

import asyncio
import gc
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from socket import socket
from typing import ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker

from app.config import ConfigurationError, load_settings

try:
    settings = load_settings()
except ConfigurationError as error:
    sys.exit(f"The service does not start: {error}.")


# Seconds in which a stopping worker still answers on connections that carry no request at the moment.
LINGER = 1.0
CONNECTION_CLOSE = (b"connection", b"close")


class Connection(HttpToolsProtocol):
    """A connection that a stopping worker ends after an answer, because a request may be on its way already.

    Every answer says from then on that it is the last one (RFC 9112, section 9.6), so that no client sends another
    request into a connection that is about to close.
    """

    def shutdown(self) -> None:
        """Give the client time for a last request."""
        last_answer_headers = self.server_state.default_headers
        if CONNECTION_CLOSE not in last_answer_headers:
            last_answer_headers.append(CONNECTION_CLOSE)
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False
        self.loop.call_later(LINGER, super().shutdown)


class GracefulServer(Server):
    """A server that accepts what waits in the queue of a listening socket before it closes that."""

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Stop accepting, answer what was accepted, and end."""
        loop = asyncio.get_running_loop()
        protocol = partial(Connection, self.config, self.server_state, self.lifespan.state)
        for listener in sockets or ():
            with suppress(BlockingIOError):
                while True:
                    connection, _ = listener.accept()
                    await loop.connect_accepted_socket(protocol, connection)
        await super().shutdown(sockets)


class Worker(UvicornWorker):  # type: ignore[misc]
    """A Uvicorn worker that finishes before it is killed."""

    CONFIG_KWARGS: ClassVar = {
        "http": Connection,
        "lifespan": "on",
        # Gunicorn kills at the graceful timeout; the last seconds are for the end of the lifespan.
        "timeout_graceful_shutdown": max(1, settings.graceful_timeout - 5),
        "server_header": False,
        "ws": "none",
    }

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        self._install_sigquit_handler()
        server = GracefulServer(self.config)
        await server.serve(self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


worker_class = Worker
workers = settings.web_concurrency
bind = "0.0.0.0:8000"
backlog = 2048
# Longer than the idle timeout of the usual load balancers (60 s), so that they close idle connections and not we.
keepalive = 75
graceful_timeout = settings.graceful_timeout
loglevel = settings.log_level
# The heartbeat is a file: in memory no slow disk can make a worker look dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
control_socket_disable = True


def post_worker_init(_: Worker) -> None:
    """Spare the garbage collector what lives as long as the worker: modules, routes, models."""
    gc.collect()
    gc.freeze()
