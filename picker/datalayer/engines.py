"""Which series of which model server mean what: the engine mappings as data, and the extractor compiled from one.

The engine of an endpoint is named by its label `llm-d.ai/engine-type`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from picker.datalayer.exposition import Sample, Series, Spec, parse_spec
from picker.endpoint import EndpointMetrics
from picker.errors import ConfigError

log = logging.getLogger(__name__)

ENGINE_LABELS = ("llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type")
DEFAULT_ENGINE = "vllm"
_MAX_BLOCK_TOKENS = 1 << 31
"""More is no size but a -1 without its sign; it counts as not said."""
_NO_ADAPTERS: frozenset[str] = frozenset()
T = TypeVar("T")


class CustomMetric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A series whose value becomes the endpoint's attribute `attribute_key` (`EndpointMetrics.attributes`)."""

    attribute_key: str
    metric_spec: str


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The series of one kind of model server, each as `name` or `name{label=value,…}`; empty = this engine has none.

    Block size (tokens per KV block) and number of blocks come either from two labels of `cache_info` or from the values of
    `cache_block_size` and `cache_num_blocks`. `kv_usage_fallback` is an older name, read where the first is missing. `reports_load`:
    the engine answers the request header `endpoint-load-metrics-format`.
    The camel-case names of the fields are those of `engineConfigs` in the configuration file.
    """

    name: str
    waiting: str = msgspec.field(default="", name="queuedRequestsSpec")
    running: str = msgspec.field(default="", name="runningRequestsSpec")
    kv_usage: str = msgspec.field(default="", name="kvUsageSpec")
    kv_usage_fallback: str = ""
    lora: str = msgspec.field(default="", name="loraSpec")
    cache_info: str = msgspec.field(default="", name="cacheInfoSpec")
    cache_block_size_label: str = msgspec.field(default="", name="cacheBlockSizeLabelName")
    cache_num_blocks_label: str = msgspec.field(default="", name="cacheNumBlocksLabelName")
    cache_block_size: str = msgspec.field(default="", name="cacheBlockSizeSpec")
    cache_num_blocks: str = msgspec.field(default="", name="cacheNumBlocksSpec")
    reports_load: bool = False
    custom_metrics: tuple[CustomMetric, ...] = ()


ENGINES: tuple[EngineSpec, ...] = (
    EngineSpec(
        name="vllm",
        waiting="vllm:num_requests_waiting",
        running="vllm:num_requests_running",
        kv_usage="vllm:kv_cache_usage_perc",
        kv_usage_fallback="vllm:gpu_cache_usage_perc",
        lora="vllm:lora_requests_info",
        cache_info="vllm:cache_config_info",
        cache_block_size_label="block_size",
        cache_num_blocks_label="num_gpu_blocks",
        reports_load=True,
    ),
    EngineSpec(
        name="sglang",
        waiting="sglang:num_queue_reqs",
        running="sglang:num_running_reqs",
        kv_usage="sglang:token_usage",
        cache_info="sglang:cache_config_info",
        cache_block_size_label="page_size",
        cache_num_blocks_label="num_pages",
    ),
    EngineSpec(
        name="trtllm-serve",
        waiting="trtllm_num_requests_waiting",
        running="trtllm_num_requests_running",
        kv_usage="trtllm_kv_cache_utilization",
        cache_block_size="trtllm_kv_cache_tokens_per_block",
        cache_num_blocks="trtllm_kv_cache_max_blocks",
    ),
    EngineSpec(
        name="triton-tensorrt-llm",
        waiting="nv_trt_llm_request_metrics{request_type=waiting}",
        running="nv_trt_llm_request_metrics{request_type=scheduled}",
        kv_usage="nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",
        cache_block_size="nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}",
        cache_num_blocks="nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}",
    ),
    EngineSpec(name="triton", waiting="nv_inference_pending_request_count", running="nv_inference_exec_count"),
)


class Engines:
    """The engines known here: the built-in ones, and user ones that replace a built-in one of the same name."""

    def __init__(self, custom: Iterable[EngineSpec] = (), *, default: str = DEFAULT_ENGINE) -> None:
        """Raises ConfigError for a spec that cannot be read, a name given twice, or a default that is not there."""
        self._compiled = {spec.name: CompiledEngine(spec) for spec in ENGINES}
        seen: set[str] = set()
        for spec in custom:
            if spec.name in seen:
                raise ConfigError(f"engineConfigs: the name {spec.name!r} is given twice")
            seen.add(spec.name)
            self._compiled[spec.name] = CompiledEngine(spec)
        if default not in self._compiled:
            raise ConfigError(f"defaultEngine: {default!r} is not known, expected one of {', '.join(sorted(self._compiled))}")
        self._default = default
        self._unknown: set[str] = set()

    def extractor(self, labels: Mapping[str, str]) -> Extractor:
        """A new extractor for one endpoint with these labels. An unknown engine is logged once and read as the default one."""
        name = next((labels[label] for label in ENGINE_LABELS if labels.get(label)), self._default)
        compiled = self._compiled.get(name)
        if compiled is None:
            if name not in self._unknown and len(self._unknown) < 100:
                self._unknown.add(name)
                log.warning("engine type %r is not known, reading its metrics as %s", name, self._default)
            compiled = self._compiled[self._default]
        return Extractor(compiled)


class CompiledEngine:
    """An EngineSpec whose strings have been parsed."""

    __slots__ = (
        "block_size_label",
        "cache_block_size",
        "cache_info",
        "cache_num_blocks",
        "custom",
        "kv_usage",
        "kv_usage_fallback",
        "lora",
        "name",
        "num_blocks_label",
        "reports_load",
        "running",
        "waiting",
    )

    def __init__(self, spec: EngineSpec) -> None:
        """Raises ConfigError naming the engine and the field."""
        if not spec.name:
            raise ConfigError("engineConfigs: an engine needs a name")
        self.name = spec.name
        self.waiting = _parse(spec, "queuedRequestsSpec", spec.waiting)
        self.running = _parse(spec, "runningRequestsSpec", spec.running)
        self.kv_usage = _parse(spec, "kvUsageSpec", spec.kv_usage)
        self.kv_usage_fallback = _parse(spec, "kvUsageFallback", spec.kv_usage_fallback)
        self.lora = _parse(spec, "loraSpec", spec.lora)
        self.cache_info = _parse(spec, "cacheInfoSpec", spec.cache_info)
        self.cache_block_size = _parse(spec, "cacheBlockSizeSpec", spec.cache_block_size)
        self.cache_num_blocks = _parse(spec, "cacheNumBlocksSpec", spec.cache_num_blocks)
        self.block_size_label = spec.cache_block_size_label
        self.num_blocks_label = spec.cache_num_blocks_label
        self.reports_load = spec.reports_load
        self.custom = _custom(spec)
        if self.cache_info is not None and not (self.block_size_label or self.num_blocks_label):
            raise ConfigError(
                f"engine {spec.name!r}: cacheInfoSpec needs cacheBlockSizeLabelName or cacheNumBlocksLabelName, expected a label name"
            )


def _parse(engine: EngineSpec, field: str, text: str) -> Spec | None:
    if not text.strip():
        return None
    try:
        return parse_spec(text)
    except ConfigError as error:
        raise ConfigError(f"engine {engine.name!r}, {field}: {error}") from None


def _custom(engine: EngineSpec) -> tuple[tuple[str, Spec], ...]:
    """Attribute keys and their series. Raises ConfigError."""
    parsed: dict[str, Spec] = {}
    for i, metric in enumerate(engine.custom_metrics):
        here = f"customMetrics[{i}]"
        if not metric.attribute_key:
            raise ConfigError(f"engine {engine.name!r}, {here}.attributeKey: expected a name, got none")
        if metric.attribute_key in parsed:
            raise ConfigError(f"engine {engine.name!r}, {here}.attributeKey: {metric.attribute_key!r} is given twice")
        spec = _parse(engine, f"{here}.metricSpec", metric.metric_spec)
        if spec is None:
            raise ConfigError(f"engine {engine.name!r}, {here}.metricSpec: expected a metric name, got none")
        parsed[metric.attribute_key] = spec
    return tuple(parsed.items())


class Extractor:
    """Turns the pages of one endpoint into EndpointMetrics. One per endpoint: it remembers where that page keeps its series."""

    __slots__ = (
        "_block_size",
        "_cache_info",
        "_custom",
        "_engine",
        "_kv_usage",
        "_kv_usage_fallback",
        "_lora",
        "_num_blocks",
        "_running",
        "_waiting",
    )

    def __init__(self, engine: CompiledEngine) -> None:
        self._engine = engine
        self._waiting = _series(engine.waiting)
        self._running = _series(engine.running)
        self._kv_usage = _series(engine.kv_usage)
        self._kv_usage_fallback = _series(engine.kv_usage_fallback)
        self._lora = _series(engine.lora)
        self._cache_info = _series(engine.cache_info)
        self._block_size = _series(engine.cache_block_size)
        self._num_blocks = _series(engine.cache_num_blocks)
        self._custom = tuple([(key, Series(spec)) for key, spec in engine.custom])

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return self._engine.name

    def extract(self, page: bytes, previous: EndpointMetrics, now_s: float) -> EndpointMetrics | None:
        """What the page says, `previous` where it says nothing; None if it says nothing that is needed.

        `now_s` is the monotonic time of the answer in seconds. Values that are negative or not finite count as not said.
        """
        waiting_of_ranks = _usable(self._waiting, page)
        waiting = _sum(waiting_of_ranks)
        running = _sum(_usable(self._running, page))
        kv_usage = _mean(self._kv_usage, page)
        if kv_usage is None:
            kv_usage = _mean(self._kv_usage_fallback, page)
        adapters = self._lora.read(page) if self._lora is not None else []
        block_size, num_blocks = self._cache(page)
        attributes = self._attributes(page, previous.attributes) if self._custom else None
        if (
            waiting is None and running is None and kv_usage is None and not adapters and not block_size and not num_blocks
            and attributes is None
        ):  # fmt: skip
            return None
        active, queued, slots = _adapters(adapters, previous)
        return EndpointMetrics(
            waiting=_or(waiting, previous.waiting),
            running=_or(running, previous.running),
            kv_usage=_or(kv_usage, previous.kv_usage),
            block_size=block_size or previous.block_size,
            num_blocks=num_blocks or previous.num_blocks,
            active_adapters=active,
            waiting_adapters=queued,
            max_adapters=slots,
            updated_s=now_s,
            # With several data-parallel ranks vLLM's header tells the numbers of one of them, which is no use beside their sum.
            reports_load=self._engine.reports_load and len(waiting_of_ranks) == 1,
            attributes=previous.attributes if attributes is None else attributes,
            names=previous.names,
        )

    def _attributes(self, page: bytes, previous: Mapping[str, float]) -> Mapping[str, float] | None:
        """`previous` itself when nothing is new, None when the page has none of them. Unlike loads
        an attribute may be negative. Several samples without time stamps are averaged: nothing is known of what they count."""
        found = {key: value for key, series in self._custom if (value := _custom_value(series.read(page))) is not None}
        if not found:
            return None
        return previous if all(previous.get(key) == value for key, value in found.items()) else {**previous, **found}

    def _cache(self, page: bytes) -> tuple[int, int]:
        """Tokens per block and number of blocks, 0 = not said. The blocks of several data-parallel ranks on one page add up."""
        block_size = _mean(self._block_size, page) or 0
        num_blocks = _sum(_usable(self._num_blocks, page)) or 0
        if self._cache_info is not None:
            for sample in self._cache_info.read(page):
                block_size = block_size or _count(sample.labels.get(self._engine.block_size_label, ""))
                num_blocks += _count(sample.labels.get(self._engine.num_blocks_label, ""))
        return int(block_size) if block_size <= _MAX_BLOCK_TOKENS else 0, num_blocks


def _series(spec: Spec | None) -> Series | None:
    return None if spec is None else Series(spec)


def _or(value: T | None, fallback: T) -> T:
    return fallback if value is None else value


def _usable(series: Series | None, page: bytes) -> list[float]:
    """The values that count: finite, not negative, and only the newest where samples carry timestamps."""
    if series is None:
        return []
    samples = series.read(page)
    if len(samples) == 1:
        value = samples[0].value
        return [value] if 0.0 <= value < math.inf else []
    good = [s for s in samples if 0.0 <= s.value < math.inf]
    stamped = [s for s in good if s.timestamp is not None and math.isfinite(s.timestamp)]
    if stamped:
        return [max(stamped, key=lambda s: s.timestamp or 0.0).value]
    return [s.value for s in good]


def _sum(values: list[float]) -> int | None:
    """Requests of all data-parallel ranks (`engine="0"`, `engine="1"`, …) or models on one page together."""
    if not values:
        return None
    total = sum(values)
    return int(total) if total < math.inf else None


def _mean(series: Series | None, page: bytes) -> float | None:
    """Usage of all data-parallel ranks on one page, each of which has a cache of the same size."""
    values = _usable(series, page)
    if not values:
        return None
    mean = sum(values) / len(values)
    return mean if mean < math.inf else None


def _custom_value(samples: list[Sample]) -> float | None:
    good = [s for s in samples if math.isfinite(s.value)]
    stamped = [s for s in good if s.timestamp is not None and math.isfinite(s.timestamp)]
    if stamped:
        return max(stamped, key=lambda s: s.timestamp or 0.0).value
    mean = sum(s.value for s in good) / len(good) if good else math.inf
    return mean if math.isfinite(mean) else None


def _count(text: str) -> int:
    """A label's number; 0 for what is none (`None`, empty, negative)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _adapters(samples: list[Sample], previous: EndpointMetrics) -> tuple[frozenset[str], frozenset[str], int]:
    """Running and waiting LoRA adapters and slots. vLLM keeps a series per adapter set it ever had; the value is the time it last held."""
    newest: Sample | None = None
    for sample in samples:
        if sample.value < math.inf and (newest is None or sample.value >= newest.value):
            newest = sample
    if newest is None:
        return previous.active_adapters, previous.waiting_adapters, previous.max_adapters
    labels = newest.labels
    return (
        _names(labels.get("running_lora_adapters", "")),
        _names(labels.get("waiting_lora_adapters", "")),
        _count(labels.get("max_lora", "").strip()) or previous.max_adapters,
    )


def _names(csv: str) -> frozenset[str]:
    if not csv:
        return _NO_ADAPTERS
    return frozenset([name for part in csv.split(",") if (name := part.strip())])
