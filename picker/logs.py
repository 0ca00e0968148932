"""Logging to stderr: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# Verbosity as in the reference picker: 2 default, 3 verbose, 4 debug, 5 trace.
_LEVELS = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO, 3: logging.INFO}


class JsonFormatter(logging.Formatter):
    """`ts`, `level`, `logger`, `msg`, and `error` with the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry = {
            "level": record.levelname.lower(),
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(verbosity: int, encoder: str) -> None:
    """`encoder` is `console` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if encoder == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=_LEVELS.get(verbosity, logging.DEBUG), handlers=[handler], force=True)
    for noisy in ("watchfiles", "uvicorn", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
