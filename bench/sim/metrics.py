"""The `/metrics` page: vLLM 0.32's family names and labels over a private registry."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bench.sim.load import Load
from bench.sim.sequence import Sequence
from bench.sim.settings import Settings

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
WAIT_REASONS = ("capacity", "deferred")
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")
PROMPT_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")

FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0),
    *(40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
ITERATION_TOKENS = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)
PARAMS_N = (1.0, 2.0, 5.0, 10.0, 20.0)

# Labels of vllm:cache_config_info that say nothing about a simulated cache, with the values a plain vLLM shows.
CACHE_CONFIG_CONSTANTS = {
    "_block_size_resolved": "True",
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": "None",
    "enable_mamba_shared_prefix_checkpoint": "False",
    "gpu_memory_utilization": "0.92",
    "hash_block_size": "None",
    "is_attention_free": "False",
    "kv_cache_dtype_skip_layers": "[]",
    "kv_cache_layout": "None",
    "kv_cache_memory_bytes": "None",
    "kv_offloading_backend": "native",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "float32",
    "num_cpu_blocks": "None",
    "prefix_cache_retention_interval": "0",
    "prefix_caching_hash_algo": "xxhash",
    "prefix_match_unit": "None",
    "replayssm_buffer_len": "16",
    "skip_page_size_padded": "None",
    "sliding_window": "None",
    "swa_bounded_replay": "True",
    "use_kda_recoverssm": "False",
    "use_replayssm": "False",
    "user_specified_block_size": "True",
}


def one_two_five(limit: int) -> list[float]:
    """Histogram bounds 1, 2, 5, 10, 20, ... up to `limit`."""
    bounds = [float(digit * 10**power) for power in range(len(str(limit))) for digit in (1, 2, 5)]
    return [bound for bound in bounds if bound <= limit] or [1.0]


class Metrics:
    """What the engine counts. Gauges are set from a Load when the page is rendered, so a step pays nothing for them."""

    def __init__(self, settings: Settings, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._registry = CollectorRegistry()
        self._wall_clock = wall_clock
        self._max_loras = str(settings.max_loras)
        self._lora_now: tuple[str, str] | None = None
        self._lora_stamp = 0.0
        self._labels = {"engine": "0", "model_name": settings.names[0]}

        self._running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self._waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        reasons = self._gauges("num_requests_waiting_by_reason", "Number of waiting requests by reason.", "reason", WAIT_REASONS)
        self._waiting_capacity, self._waiting_deferred = reasons["capacity"], reasons["deferred"]
        self._gauges("engine_sleep_state", "Engine sleep state; 1 for the state it is in.", "sleep_state", SLEEP_STATES)["awake"].set(1)
        self._kv_usage = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self._cache_queries = self._counter("prefix_cache_queries", "Prefix cache queries, in tokens.")
        self._cache_hits = self._counter("prefix_cache_hits", "Prefix cache hits, in tokens.")
        self._preemptions = self._counter("num_preemptions", "Number of preemptions.")
        self._prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        sources = self._counters("prompt_tokens_by_source", "Number of prompt tokens by source.", "source", PROMPT_SOURCES)
        self._tokens_computed, self._tokens_hit = sources["local_compute"], sources["local_cache_hit"]
        self._tokens_cached = self._counter("prompt_tokens_cached", "Number of cached prompt tokens.")
        self._generation_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        self._success = self._counters("request_success", "Count of finished requests.", "finished_reason", FINISH_REASONS)

        lengths = one_two_five(settings.max_model_len)
        self._request_prompt = self._histogram("request_prompt_tokens", "Prompt tokens of a finished request.", lengths)
        self._request_output = self._histogram("request_generation_tokens", "Output tokens of a finished request.", lengths)
        self._request_params = self._histogram("request_params_max_tokens", "The max_tokens a request asked for.", lengths)
        self._request_n = self._histogram("request_params_n", "The n a request asked for.", PARAMS_N)
        self._iteration = self._histogram("iteration_tokens_total", "Tokens computed in one engine step.", ITERATION_TOKENS)
        self._first_token = self._histogram("time_to_first_token_seconds", "Time to first token, queueing included.", FIRST_TOKEN_S)
        self._next_token = self._histogram("inter_token_latency_seconds", "Time between two output tokens.", TOKEN_S)
        self._per_token = self._histogram("request_time_per_output_token_seconds", "Mean time per output token.", TOKEN_S)
        self._e2e = self._histogram("e2e_request_latency_seconds", "Time from arrival to end.", REQUEST_S)
        self._queue = self._histogram("request_queue_time_seconds", "Time spent waiting.", REQUEST_S)
        self._inference = self._histogram("request_inference_time_seconds", "Time spent running.", REQUEST_S)
        self._prefill = self._histogram("request_prefill_time_seconds", "Time from admission to first token.", REQUEST_S)
        self._decode = self._histogram("request_decode_time_seconds", "Time from first token to end.", REQUEST_S)

        self._cache_config(settings)
        # Registered with its first use only: a vLLM that never served an adapter has no such family.
        self._lora_info: Gauge | None = None

    def admitted(self, *, queries: int, hits: int) -> None:
        """A request started for the first time: its prompt tokens, and those found in the prefix cache."""
        self._cache_queries.inc(queries)
        self._cache_hits.inc(hits)
        self._prompt_tokens.inc(queries)
        self._tokens_computed.inc(queries - hits)
        self._tokens_hit.inc(hits)
        self._tokens_cached.inc(hits)

    def step(self, *, generated: int, scheduled: int) -> None:
        """A step ended that ran `scheduled` tokens and yielded `generated` new ones."""
        self._generation_tokens.inc(generated)
        self._iteration.observe(scheduled)

    def first_token(self, seconds: float) -> None:
        """A request got its first token `seconds` after it arrived."""
        self._first_token.observe(seconds)

    def next_token(self, seconds: float) -> None:
        """A request got a further token `seconds` after the one before."""
        self._next_token.observe(seconds)

    def preempted(self) -> None:
        """A running sequence had to give its blocks back."""
        self._preemptions.inc()

    def asked(self, n: int) -> None:
        """A request asked for `n` answers."""
        self._request_n.observe(n)

    def ended(self, sequence: Sequence, now: float) -> None:
        """A sequence ended for `sequence.finished`; one that was aborted counts, but has no lengths or times to report."""
        assert sequence.finished is not None
        self._success[sequence.finished].inc()
        if sequence.finished == "abort" or sequence.admitted_at is None:
            return
        first = now if sequence.first_token_at is None else sequence.first_token_at
        self._request_prompt.observe(sequence.prompt_length)
        self._request_output.observe(sequence.produced)
        if sequence.requested is not None:
            self._request_params.observe(sequence.requested)
        if sequence.produced > 1:
            self._per_token.observe((now - first) / (sequence.produced - 1))
        self._e2e.observe(now - sequence.arrived_at)
        self._queue.observe(sequence.admitted_at - sequence.arrived_at)
        self._inference.observe(now - sequence.admitted_at)
        self._prefill.observe(first - sequence.admitted_at)
        self._decode.observe(now - first)

    def lora(self, running: str, waiting: str) -> None:
        """The adapters running and waited for changed; the series with the greatest value (a unix time) is the current one."""
        if self._lora_info is None:
            labels = ("max_lora", "running_lora_adapters", "waiting_lora_adapters")
            self._lora_info = Gauge("vllm:lora_requests_info", "Running stats on lora requests.", labels, registry=self._registry)
        self._lora_now = running, waiting
        # Two changes can fall into one tick of the clock; the later one must still be the greater.
        self._lora_stamp = max(self._wall_clock(), self._lora_stamp + 1e-6)
        self._lora_info.labels(self._max_loras, running, waiting).set(self._lora_stamp)

    def render(self, load: Load) -> bytes:
        """The page in the Prometheus text format."""
        self._running.set(load.running)
        self._waiting.set(load.waiting)
        self._waiting_capacity.set(load.waiting - load.deferred)
        self._waiting_deferred.set(load.deferred)
        self._kv_usage.set(load.kv_usage)
        if self._lora_now is not None:
            self.lora(*self._lora_now)
        return generate_latest(self._registry)

    def _cache_config(self, settings: Settings) -> None:
        blocks, size = settings.num_gpu_blocks, settings.block_size
        labels = {
            **CACHE_CONFIG_CONSTANTS,
            "block_size": str(size),
            "effective_attention_block_size": str(size),
            "enable_prefix_caching": str(settings.enable_prefix_caching),
            "engine": "0",
            "kv_cache_max_concurrency": str(round(blocks * size / settings.max_model_len, 2)),
            "kv_cache_size_tokens": str(blocks * size),
            "num_gpu_blocks": str(blocks),
            "num_gpu_blocks_override": str(blocks),
        }
        Gauge("vllm:cache_config_info", "Information of the KV cache.", tuple(labels), registry=self._registry).labels(**labels).set(1)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, tuple(self._labels), registry=self._registry).labels(**self._labels)

    def _gauges(self, name: str, text: str, label: str, values: tuple[str, ...]) -> dict[str, Gauge]:
        family = Gauge(f"vllm:{name}", text, (*self._labels, label), registry=self._registry)
        return {value: family.labels(**self._labels, **{label: value}) for value in values}

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, tuple(self._labels), registry=self._registry).labels(**self._labels)

    def _counters(self, name: str, text: str, label: str, values: tuple[str, ...]) -> dict[str, Counter]:
        family = Counter(f"vllm:{name}", text, (*self._labels, label), registry=self._registry)
        return {value: family.labels(**self._labels, **{label: value}) for value in values}

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] | list[float]) -> Histogram:
        family = Histogram(f"vllm:{name}", text, tuple(self._labels), buckets=tuple(buckets), registry=self._registry)
        return family.labels(**self._labels)
