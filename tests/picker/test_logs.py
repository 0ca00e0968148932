"""Log lines, and which of them are written."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest

from picker.logs import JsonFormatter

PROGRAM = """
import logging, sys
from picker.logs import configure
configure(int(sys.argv[1]), sys.argv[2])
log = logging.getLogger("picker.some")
for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
    log.log(level, "at %s", logging.getLevelName(level))
for noisy in ("watchfiles.main", "uvicorn.error", "asyncio"):
    logging.getLogger(noisy).info("noise")
"""


def written(verbosity: int, encoder: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(verbosity), encoder], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("verbosity", "levels"),
    [
        (0, ["error"]),
        (1, ["warning", "error"]),
        (2, ["info", "warning", "error"]),
        (3, ["info", "warning", "error"]),
        (4, ["debug", "info", "warning", "error"]),
        (9, ["debug", "info", "warning", "error"]),
    ],
)
def test_verbosity(verbosity: int, levels: list[str]) -> None:
    entries = [json.loads(line) for line in written(verbosity, "json")]
    assert [e["level"] for e in entries] == levels
    assert [e["msg"] for e in entries] == [f"at {level.upper()}" for level in levels]
    assert {e["logger"] for e in entries} == {"picker.some"}


def test_console_lines_are_for_people() -> None:
    lines = written(2, "console")
    assert len(lines) == 3
    assert lines[1].endswith(" WARNING picker.some: at WARNING")


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("picker.some", logging.ERROR, "file.py", 1, message, args, None)


def test_a_json_line_is_one_line_whatever_is_logged() -> None:
    line = JsonFormatter().format(record('two\nlines, a "quote" and %s', "ünïcode"))
    assert "\n" not in line
    entry = json.loads(line)
    assert entry["msg"] == 'two\nlines, a "quote" and ünïcode'
    assert list(entry) == ["level", "ts", "logger", "msg"]
    assert datetime.fromisoformat(entry["ts"]).utcoffset() is not None


def test_a_traceback_is_in_the_line() -> None:
    made = record("failed")
    try:
        raise ValueError("broken")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    error = json.loads(line)["error"]
    assert error.startswith("Traceback")
    assert error.endswith("ValueError: broken")
