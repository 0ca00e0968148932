"""The endpoint-picker contract's section 7 as data: every family, every legacy twin, and which features do not exist here.

A line is `name kind buckets labels`, `-` for none; `L` stands for model_name target_model_name fairness_id priority. Names without a
prefix begin with `llm_d_epp_`.
"""

from __future__ import annotations

from typing import NamedTuple

L = ("model_name", "target_model_name", "fairness_id", "priority")

_GEN = ".005 .025 .05 .1 .2 .4 .6 .8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120 180 240 300 360 480 600 900 1200 1800 2700 3600"
BUCKETS = {
    "GEN": _GEN,
    "SCH": ".0001 .0002 .0005 .001 .002 .005 .01 .02 .05 .1",
    "IN": "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536 131072 262144 524288 1048576",
    "OUT": "1 8 16 32 64 128 256 512 1024 2048 4096 8192",
    "RSP": "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536",
    "REQ": " ".join(str(2**n) for n in range(6, 31)),
    "NTPOT": ".001 .002 .005 .01 .02 .05 .1 .2 .5 1 2 5 10",
    "TTFT": ".005 .025 .05 .1 .2 .4 .6 .8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120",
    "TPOT": ".0005 .00205 .005 .01 .02 .04 .06 .08 .1 .125 .15 .2 .3 .4 .5 .6 .8 1 2",
    "ITL": ".001 .005 .01 .02 .04 .06 .08 .1 .15 .2 .3 .5 .75 1 2",
    "QUEUE": ".0001 .0005 .001 .005 .01 .025 .05 .1 .25 .5 1 2.5 5 10 30 60",
    "STREAM": ".001 .005 .01 .05 .1 .5 1 5 10 30 60 120 300 600",
    "RATIO": "0 .1 .2 .3 .4 .5 .6 .7 .8 .9 1",
    "BYTES": "0 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536",
    # Of these the contract names the first and the last.
    "PROCESS": ".0005 … 10",
    "RESPONSE": ".0001 … 5",
    "CONFIRM": ".005 … 10",
}


class Family(NamedTuple):
    """One metric family. `buckets` are upper bounds, or the first and the last with an ellipsis between them."""

    name: str
    kind: str
    buckets: tuple[str, ...]
    labels: tuple[str, ...]


def _read(text: str, prefix: str) -> list[Family]:
    families = []
    for line in text.strip().splitlines():
        name, kind, buckets, *labels = line.split()
        every = [label for word in labels if word != "-" for label in (L if word == "L" else (word,))]
        families.append(Family(prefix + name, _KINDS[kind], () if buckets == "-" else tuple(BUCKETS[buckets].split()), tuple(every)))
    return families


_KINDS = {"C": "counter", "G": "gauge", "H": "histogram"}

FAMILIES = _read(
    """
request_total C - L
request_error_total C - L error_code
request_duration_seconds H GEN L
request_size_bytes H REQ L
response_size_bytes H RSP L
request_input_tokens H IN L
request_output_tokens H OUT L
request_cached_tokens H IN L
request_running G - L
request_ntpot_seconds H NTPOT L
request_ttft_seconds H TTFT L streaming
request_streaming_tpot_seconds H TPOT L
request_streaming_itl_seconds H ITL L
average_kv_cache_utilization G - name
average_queue_size G - name
average_running_requests G - name
std_dev_kv_cache_utilization G - name
std_dev_queue_size G - name
std_dev_running_requests G - name
ready_endpoints G - name
per_endpoint_queue_size G - name model_server_endpoint
scheduler_e2e_duration_seconds H SCH -
scheduler_attempts_total C - status target_model_name endpoint_name namespace port
plugin_duration_seconds H SCH extension_point plugin_type plugin_name
plugin_data_scope_violations_total C - extension_point plugin_type plugin_name access
request_processing_duration_seconds H PROCESS -
response_processing_duration_seconds H RESPONSE -
info G - commit build_ref
model_rewrite_decisions_total C - model_rewrite_name model_name target_model
datalayer_poll_errors_total C - source_type
datalayer_extract_errors_total C - source_type extractor_type
flow_control_request_queue_duration_seconds H QUEUE fairness_id priority outcome inference_pool model_name target_model_name
flow_control_dispatch_cycle_duration_seconds H SCH -
flow_control_request_enqueue_duration_seconds H SCH fairness_id priority outcome
flow_control_queue_size G - fairness_id priority inference_pool model_name target_model_name
flow_control_queue_bytes G - fairness_id priority inference_pool model_name target_model_name
flow_control_pool_saturation G - inference_pool stage
flow_control_stale_endpoints G - detector
flow_control_capacity_utilization_requests G - priority inference_pool
flow_control_capacity_utilization_bytes G - priority inference_pool
flow_control_global_capacity_utilization_requests G - inference_pool
flow_control_global_capacity_utilization_bytes G - inference_pool
flow_control_requests_total C - outcome priority inference_pool
flow_control_revocations_issued_total C - priority inference_pool
flow_control_revocations_total C - outcome inference_pool
flow_control_reclaim_target G - inference_pool
flow_control_pending_reclaim G - inference_pool
flow_control_revocation_confirmation_seconds H CONFIRM inference_pool
extproc_streams_inflight G - -
extproc_stream_duration_seconds H STREAM -
extproc_streams_total C - code
inflight_requests G - endpoint_name namespace producer_name fairness_id priority
inflight_tokens G - endpoint_name namespace producer_name fairness_id priority
prefix_indexer_size G - plugin_name plugin_type
prefix_indexer_hit_ratio H RATIO plugin_name plugin_type
prefix_indexer_hit_bytes H BYTES plugin_name plugin_type
encoder_cache_queries_total C - plugin_type plugin_name modality
encoder_cache_hits_total C - plugin_type plugin_name modality pod
encoder_cache_hit_ratio H RATIO plugin_type plugin_name
program_aware_jains_fairness_index G - -
program_aware_avg_wait_time_milliseconds G - program_id
program_aware_attained_service_tokens G - program_id
""",
    "llm_d_epp_",
)

