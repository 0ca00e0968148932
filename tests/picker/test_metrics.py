"""The families against a table written from the contract, section 7."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from picker.instruments import Counter, Gauge, Histogram
from picker.metrics import Metrics

GEN = "0.005 0.025 0.05 0.1 0.2 0.4 0.6 0.8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120 180 240 300 360 480 600 900 1200 1800 2700 3600"
TTFT = "0.005 0.025 0.05 0.1 0.2 0.4 0.6 0.8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120"
SCH = "0.0001 0.0002 0.0005 0.001 0.002 0.005 0.01 0.02 0.05 0.1"
IN = "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536 131072 262144 524288 1.048576e+06"
OUT = "1 8 16 32 64 128 256 512 1024 2048 4096 8192"
RSP = "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536"
REQ = (
    "64 128 256 512 1024 2048 4096 8192 16384 32768 65536 131072 262144 524288 1.048576e+06 2.097152e+06 4.194304e+06 8.388608e+06 "
    "1.6777216e+07 3.3554432e+07 6.7108864e+07 1.34217728e+08 2.68435456e+08 5.36870912e+08 1.073741824e+09"
)
NTPOT = "0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 1 2 5 10"
TPOT = "0.0005 0.00205 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.125 0.15 0.2 0.3 0.4 0.5 0.6 0.8 1 2"
ITL = "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.15 0.2 0.3 0.5 0.75 1 2"
REQUEST_PROCESSING = "0.0005 0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 1 2 5 10"
RESPONSE_PROCESSING = "0.0001 0.0002 0.0005 0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 1 2 5"
RATIO = "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1"
BYTES = "0 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536"
STREAM = "0.001 0.005 0.01 0.05 0.1 0.5 1 5 10 30 60 120 300 600"

L = "model_name target_model_name fairness_id priority"
OBJ = "model_name target_model_name"
ATTEMPTS = "status target_model_name {} namespace port"
PLUGIN = "extension_point plugin_type plugin_name"
INFLIGHT = "endpoint_name namespace producer_name fairness_id priority"

FLOW, LEGACY_FLOW = "llm_d_epp_flow_control", "inference_extension_flow_control"
QUEUED = "fairness_id priority inference_pool model_name target_model_name"
TIMED = "fairness_id priority outcome inference_pool model_name target_model_name"
QUEUE = "0.0001 0.0005 0.001 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60"
CONFIRMED = "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10"

# name, type, labels, buckets, legacy name, its labels
TABLE: list[tuple[str, str, str, str, str, str]] = [
    ("llm_d_epp_request_total", "counter", L, "", "inference_objective_request_total", f"{OBJ} priority"),
    ("llm_d_epp_request_error_total", "counter", f"{L} error_code", "", "inference_objective_request_error_total", f"{OBJ} error_code"),
    ("llm_d_epp_request_duration_seconds", "histogram", L, GEN, "inference_objective_request_duration_seconds", OBJ),
    ("llm_d_epp_request_size_bytes", "histogram", L, REQ, "inference_objective_request_sizes", OBJ),
    ("llm_d_epp_response_size_bytes", "histogram", L, RSP, "inference_objective_response_sizes", OBJ),
    ("llm_d_epp_request_input_tokens", "histogram", L, IN, "inference_objective_input_tokens", OBJ),
    ("llm_d_epp_request_output_tokens", "histogram", L, OUT, "inference_objective_output_tokens", OBJ),
    ("llm_d_epp_request_cached_tokens", "histogram", L, IN, "inference_objective_prompt_cached_tokens", OBJ),
    ("llm_d_epp_request_running", "gauge", L, "", "inference_objective_running_requests", "model_name"),
    ("llm_d_epp_request_ntpot_seconds", "histogram", L, NTPOT, "inference_objective_normalized_time_per_output_token_seconds", OBJ),
    ("llm_d_epp_request_ttft_seconds", "histogram", f"{L} streaming", TTFT, "inference_objective_request_ttft_seconds", OBJ),
    ("llm_d_epp_request_streaming_tpot_seconds", "histogram", L, TPOT, "inference_objective_request_tpot_seconds", OBJ),
    ("llm_d_epp_request_streaming_itl_seconds", "histogram", L, ITL, "", ""),
    ("llm_d_epp_average_kv_cache_utilization", "gauge", "name", "", "inference_pool_average_kv_cache_utilization", "name"),
    ("llm_d_epp_average_queue_size", "gauge", "name", "", "inference_pool_average_queue_size", "name"),
    ("llm_d_epp_average_running_requests", "gauge", "name", "", "inference_pool_average_running_requests", "name"),
    ("llm_d_epp_std_dev_kv_cache_utilization", "gauge", "name", "", "", ""),
    ("llm_d_epp_std_dev_queue_size", "gauge", "name", "", "", ""),
    ("llm_d_epp_std_dev_running_requests", "gauge", "name", "", "", ""),
    ("llm_d_epp_ready_endpoints", "gauge", "name", "", "inference_pool_ready_pods", "name"),
    (
        "llm_d_epp_per_endpoint_queue_size",
        "gauge",
        "name model_server_endpoint",
        "",
        "inference_pool_per_pod_queue_size",
        "name model_server_pod",
    ),
    ("llm_d_epp_scheduler_e2e_duration_seconds", "histogram", "", SCH, "inference_extension_scheduler_e2e_duration_seconds", ""),
    (
        "llm_d_epp_scheduler_attempts_total",
        "counter",
        ATTEMPTS.format("endpoint_name"),
        "",
        "inference_extension_scheduler_attempts_total",
        ATTEMPTS.format("pod_name"),
    ),
    ("llm_d_epp_plugin_duration_seconds", "histogram", PLUGIN, SCH, "inference_extension_plugin_duration_seconds", PLUGIN),
    ("llm_d_epp_request_processing_duration_seconds", "histogram", "", REQUEST_PROCESSING, "", ""),
    ("llm_d_epp_response_processing_duration_seconds", "histogram", "", RESPONSE_PROCESSING, "", ""),
    ("llm_d_epp_info", "gauge", "commit build_ref", "", "inference_extension_info", "commit build_ref"),
    (
        "llm_d_epp_model_rewrite_decisions_total",
        "counter",
        "model_rewrite_name model_name target_model",
        "",
        "inference_extension_model_rewrite_decisions_total",
        "model_rewrite_name model_name target_model",
    ),
    ("llm_d_epp_prefix_indexer_size", "gauge", "plugin_name plugin_type", "", "inference_extension_prefix_indexer_size", ""),
    ("fairlead_prefix_indexer_bytes", "gauge", "plugin_name plugin_type", "", "", ""),
    ("fairlead_prefix_indexer_evictions_total", "counter", "plugin_name plugin_type", "", "", ""),
    (
        "llm_d_epp_prefix_indexer_hit_ratio",
        "histogram",
        "plugin_name plugin_type",
        RATIO,
        "inference_extension_prefix_indexer_hit_ratio",
        "",
    ),
    (
        "llm_d_epp_prefix_indexer_hit_bytes",
        "histogram",
        "plugin_name plugin_type",
        BYTES,
        "inference_extension_prefix_indexer_hit_bytes",
        "",
    ),
    ("llm_d_epp_encoder_cache_queries_total", "counter", "plugin_type plugin_name modality", "", "", ""),
    ("llm_d_epp_encoder_cache_hits_total", "counter", "plugin_type plugin_name pod modality", "", "", ""),
    ("llm_d_epp_encoder_cache_hit_ratio", "histogram", "plugin_type plugin_name", RATIO, "", ""),
    (
        "llm_d_epp_datalayer_poll_errors_total",
        "counter",
        "source_type",
        "",
        "llm_d_inference_scheduler_datalayer_poll_errors_total",
        "source_type",
    ),
    (
        "llm_d_epp_datalayer_extract_errors_total",
        "counter",
        "source_type extractor_type",
        "",
        "llm_d_inference_scheduler_datalayer_extract_errors_total",
        "source_type extractor_type",
    ),
    ("llm_d_epp_inflight_requests", "gauge", INFLIGHT, "", "", ""),
    ("llm_d_epp_inflight_tokens", "gauge", INFLIGHT, "", "", ""),
    (f"{FLOW}_request_queue_duration_seconds", "histogram", TIMED, QUEUE, f"{LEGACY_FLOW}_request_queue_duration_seconds", TIMED),
    (f"{FLOW}_dispatch_cycle_duration_seconds", "histogram", "", SCH, f"{LEGACY_FLOW}_dispatch_cycle_duration_seconds", ""),
    (
        f"{FLOW}_request_enqueue_duration_seconds",
        "histogram",
        "fairness_id priority outcome",
        SCH,
        f"{LEGACY_FLOW}_request_enqueue_duration_seconds",
        "fairness_id priority outcome",
    ),
    (f"{FLOW}_queue_size", "gauge", QUEUED, "", f"{LEGACY_FLOW}_queue_size", QUEUED),
    (f"{FLOW}_queue_bytes", "gauge", QUEUED, "", f"{LEGACY_FLOW}_queue_bytes", QUEUED),
    (f"{FLOW}_pool_saturation", "gauge", "inference_pool stage", "", f"{LEGACY_FLOW}_pool_saturation", "inference_pool stage"),
    (f"{FLOW}_stale_endpoints", "gauge", "detector", "", "", ""),
    (f"{FLOW}_capacity_utilization_requests", "gauge", "priority inference_pool", "", "", ""),
    (f"{FLOW}_capacity_utilization_bytes", "gauge", "priority inference_pool", "", "", ""),
    (f"{FLOW}_global_capacity_utilization_requests", "gauge", "inference_pool", "", "", ""),
    (f"{FLOW}_global_capacity_utilization_bytes", "gauge", "inference_pool", "", "", ""),
    (f"{FLOW}_requests_total", "counter", "outcome priority inference_pool", "", "", ""),
    (f"{FLOW}_revocations_issued_total", "counter", "priority inference_pool", "", "", ""),
    (f"{FLOW}_revocations_total", "counter", "outcome inference_pool", "", "", ""),
    (f"{FLOW}_reclaim_target", "gauge", "inference_pool", "", "", ""),
    (f"{FLOW}_pending_reclaim", "gauge", "inference_pool", "", "", ""),
    (f"{FLOW}_revocation_confirmation_seconds", "histogram", "inference_pool", CONFIRMED, "", ""),
    ("llm_d_epp_program_aware_jains_fairness_index", "gauge", "", "", "", ""),
    ("llm_d_epp_program_aware_avg_wait_time_milliseconds", "gauge", "program_id", "", "", ""),
    ("llm_d_epp_program_aware_attained_service_tokens", "gauge", "program_id", "", "", ""),
    ("llm_d_epp_extproc_streams_inflight", "gauge", "", "", "", ""),
    ("llm_d_epp_extproc_stream_duration_seconds", "histogram", "", STREAM, "", ""),
    ("llm_d_epp_extproc_streams_total", "counter", "code", "", "", ""),
    ("fairlead_response_bodies_unread_total", "counter", "how", "", "", ""),
    ("fairlead_scrapes_total", "counter", "", "", "", ""),
    ("fairlead_scrape_endpoints", "gauge", "pace", "", "", ""),
    ("fairlead_load_reports_total", "counter", "", "", "", ""),
    ("fairlead_config_info", "gauge", "sha256", "", "", ""),
    ("fairlead_config_loaded_timestamp_seconds", "gauge", "", "", "", ""),
    ("fairlead_config_stale", "gauge", "", "", "", ""),
    ("fairlead_request_attribute_errors_total", "counter", "plugin_name", "", "", ""),
    ("fairlead_preparation_failures_total", "counter", "plugin_name plugin_type reason", "", "", ""),
    ("fairlead_requests_in_preparation", "gauge", "", "", "", ""),
    ("fairlead_plugin_errors_total", "counter", "plugin_type plugin_name extension_point kind", "", "", ""),
    ("fairlead_plugin_taken_out", "gauge", "plugin_type plugin_name extension_point", "", "", ""),
    ("fairlead_reload_errors_total", "counter", "source", "", "", ""),
]


def filled() -> Metrics:
    """One cell in each family, fed once."""
    metrics = Metrics()
    for family in metrics.collector.families:
        values = [f"value of {label}" for label in family.labels]
        if isinstance(family, Histogram):
            family.cell(*values).observe(1.0)
        else:
            family.cell(*values).value = 1
    return metrics


@pytest.fixture(scope="module")
def page() -> str:
    return generate_latest(filled().registry).decode()


def test_the_table_is_complete() -> None:
    assert [f.name for f in Metrics().collector.families] == [row[0] for row in TABLE]


RENAMED = {"pod_name": "endpoint_name", "model_server_pod": "model_server_endpoint"}


def check(page: str, name: str, kind: str, labels: str, buckets: str, help_: str) -> None:
    lines = page.splitlines()
    assert f"# TYPE {name} {kind}" in lines
    (text,) = [line for line in lines if line.startswith(f"# HELP {name} ")]
    assert text.removeprefix(f"# HELP {name} ").startswith(help_)
    values = {label: f"value of {RENAMED.get(label, label)}" for label in labels.split()}
    written = ",".join([f'{label}="{values[label]}"' for label in sorted(values)])
    if kind == "histogram":
        found = [line.split('le="')[1].split('"')[0] for line in lines if line.startswith(f"{name}_bucket{{")]
        assert found == [*buckets.split(), "+Inf"]
    sample = f"{name}_count" if kind == "histogram" else name
    assert (f"{sample}{{{written}}} 1.0" if written else f"{sample} 1.0") in lines


@pytest.mark.parametrize(("name", "kind", "labels", "buckets", "twin", "twin_labels"), TABLE, ids=[row[0] for row in TABLE])
def test_a_family_is_exposed_as_the_contract_says(
    page: str, name: str, kind: str, labels: str, buckets: str, twin: str, twin_labels: str
) -> None:
    check(page, name, kind, labels, buckets, "[ALPHA] ")
    if twin:
        check(page, twin, kind, twin_labels, buckets, f"[ALPHA] [Deprecated: Use {name}] ")


def test_there_are_no_other_names(page: str) -> None:
    expected = {row[0] for row in TABLE} | {row[4] for row in TABLE if row[4]}
    assert {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")} == expected


def test_the_page_can_be_parsed(page: str) -> None:
    families = list(text_string_to_metric_families(page))
    assert len(families) == len(TABLE) + sum(1 for row in TABLE if row[4])
    assert all(family.samples for family in families)


def test_models_and_fairness_ids_are_capped_apart() -> None:
    metrics = Metrics(label_limit=2)
    for model, fairness in (("a", "x"), ("b", "y"), ("c", "z"), ("a", "z"), ("c", "x")):
        metrics.series(model, model, fairness, "0").total.value += 1
    assert {labels: cell.value for labels, cell in metrics.request_total.cells.items()} == {
        ("a", "a", "x", "0"): 1,
        ("b", "b", "y", "0"): 1,
        ("other", "other", "other", "0"): 1,
        ("a", "a", "other", "0"): 1,
        ("other", "other", "x", "0"): 1,
    }


def test_the_caps_default_to_a_thousand() -> None:
    metrics = Metrics()
    assert [metrics.cap_model(f"m{n}") for n in (*range(1000), 1000)][-2:] == ["m999", "other"]
    assert [metrics.cap_fairness(f"f{n}") for n in (*range(1000), 1000)][-2:] == ["f999", "other"]


def test_a_series_is_looked_up_once_and_feeds_its_families() -> None:
    metrics = Metrics()
    series = metrics.series("m", "n", "f", "-1")
    assert metrics.series("m", "n", "f", "-1") is series
    series.error("BadRequest")
    series.error("BadRequest")
    series.ttft(0.3, streaming=True)
    series.ttft(0.3, streaming=False)
    labels = ("m", "n", "f", "-1")
    assert metrics.request_error_total.cell(*labels, "BadRequest").value == 2
    assert {key: sum(cell.counts) for key, cell in metrics.ttft.cells.items()} == {(*labels, "true"): 1, (*labels, "false"): 1}
    text = generate_latest(metrics.registry).decode()
    assert 'inference_objective_request_ttft_seconds_count{model_name="m",target_model_name="n"} 2.0' in text


def test_counters_end_in_total_and_others_do_not() -> None:
    for family in Metrics().collector.families:
        assert family.name.endswith("_total") == isinstance(family, Counter)
        assert isinstance(family, Counter | Gauge | Histogram)


def test_legacy_names_and_those_of_streams_can_be_left_out() -> None:
    def names(metrics: Metrics) -> set[str]:
        return {family.name for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())}

    everything = names(Metrics())
    legacy = {name for name in everything if not name.startswith(("llm_d_epp_", "fairlead_"))}
    assert "inference_objective_request" in legacy and len(legacy) > 20
    assert names(Metrics(legacy=False)) == everything - legacy
    assert everything - names(Metrics(streams=False)) == {
        "llm_d_epp_extproc_streams_inflight", "llm_d_epp_extproc_stream_duration_seconds", "llm_d_epp_extproc_streams",
    }  # fmt: skip
