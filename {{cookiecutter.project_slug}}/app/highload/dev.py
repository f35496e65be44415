"""A server for those who write the code: Uvicorn's own reload, with the protocol of a worker.

`python -m app.highload.dev app.main:app 8000` serves that application on 127.0.0.1, and again after each change.
"""

import errno
import logging
import os
import socket
import sys
import traceback
from functools import partial
from pathlib import Path
from types import TracebackType

import uvicorn
from uvicorn.supervisors import ChangeReload

from app.highload.logs import configuration
from app.highload.server import GracefulServer, http_protocol

ENGINE = Path(__file__).parent


def main() -> None:
    """Serve until a signal comes."""
    application, port = sys.argv[1:]
    listener = listen(int(port))
    config = uvicorn.Config(
        application,
        http=http_protocol(),
        lifespan="on",
        log_config=configuration("info", "text", quotes=True),
        reload=True,
        reload_dirs=[application.partition(".")[0]],
        server_header=False,
        # A request that runs holds up the next start for so many seconds.
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
        ws="none",
    )
    ChangeReload(config, target=partial(serve, config), sockets=[listener]).run()


def listen(port: int) -> socket.socket:
    """Listen even while the service starts: a client that comes then waits."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    remedy = f"stop the other process, or serve on another port, as with make dev PORT={port + 1}"
    sys.exit(f"Port {port} is in use: {remedy}.")


def serve(config: uvicorn.Config, sockets: list[socket.socket]) -> None:
    """Serve as a worker does, but with a line in the log for each request, and end without waiting for a thread."""
    sys.excepthook = lambda kind, error, trace: traceback.print_exception(kind, error, of_the_service(trace))
    make_record = logging.getLogRecordFactory()
    logging.setLogRecordFactory(lambda *arguments, **options: shorten(make_record(*arguments, **options)))
    GracefulServer(config).run(sockets)
    sys.stdout.flush()
    os._exit(0)


def shorten(record: logging.LogRecord) -> logging.LogRecord:
    """Begin the traceback of a failed request with the code of the service, if any failed there."""
    if record.exc_info and (trace := of_the_service(record.exc_info[2])):
        record.exc_info = (*record.exc_info[:2], trace)
    return record


def of_the_service(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame that is neither of a library nor of the engine."""
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(ENGINE.parent) and not file.is_relative_to(ENGINE):
            return trace
        trace = trace.tb_next
    return None


if __name__ == "__main__":
    main()
