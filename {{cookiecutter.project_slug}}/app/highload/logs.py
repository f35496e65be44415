"""The log of a process: one line for each record, as JSON for programs or as text for people.

It imports nothing of the service, so that Gunicorn's master can read this file and hold nothing else.
"""

import json
import logging
import logging.config
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

type Form = Literal["json", "text"]

OWN = "app"
HANDLER = "standard error"
OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# Exceptions of these types quote the value that they complain about.
QUOTING = (ValueError, LookupError, BaseExceptionGroup)
NOT_SHOWN = "(not shown)"

# The id of the request that is answered; a run that many share has one of its own.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_fields() -> Mapping[str, Any]:
    """Return the id of the request that is answered now."""
    request_id = REQUEST_ID.get()
    return {} if request_id is None else {"request_id": request_id}


# Each adds fields to a record when it is made, such as the ids of a trace.
FIELDS: list[Callable[[], Mapping[str, Any]]] = [request_fields]


class LineFormatter(logging.Formatter):
    """What both formats have in common: the time in UTC (RFC 3339), the fields beside the message, and exceptions.

    Their messages are shown where they quote no value of a client, or else with `quotes`.
    """

    def __init__(self, form: str | None = None, *, quotes: bool = False) -> None:
        super().__init__(form)
        self._quotes = quotes

    def message_of(self, record: logging.LogRecord) -> str:
        """Return the message; many a message repeats that of its exception."""
        message = record.getMessage()
        error = record.exc_info[1] if record.exc_info else None
        if error is None or self._quotes or may_show(error):
            return message
        for quoted in (repr(error), str(error)):
            # Not where the words are those of whoever logs.
            if quoted and quoted not in str(record.msg):
                message = message.replace(quoted, in_words(error))
        return message

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's
        """Return the traceback."""
        _, error, trace = ei
        if self._quotes or error is None:
            return super().formatException(ei)
        return "\n".join(lines_of(error, trace, set()))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's
        """Return when the record was made, in milliseconds."""
        time = datetime.fromtimestamp(record.created, UTC)
        return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"

    def fields_of(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return what stands beside the message.

        Of the service's own records that is what they were given as `extra`, too; others put there what clients sent.
        """
        fields = {name: value for source in FIELDS for name, value in source().items()}
        if record.name.partition(".")[0] == OWN:
            fields |= {name: value for name, value in vars(record).items() if name not in OF_EVERY_RECORD}
        return fields


class JsonFormatter(LineFormatter):
    """A record as an object of JSON on one line; an exception is one field of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": self.message_of(record),
            "process": record.process,
            **self.fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=str)


class TextFormatter(LineFormatter):
    """A record as a line, and its exception below it."""

    def __init__(self, *, quotes: bool = False) -> None:
        super().__init__("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s", quotes=quotes)

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        # What another formatter has made of the exception.
        record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """Return the line; nothing that a client sent begins another one in the first column."""
        record.message = self.message_of(record)
        line = super().formatMessage(record).replace("\r", "").replace("\n", "\n    ")
        return " ".join([line, *(f"{name}={value}" for name, value in self.fields_of(record).items())])


def may_show(error: BaseException) -> bool:
    """Whether the message of an exception quotes no value: those of libraries may do so, and some of Python's do."""
    return type(error).__module__.partition(".")[0] in ("builtins", OWN) and not isinstance(error, QUOTING)


def in_words(error: BaseException) -> str:
    """Return the type of an exception, and its message where that may be shown."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    words = str(error) if may_show(error) else NOT_SHOWN
    return f"{name}: {words}" if words else name


def lines_of(error: BaseException, trace: TracebackType | None, seen: set[int]) -> Iterator[str]:
    """Yield the lines of a traceback with those of the exceptions before, as Python prints it."""
    seen.add(id(error))
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and id(earlier) not in seen:
        yield from lines_of(earlier, earlier.__traceback__, seen)
        yield "\nThis exception led to another one:\n"
    yield "Traceback (most recent call last):"
    yield from (frame.removesuffix("\n") for frame in traceback.format_tb(trace))
    yield in_words(error)
    for member in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
        yield "\nOne of several:\n"
        yield from lines_of(member, member.__traceback__, seen)


def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log the exception that ends a process."""
    logging.getLogger(OWN).critical("the process ends", exc_info=(kind, error, trace))


def configuration(level: str, form: Form, *, quotes: bool = False) -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig`: all that is logged goes to the standard error.

    `level` is that of the service. At `debug` the libraries stay at `info`: below it they print what clients send.
    With `quotes`, text for a developer shows what exceptions quote.
    """
    formatter = {"()": JsonFormatter} if form == "json" else {"()": TextFormatter, "quotes": quotes}
    of_libraries = {"level": max(logging.INFO, logging.getLevelNamesMapping()[level.upper()])}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {HANDLER: {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {**of_libraries, "handlers": [HANDLER]},
        "loggers": {
            "alembic.runtime.plugins": {"level": "WARNING"},
            # Its workers take its handlers for Uvicorn.
            "gunicorn.error": {**of_libraries, "handlers": [HANDLER], "propagate": False},
        },
    }


def configure(level: str, form: Form, *, quotes: bool = False) -> None:
    """Let this process log like that, unless somebody else, such as a test, has set up its log."""
    if all(handler.name == HANDLER for handler in logging.getLogger().handlers):
        logging.config.dictConfig(configuration(level, form, quotes=quotes))
        # Whoever listens there goes on.
        logging.getLogger(OWN).setLevel(level.upper())
        logging.captureWarnings(True)
        if form == "json":
            sys.excepthook = log_uncaught
