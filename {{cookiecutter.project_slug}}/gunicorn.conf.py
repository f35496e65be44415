"""Gunicorn: how many workers, and what each of them may hold.

The master imports nothing of the service and asks processes of their own instead. So a reload (SIGHUP) takes the new
release as a whole, or, where that does not start, stays with the old one. New dependencies need a restart.
"""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

START = "from app.main import app; app.build_middleware_stack()"
OBJECTS_BETWEEN_COLLECTIONS = 50_000


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a process of the release that lies there now."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - it is our own


told = python("-m", "app.config")
if told.returncode:
    sys.exit(told.returncode)
settings: dict[str, Any] = json.loads(told.stdout)


class Worker(UvicornWorker):  # type: ignore[misc]
    """A Uvicorn worker that finishes before it is killed."""

    CONFIG_KWARGS: ClassVar = {
        "lifespan": "on",
        # Gunicorn kills at the graceful timeout; the last seconds are for the end of the lifespan.
        "timeout_graceful_shutdown": max(1, settings["graceful_timeout"] - 5),
        "server_header": False,
        "ws": "none",
    }

    async def _serve(self) -> None:
        from app.highload.server import GracefulServer, http_protocol  # noqa: PLC0415 - the master must not have it

        self.config.app = self.wsgi
        self.config.http = http_protocol()
        self._install_sigquit_handler()
        server = GracefulServer(self.config, client_timeout=settings["client_timeout"])
        await server.serve(self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)


worker_class = Worker
workers = settings["web_concurrency"]
bind = "0.0.0.0:8000"
backlog = 2048
# Longer than the idle timeout of the usual load balancers (60 s), so that they close idle connections and not we.
keepalive = 75
graceful_timeout = settings["graceful_timeout"]
loglevel = settings["log_level"]
# The heartbeat is a file: in memory no slow disk can make a worker look dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
control_socket_disable = True


def on_starting(arbiter: Arbiter) -> None:
    """Let a reload begin only when the new release starts: Gunicorn itself would end with it."""
    reload = arbiter.reload

    def reload_if_it_starts() -> None:
        if python("-c", START).returncode:
            arbiter.log.error("The new release does not start, for the reason above: the old one goes on.")
            return
        reload()

    arbiter.reload = reload_if_it_starts


def post_worker_init(_: Worker) -> None:
    """Spare the garbage collector what lives as long as the worker, and let it look less often for what does not.

    Modules, routes and models stay. What a request leaves behind is freed when it ends, but for the few cycles. What
    outlives a collection is looked at again soon: it is little, because what stays is spared.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 5, 2)
