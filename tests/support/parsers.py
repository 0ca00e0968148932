"""The default set of parsers, as the loader makes it."""

from __future__ import annotations

from picker.config import default_source
from picker.loader import load
from picker.metrics import Metrics
from picker.parsing.paths import ParserSet


def default_parsers() -> ParserSet:
    """In the order of the contract, section 1.9."""
    return load(default_source(), Metrics()).stages.parsers
