"""Logging to stderr: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# Verbosity as in the reference picker: 2 default, 3 verbose, 4 debug, 5 trace.
_LEVELS = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO, 3: logging.INFO}


_TRACEBACKS = {"info": logging.INFO, "error": logging.ERROR, "panic": logging.CRITICAL + 1}


def _time(created_s: float, encoding: str) -> float | int | str:
    """As zap writes it: `epoch` seconds, `millis`, `nano`, or a date in UTC."""
    if encoding == "epoch":
        return created_s
    if encoding == "millis":
        return created_s * 1e3
    if encoding == "nano":
        return int(created_s * 1e9)
    moment = datetime.fromtimestamp(created_s, UTC)
    if encoding == "rfc3339":
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    if encoding == "rfc3339nano":
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
    return moment.isoformat(timespec="milliseconds")


class _Formatter(logging.Formatter):
    def __init__(self, time_encoding: str = "iso8601", traceback_level: str = "error") -> None:
        super().__init__()
        self._encoding = time_encoding
        self._traceback_level = _TRACEBACKS[traceback_level]

    def _traceback(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info and record.levelno >= self._traceback_level else ""


class ConsoleFormatter(_Formatter):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback."""
        line = f"{_time(record.created, self._encoding)} {record.levelname:<7} {record.name}: {record.getMessage()}"
        traceback = self._traceback(record)
        return f"{line}\n{traceback}" if traceback else line


class JsonFormatter(_Formatter):
    """`ts`, `level`, `logger`, `msg`, and `error` with the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "level": record.levelname.lower(),
            "ts": _time(record.created, self._encoding),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if traceback := self._traceback(record):
            entry["error"] = traceback
        return json.dumps(entry, ensure_ascii=False)


def configure(verbosity: int, encoder: str, time_encoding: str = "iso8601", traceback_level: str = "error") -> None:
    """`encoder` is `console` or `json`; for the others see `--zap-time-encoding` and `--zap-stacktrace-level`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter((JsonFormatter if encoder == "json" else ConsoleFormatter)(time_encoding, traceback_level))
    logging.basicConfig(level=_LEVELS.get(verbosity, logging.DEBUG), handlers=[handler], force=True)
    for noisy in ("watchfiles", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
