"""A server for those who write the code: each change starts the service again.

`python -m app.highload.dev app.main:app 8000` serves that application on 127.0.0.1, and watches its package and `.env`.
"""

import errno
import logging
import pkgutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType

LISTENING = "--listening"
SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_TO_END = 2.0
ENGINE = Path(__file__).parent


def main() -> None:
    """Watch the code, or be the process that serves."""
    application, *_, number = sys.argv[1:]
    if LISTENING in sys.argv:
        serve(application, socket.socket(fileno=int(number)))
    else:
        watch(application, listen(int(number)))


def listen(port: int) -> socket.socket:
    """Listen even while the service starts: a client that comes then waits."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    remedy = f"stop the other process, or serve on another port, as with make dev PORT={port + 1}"
    sys.exit(f"Port {port} is in use: {remedy}.")


def watch(application: str, listener: socket.socket) -> None:
    """Start the service, and start it again after each change, until a signal comes."""
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    say(f"Serving on http://127.0.0.1:{listener.getsockname()[1]}. A change of the code starts the service again.")
    seen = files(application)
    process = start(application, listener)
    has_ended = False
    while not signals:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        if (found := files(application)) != seen:
            seen, has_ended, before = found, False, process
            # The next one starts meanwhile. The one before may hang in a request.
            before.terminate()
            process = start(application, listener)
            wait_or_kill(before)
        elif process.poll() is not None and not has_ended:
            has_ended = True
            say("The service has ended, for the reason above. It starts again when the code changes.")
    process.terminate()
    wait_or_kill(process)


def files(application: str) -> dict[Path, tuple[int, int]]:
    """Return the files that matter, each with the time of its last change and its size."""
    found = {}
    for path in (Path(".env"), *Path(application.partition(".")[0]).rglob("*.py")):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[path] = (status.st_mtime_ns, status.st_size)
    return found


def start(application: str, listener: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process that serves."""
    number = listener.fileno()
    return subprocess.Popen(  # noqa: S603 - it is our own
        [sys.executable, "-m", "app.highload.dev", application, LISTENING, str(number)],
        pass_fds=[number],
        # Python would answer Ctrl-C with a traceback until the server takes the signal. There is no thread.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509
    )


def wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    """Wait a moment for the end of a process that was told to end."""
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve(application: str, listener: socket.socket) -> None:
    """Serve as a worker does, but with a line in the log for each request."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = lambda kind, error, trace: traceback.print_exception(kind, error, of_the_service(trace))
    # The process that watches must not hold what is started again.
    import uvicorn  # noqa: PLC0415

    from app.highload.server import GracefulServer, http_protocol  # noqa: PLC0415

    config = uvicorn.Config(
        pkgutil.resolve_name(application),
        http=http_protocol(),
        lifespan="on",
        server_header=False,
        timeout_keep_alive=75,
        ws="none",
    )
    logging.getLogger("uvicorn.error").addFilter(shorten)
    GracefulServer(config).run([listener])


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


def say(sentence: str) -> None:
    """Tell the user."""
    sys.stderr.write(f"{sentence}\n")


if __name__ == "__main__":
    main()
