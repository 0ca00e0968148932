"""Pools, requests and plugins in a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from picker.endpoint import Endpoint, EndpointLoad, EndpointMetrics
from picker.prompt import Prompt
from picker.request import InferenceRequest, ParsedBody
from picker.snapshot import Candidates, Snapshot


class FakeHandle:
    """Knows the plugins it is given."""

    def __init__(self, **plugins: Any) -> None:
        self.plugins = {name.replace("_", "-"): plugin for name, plugin in plugins.items()}

    def plugin(self, name: str, fallback_type: str) -> Any:
        return self.plugins[name or fallback_type]


def build(cls: type[Any], parameters: Mapping[str, Any] | None = None, handle: FakeHandle | None = None, name: str = "") -> Any:
    """A plugin as the registry builds it, from parameters as they are written in a configuration."""
    return cls(name or cls.type, msgspec.convert(parameters or {}, cls.Parameters), handle or FakeHandle())


def endpoint(number: int, **labels: str) -> Endpoint:
    return Endpoint(f"e{number}", f"10.0.0.{number}", 8000, labels=labels)


def load(requests: int = 0, tokens: int = 0, unseen: int = 0) -> EndpointLoad:
    """`requests` open, of which a scrape has not seen the last `unseen`; `tokens` in flight."""
    made = EndpointLoad()
    for i in range(requests - unseen):
        made.open_request(tokens if i == 0 else 0)
    made.scrape_started()
    made.scrape_succeeded()
    for i in range(unseen):
        made.open_request(tokens if requests == unseen and i == 0 else 0)
    if not requests:
        made.tokens = tokens
    return made


def pool(
    metrics: Sequence[EndpointMetrics],
    *,
    loads: Sequence[EndpointLoad] | None = None,
    labels: Sequence[Mapping[str, str]] | None = None,
    bits: Sequence[int] | None = None,
    version: int = 1,
) -> Snapshot:
    """Endpoints e1, e2, ... with these columns."""
    count = len(metrics)
    return Snapshot(
        version,
        [endpoint(i + 1, **(labels[i] if labels else {})) for i in range(count)],
        metrics,
        loads or [EndpointLoad() for _ in range(count)],
        bits or range(count),
    )


def idle(count: int) -> Snapshot:
    """Endpoints that report nothing remarkable."""
    return pool([EndpointMetrics(updated_s=0.0)] * count)


def only(snapshot: Snapshot, *positions: int) -> Candidates:
    """A subset of a snapshot, in its order."""
    return snapshot.candidates().at(positions)


def request(
    prompt: bytes = b"", *, model: str = "m", target: str = "", salt: str = "", extra: int = 0, priority: int = 0
) -> InferenceRequest:
    body = ParsedBody(model=model, prompt=Prompt(prompt, extra), cache_salt=salt)
    return InferenceRequest("id", "/v1/completions", {}, body, model, target or model, priority=priority)
