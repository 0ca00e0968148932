"""Every plugin type that ships with fairlead, in the order in which a request meets them."""

from __future__ import annotations

from typing import Any

from picker.accounting.attribute_reporter import RequestAttributeReporter
from picker.admission.flow.eviction import EvictionPriorityThenTimeOrdering, EvictionSheddableFilter
from picker.admission.flow.fairness import GlobalStrictFairnessPolicy, ProgramAwareFairness, RoundRobinFairnessPolicy
from picker.admission.flow.ordering import EdfOrderingPolicy, FcfsOrderingPolicy, SloDeadlineOrderingPolicy
from picker.admission.flow.usage_limits import PriorityHoldbackPolicy, SoftReflectiveCeilingPolicy, StaticUsageLimitPolicy
from picker.admission.latency_slo import LatencySloAdmitter
from picker.admission.probabilistic import ProbabilisticAdmitter
from picker.admission.saturation import ConcurrencyDetector, UtilizationDetector
from picker.datalayer.discovery.plugin import FileDiscoveryPlugin
from picker.datalayer.extractor_plugins import CoreMetricsExtractor, ModelsDataExtractor
from picker.datalayer.source_plugins import EndpointNotificationSource, MetricsDataSource, ModelsDataSource
from picker.parsing.anthropic import AnthropicParser
from picker.parsing.openai import OpenAIParser
from picker.parsing.passthrough import PassthroughParser
from picker.parsing.sglang import SglangHttpParser
from picker.parsing.vertexai import VertexAIParser
from picker.parsing.vllm import VllmHttpParser
from picker.parsing.vllm_grpc import VllmGrpcParser
from picker.preparation.token_producer import TokenProducer
from picker.registry import Registry
from picker.scheduling.attributes import EndpointAttributeFilter, EndpointAttributeScorer
from picker.scheduling.filters import ByLabelFilter, DecodeFilter, EncodeFilter, LabelSelectorFilter, PrefillFilter
from picker.scheduling.handlers import DataParallelProfileHandler, HeaderProfileHandler, SingleProfileHandler
from picker.scheduling.headroom_filter import SloHeadroomTierFilter
from picker.scheduling.identity import AgentIdentity, SessionIdProducer
from picker.scheduling.inflight_load import InflightLoadProducer
from picker.scheduling.load_filters import UtilizationFilter
from picker.scheduling.media_cache import MediaCacheProducer, MediaCacheScorer
from picker.scheduling.pickers import MaxScorePicker, RandomPicker, WeightedRandomPicker
from picker.scheduling.prefix_filter import PrefixCacheAffinityFilter
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.scorers.affinity import LoraAffinityScorer, PrefixCacheScorer
from picker.scheduling.scorers.cold import NoHitLruScorer
from picker.scheduling.scorers.context_length import ContextLengthAware
from picker.scheduling.scorers.labels import HeaderLabelAffinityScorer
from picker.scheduling.scorers.latency import LatencyScorer
from picker.scheduling.scorers.load import (
    ActiveRequestScorer,
    KvCacheUtilizationScorer,
    LoadAwareScorer,
    QueueScorer,
    RunningRequestsSizeScorer,
    TokenLoadScorer,
)
from picker.scheduling.sessions import SessionAffinityFilter, SessionAffinityScorer

DETECTORS: tuple[type[Any], ...] = (UtilizationDetector, ConcurrencyDetector)
FLOW_CONTROL: tuple[type[Any], ...] = (
    GlobalStrictFairnessPolicy,
    RoundRobinFairnessPolicy,
    ProgramAwareFairness,
    FcfsOrderingPolicy,
    EdfOrderingPolicy,
    SloDeadlineOrderingPolicy,
    StaticUsageLimitPolicy,
    PriorityHoldbackPolicy,
    SoftReflectiveCeilingPolicy,
    EvictionSheddableFilter,
    EvictionPriorityThenTimeOrdering,
)
IDENTITY: tuple[type[Any], ...] = (SessionIdProducer, AgentIdentity)
ADMITTERS: tuple[type[Any], ...] = (ProbabilisticAdmitter, LatencySloAdmitter)
DEFAULT_PARSERS: tuple[type[Any], ...] = (OpenAIParser, AnthropicParser, VllmHttpParser, PassthroughParser)
"""Where the configuration names no parser (contract section 1.9)."""
PARSERS: tuple[type[Any], ...] = (*DEFAULT_PARSERS, SglangHttpParser, VllmGrpcParser, VertexAIParser)
PRODUCERS: tuple[type[Any], ...] = (TokenProducer, ApproxPrefixCacheProducer, InflightLoadProducer, MediaCacheProducer)
PROFILE_HANDLERS: tuple[type[Any], ...] = (SingleProfileHandler, HeaderProfileHandler, DataParallelProfileHandler)
FILTERS: tuple[type[Any], ...] = (
    LabelSelectorFilter,
    ByLabelFilter,
    DecodeFilter,
    PrefillFilter,
    EncodeFilter,
    UtilizationFilter,
    SessionAffinityFilter,
    PrefixCacheAffinityFilter,
    SloHeadroomTierFilter,
    EndpointAttributeFilter,
)
SCORERS: tuple[type[Any], ...] = (
    QueueScorer,
    RunningRequestsSizeScorer,
    KvCacheUtilizationScorer,
    LoraAffinityScorer,
    PrefixCacheScorer,
    ActiveRequestScorer,
    TokenLoadScorer,
    LoadAwareScorer,
    ContextLengthAware,
    NoHitLruScorer,
    HeaderLabelAffinityScorer,
    SessionAffinityScorer,
    LatencyScorer,
    EndpointAttributeScorer,
    MediaCacheScorer,
)
PICKERS: tuple[type[Any], ...] = (MaxScorePicker, WeightedRandomPicker, RandomPicker)
REPORTERS: tuple[type[Any], ...] = (RequestAttributeReporter,)
DISCOVERY: tuple[type[Any], ...] = (FileDiscoveryPlugin,)
DATA_SOURCES: tuple[type[Any], ...] = (MetricsDataSource, ModelsDataSource, EndpointNotificationSource)
EXTRACTORS: tuple[type[Any], ...] = (CoreMetricsExtractor, ModelsDataExtractor)

STAGES: dict[str, tuple[type[Any], ...]] = {
    "parsers": PARSERS,
    "identity": IDENTITY,
    "saturation detectors": DETECTORS,
    "flow control": FLOW_CONTROL,
    "admitters": ADMITTERS,
    "profile handlers": PROFILE_HANDLERS,
    "filters": FILTERS,
    "data producers": PRODUCERS,
    "scorers": SCORERS,
    "pickers": PICKERS,
    "reporters": REPORTERS,
    "discovery": DISCOVERY,
    "data sources": DATA_SOURCES,
    "extractors": EXTRACTORS,
}


def registry() -> Registry:
    """A registry of all of them."""
    return Registry([cls for stage in STAGES.values() for cls in stage])
