"""Runs the extractors of one source: what they find becomes known of the endpoint, and no fault of theirs gets any further."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.throttle import Throttle
from picker.endpoint import Endpoint
from picker.plugin import EndpointEvent, EndpointEventExtractor, Extracted, Extractor

log = logging.getLogger(__name__)


class Extraction:
    """The extractors attached to one source, in the order in which the configuration lists them."""

    def __init__(
        self,
        datastore: Datastore,
        source_name: str,
        extractors: Sequence[Extractor],
        on_error: Callable[[str], None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_error` is told the type of an extractor that raised."""
        self._datastore = datastore
        self._runs = [_Guarded(source_name, extractor.name, extractor.type, on_error, now) for extractor in extractors]
        self._extractors = tuple(extractors)

    def __call__(self, state: EndpointState, body: bytes) -> None:
        """What was fetched from the endpoint of this state."""
        for extractor, guarded in zip(self._extractors, self._runs, strict=True):
            guarded(self._datastore, state.endpoint, partial(extractor.extract, state.endpoint, body))


class Notification:
    """One endpoint-notification-source: follows the datastore, and tells its extractors."""

    def __init__(
        self,
        datastore: Datastore,
        source_name: str,
        extractors: Sequence[EndpointEventExtractor],
        on_error: Callable[[str], None],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_error` is told the type of an extractor that raised."""
        self._datastore = datastore
        self._runs = [_Guarded(source_name, extractor.name, extractor.type, on_error, now) for extractor in extractors]
        self._extractors = tuple(extractors)
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin with an `add` for each endpoint that is there."""
        if not self._ends:
            self._ends = [self._datastore.subscribe(self._moved), self._datastore.subscribe_changes(self._changed)]

    def stop(self) -> None:
        """Tell nothing any more."""
        for end in self._ends:
            end()
        self._ends = []

    def _moved(self, added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        for state in removed:
            self._tell("delete", state)
        for state in added:
            self._tell("add", state)

    def _changed(self, state: EndpointState) -> None:
        self._tell("update", state)

    def _tell(self, event: EndpointEvent, state: EndpointState) -> None:
        for extractor, guarded in zip(self._extractors, self._runs, strict=True):
            guarded(self._datastore, state.endpoint, partial(extractor.endpoint_event, event, state.endpoint))


class _Guarded:
    """Calls one extractor; its faults are counted, and logged at most once in ten seconds."""

    __slots__ = ("_extractor_name", "_extractor_type", "_on_error", "_source_name", "_throttle")

    def __init__(self, source_name: str, name: str, type_: str, on_error: Callable[[str], None], now: Callable[[], float]) -> None:
        self._source_name = source_name
        self._extractor_name = name
        self._extractor_type = type_
        self._on_error = on_error
        self._throttle = Throttle(now=now)

    def __call__(self, datastore: Datastore, endpoint: Endpoint, call: Callable[[], Extracted | None]) -> None:
        try:
            extracted = call()
            if extracted is not None:
                datastore.apply(endpoint, extracted)
        except Exception as error:
            self._on_error(self._extractor_type)
            held = self._throttle.held
            if self._throttle.ready():
                more = f" ({held} more since the last such line)" if held else ""
                log.warning(
                    "extractor %s of source %s failed on endpoint %s, what is known of it stays: %s: %s%s",
                    self._extractor_name, self._source_name, endpoint, type(error).__name__, error, more,
                )  # fmt: skip
