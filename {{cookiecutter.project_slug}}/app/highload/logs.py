"""The log of a process: one line for each record, as JSON for programs or as text for people.

It imports nothing of the service, so that Gunicorn's master can read this file and hold nothing else.
"""

import json
import logging
import logging.config
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

type Form = Literal["json", "text"]

OWN = "app"
HANDLER = "standard error"
OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# The id of the request that is answered; a shared read is answered for many and has none.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


def request_fields() -> Mapping[str, Any]:
    """Return the id of the request that is answered now."""
    request_id = REQUEST_ID.get()
    return {} if request_id is None else {"request_id": request_id}


# Each adds fields to a record when it is made, such as the ids of a trace.
FIELDS: list[Callable[[], Mapping[str, Any]]] = [request_fields]


class LineFormatter(logging.Formatter):
    """What both formats have in common: the time in UTC (RFC 3339), and the fields beside the message."""

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
            "message": record.getMessage(),
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

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """Return the line; nothing that a client sent begins another one in the first column."""
        line = super().formatMessage(record).replace("\r", "").replace("\n", "\n    ")
        return " ".join([line, *(f"{name}={value}" for name, value in self.fields_of(record).items())])


def configuration(level: str, form: Form) -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig`: all that is logged goes to the standard error.

    `level` is that of the service. At `debug` the libraries stay at `info`: below it they print what clients send.
    """
    of_libraries = {"level": max(logging.INFO, logging.getLevelNamesMapping()[level.upper()])}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": JsonFormatter if form == "json" else TextFormatter}},
        "handlers": {HANDLER: {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {**of_libraries, "handlers": [HANDLER]},
        "loggers": {
            "alembic.runtime.plugins": {"level": "WARNING"},
            # Its workers take its handlers for Uvicorn.
            "gunicorn.error": {**of_libraries, "handlers": [HANDLER], "propagate": False},
        },
    }


def configure(level: str, form: Form) -> None:
    """Let this process log like that, unless somebody else, such as a test, has set up its log."""
    if all(handler.name == HANDLER for handler in logging.getLogger().handlers):
        logging.config.dictConfig(configuration(level, form))
        # Whoever listens there goes on.
        logging.getLogger(OWN).setLevel(level.upper())
        logging.captureWarnings(True)
