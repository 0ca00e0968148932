"""Strict YAML: from text to a frozen struct, with errors that name the source, the line, the path and what was expected."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import yaml

from picker.errors import ConfigError
from picker.registry import explain

S = TypeVar("S", bound=msgspec.Struct)

_MERGE = "tag:yaml.org,2002:merge"  # `<<: *anchor`
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice: the second would silently replace the first."""


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[object] = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{source}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None


class YamlSource:
    """One document and where it came from (a file name, or e.g. `--config-text`)."""

    def __init__(self, text: str, source: str) -> None:
        """Raises ConfigError when the text is not YAML or its top level is not a mapping."""
        with _explained(source):
            loader = _StrictLoader(text)
            try:
                root = loader.get_single_node()
                data: Any = loader.construct_document(root) if root is not None else None
            finally:
                loader.dispose()
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._hold(source, root, data)

    @classmethod
    def every(cls, text: str, source: str) -> list[YamlSource]:
        """The documents of a text that may hold several, without empty ones. Raises ConfigError."""
        found: list[tuple[Any, Any]] = []
        with _explained(source):
            loader = _StrictLoader(text)
            try:
                while loader.check_node():
                    root = loader.get_node()
                    found.append((root, loader.construct_document(root)))
            finally:
                loader.dispose()
        documents: list[YamlSource] = []
        for root, data in found:
            if data is not None:
                document = cls.__new__(cls)
                document._hold(source, root, data)
                documents.append(document)
        return documents

    def _hold(self, source: str, root: Any, data: Any) -> None:
        self.source = source
        self._root = root
        self.data = data
        if not isinstance(data, dict):
            line = f":{root.start_mark.line + 1}" if root is not None and root.start_mark.line else ""
            raise ConfigError(f"{source}{line}: expected a mapping at the top level, got {type(data).__name__}")

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
            path, message = explain(error, type_, self.data)
            raise ConfigError(f"{self.where(path)}: {message}") from None

    def _line(self, path: str) -> int | None:
        """Of the key that `path` ends with, or of the innermost one on the way to it."""
        node = self._root
        if node is None:
            return None
        line = int(node.start_mark.line)
        for match in _STEP.finditer("." + path if path and not path.startswith("[") else path):
            name, index = match.groups()
            if name is not None and isinstance(node, yaml.MappingNode):
                # The last one counts: keys merged from an anchor come before those that override them.
                pair = next(((key, value) for key, value in reversed(node.value) if key.value == name), None)
                if pair is None:
                    break
                line, node = int(pair[0].start_mark.line), pair[1]
            elif index is not None and index.isdigit() and isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
                node = node.value[int(index)]
                line = int(node.start_mark.line)
            else:
                break
        return line + 1
