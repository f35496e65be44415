"""GET /metrics from a thread, for a process that serves nothing else."""

import logging
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from app.highload.metrics.exposition import CONTENT_TYPE, PATH, exposition

logger = logging.getLogger(__name__)


class Handler(BaseHTTPRequestHandler):
    """Answers GET /metrics."""

    # Seconds that a client has to send its request.
    timeout = 10

    def do_GET(self) -> None:
        """Answer."""
        is_there = self.path == PATH
        body = exposition().encode() if is_there else b""
        self.send_response(HTTPStatus.OK if is_there else HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - so it is called
        """Log nothing."""


def serve_exposition(port: int) -> None:
    """Serve what was counted on a port. One that is in use is no reason to end."""
    try:
        server = ThreadingHTTPServer(("", port), Handler)
    except OSError as error:
        logger.warning("nothing is told on METRICS_PORT %d: %s", port, error)
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
