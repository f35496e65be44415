"""Gunicorn: how many workers, and what each of them may hold."""

import gc
import sys
from pathlib import Path
from typing import ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

from app.config import ConfigurationError, load_settings
from app.highload.server import GracefulServer, http_protocol

OBJECTS_BETWEEN_COLLECTIONS = 50_000

try:
    settings = load_settings()
except ConfigurationError as error:
    sys.exit(f"The service does not start: {error}.")


class Worker(UvicornWorker):  # type: ignore[misc]
    """A Uvicorn worker that finishes before it is killed."""

    CONFIG_KWARGS: ClassVar = {
        "http": http_protocol(),
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
    """Spare the garbage collector what lives as long as the worker, and let it look less often for what does not.

    Modules, routes and models stay. What a request leaves behind is freed when it ends, but for the few cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
