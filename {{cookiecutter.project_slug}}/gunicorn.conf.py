"""Gunicorn: how many workers, and what each of them may hold.

The master imports nothing of the service and asks processes of their own instead. So a reload (SIGHUP) takes the new
release as a whole, or, where that does not start, stays with the old one. New dependencies need a restart.

All that it holds of the service is memory in which the workers count (`app/highload/metrics/slots.py`): a slot for
each, with which a later worker goes on. A release that counts something else gets memory of its own.
"""

import asyncio
import errno
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from mmap import mmap
from pathlib import Path
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter
from uvicorn_worker import UvicornWorker

START = """
from app.highload.metrics.instruments import digest
from app.main import app
app.build_middleware_stack()
print(digest())
"""
OBJECTS_BETWEEN_COLLECTIONS = 50_000
# For 64 workers of a release and 64 of the next one, which begin before those end. What is not written takes no memory.
SLOTS = 128
SLOT_BYTES = 262_144


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a process of the release that lies there now."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - it is our own


told = python("-m", "app.config")
if told.returncode:
    sys.exit(told.returncode)
settings: dict[str, Any] = json.loads(told.stdout)
# Run anew for each release, and never imported.
logs = runpy.run_path(str(Path(__file__).parent / "app/highload/logs.py"))


class Worker(UvicornWorker):  # type: ignore[misc]
    """A Uvicorn worker that finishes before it is killed."""

    # Where it counts; None when there is no free slot.
    counters: mmap | None = None
    slot: int | None = None

    CONFIG_KWARGS: ClassVar = {
        "lifespan": "on",
        # Gunicorn kills at the graceful timeout; the last seconds are for the end of the lifespan.
        "timeout_graceful_shutdown": max(1, settings["graceful_timeout"] - 5),
        "server_header": False,
        "ws": "none",
    }

    def init_signals(self) -> None:
        """End without a word when Uvicorn raises Ctrl-C again: Gunicorn warns of a worker that dies of it."""
        super().init_signals()
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda *_: os._exit(0))

    async def _serve(self) -> None:
        # The master must not have these.
        from app.highload.metrics.slots import memory  # noqa: PLC0415
        from app.highload.server import GracefulServer, http_protocol  # noqa: PLC0415

        if self.counters is not None and self.slot is not None:
            memory.lend(self.counters, self.slot, SLOT_BYTES)
        self.config.app = self.wsgi
        self.config.http = http_protocol()
        server = GracefulServer(self.config, client_timeout=settings["client_timeout"])
        # Gunicorn passes SIGINT on as SIGQUIT.
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None)
        # The loop closes a socket of Gunicorn's own class twice, and Gunicorn logs the second time.
        await server.serve([listener.sock for listener in self.sockets])
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
logconfig_dict = logs["configuration"](
    settings["log_level"], settings["log_format"], quotes=settings["environment"] != "production"
)
forwarded_allow_ips = settings["forwarded_allow_ips"]
# The heartbeat is a file: in memory no slow disk can make a worker look dead.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
control_socket_disable = True


def refuse_ports_in_use(arbiter: Arbiter) -> None:
    """End with a sentence when somebody else listens."""
    if arbiter.cfg.reuse_port or {"GUNICORN_FD", "LISTEN_FDS"} & os.environ.keys():
        return
    for host, port in (address for address in arbiter.cfg.address if isinstance(address, tuple)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    remedy = f"stop the other process, or serve on another port, as with make run PORT={port + 1}"
                    sys.exit(f"Port {port} is in use: {remedy}.")


def on_starting(arbiter: Arbiter) -> None:
    """Refuse what cannot work, and let a reload begin only when the new release starts: Gunicorn would end with it."""
    if arbiter.cfg.reload:
        sys.exit("Gunicorn cannot end a Uvicorn worker when the code changes: leave out --reload, and run make dev.")
    refuse_ports_in_use(arbiter)
    arbiter.counters = mmap(-1, SLOTS * SLOT_BYTES)
    reload = arbiter.reload

    def reload_if_it_starts() -> None:
        start = python("-c", START)
        if start.returncode:
            arbiter.log.error("The new release does not start, for the reason above: the old one goes on.")
            return
        if digest_in(arbiter.counters) not in (0, int(start.stdout.split()[-1])):
            arbiter.counters = mmap(-1, SLOTS * SLOT_BYTES)
        reload()

    arbiter.reload = reload_if_it_starts


def digest_in(counters: mmap) -> int:
    """Return what describes the numbers in memory, or 0 for nothing."""
    with memoryview(counters) as view, view.cast("d") as numbers:
        return max(int(number) for number in numbers[:: SLOT_BYTES // 8])


def pre_fork(arbiter: Arbiter, worker: Worker) -> None:
    """Lend a new worker a slot that no living one has."""
    if not hasattr(arbiter, "counters"):
        return
    lent = {other.slot for other in arbiter.WORKERS.values() if other.counters is arbiter.counters}
    worker.counters = arbiter.counters
    worker.slot = next((slot for slot in range(SLOTS) if slot not in lent), None)


def child_exit(_: Arbiter, worker: Worker) -> None:
    """Let the gauges of a worker that has ended, however it did, count no more."""
    if worker.counters is None or worker.slot is None:
        return
    with memoryview(worker.counters) as view, view.cast("d") as numbers:
        begin = worker.slot * SLOT_BYTES // 8
        for gauge in range(int(numbers[begin + 1])):
            numbers[begin + 2 + gauge] = 0


def post_worker_init(_: Worker) -> None:
    """Spare the garbage collector what lives as long as the worker, and let it look less often for what does not.

    Modules, routes and models stay. What a request leaves behind is freed when it ends, but for the few cycles. What
    outlives a collection is looked at again soon: it is little, because what stays is spared.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 5, 2)
