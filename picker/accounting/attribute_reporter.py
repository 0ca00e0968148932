"""request-attribute-reporter: what a request has cost, as dynamic metadata with the end of its answer (contract section 4.5).

The value is a CEL expression over the usage that the model server reported, e.g. for Envoy's rate limits. Expressions are compiled and
tried on a sample when the configuration is loaded. One evaluation costs 4 us. It is bounded: the macros that walk lists are refused,
so that the work is linear in the length of the text.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from picker.errors import ParameterError
from picker.instruments import Number
from picker.metrics import Metrics
from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.result import Response, Usage

log = logging.getLogger(__name__)

DEFAULT_NAMESPACE = "envoy.lb"
MAX_EXPRESSION_CHARS = 4096
_LOOPS = re.compile(r"\.\s*(all|exists|exists_one|existsOne|map|filter|transformList|transformMap)\s*\(")
_TYPES = {"expression": ("DYN", "INT", "UINT", "DOUBLE"), "condition": ("DYN", "BOOL")}
_LOG_EVERY = 1000
"""Failures of one attribute between two lines in the log: all answers of a server may lack a field."""

_SAMPLE = Usage(prompt_tokens=100, completion_tokens=10, total_tokens=110, cached_tokens=50, reasoning_tokens=5)


class AttributeKey(Parameters, frozen=True):
    """Where the value goes in the dynamic metadata."""

    name: str = ""
    namespace: str = DEFAULT_NAMESPACE


class Attribute(Parameters, frozen=True):
    """`expression` is a number; with a `condition` there is one only when that is true."""

    key: AttributeKey = AttributeKey()
    expression: str = ""
    condition: str = ""


class ReporterParameters(Parameters, frozen=True):
    """At least one (the reference takes exactly one)."""

    attributes: tuple[Attribute, ...] = ()


class RequestAttributeReporter:
    """Reports numbers computed from `usage`: prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details.cached_tokens and
    completion_tokens_details.reasoning_tokens. What the answer did not tell is not there (`has(usage.prompt_tokens)`)."""

    type = "request-attribute-reporter"
    Parameters = ReporterParameters
    needs_usage = True

    def __init__(self, name: str, parameters: ReporterParameters, handle: Handle) -> None:
        """Raises ParameterError."""
        if not parameters.attributes:
            raise ParameterError("attributes", "expected at least one attribute")
        self.name = name
        self.failures = Number()
        """Values that could not be computed."""
        self._attributes: list[_Compiled] = []
        seen: set[tuple[str, str]] = set()
        for i, attribute in enumerate(parameters.attributes):
            where = f"attributes[{i}]"
            key = (attribute.key.namespace or DEFAULT_NAMESPACE, attribute.key.name)
            if not key[1]:
                raise ParameterError(f"{where}.key.name", "expected the name of a metadata key, found none")
            if key in seen:
                raise ParameterError(f"{where}.key", f"'{key[1]}' in '{key[0]}' is reported twice")
            seen.add(key)
            self._attributes.append(_Compiled(attribute, key, where))

    def connect(self, metrics: Metrics, *, as_reference: bool) -> None:
        """Count what could not be computed."""
        self.failures = metrics.attribute_errors.cell(self.name)

    def response_complete(self, request: InferenceRequest, response: Response) -> Mapping[str, Mapping[str, object]] | None:
        """By namespace and key; None when there is nothing to report."""
        if response.cause != "completed":
            return None
        found: dict[str, dict[str, object]] = {}
        for attribute in self._attributes:
            try:
                value = attribute.value(response.usage)
            except ValueError as error:
                self._failed(attribute, str(error))
                continue
            if value is not None:
                found.setdefault(attribute.namespace, {})[attribute.name] = value
        return found or None

    def _failed(self, attribute: _Compiled, why: str) -> None:
        self.failures.value += 1
        if attribute.failures % _LOG_EVERY == 0:
            log.warning("%s: '%s' is not reported (logged once in %d): %s", self.name, attribute.name, _LOG_EVERY, why)
        attribute.failures += 1


class _Compiled:
    """One attribute, ready to be evaluated."""

    def __init__(self, attribute: Attribute, key: tuple[str, str], where: str) -> None:
        self.namespace, self.name = key
        self.failures = 0
        self._expression = _Program(attribute.expression, f"{where}.expression", "expression")
        self._condition = _Program(attribute.condition, f"{where}.condition", "condition") if attribute.condition else None

    def value(self, usage: Usage | None) -> int | None:
        """None when the condition is not met; raises ValueError when there is no number.

        Fractions are cut off, as in the reference.
        """
        if self._condition is not None and not self._condition.of(usage):
            return None
        return int(self._expression.of(usage))


class _Program:
    """A CEL expression over `usage`.

    The reference hands the numbers over as JSON, hence as doubles, and so do we. `usage.prompt_tokens * 2`, which CEL does not
    define for a double, gets integers instead.
    """

    def __init__(self, text: str, path: str, role: str) -> None:
        if not text.strip():
            raise ParameterError(path, f"expected a CEL {role}, found none")
        if len(text) > MAX_EXPRESSION_CHARS:
            raise ParameterError(path, f"expected at most {MAX_EXPRESSION_CHARS} characters, found {len(text)}")
        if loop := _LOOPS.search(text):
            raise ParameterError(path, f"'{loop[1]}' is not supported: usage has no lists to walk")
        try:
            self._program = _environment().compile(text)
        except RuntimeError as error:
            raise ParameterError(path, f"not a CEL expression: {_brief(error)}; known: usage.{', usage.'.join(_FIELDS)}") from None
        type_ = self._program.return_type().name()
        if type_ not in _TYPES[role]:
            expected = "a number" if role == "expression" else "true or false"
            raise ParameterError(path, f"expected {expected}, but '{text.strip()}' is of type {type_}")
        self._boolean = role == "condition"
        self._number: Callable[[int], float] = float
        self._settle_type(path)

    def _settle_type(self, path: str) -> None:
        first: ValueError | None = None
        for number in (float, int):
            self._number = number
            try:
                self.of(_SAMPLE)
            except ValueError as error:
                first = first or error
            else:
                return
        raise ParameterError(path, f"cannot be computed from a complete usage: {first}; known: usage.{', usage.'.join(_FIELDS)}")

    def of(self, usage: Usage | None) -> Any:
        """A number, or true or false. Raises ValueError."""
        value = self._program.eval(data={"usage": _as_json(usage, self._number)})
        result, type_ = value.value(), value.type().name()
        if type_ == "ERROR":
            raise ValueError(str(result))
        if type_ not in (("BOOL",) if self._boolean else ("INT", "UINT", "DOUBLE")):
            raise ValueError(f"the result is of type {type_}")
        if type_ == "DOUBLE" and not math.isfinite(result):
            raise ValueError(f"the result is {result}")
        return result


_FIELDS = (
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details.cached_tokens",
    "completion_tokens_details.reasoning_tokens",
)  # fmt: skip


def _as_json(usage: Usage | None, number: Callable[[int], float]) -> dict[str, object]:
    """As model servers write it; what is unknown is left out."""
    if usage is None:
        return {}
    flat: Sequence[tuple[str, int | None]] = (
        ("prompt_tokens", usage.prompt_tokens), ("completion_tokens", usage.completion_tokens), ("total_tokens", usage.total_tokens),
    )  # fmt: skip
    found: dict[str, object] = {name: number(count) for name, count in flat if count is not None}
    if usage.cached_tokens is not None:
        found["prompt_tokens_details"] = {"cached_tokens": number(usage.cached_tokens)}
    if usage.reasoning_tokens is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": number(usage.reasoning_tokens)}
    return found


def _environment() -> Any:
    from cel_expr_python import cel  # 6 MB that only those pay who use it

    return cel.NewEnv(variables={"usage": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})


def _brief(error: Exception) -> str:
    """CEL's first finding, without its status code and drawing."""
    return str(error).removeprefix("INVALID_ARGUMENT: ").partition("\n")[0].removeprefix("ERROR: ").removesuffix(" [INVALID_ARGUMENT]")
