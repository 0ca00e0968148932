"""Requests that are to be served from a cached prefix or not at all (`Prefer: if-available`, contract sections 1.7 and 1.8)."""

from __future__ import annotations

from collections.abc import Mapping

from picker.errors import PreconditionFailed
from picker.request import InferenceRequest
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.snapshot import Snapshot

_HEADER = "prefer"
_IF_AVAILABLE = "if-available"


class ConditionalDecode:
    """Refuses such a request when the endpoint chosen for it holds nothing of its prompt."""

    def __init__(self, prefix: ApproxPrefixCacheProducer) -> None:
        """`prefix` knows what endpoints hold."""
        self._prefix = prefix

    def check(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """Raises PreconditionFailed. A prompt that is shorter than a block, or none, is held nowhere."""
        if _HEADER in request.headers and _preferred(request.headers):
            match = self._prefix.match(request, snapshot)
            if match.blocks is None or not match.blocks[position]:
                raise PreconditionFailed("no decode worker has the requested KV cache")


def _preferred(headers: Mapping[str, str]) -> bool:
    """Preferences are separated by commas, their parameters by semicolons; names are case-insensitive (RFC 7240, section 2)."""
    return any(preference.partition(";")[0].strip().lower() == _IF_AVAILABLE for preference in headers[_HEADER].split(","))
