"""Configurations in the shapes that the contract names, section 3."""

from __future__ import annotations

WELL_KNOWN = {
    "load and prefix": """
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 2
  - pluginRef: prefix-cache-scorer
    weight: 3
  - pluginRef: max-score-picker
""",
    "lora": """
plugins:
- type: lora-affinity-scorer
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
  parameters: {}
- type: openai-parser
requestHandler:
  parsers:
  - pluginRef: openai-parser
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 1}
  - {pluginRef: kv-cache-utilization-scorer, weight: 1}
  - {pluginRef: prefix-cache-scorer, weight: 1}
  - {pluginRef: lora-affinity-scorer, weight: 1}
""",
    "tuned prefix cache": """
plugins:
- type: approx-prefix-cache-producer
  parameters: {autoTune: false, blockSizeTokens: 64, maxPrefixTokensToMatch: 16384, lruCapacityPerServer: 31250}
- type: prefix-cache-scorer
  parameters: {prefixMatchInfoProducerName: approx-prefix-cache-producer, matchLengthWeight: 0.5}
- type: decode-filter
- type: weighted-random-picker
  parameters: {maxNumOfEndpoints: 3}
schedulingProfiles:
- name: decode
  plugins:
  - pluginRef: decode-filter
  - pluginRef: prefix-cache-scorer
    weight: 50
  - pluginRef: weighted-random-picker
""",
    "payload agnostic": """
plugins:
- type: passthrough-parser
- type: active-request-scorer
  parameters: {idleThreshold: 2, maxBusyScore: 0.5}
- type: utilization-detector
  parameters: {queueDepthThreshold: 10, kvCacheUtilThreshold: 0.9, metricsStalenessThreshold: 500ms, headroom: 0.1}
flowControl:
  saturationDetector: {pluginRef: utilization-detector}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: active-request-scorer
""",
    "token load": """
plugins:
- type: token-load-scorer
  parameters: {queueThresholdTokens: 100000}
- type: running-requests-size-scorer
""",
}
