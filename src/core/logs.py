"""Logging of the service: JSON lines with the request id, readable ones on a terminal."""

import atexit
import json
import logging
import sys
import threading
import time
from datetime import UTC, datetime
from typing import Any

import orjson

from src.core.config import Settings

_LATE_SECONDS = 0.1
_MOST_LINES = 1000
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: event, level, logger, timestamp (ISO 8601, UTC), and its `extra` fields.

    One line goes out per inference, so it is on the hot path; structlog's chain of processors took an
    eighth of a request's time there.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        line: dict[str, Any] = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC),
        }
        line.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return as_line(line)


def as_line(fields: dict[str, Any]) -> str:
    """Returns fields as one line of JSON."""
    try:
        return orjson.dumps(fields, default=str, option=orjson.OPT_UTC_Z).decode()
    except TypeError:  # a text that is no Unicode, such as a file name of stray bytes
        return json.dumps(fields, default=str)


class GatheringHandler(logging.StreamHandler[Any]):
    """Writes lines of JSON in bunches, a tenth of a second late; warnings and errors at once, with what was before.

    A system call for each line takes longer than making it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str | dict[str, Any]] = []
        self._timer: threading.Timer | None = None
        self.setFormatter(JsonFormatter())
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a line; writes all that are kept where it matters."""
        try:
            self.keep(self.format(record))
        except Exception:
            self.handleError(record)
        if record.levelno >= logging.WARNING:
            self.flush()

    def keep(self, line: str | dict[str, Any]) -> None:
        """Keeps a line, or the fields of one with `timestamp` in seconds since 1970; any thread may call."""
        self._lines.append(line)
        if self._timer is None:
            self._timer = threading.Timer(_LATE_SECONDS, self.flush)
            self._timer.daemon = True
            self._timer.start()
        elif len(self._lines) >= _MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Writes the lines that are kept."""
        assert self.lock is not None
        with self.lock:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            lines, self._lines = self._lines, []
            if lines:
                self.stream.write("".join(map(_ended, lines)))
            if not self.stream.closed:
                self.stream.flush()


def _ended(line: str | dict[str, Any]) -> str:
    if isinstance(line, dict):
        line = as_line({**line, "timestamp": datetime.fromtimestamp(line["timestamp"], UTC)})
    return line + "\n"


class LineTemplate:
    """Logs one message at one level again and again, with fields that differ.

    Where nobody but the service's own handler listens, no record is made at all: that takes ten times as long.
    """

    def __init__(self, logger: logging.Logger, level: int, message: str) -> None:
        self._logger = logger
        self._level = level
        self._message = message
        self._start = {"event": message, "level": logging.getLevelName(level).lower(), "logger": logger.name}

    def log(self, **fields: Any) -> None:
        """Logs the message with these fields, if its level is wanted."""
        if not self._logger.isEnabledFor(self._level):
            return
        handler = self._only_handler()
        if handler is not None:
            handler.keep({**self._start, "timestamp": time.time(), **fields})
        else:
            self._logger.log(self._level, self._message, extra=fields)

    def _only_handler(self) -> GatheringHandler | None:
        """Returns the handler of the service, if no other handler and no filter has a say."""
        logger: logging.Logger | None = self._logger
        if logger is not None and logger.filters:
            return None
        while logger is not None and logger.parent is not None:
            if logger.handlers or not logger.propagate:
                return None
            logger = logger.parent
        handlers = logger.handlers if logger is not None else []
        if len(handlers) != 1 or handlers[0].filters or handlers[0].level:
            return None
        return handlers[0] if isinstance(handlers[0], GatheringHandler) else None


def configure(settings: Settings) -> None:
    """Sets up the root logger; only the service does, never the Python door."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    # Somebody who looks at a terminal wants each line when it is due.
    handler = GatheringHandler() if as_json else logging.StreamHandler()
    if not as_json:
        handler.setFormatter(_readable())
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
    import structlog

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=False),
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.dev.ConsoleRenderer()],
    )
