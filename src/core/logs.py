"""Logging of the service: JSON lines with the request id, readable ones on a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from src.core.config import Settings

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: event, level, logger, timestamp (ISO 8601, UTC), and its `extra` fields.

    One line goes out per inference, so it is on the hot path; structlog's chain of processors took an
    eighth of a request's time there.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC),
        }
        line.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z).decode()
        except TypeError:  # a text that is no Unicode, such as a file name of stray bytes
            return json.dumps(line, default=str)


def configure(settings: Settings) -> None:
    """Sets up the root logger; only the service does, never the Python door."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else _readable())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel("WARNING")
    logging.getLogger("src").setLevel(settings.log_level)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.error").setLevel("INFO")
    # What no line of ours shows need not be found out: the caller's place, thread, process and task.
    # Source: "Optimization" in the logging HOWTO of Python's documentation.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _readable() -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=False),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.dev.ConsoleRenderer()],
    )
