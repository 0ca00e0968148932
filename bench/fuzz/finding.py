"""What a fuzzed case may come to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_DETAIL_CHARACTERS = 600


class Finding(Exception):  # noqa: N818  (what fuzzing looks for, not an error of this program)
    """Something that must not happen has happened."""


def demand(condition: object, what: str, *details: object) -> None:
    """Raises Finding unless `condition` holds."""
    if not condition:
        raise Finding(": ".join([what, *[repr(detail)[:_DETAIL_CHARACTERS] for detail in details]]))


class _Loud(logging.Handler):
    """The server catches what a call raises, answers INTERNAL and logs it: here that is a finding, too."""

    def emit(self, record: logging.LogRecord) -> None:
        raise Finding(f"logged as an error: {record.getMessage()}")


@contextmanager
def errors_are_findings() -> Iterator[None]:
    """An ERROR in the picker's log raises Finding where it is logged; everything below is silent."""
    logger = logging.getLogger("picker")
    handler, level, propagate = _Loud(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
