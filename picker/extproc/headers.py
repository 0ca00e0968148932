"""Which headers the picker owns, and what a reply does to a header map (contract sections 1.3, 1.5 and 1.6)."""

from __future__ import annotations

from collections.abc import Mapping

from picker.extproc.events import HeaderChange, Headers
from picker.keys import CONTROL

SCORES = "x-gateway-destination-endpoint-scores"
REQUEST_ID = "x-request-id"
# ORCA: a model server answers the first with the second (`picker.datalayer.load_report`).
LOAD_FORMAT = "endpoint-load-metrics-format"
LOAD_REPORT = "endpoint-load-metrics"

LB_NAMESPACE = "envoy.lb"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"

_NOT_COPIED = CONTROL | {"content-length"}


def as_text(headers: Headers) -> dict[str, str]:
    """By name; of a repeated header the last value."""
    return {name: value.decode("utf-8", "replace") for name, value in headers}


def change(headers: Headers, by_name: Mapping[str, object], first: Headers) -> HeaderChange:
    """`first`, then every header that is not the picker's own set to the value it has; control headers that are present are removed.

    Setting replaces all values of a name, so a header that occurs more than once is left alone: it would lose all but one. `by_name` has
    the names that occur, like `as_text(headers)`.
    """
    owned = {name for name, _ in first}
    ours = _NOT_COPIED if owned.isdisjoint(by_name) else _NOT_COPIED | owned
    if len(by_name) == len(headers):
        copied = [pair for pair in headers if pair[0] not in ours]
    else:
        names = [name for name, _ in headers]
        copied = [(name, value) for name, value in headers if name not in ours and names.count(name) == 1]
    present = CONTROL & by_name.keys()
    return HeaderChange([*first, *copied], sorted(present - owned) if present else ())


def without(header_change: HeaderChange, name: str) -> HeaderChange:
    """`header_change` with a header of that name removed."""
    return HeaderChange([pair for pair in header_change.set_headers if pair[0] != name], [*header_change.remove, name])
