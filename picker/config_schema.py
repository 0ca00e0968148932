"""A JSON Schema of EndpointPickerConfig, parameters of plugins included, for editors."""

from __future__ import annotations

from typing import Any

import msgspec

from picker.config import API_VERSIONS, COMPATS, FEATURE_GATES, KIND, EndpointPickerConfig
from picker.naming import RENAMED
from picker.registry import Registry

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(registry: Registry) -> dict[str, Any]:
    """Of everything that `registry` knows."""
    classes = {type_: registry[type_] for type_ in registry.types()}
    (root, *parameters), components = msgspec.json.schema_components(
        [EndpointPickerConfig, *[cls.Parameters for cls in classes.values()]], ref_template="#/$defs/{name}"
    )
    config: dict[str, Any] = components["EndpointPickerConfig"]
    fields = config["properties"]
    fields["apiVersion"] = {"enum": list(API_VERSIONS)}
    fields["kind"] = {"const": KIND}
    fields["compat"] = {"enum": list(COMPATS)}
    gates = [gate for name in FEATURE_GATES for gate in (name, f"{name}=true", f"{name}=false")]
    fields["featureGates"] = {"type": "array", "items": {"enum": gates}}
    plugin: dict[str, Any] = components["PluginSpec"]
    plugin["required"] = ["type"]
    # A type of somebody else's package is none of ours: named here for completion, not enforced.
    known = [*classes, *RENAMED]
    plugin["properties"]["type"] = {"anyOf": [{"enum": known}, {"type": "string", "minLength": 1}]}
    plugin["allOf"] = [
        {"if": {"properties": {"type": {"const": type_}}}, "then": {"properties": {"parameters": _or_null(found)}}}
        for type_, found in zip(classes, parameters, strict=True)
    ]
    return {"$schema": DRAFT, "title": KIND, **root, "$defs": components}


def _or_null(found: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "null"}, found]}
