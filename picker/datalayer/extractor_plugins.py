"""The extractors that ship with fairlead, as plugins."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from picker.datalayer.engines import DEFAULT_ENGINE, Engines, EngineSpec
from picker.endpoint import Endpoint
from picker.errors import ConfigError
from picker.plugin import Extracted, Handle, Parameters

MODELS = "models"
"""Key in `Snapshot.names`: ids of the models and LoRA adapters that an endpoint serves."""
BASE_MODELS = "base-models"
"""Key in `Snapshot.names`: of those, the models that others are adapters of."""


class CoreMetricsParameters(Parameters, frozen=True, kw_only=True):
    """`engine_configs` come before the built-in engines, of which they replace those of the same name."""

    default_engine: str = DEFAULT_ENGINE
    engine_configs: tuple[EngineSpec, ...] = ()


class CoreMetricsExtractor:
    """Load, cache and adapters from a Prometheus page, by the endpoint's engine. It goes with a metrics-data-source.

    No `picker.plugin.Extractor`: it keeps a reader per endpoint that remembers the page's layout (`picker.datalayer.engines`).
    """

    type = "core-metrics-extractor"
    Parameters = CoreMetricsParameters
    reports_attributes = True  # of customMetrics

    def __init__(self, name: str, parameters: CoreMetricsParameters, handle: Handle) -> None:
        """Raises ValueError."""
        self.name = name
        try:
            self.engines = Engines(parameters.engine_configs, default=parameters.default_engine)
        except ConfigError as error:
            raise ValueError(str(error)) from None


class _Model(msgspec.Struct):
    """One entry of `/v1/models`; vLLM gives LoRA adapters their base model as `parent`."""

    id: str
    parent: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


_DECODER = msgspec.json.Decoder(_Models)


class ModelsParameters(Parameters, frozen=True, kw_only=True):
    """`max_models` bounds what is kept of one endpoint's list."""

    max_models: int = 10_000


class ModelsDataExtractor:
    """Ids of the models and LoRA adapters from the answer of `/v1/models`, as `Snapshot.names("models")`; the models that adapters name as
    their parent as `Snapshot.names("base-models")`. An Extractor."""

    type: ClassVar[str] = "models-data-extractor"
    Parameters = ModelsParameters

    def __init__(self, name: str, parameters: ModelsParameters, handle: Handle) -> None:
        """Raises ValueError."""
        self.name = name
        if parameters.max_models < 1:
            raise ValueError(f"maxModels {parameters.max_models}: expected at least 1")
        self._max_models = parameters.max_models

    def extract(self, endpoint: Endpoint, body: bytes) -> Extracted:
        """Raises ValueError for a body that is no list of models, or a longer one than allowed."""
        try:
            models = _DECODER.decode(body).data
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"no list of models: {error}") from None
        if len(models) > self._max_models:
            raise ValueError(f"{len(models)} models, expected at most {self._max_models} (maxModels)")
        parents = frozenset([m.parent for m in models if m.parent])
        return Extracted(names={MODELS: frozenset([m.id for m in models]), BASE_MODELS: parents})
