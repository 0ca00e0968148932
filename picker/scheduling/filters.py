"""Filters (contract section 4.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from picker.endpoint import Endpoint
from picker.plugin import Handle, NoParameters, Parameters
from picker.request import InferenceRequest
from picker.snapshot import Candidates

log = logging.getLogger(__name__)

ROLE_LABEL = "llm-d.ai/role"


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a Kubernetes label selector's `matchExpressions`."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.operator in ("In", "NotIn") and not self.values:
            raise ValueError(f"operator {self.operator} needs values")
        if self.operator in ("Exists", "DoesNotExist") and self.values:
            raise ValueError(f"operator {self.operator} takes no values")

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Kubernetes semantics: NotIn also matches when the key is missing."""
        value = labels.get(self.key)
        if self.operator == "In":
            return value in self.values
        if self.operator == "NotIn":
            return value not in self.values
        return (value is not None) == (self.operator == "Exists")


class _LabelFilter:
    """Keeps endpoints by their labels. Labels do not change while an `Endpoint` lives, so what is left of the endpoints seen last is
    kept: asking a thousand of them costs more than all scorers."""

    def __init__(self) -> None:
        self._before: tuple[Endpoint, ...] | None = None
        self._positions: Sequence[int] = ()
        self._left: tuple[Endpoint, ...] = ()

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """Those whose labels are wanted."""
        if candidates.endpoints is not self._before:
            kept = candidates.keep(self._wanted)
            self._before, self._positions, self._left = candidates.endpoints, kept.positions, kept.endpoints
            return kept
        if self._left is self._before:
            return candidates
        return Candidates(candidates.snapshot, self._positions, self._left)

    def _wanted(self, endpoint: Endpoint) -> bool:
        raise NotImplementedError


class SelectorParameters(Parameters, frozen=True):
    """A Kubernetes label selector; an empty one matches everything."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()


class LabelSelectorFilter(_LabelFilter):
    """Keeps endpoints whose labels match: all of matchLabels and of matchExpressions must hold."""

    type = "label-selector-filter"
    Parameters = SelectorParameters

    def __init__(self, name: str, parameters: SelectorParameters, handle: Handle) -> None:
        super().__init__()
        self.name = name
        self._labels = parameters.match_labels
        self._expressions = parameters.match_expressions

    def _wanted(self, endpoint: Endpoint) -> bool:
        labels = endpoint.labels
        return all(labels.get(k) == v for k, v in self._labels.items()) and all(e.matches(labels) for e in self._expressions)


class ByLabelParameters(Parameters, frozen=True):
    """`validValues` of `label`; `allowsNoLabel` keeps endpoints without it."""

    label: Annotated[str, msgspec.Meta(min_length=1)]
    valid_values: tuple[str, ...] = ()
    allows_no_label: bool = False

    def __post_init__(self) -> None:
        if not self.valid_values and not self.allows_no_label:
            raise ValueError("give validValues or allowsNoLabel: no endpoint could match")


class ByLabelFilter(_LabelFilter):
    """Deprecated form of `label-selector-filter`: keeps endpoints by the value of one label."""

    type = "by-label"
    Parameters = ByLabelParameters

    def __init__(self, name: str, parameters: ByLabelParameters, handle: Handle) -> None:
        super().__init__()
        self.name = name
        self._label = parameters.label
        self._values = frozenset(parameters.valid_values)
        self._without = parameters.allows_no_label
        log.warning("%s: by-label is deprecated; use label-selector-filter", name)

    def _wanted(self, endpoint: Endpoint) -> bool:
        value = endpoint.labels.get(self._label)
        return self._without if value is None else value in self._values


class _RoleFilter(_LabelFilter):
    """By the label `llm-d.ai/role`."""

    Parameters = NoParameters
    roles: frozenset[str | None]

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        super().__init__()
        self.name = name

    def _wanted(self, endpoint: Endpoint) -> bool:
        return endpoint.labels.get(ROLE_LABEL) in self.roles


class DecodeFilter(_RoleFilter):
    """Endpoints that can decode; those without a role label can."""

    type = "decode-filter"
    roles = frozenset({"decode", "prefill-decode", "both", "encode-prefill-decode", None})


class PrefillFilter(_RoleFilter):
    """Endpoints that can prefill."""

    type = "prefill-filter"
    roles = frozenset({"prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"})


class EncodeFilter(_RoleFilter):
    """Endpoints that can encode."""

    type = "encode-filter"
    roles = frozenset({"encode", "encode-prefill", "encode-prefill-decode"})
