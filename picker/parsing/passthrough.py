"""passthrough-parser: requests that are routed without a look at their body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from picker.plugin import Handle, NoParameters
from picker.request import ParsedBody

_OPAQUE = ParsedBody(model_required=False, model_rewritable=False)


class PassthroughParser:
    """Takes every path that nobody else names. Prefix and adapter affinity have nothing to work with here."""

    type = "passthrough-parser"
    Parameters = NoParameters
    protocols: Sequence[str] = ("http", "h2c")
    paths: Sequence[str] = ()

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        """Always the same answer: no model, no prompt, no usage."""
        return _OPAQUE
