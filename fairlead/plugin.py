"""What a plugin is written with: stable names, whatever moves inside fairlead. What they mean is in docs/plugins.md.

A plugin is a class that has the methods of one or more extension points (the protocols below). Nothing has to be inherited.
"""

from picker.endpoint import Endpoint, EndpointLoad, EndpointMetrics
from picker.endpoint_values import leave_endpoint_values
from picker.errors import BadRequest, Internal, PayloadTooLarge, Refusal, Rejected, Unavailable
from picker.plugin import (
    Admitter,
    AsyncDataProducer,
    DataProducer,
    EndpointWatcher,
    Filter,
    Handle,
    Parameters,
    Parser,
    Picker,
    PreRequest,
    ProfileHandler,
    RequestHeaderProcessor,
    ResponseHeaderProcessor,
    ResponseObserver,
    ResponseStartObserver,
    SaturationDetector,
    Scorer,
    Screener,
)
from picker.prompt import Prompt
from picker.request import InferenceRequest, ParsedBody, UsageFormat
from picker.result import ProfileResult, Response, Usage
from picker.snapshot import Candidates, ColumnMemo, Snapshot

__all__ = [
    "Admitter",
    "AsyncDataProducer",
    "BadRequest",
    "Candidates",
    "ColumnMemo",
    "DataProducer",
    "Endpoint",
    "EndpointLoad",
    "EndpointMetrics",
    "EndpointWatcher",
    "Filter",
    "Handle",
    "InferenceRequest",
    "Internal",
    "Parameters",
    "ParsedBody",
    "Parser",
    "PayloadTooLarge",
    "Picker",
    "PreRequest",
    "ProfileHandler",
    "ProfileResult",
    "Prompt",
    "Refusal",
    "Rejected",
    "RequestHeaderProcessor",
    "Response",
    "ResponseHeaderProcessor",
    "ResponseObserver",
    "ResponseStartObserver",
    "SaturationDetector",
    "Scorer",
    "Screener",
    "Snapshot",
    "Unavailable",
    "Usage",
    "UsageFormat",
    "leave_endpoint_values",
]
