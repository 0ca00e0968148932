"""For the tests of a plugin: candidates, requests and a plugin as the picker would build it, in a line each.

scorer = build(MyScorer, {"limit": 10})
assert scorer.score(request("hello"), candidates(Server(waiting=3), Server())) == [0.0, 1.0]
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from picker.endpoint import Endpoint, EndpointLoad, EndpointMetrics
from picker.errors import ConfigError
from picker.foreign.guard import own_parameters
from picker.foreign.points import check, has_constructor
from picker.prompt import Prompt
from picker.request import InferenceRequest, ParsedBody
from picker.snapshot import Candidates, Snapshot


@dataclass(frozen=True, slots=True)
class Server:
    """A model server: what it reports, and how many requests the picker has in flight on it. `kv_usage` is 0 to 1."""

    waiting: int = 0
    running: int = 0
    kv_usage: float = 0.0
    adapters: Sequence[str] = ()
    max_adapters: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    in_flight: int = 0
    reported: bool = True
    """False: it has never answered."""


class _Handle:
    def __init__(self, plugins: Mapping[str, Any]) -> None:
        self._plugins = plugins

    def plugin(self, name: str, fallback_type: str) -> Any:
        name = name or fallback_type
        if name not in self._plugins:
            raise ConfigError(f"no plugin '{name}' was given to build()")
        return self._plugins[name]


def candidates(*servers: Server) -> Candidates:
    """Servers e1, e2, … at 10.0.0.1:8000, 10.0.0.2:8000, …, whose metrics were read at second 0."""
    return snapshot(*servers).candidates()


def snapshot(*servers: Server) -> Snapshot:
    """The same, before anything is taken out."""
    if not servers:
        raise ValueError("give at least one Server")
    return Snapshot(
        1,
        [Endpoint(f"e{i}", f"10.0.{i // 256}.{i % 256}", 8000, labels=dict(server.labels)) for i, server in enumerate(servers, 1)],
        [_metrics(server) for server in servers],
        [_load(server.in_flight) for server in servers],
        range(len(servers)),
    )


def request(
    prompt: str = "", *, model: str = "model", headers: Mapping[str, str] | None = None, path: str = "/v1/completions", priority: int = 0
) -> InferenceRequest:
    """A request as plugins see it. Header names are lower-case."""
    body = ParsedBody(model=model, prompt=Prompt(prompt.encode()))
    return InferenceRequest("test", path, dict(headers or {}), body, model, model, priority=priority, size_bytes=len(prompt))


def build(cls: type[Any], parameters: Mapping[str, Any] | None = None, *, name: str = "", plugins: Mapping[str, Any] | None = None) -> Any:
    """The plugin with parameters as they are written in a configuration, without the guard: what it raises is raised.

    `plugins` are those it can ask its handle for. Raises ConfigError when the picker would not take the class,
    msgspec.ValidationError when it would not take the parameters.
    """
    check(cls, cls.__name__)
    decoded = msgspec.convert(dict(parameters or {}), own_parameters(cls))
    name = name or getattr(cls, "type", cls.__name__)
    if has_constructor(cls):
        return cls(name, decoded, _Handle(plugins or {}))
    return types.new_class(cls.__name__, (cls,), {}, lambda body: body.update(name=name, parameters=decoded))()


def _metrics(server: Server) -> EndpointMetrics:
    return EndpointMetrics(
        waiting=server.waiting,
        running=server.running,
        kv_usage=server.kv_usage,
        active_adapters=frozenset(server.adapters),
        max_adapters=server.max_adapters,
        updated_s=0.0 if server.reported else None,
    )


def _load(requests: int) -> EndpointLoad:
    load = EndpointLoad()
    for _ in range(requests):
        load.open_request(0)
    return load
