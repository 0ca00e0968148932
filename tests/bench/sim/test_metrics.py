"""Every vllm: family on the page is one of vLLM 0.32's, with the labels it has there."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.sim.rig import Rig

ENGINE = {"engine", "model_name"}
CACHE_CONFIG = {
    *("_block_size_resolved", "block_size", "cache_dtype", "cache_hit_alignment_tokens", "effective_attention_block_size"),
    *("enable_mamba_shared_prefix_checkpoint", "enable_prefix_caching", "engine", "gpu_memory_utilization", "hash_block_size"),
    *("is_attention_free", "kv_cache_dtype_skip_layers", "kv_cache_layout", "kv_cache_max_concurrency", "kv_cache_memory_bytes"),
    *("kv_cache_size_tokens", "kv_offloading_backend", "kv_offloading_size", "kv_sharing_fast_prefill", "mamba_block_size"),
    *("mamba_cache_dtype", "mamba_cache_mode", "mamba_page_size_padded", "mamba_ssm_cache_dtype", "num_cpu_blocks", "num_gpu_blocks"),
    *("num_gpu_blocks_override", "prefix_cache_retention_interval", "prefix_caching_hash_algo", "prefix_match_unit"),
    *("replayssm_buffer_len", "skip_page_size_padded", "sliding_window", "swa_bounded_replay", "use_kda_recoverssm", "use_replayssm"),
    "user_specified_block_size",
}
# Sample name without _bucket/_count/_sum/_created, type, label names without `le`: as a real vLLM 0.32 shows them.
KNOWN: dict[str, tuple[str, set[str]]] = {
    "vllm:num_requests_running": ("gauge", ENGINE),
    "vllm:num_requests_waiting": ("gauge", ENGINE),
    "vllm:num_requests_waiting_by_reason": ("gauge", ENGINE | {"reason"}),
    "vllm:engine_sleep_state": ("gauge", ENGINE | {"sleep_state"}),
    "vllm:kv_cache_usage_perc": ("gauge", ENGINE),
    "vllm:prefix_cache_queries_total": ("counter", ENGINE),
    "vllm:prefix_cache_hits_total": ("counter", ENGINE),
    "vllm:num_preemptions_total": ("counter", ENGINE),
    "vllm:prompt_tokens_total": ("counter", ENGINE),
    "vllm:prompt_tokens_by_source_total": ("counter", ENGINE | {"source"}),
    "vllm:prompt_tokens_cached_total": ("counter", ENGINE),
    "vllm:generation_tokens_total": ("counter", ENGINE),
    "vllm:request_success_total": ("counter", ENGINE | {"finished_reason"}),
    "vllm:request_prompt_tokens": ("histogram", ENGINE),
    "vllm:request_generation_tokens": ("histogram", ENGINE),
    "vllm:iteration_tokens_total": ("histogram", ENGINE),
    "vllm:request_params_n": ("histogram", ENGINE),
    "vllm:request_params_max_tokens": ("histogram", ENGINE),
    "vllm:time_to_first_token_seconds": ("histogram", ENGINE),
    "vllm:inter_token_latency_seconds": ("histogram", ENGINE),
    "vllm:request_time_per_output_token_seconds": ("histogram", ENGINE),
    "vllm:e2e_request_latency_seconds": ("histogram", ENGINE),
    "vllm:request_queue_time_seconds": ("histogram", ENGINE),
    "vllm:request_inference_time_seconds": ("histogram", ENGINE),
    "vllm:request_prefill_time_seconds": ("histogram", ENGINE),
    "vllm:request_decode_time_seconds": ("histogram", ENGINE),
    "vllm:lora_requests_info": ("gauge", {"max_lora", "running_lora_adapters", "waiting_lora_adapters"}),
    "vllm:cache_config_info": ("gauge", CACHE_CONFIG),
}
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def page(rig: Rig) -> str:
    return rig.metrics.render(rig.engine.load()).decode()


def test_families_and_labels_are_those_of_vllm() -> None:
    rig = Rig(enable_lora=True)
    rig.add([1, 2, 3], adapter="a")
    rig.run()
    seen: dict[str, set[str]] = {}
    types: dict[str, str] = {}
    for line in page(rig).splitlines():
        if line.startswith("# TYPE "):
            _hash, _type, name, kind = line.split()
            types[name] = kind
    for family in text_string_to_metric_families(page(rig)):
        for sample in family.samples:
            seen.setdefault(sample.name, set()).update(set(sample.labels) - {"le"})
    expected = {name + suffix: labels for name, (kind, labels) in KNOWN.items() for suffix in SUFFIXES[kind]}
    assert {name: labels for name, labels in seen.items() if not name.endswith("_created")} == expected
    assert {name: kind for name, kind in types.items() if not name.endswith("_created")} == {n: kind for n, (kind, _) in KNOWN.items()}


def test_the_values_of_the_label_sets_a_reader_may_rely_on() -> None:
    rig = Rig()
    text = page(rig)
    assert 'vllm:engine_sleep_state{engine="0",model_name="sim-model",sleep_state="awake"} 1.0' in text
    assert 'vllm:num_requests_waiting_by_reason{engine="0",model_name="sim-model",reason="deferred"} 0.0' in text
    for reason in ("stop", "length", "abort", "error", "repetition"):
        assert f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="sim-model"}} 0.0' in text
    assert 'block_size="4"' in text
    assert 'num_gpu_blocks="33"' in text


def test_of_two_lora_label_sets_the_later_is_the_greater_even_within_one_tick() -> None:
    rig = Rig(enable_lora=True)
    for running in ("a", "a,b", "b", ""):
        rig.metrics.lora(running, "")
    values = [rig.value("vllm:lora_requests_info", running_lora_adapters=running) for running in ("a", "a,b", "b", "")]
    assert values == sorted(set(values))
