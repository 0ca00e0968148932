"""Every plugin type that ships with fairlead, in the order in which a request meets them."""

from __future__ import annotations

from typing import Any

from picker.admission.saturation import UtilizationDetector
from picker.parsing.anthropic import AnthropicParser
from picker.parsing.openai import OpenAIParser
from picker.parsing.passthrough import PassthroughParser
from picker.parsing.vllm import VllmHttpParser
from picker.registry import Registry
from picker.scheduling.filters import ByLabelFilter, DecodeFilter, EncodeFilter, LabelSelectorFilter, PrefillFilter
from picker.scheduling.handlers import HeaderProfileHandler, SingleProfileHandler
from picker.scheduling.load_filters import UtilizationFilter
from picker.scheduling.pickers import MaxScorePicker, RandomPicker, WeightedRandomPicker
from picker.scheduling.prefix_filter import PrefixCacheAffinityFilter
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.scorers.affinity import LoraAffinityScorer, PrefixCacheScorer
from picker.scheduling.scorers.cold import NoHitLruScorer
from picker.scheduling.scorers.context_length import ContextLengthAware
from picker.scheduling.scorers.labels import HeaderLabelAffinityScorer
from picker.scheduling.scorers.load import (
    ActiveRequestScorer,
    KvCacheUtilizationScorer,
    LoadAwareScorer,
    QueueScorer,
    RunningRequestsSizeScorer,
    TokenLoadScorer,
)
from picker.scheduling.sessions import SessionAffinityFilter, SessionAffinityScorer

PARSERS: tuple[type[Any], ...] = (OpenAIParser, AnthropicParser, VllmHttpParser, PassthroughParser)
ADMISSION: tuple[type[Any], ...] = (UtilizationDetector,)
PROFILE_HANDLERS: tuple[type[Any], ...] = (SingleProfileHandler, HeaderProfileHandler)
FILTERS: tuple[type[Any], ...] = (
    LabelSelectorFilter,
    ByLabelFilter,
    DecodeFilter,
    PrefillFilter,
    EncodeFilter,
    UtilizationFilter,
    SessionAffinityFilter,
    PrefixCacheAffinityFilter,
)
PRODUCERS: tuple[type[Any], ...] = (ApproxPrefixCacheProducer,)
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
)
PICKERS: tuple[type[Any], ...] = (MaxScorePicker, WeightedRandomPicker, RandomPicker)

STAGES: dict[str, tuple[type[Any], ...]] = {
    "parsers": PARSERS,
    "admission": ADMISSION,
    "profile handlers": PROFILE_HANDLERS,
    "filters": FILTERS,
    "data producers": PRODUCERS,
    "scorers": SCORERS,
    "pickers": PICKERS,
}


def registry() -> Registry:
    """A registry of all of them."""
    return Registry([cls for stage in STAGES.values() for cls in stage])
