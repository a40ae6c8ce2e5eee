"""Logging of the service: JSON lines with the request id, readable ones on a terminal."""

import atexit
import json
import logging
import sys
import threading
import time
from collections import deque
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

    A system call for each line takes longer than making it. Lines are made when they are logged, not when they are
    written: a thread that makes hundreds at once keeps the event loop waiting for the interpreter's lock.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque()
        # One thread for good: starting one waits until it runs, which on busy cores takes milliseconds.
        self._writer: threading.Thread | None = None
        self._due = threading.Event()
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

    def keep(self, line: str) -> None:
        """Keeps a line; any thread may call."""
        self._lines.append(line)
        if not self._due.is_set():
            self._write_soon()
        elif len(self._lines) >= _MOST_LINES:
            self.flush()

    def flush(self) -> None:
        """Writes the lines that are kept."""
        assert self.lock is not None
        with self.lock:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                lines.append("")
                self.stream.write("\n".join(lines))
            if not self.stream.closed:
                self.stream.flush()

    def _write_soon(self) -> None:
        self._due.set()
        if self._writer is None or not self._writer.is_alive():
            self._writer = threading.Thread(target=self._write_forever, name="aiml-log", daemon=True)
            self._writer.start()

    def _write_forever(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            time.sleep(_LATE_SECONDS)
            self.flush()


class LineTemplate:
    """Logs one message at one level again and again, with fields that differ.

    Where nobody but the service's own handler listens, no record is made at all: that takes ten times as long.
    """

    def __init__(self, logger: logging.Logger, level: int, message: str) -> None:
        self._logger = logger
        self._level = level
        self._message = message
        self._start = {"event": message, "level": logging.getLevelName(level).lower(), "logger": logger.name}

    def log(self, fields: dict[str, Any]) -> None:
        """Logs the message with these fields, if its level is wanted."""
        if not self._logger.isEnabledFor(self._level):
            return
        handler = self._only_handler()
        if handler is not None:
            handler.keep(as_line({**self._start, "timestamp": datetime.now(UTC), **fields}))
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
