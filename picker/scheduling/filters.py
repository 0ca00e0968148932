"""Filters (contract section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from picker.endpoint import Endpoint
from picker.plugin import Handle, NoParameters, Parameters
from picker.request import InferenceRequest
from picker.snapshot import Candidates

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


class SelectorParameters(Parameters, frozen=True):
    """A Kubernetes label selector; an empty one matches everything."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()


class LabelSelectorFilter:
    """Keeps endpoints whose labels match."""

    type = "label-selector-filter"
    Parameters = SelectorParameters

    def __init__(self, name: str, parameters: SelectorParameters, handle: Handle) -> None:
        self.name = name
        self._labels = parameters.match_labels
        self._expressions = parameters.match_expressions

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """All of matchLabels and of matchExpressions must hold."""
        return candidates.keep(self._matches)

    def _matches(self, endpoint: Endpoint) -> bool:
        labels = endpoint.labels
        return all(labels.get(k) == v for k, v in self._labels.items()) and all(e.matches(labels) for e in self._expressions)


class _RoleFilter:
    Parameters = NoParameters
    roles: frozenset[str | None]

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """By the label `llm-d.ai/role`."""
        return candidates.keep(lambda endpoint: endpoint.labels.get(ROLE_LABEL) in self.roles)


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
