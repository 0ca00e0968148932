"""The endpoints file: YAML text to entries, strictly, with errors that name the place.

```yaml
endpoints:
- name: a
  namespace: default        # optional
  address: 10.0.0.1         # IPv4, IPv6 or DNS name
  port: 8000
  labels: {zone: north}     # optional
```
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Annotated, Any

import msgspec
import yaml

from picker.datalayer.discovery.hosts import EXPECTED_HOST, canonical_host
from picker.errors import ConfigError
from picker.watching import MAX_FILE_BYTES

_WHERE = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One endpoint as written; `address` is an IP literal or a DNS name in its usual spelling."""

    name: _Text
    address: _Text
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    namespace: _Text = "default"
    labels: dict[str, str] = {}


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoints: list[Entry]


def parse_document(raw: bytes, origin: str) -> tuple[Entry, ...]:
    """The entries of a file. Raises ConfigError: `origin`, the line, the path inside the document, the value, what was expected."""
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{origin}: expected at most {MAX_FILE_BYTES} bytes")
    node, data = _load(raw, origin)
    fault = _Fault(origin, node, data)
    try:
        document = msgspec.convert(data, _Document)
    except msgspec.ValidationError as error:
        text = str(error)
        where = _WHERE.search(text)
        raise fault.at(where.group(1) if where else "", text[: where.start()] if where else text) from None
    names: set[tuple[str, str]] = set()
    places: set[tuple[str, int]] = set()
    entries: list[Entry] = []
    for index, entry in enumerate(document.endpoints):
        here = f"endpoints[{index}]"
        bare = entry.address[1:-1] if entry.address.startswith("[") and entry.address.endswith("]") else entry.address
        host = canonical_host(bare)
        if host is None or (bare is not entry.address and ":" not in host):
            raise fault.at(f"{here}.address", f"expected {EXPECTED_HOST}")
        if (entry.namespace, entry.name) in names:
            raise fault.at(f"{here}.name", f"expected a name that is used once in namespace {entry.namespace!r}")
        if (host, entry.port) in places:
            raise fault.at(f"{here}.address", f"expected an address and port that are used once, port {entry.port} is taken")
        names.add((entry.namespace, entry.name))
        places.add((host, entry.port))
        entries.append(msgspec.structs.replace(entry, address=host))
    return tuple(entries)


def _load(raw: bytes, origin: str) -> tuple[yaml.Node | None, object]:
    try:
        loader = _Loader(raw)
        try:
            node = loader.get_single_node()
            _refuse_repeated_keys(node, origin)
            return node, None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise ConfigError(f"{origin}: {line}{error.problem or error.context}, expected YAML") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{origin}: {str(error) or type(error).__name__}, expected YAML") from None


def _refuse_repeated_keys(root: yaml.Node | None, origin: str) -> None:
    """YAML loaders let the last of two equal keys win, which hides a mistake. A node reached by several aliases is looked at once."""
    waiting: list[yaml.Node] = [root] if root is not None else []
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            keys: set[Hashable] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        raise ConfigError(f"{origin}: line {key.start_mark.line + 1}: key {key.value!r} is given twice, expected once")
                    keys.add(key.value)
                waiting.append(value)


class _Fault:
    """Makes a ConfigError out of a path inside the document such as `endpoints[2].port`."""

    def __init__(self, origin: str, node: yaml.Node | None, data: object) -> None:
        self._origin = origin
        self._node = node
        self._data = data

    def at(self, path: str, expected: str) -> ConfigError:
        node, value = self._node, self._data
        for name, index in _STEP.findall(path):
            step = _into(node, value, name, int(index) if index else None)
            if step is None:
                break
            node, value = step
        line = f"line {node.start_mark.line + 1}: " if node is not None else ""
        shown = "" if isinstance(value, dict | list) else f"{_short(value)}: "
        return ConfigError(f"{self._origin}: {line}{path or 'document'}: {shown}{expected}")


def _into(node: yaml.Node | None, value: object, name: str, index: int | None) -> tuple[yaml.Node | None, object] | None:
    if index is not None:
        if not isinstance(value, Sequence) or index >= len(value):
            return None
        inner = node.value[index] if isinstance(node, yaml.SequenceNode) else None
        return inner, value[index]
    if not isinstance(value, dict) or name not in value:
        return None
    inner = next((v for k, v in node.value if k.value == name), node) if isinstance(node, yaml.MappingNode) else None
    return inner, value[name]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
