"""Plugins with the histogram cell that their time goes to: `llm_d_epp_plugin_duration_seconds`, by extension point.

The names of the extension points are the reference picker's where it has the point (`pkg/epp/framework/interface` and
`pkg/epp/scheduling` of llm-d-router), so that its dashboards find them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from picker.instruments import Distribution
from picker.metrics import Metrics

REQUEST_HEADER = "RequestHeader"
SCREENER = "Screener"
DATA_PRODUCER = "DataProducer"
ADMISSION = "Admission"
PROFILE_PICKER = "ProfilePicker"
FILTER = "Filter"
SCORER = "Scorer"
PICKER = "Picker"
PROCESS_RESULTS = "ProcessProfilesResults"
PRE_REQUEST = "PreRequest"
RESPONSE_HEADER = "ResponseReceived"
RESPONSE_STARTED = "ResponseStreaming"
RESPONSE_COMPLETE = "ResponseComplete"

T = TypeVar("T")
Timed = tuple[tuple[T, Distribution], ...]


def timer(metrics: Metrics, extension_point: str, plugin: Any) -> Distribution:
    """Where the time goes, in seconds, that `plugin` takes at this point."""
    return metrics.plugin_duration.cell(extension_point, str(plugin.type), str(plugin.name))


def timed(metrics: Metrics, extension_point: str, plugins: Iterable[T]) -> Timed[T]:
    """Each with its timer, in the same order."""
    return tuple([(plugin, timer(metrics, extension_point, plugin)) for plugin in plugins])