# The feature, and what begins with these names belongs to it.
ABSENT: dict[str, tuple[str, ...]] = {
    "holding plugins to the data keys that they declare": ("plugin_data_scope_violations_total",),
    "latency prediction (predicted-latency-producer)": (
        "inference_request_metric",
        "request_predicted_ttft_seconds",
        "request_ttft_prediction_duration_seconds",
        "request_predicted_tpot_seconds",
        "request_tpot_prediction_duration_seconds",
        "request_slo_violation_total",
    ),
    "disaggregated serving (disagg-profile-handler)": (
        "disagg_decision_total",
        "pd_decision_total",
        "disaggregatedset_strict_header_no_match_total",
        "disaggregatedset_revision_gating_share",
    ),
    "precise KV index from KV events (precise-prefix-cache-producer)": (
        "kv_cache_index_admissions_total",
        "kv_cache_index_evictions_total",
        "kv_cache_index_lookup_requests_total",
        "kv_cache_index_lookup_hits_total",
        "kv_cache_index_max_pod_hit_count_total",
        "kv_cache_index_lookup_latency_seconds",
        "kv_cache_events_dedup_removed_hashes_suppressed_total",
        "kv_cache_events_dedup_removed_hashes_forwarded_total",
        "kv_cache_events_stores_skipped_total",
        "kv_cache_events_removals_skipped_total",
        "kv_cache_events_active_subscribers",
        "kv_cache_events_subscriber_reconnections_total",
        "kv_cache_events_messages_received_total",
        "kv_cache_events_zmq_errors_total",
        "kv_cache_events_pool_queue_depth",
        "kv_cache_events_pool_capacity",
    ),
}

PLUGIN_TYPES_OF_ABSENT = (
    "predicted-latency-producer",
    "disagg-profile-handler",
    "precise-prefix-cache-producer",
)
"""When one of these is in the catalogue, its metrics have to be in the exposition."""

# legacy name, its new name, its labels
TWINS: dict[str, tuple[str, tuple[str, ...]]] = {}


def _twins(prefix: str, text: str) -> None:
    for line in text.strip().splitlines():
        legacy, new, *labels = line.split()
        TWINS[prefix + legacy] = ("llm_d_epp_" + new, tuple(labels))


_twins(
    "inference_objective_",
    """
request_total request_total model_name target_model_name priority
request_error_total request_error_total model_name target_model_name error_code
request_duration_seconds request_duration_seconds model_name target_model_name
request_sizes request_size_bytes model_name target_model_name
response_sizes response_size_bytes model_name target_model_name
input_tokens request_input_tokens model_name target_model_name
output_tokens request_output_tokens model_name target_model_name
prompt_cached_tokens request_cached_tokens model_name target_model_name
running_requests request_running model_name
normalized_time_per_output_token_seconds request_ntpot_seconds model_name target_model_name
request_ttft_seconds request_ttft_seconds model_name target_model_name
request_tpot_seconds request_streaming_tpot_seconds model_name target_model_name
""",
)
_twins(
    "inference_pool_",
    """
average_kv_cache_utilization average_kv_cache_utilization name
average_queue_size average_queue_size name
average_running_requests average_running_requests name
ready_pods ready_endpoints name
per_pod_queue_size per_endpoint_queue_size name model_server_pod
""",
)
_twins(
    "inference_extension_",
    """
scheduler_e2e_duration_seconds scheduler_e2e_duration_seconds
scheduler_attempts_total scheduler_attempts_total status target_model_name pod_name namespace port
plugin_duration_seconds plugin_duration_seconds extension_point plugin_type plugin_name
info info commit build_ref
flow_control_request_queue_duration_seconds flow_control_request_queue_duration_seconds fairness_id priority outcome inference_pool model_name target_model_name
flow_control_dispatch_cycle_duration_seconds flow_control_dispatch_cycle_duration_seconds
flow_control_request_enqueue_duration_seconds flow_control_request_enqueue_duration_seconds fairness_id priority outcome
flow_control_queue_size flow_control_queue_size fairness_id priority inference_pool model_name target_model_name
flow_control_queue_bytes flow_control_queue_bytes fairness_id priority inference_pool model_name target_model_name
flow_control_pool_saturation flow_control_pool_saturation inference_pool stage
prefix_indexer_size prefix_indexer_size
prefix_indexer_hit_ratio prefix_indexer_hit_ratio
prefix_indexer_hit_bytes prefix_indexer_hit_bytes
model_rewrite_decisions_total model_rewrite_decisions_total model_rewrite_name model_name target_model
""",  # noqa: E501
)
_twins(
    "llm_d_inference_scheduler_",
    """
datalayer_poll_errors_total datalayer_poll_errors_total source_type
datalayer_extract_errors_total datalayer_extract_errors_total source_type extractor_type
""",
)
