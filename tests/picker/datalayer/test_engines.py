"""What the extractors make of pages of each engine."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from picker.datalayer.engines import ENGINES, Engines, EngineSpec, Extractor
from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.errors import ConfigError

DATA = Path(__file__).parents[2] / "data"


def extractor(engine: str = "") -> Extractor:
    return Engines().extractor({"llm-d.ai/engine-type": engine} if engine else {})


def extract(page: str, engine: str = "", previous: EndpointMetrics = NEVER_SCRAPED) -> EndpointMetrics | None:
    return extractor(engine).extract(page.encode(), previous, 7.0)


def got(page: str, engine: str = "", previous: EndpointMetrics = NEVER_SCRAPED) -> EndpointMetrics:
    metrics = extract(page, engine, previous)
    assert metrics is not None
    return metrics


def test_a_loaded_and_an_idle_vllm() -> None:
    reader = extractor()
    loaded = reader.extract((DATA / "vllm_metrics.txt").read_bytes(), NEVER_SCRAPED, 1.0)
    both = frozenset({"sql-lora", "chat-lora"})
    assert loaded == EndpointMetrics(16, 8, 0.23483365949119372, 32, 512, both, both, 2, 1.0, reports_load=True)
    idle = reader.extract((DATA / "vllm_metrics_idle.txt").read_bytes(), loaded, 2.0)
    assert idle == EndpointMetrics(0, 0, 0.0, 32, 512, frozenset(), frozenset(), 2, 2.0, reports_load=True)
    assert reader.extract((DATA / "vllm_metrics.txt").read_bytes(), idle, 1.0) == loaded


def test_data_parallel_ranks_add_up() -> None:
    metrics = got(
        'vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} 2\n'
        'vllm:num_requests_waiting{engine="0"} 3\nvllm:num_requests_waiting{engine="1"} 4\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.25\nvllm:kv_cache_usage_perc{engine="1"} 0.75\n'
        'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="100"} 1\n'
        'vllm:cache_config_info{engine="1",block_size="16",num_gpu_blocks="50"} 1\n'
    )
    assert (metrics.running, metrics.waiting, metrics.kv_usage) == (3, 7, 0.5)
    assert not metrics.reports_load, "a header would tell of one rank"
    assert (metrics.block_size, metrics.num_blocks) == (16, 150)


def test_the_newest_timestamp_wins() -> None:
    assert got('vllm:num_requests_waiting{a="1"} 3 200\nvllm:num_requests_waiting{a="2"} 4 300\nvllm:num_requests_waiting 9\n').waiting == 4


def test_missing_series_keep_the_old_value() -> None:
    old = EndpointMetrics(1, 2, 0.3, 16, 100, frozenset("a"), frozenset("b"), 4, 5.0)
    new = got("vllm:num_requests_waiting 9\n", previous=old)
    assert new == EndpointMetrics(9, 2, 0.3, 16, 100, frozenset("a"), frozenset("b"), 4, 7.0, reports_load=True)


@pytest.mark.parametrize(
    "page", ["", "hello", "vllm:num_requests_waiting NaN\n", "vllm:kv_cache_usage_perc +Inf\n", "vllm:num_requests_running -1\n"]
)
def test_nothing_needed_is_none(page: str) -> None:
    assert extract(page) is None


def test_usage_above_one_is_kept_as_reported_and_bad_ranks_are_left_out() -> None:
    assert got("vllm:kv_cache_usage_perc 1.5\n").kv_usage == 1.5
    assert got('vllm:kv_cache_usage_perc{engine="0"} NaN\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n').kv_usage == 0.5
    assert extract('vllm:kv_cache_usage_perc{engine="0"} 1e308\nvllm:kv_cache_usage_perc{engine="1"} 1e308\n') is None


def test_an_older_vllm() -> None:
    assert got("vllm:gpu_cache_usage_perc 0.5\n").kv_usage == 0.5
    assert got("vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.25\n").kv_usage == 0.25


def test_the_adapter_set_with_the_greatest_value_holds() -> None:
    name = "vllm:lora_requests_info"
    metrics = got(
        f'{name}{{max_lora="4",running_lora_adapters="x",waiting_lora_adapters=""}} NaN\n'
        f'{name}{{max_lora="4",running_lora_adapters="a, b,,",waiting_lora_adapters=" "}} 1.7e9\n'
        f'{name}{{max_lora="4",running_lora_adapters="c",waiting_lora_adapters="c"}} 1.6e9\n'
    )
    assert metrics.active_adapters == {"a", "b"}
    assert metrics.waiting_adapters == frozenset()
    assert metrics.max_adapters == 4


@pytest.mark.parametrize(
    ("engine", "page", "expected"),
    [
        (
            "sglang",
            'sglang:num_queue_reqs{m="x"} 1\nsglang:num_running_reqs{m="x"} 2\nsglang:token_usage{m="x"} 0.5\n'
            'sglang:cache_config_info{page_size="64",num_pages="10"} 1\n',
            EndpointMetrics(1, 2, 0.5, 64, 10, updated_s=7.0),
        ),
        (
            "trtllm-serve",
            "trtllm_num_requests_waiting 1\ntrtllm_num_requests_running 2\ntrtllm_kv_cache_utilization 0.5\n"
            "trtllm_kv_cache_tokens_per_block 32\ntrtllm_kv_cache_max_blocks 99\n",
            EndpointMetrics(1, 2, 0.5, 32, 99, updated_s=7.0),
        ),
        (
            "triton-tensorrt-llm",
            'nv_trt_llm_request_metrics{model="m",request_type="waiting"} 1\n'
            'nv_trt_llm_request_metrics{model="m",request_type="scheduled"} 2\n'
            'nv_trt_llm_request_metrics{model="m",request_type="context"} 7\n'
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max"} 99\n'
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"} 0.5\n'
            'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per"} 32\n',
            EndpointMetrics(1, 2, 0.5, 32, 99, updated_s=7.0),
        ),
        (
            "triton",
            'nv_inference_pending_request_count{model="a",version="1"} 1\nnv_inference_exec_count{model="a",version="1"} 2\n',
            EndpointMetrics(1, 2, updated_s=7.0),
        ),
    ],
)
def test_other_engines(engine: str, page: str, expected: EndpointMetrics) -> None:
    assert extract(page, engine) == expected


def test_the_engine_is_chosen_by_label(caplog: pytest.LogCaptureFixture) -> None:
    engines = Engines(default="triton")
    assert engines.extractor({}).engine == "triton"
    assert engines.extractor({"inference.networking.k8s.io/engine-type": "vllm"}).engine == "vllm"
    assert engines.extractor({"inference.networking.k8s.io/engine-type": "vllm", "llm-d.ai/engine-type": "sglang"}).engine == "sglang"
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert engines.extractor({"llm-d.ai/engine-type": "odd"}).engine == "triton"
    assert len(caplog.records) == 1


def test_own_engines() -> None:
    spec = msgspec.convert({"name": "mine", "queuedRequestsSpec": "q{kind=wait}", "runningRequestsSpec": "r"}, EngineSpec)
    reader = Engines([spec]).extractor({"llm-d.ai/engine-type": "mine"})
    assert reader.extract(b'q{kind="wait"} 3\nr 4\n', NEVER_SCRAPED, 1.0) == EndpointMetrics(3, 4, updated_s=1.0)
    replaced = Engines([EngineSpec(name="vllm", waiting="w")]).extractor({})
    assert replaced.extract(b"vllm:num_requests_waiting 1\n", NEVER_SCRAPED, 1.0) is None
    assert len({spec.name for spec in ENGINES}) == 5


@pytest.mark.parametrize(
    ("custom", "default", "text"),
    [
        ([EngineSpec(name="e", waiting="a{b")], "vllm", "engine 'e', queuedRequestsSpec"),
        ([EngineSpec(name="e"), EngineSpec(name="e")], "vllm", "'e' is given twice"),
        ([EngineSpec(name="")], "vllm", "needs a name"),
        ([EngineSpec(name="e", cache_info="c")], "vllm", "expected a label name"),
        ([], "none", "defaultEngine: 'none'"),
    ],
)
def test_bad_engine_configurations(custom: list[EngineSpec], default: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Engines(custom, default=default)


def test_the_built_in_engines_are_those_of_the_reference() -> None:
    """Waiting, running, KV usage; then block size and number of blocks, as series or as labels of an info series."""
    table = {
        "vllm": (
            "vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc",
            "", "", "vllm:cache_config_info", "block_size", "num_gpu_blocks", "vllm:lora_requests_info",
        ),
        "sglang": (
            "sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage",
            "", "", "sglang:cache_config_info", "page_size", "num_pages", "",
        ),
        "trtllm-serve": (
            "trtllm_num_requests_waiting", "trtllm_num_requests_running", "trtllm_kv_cache_utilization",
            "trtllm_kv_cache_tokens_per_block", "trtllm_kv_cache_max_blocks", "", "", "", "",
        ),
        "triton-tensorrt-llm": (
            "nv_trt_llm_request_metrics{request_type=waiting}", "nv_trt_llm_request_metrics{request_type=scheduled}",
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}",
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}", "", "", "", "",
        ),
        "triton": ("nv_inference_pending_request_count", "nv_inference_exec_count", "", "", "", "", "", "", ""),
    }  # fmt: skip
    assert table == {
        e.name: (
            e.waiting, e.running, e.kv_usage, e.cache_block_size, e.cache_num_blocks,
            e.cache_info, e.cache_block_size_label, e.cache_num_blocks_label, e.lora,
        )
        for e in ENGINES
    }  # fmt: skip


def test_the_legacy_label_names_the_engine_and_the_new_one_wins() -> None:
    legacy, new = "inference.networking.k8s.io/engine-type", "llm-d.ai/engine-type"
    assert Engines().extractor({legacy: "sglang"}).engine == "sglang"
    assert Engines().extractor({legacy: "sglang", new: "triton"}).engine == "triton"


def test_an_engine_of_the_same_name_replaces_a_built_in_one_whole() -> None:
    metrics = (
        Engines([EngineSpec(name="sglang", waiting="mine")], default="sglang")
        .extractor({})
        .extract(b"mine 4\nsglang:num_queue_reqs 9\nsglang:num_running_reqs 9\n", NEVER_SCRAPED, 1.0)
    )
    assert metrics is not None
    assert (metrics.waiting, metrics.running) == (4, 0)
