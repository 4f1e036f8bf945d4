"""Logging to stderr, as text for people or as one JSON object a line for collectors."""

from __future__ import annotations

import json
import logging
import sys
from copy import copy
from datetime import UTC, datetime
from typing import Any, TextIO

from backfill.config import LoggingSettings

#: What `logging` itself puts on a record; the rest came by `extra`.
_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object for each record: time, level, logger, message, whatever came by `extra`, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as a line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        line.update((name, value) for name, value in vars(record).items() if name not in _OWN_ATTRIBUTES)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """`time level logger: message`, the time in UTC, and the traceback if any, unless `tracebacks` is off."""

    def __init__(self, *, tracebacks: bool = True) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as text."""
        if record.exc_info and not self._tracebacks:
            record = copy(record)  # other handlers may want what is left out here
            record.exc_info = record.exc_text = None
        return super().format(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802  # logging's
        """Return the record's time with milliseconds and offset."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is when a record comes, so that a progress display can put lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # not the stream handler's, which would keep the stream of this moment

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there
        """The present `sys.stderr`."""
        return sys.stderr


def configure_logging(settings: LoggingSettings, least: int = logging.NOTSET, *, tracebacks: bool = True) -> None:
    """Send all records of this process, and its warnings, to stderr in the form and from the level of `settings`, and not below `least`.

    Without `tracebacks` text is one line a record.
    """
    handler = StderrHandler()
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter(tracebacks=tracebacks))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.getLevelNamesMapping()[settings.level.upper()], least))
    logging.getLogger("alembic").setLevel(max(root.level, logging.WARNING))  # it tells of its plugins, one by one
    logging.captureWarnings(capture=True)
