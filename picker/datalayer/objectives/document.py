"""InferenceObjective and InferenceModelRewrite as YAML documents, decoded strictly (contract section 2.3).

What Kubernetes adds to an object that it has stored (`uid`, `managedFields`, `status`, …) may be there, so that the output of
`kubectl get -o yaml` for one object can be used as it is.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from picker.datalayer.objectives.store import Rewrite, Rule, Table, Target
from picker.errors import ConfigError
from picker.registry import nearest
from picker.watching import MAX_FILE_BYTES
from picker.yaml_source import YamlSource

log = logging.getLogger(__name__)

API_VERSIONS = ("llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2")
POOL_GROUPS = ("", "inference.networking.k8s.io", "inference.networking.x-k8s.io")
POOL_KIND = "InferencePool"

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
_Model = Annotated[str, msgspec.Meta(min_length=1)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class Metadata(_Strict, frozen=True):
    """Of these, `name`, `namespace` and `creation_timestamp` are used."""

    name: _Text
    namespace: _Text = "default"
    creation_timestamp: _Time | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    generate_name: str = ""
    self_link: str = ""
    finalizers: list[str] | None = None
    managed_fields: Any = None
    owner_references: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: int | None = None


class PoolRef(_Strict, frozen=True):
    """The pool an object is meant for."""

    name: _Text
    group: str = POOL_GROUPS[1]
    kind: str = POOL_KIND


class ObjectiveSpec(_Strict, frozen=True):
    """`priority` is an int32; None is 0."""

    priority: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] | None = None
    pool_ref: PoolRef | None = None


class InferenceObjective(_Strict, frozen=True):
    """How much requests matter that name it."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: ObjectiveSpec
    status: Any = None


class ModelMatch(_Strict, frozen=True):
    """Of the model that the client named."""

    value: _Model
    type: Literal["Exact"] = "Exact"


class Match(_Strict, frozen=True):
    """What a request must look like."""

    model: ModelMatch


class TargetSpec(_Strict, frozen=True):
    """A model to ask instead, and its weight."""

    model_rewrite: _Model
    weight: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None


class RuleSpec(_Strict, frozen=True):
    """One of `matches` must hold; without any the rule is for all."""

    targets: Annotated[tuple[TargetSpec, ...], msgspec.Meta(min_length=1)]
    matches: tuple[Match, ...] = ()


class RewriteSpec(_Strict, frozen=True):
    """Rules, the first that matches counts."""

    rules: Annotated[tuple[RuleSpec, ...], msgspec.Meta(min_length=1)]
    pool_ref: PoolRef | None = None


class InferenceModelRewrite(_Strict, frozen=True):
    """Which models are asked instead of the one that the client named."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: RewriteSpec
    status: Any = None


Document = InferenceObjective | InferenceModelRewrite
KINDS: dict[str, type[InferenceObjective] | type[InferenceModelRewrite]] = {
    cls.__name__: cls for cls in (InferenceObjective, InferenceModelRewrite)
}


class Declared(msgspec.Struct, frozen=True):
    """A file's content: the table for one pool, and how many documents are for other pools."""

    table: Table
    skipped: int = 0


def parse_documents(raw: bytes, origin: str, *, pool_name: str) -> Declared:
    """Raises ConfigError: `origin`, the line, the path inside the document, what was expected and the nearest valid name."""
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{origin}: expected at most {MAX_FILE_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{origin}: expected UTF-8: {error}") from None
    priorities: dict[str, int] = {}
    rewrites: list[Rewrite] = []
    taken: set[tuple[str, str]] = set()
    skipped = 0
    for source in YamlSource.every(text, origin):
        document = _decode(source)
        pool = document.spec.pool_ref
        if pool is not None and pool.name != pool_name:
            skipped += 1
            where = source.where("spec.poolRef.name")
            log.warning("%s: '%s' is for pool '%s', not '%s': it is not used", where, document.metadata.name, pool.name, pool_name)
            continue
        name = document.metadata.name
        if (document.kind, name) in taken:
            raise ConfigError(f"{source.where('metadata.name')}: '{name}': another {document.kind} has this name, expected one")
        taken.add((document.kind, name))
        if isinstance(document, InferenceObjective):
            priorities[name] = document.spec.priority or 0
        else:
            rewrites.append(_rewrite(source, document))
    return Declared(Table(priorities, rewrites), skipped)


def _decode(source: YamlSource) -> Document:
    version, kind = source.data.get("apiVersion"), source.data.get("kind")
    if version not in API_VERSIONS:
        raise ConfigError(f"{source.where('apiVersion')}: '{version}' is not known; expected {' or '.join(API_VERSIONS)}")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(f"{source.where('kind')}: '{kind}' is not known{nearest(str(kind), KINDS)}")
    document = source.decode(KINDS[kind])
    pool = document.spec.pool_ref
    if pool is not None and pool.kind != POOL_KIND:
        raise ConfigError(f"{source.where('spec.poolRef.kind')}: '{pool.kind}' is not known; expected {POOL_KIND}")
    if pool is not None and pool.group not in POOL_GROUPS:
        raise ConfigError(f"{source.where('spec.poolRef.group')}: '{pool.group}' is not known; expected {POOL_GROUPS[1]}")
    return document


def _rewrite(source: YamlSource, document: InferenceModelRewrite) -> Rewrite:
    for index, rule in enumerate(document.spec.rules):
        unweighted = [t.model_rewrite for t in rule.targets if t.weight is None]
        if 0 < len(unweighted) < len(rule.targets):
            where = source.where(f"spec.rules[{index}].targets")
            log.warning("%s: some targets have a weight; these have none and get no request: %s", where, ", ".join(unweighted))
    rules = [
        Rule([m.model.value for m in rule.matches], [Target(t.model_rewrite, t.weight) for t in rule.targets])
        for rule in document.spec.rules
    ]
    return Rewrite(document.metadata.name, rules, document.metadata.creation_timestamp)
