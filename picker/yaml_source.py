"""Strict YAML: from text to a frozen struct, with errors that name the source, the line, the path and what was expected."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
import yaml

from picker.errors import ConfigError
from picker.registry import explain

S = TypeVar("S", bound=msgspec.Struct)

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: the second would silently replace the first."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if isinstance(key, str) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        if isinstance(key, str):
            seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


class YamlSource:
    """One document and where it came from (a file name, or e.g. `--config-text`)."""

    def __init__(self, text: str, source: str) -> None:
        """Raises ConfigError when the text is not YAML or its top level is not a mapping."""
        self.source = source
        try:
            loader = _StrictLoader(text)
            try:
                self._root = loader.get_single_node()
                self.data: Any = loader.construct_document(self._root) if self._root is not None else None
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            raise ConfigError(f"{source}{line}: not valid YAML: {error.problem or error.context}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{source}: not valid YAML: {error}") from None
        if not isinstance(self.data, dict):
            raise ConfigError(f"{source}: expected a mapping at the top level, got {type(self.data).__name__}")

    def where(self, path: str) -> str:
        """`source:line: path` for a path such as `plugins[2].type`."""
        line = self._line(path)
        place = f"{self.source}:{line}" if line else self.source
        return f"{place}: {path}" if path else place

    def decode(self, type_: type[S]) -> S:
        """Raises ConfigError naming the place when the document is not a `type_`."""
        try:
            return msgspec.convert(self.data, type_)
        except msgspec.ValidationError as error:
            text = explain(error, type_)
            message, _, path = text.partition(" - at `$")
            path, _, hint = path.partition("`")
            raise ConfigError(f"{self.where(path.lstrip('.'))}: {message}{hint}") from None

    def _line(self, path: str) -> int | None:
        node = self._root
        for match in _STEP.finditer("." + path if path and not path.startswith("[") else path):
            name, index = match.groups()
            below: yaml.Node | None = None
            if name is not None and isinstance(node, yaml.MappingNode):
                below = next((value for key, value in node.value if key.value == name), None)
            elif index is not None and index.isdigit() and isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
                below = node.value[int(index)]
            if below is None:
                break
            node = below
        return int(node.start_mark.line) + 1 if node is not None else None
