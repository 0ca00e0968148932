"""Every metric fairlead's picker exposes: names, labels and buckets of the reference picker, legacy twins included.

The list is the endpoint-picker contract's section 7, for the features that exist. Dashboards made for the reference picker work
unchanged.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from picker.instruments import OTHER, Counter, Distribution, Gauge, Histogram, InstrumentCollector, LabelCap, Number, Twin

_GENERAL = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60, 120, 180, 240, 300, 360),
    *(480, 600, 900, 1200, 1800, 2700, 3600),
)
_TTFT = tuple([b for b in _GENERAL if b <= 120])
_SCHEDULER = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
_INPUT = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32778, 65536, 131072, 262144, 524288, 1048576)
_OUTPUT = tuple([b for b in _INPUT if b <= 8192])
_RESPONSE_SIZE = tuple([b for b in _INPUT if b <= 65536])
_REQUEST_SIZE = tuple([2**n for n in range(6, 31)])
_PER_TOKEN = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_TPOT = (0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 2)
_ITL = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2)
_REQUEST_PROCESSING = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_RESPONSE_PROCESSING = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_HIT_RATIO = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
_HIT_BYTES = (0, *[2**n for n in range(4, 17)])
_STREAM = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600)

_MAX_SERIES = 10_000

_L = ("model_name", "target_model_name", "fairness_id", "priority")
_OBJECTIVE = {"model_name": "model_name", "target_model_name": "target_model_name"}


def _objective(name: str, **more: str) -> list[Twin]:
    return [Twin(f"inference_objective_{name}", {**_OBJECTIVE, **more})]


def _same(prefix: str, name: str, labels: tuple[str, ...] = ()) -> list[Twin]:
    return [Twin(f"{prefix}_{name}", {label: label for label in labels})]


class Metrics:
    """The families, as attributes, and the registry they are scraped from."""

    def __init__(self, *, label_limit: int = 1000) -> None:
        p = "llm_d_epp_"
        self.request_total = Counter(p + "request_total", "Requests by model.", _L, _objective("request_total", priority="priority"))
        self.request_error_total = Counter(
            p + "request_error_total",
            "Requests that ended in an error, by model and error code.",
            (*_L, "error_code"),
            _objective("request_error_total", error_code="error_code"),
        )
        self.request_duration = Histogram(
            p + "request_duration_seconds", "Time from request headers to the end of the response.", _GENERAL, _L,
            _objective("request_duration_seconds"),
        )  # fmt: skip
        self.request_size = Histogram(p + "request_size_bytes", "Request body size.", _REQUEST_SIZE, _L, _objective("request_sizes"))
        self.response_size = Histogram(p + "response_size_bytes", "Response body size.", _RESPONSE_SIZE, _L, _objective("response_sizes"))
        self.input_tokens = Histogram(p + "request_input_tokens", "Prompt tokens.", _INPUT, _L, _objective("input_tokens"))
        self.output_tokens = Histogram(p + "request_output_tokens", "Generated tokens.", _OUTPUT, _L, _objective("output_tokens"))
        self.cached_tokens = Histogram(
            p + "request_cached_tokens", "Prompt tokens served from the prefix cache.", _INPUT, _L, _objective("prompt_cached_tokens")
        )
        self.running = Gauge(
            p + "request_running", "Requests in flight.", _L, [Twin("inference_objective_running_requests", {"model_name": "model_name"})]
        )
        self.ntpot = Histogram(
            p + "request_ntpot_seconds", "Request duration per generated token.", _PER_TOKEN, _L,
            _objective("normalized_time_per_output_token_seconds"),
        )  # fmt: skip
        self.ttft = Histogram(
            p + "request_ttft_seconds", "Time to first token.", _TTFT, (*_L, "streaming"), _objective("request_ttft_seconds")
        )
        self.tpot = Histogram(
            p + "request_streaming_tpot_seconds", "Mean time per output token after the first.", _TPOT, _L,
            _objective("request_tpot_seconds"),
        )  # fmt: skip
        self.itl = Histogram(p + "request_streaming_itl_seconds", "Time between streamed chunks.", _ITL, _L)

        pool, name = "inference_pool", ("name",)
        self.pool_kv = Gauge(p + "average_kv_cache_utilization", "Mean KV-cache utilization of the pool.", name,
                             _same(pool, "average_kv_cache_utilization", name))  # fmt: skip
        self.pool_queue = Gauge(p + "average_queue_size", "Mean waiting requests per endpoint.", name,
                                _same(pool, "average_queue_size", name))  # fmt: skip
        self.pool_running = Gauge(p + "average_running_requests", "Mean running requests per endpoint.", name,
                                  _same(pool, "average_running_requests", name))  # fmt: skip
        self.pool_kv_dev = Gauge(p + "std_dev_kv_cache_utilization", "Standard deviation of KV-cache utilization.", name)
        self.pool_queue_dev = Gauge(p + "std_dev_queue_size", "Standard deviation of waiting requests.", name)
        self.pool_running_dev = Gauge(p + "std_dev_running_requests", "Standard deviation of running requests.", name)
        self.pool_ready = Gauge(
            p + "ready_endpoints", "Endpoints that can be picked.", name, [Twin(f"{pool}_ready_pods", {"name": "name"})]
        )
        self.endpoint_queue = Gauge(
            p + "per_endpoint_queue_size", "Waiting requests of one endpoint.", ("name", "model_server_endpoint"),
            [Twin(f"{pool}_per_pod_queue_size", {"name": "name", "model_server_pod": "model_server_endpoint"})],
        )  # fmt: skip

        extension, plugin = "inference_extension", ("extension_point", "plugin_type", "plugin_name")
        self.scheduler_duration = Histogram(
            p + "scheduler_e2e_duration_seconds", "Scheduling time of one request.", _SCHEDULER, (),
            _same(extension, "scheduler_e2e_duration_seconds"),
        )  # fmt: skip
        attempts = ("status", "target_model_name", "endpoint_name", "namespace", "port")
        self.scheduler_attempts = Counter(
            p + "scheduler_attempts_total", "Scheduling attempts by outcome and endpoint.", attempts,
            [Twin(f"{extension}_scheduler_attempts_total", {("pod_name" if a == "endpoint_name" else a): a for a in attempts})],
        )  # fmt: skip
        self.plugin_duration = Histogram(
            p + "plugin_duration_seconds", "Time spent in one plugin.", _SCHEDULER, plugin,
            _same(extension, "plugin_duration_seconds", plugin),
        )  # fmt: skip
        self.request_processing = Histogram(
            p + "request_processing_duration_seconds", "Time to decide on one complete request.", _REQUEST_PROCESSING
        )
        self.response_processing = Histogram(
            p + "response_processing_duration_seconds", "Time spent on one response's messages.", _RESPONSE_PROCESSING
        )
        build = ("commit", "build_ref")
        self.info = Gauge(p + "info", "Build information.", build, _same(extension, "info", build))
        indexed = ("plugin_name", "plugin_type")
        self.prefix_size = Gauge(p + "prefix_indexer_size", "Blocks in the prefix index.", indexed, _same(extension, "prefix_indexer_size"))
        self.prefix_bytes = Gauge("fairlead_prefix_indexer_bytes", "Estimated memory of the prefix index.", indexed)
        self.prefix_evictions = Counter(
            "fairlead_prefix_indexer_evictions_total", "Blocks forgotten for want of memory, once per endpoint that held them.", indexed
        )
        self.prefix_hit_ratio = Histogram(
            p + "prefix_indexer_hit_ratio", "Part of the prompt found on the picked endpoint.", _HIT_RATIO, indexed,
            _same(extension, "prefix_indexer_hit_ratio"),
        )  # fmt: skip
        self.prefix_hit_bytes = Histogram(
            p + "prefix_indexer_hit_bytes", "Prompt bytes found on the picked endpoint.", _HIT_BYTES, indexed,
            _same(extension, "prefix_indexer_hit_bytes"),
        )  # fmt: skip
        datalayer = "llm_d_inference_scheduler"
        self.poll_errors = Counter(
            p + "datalayer_poll_errors_total", "Polls of a model server that failed.", ("source_type",),
            _same(datalayer, "datalayer_poll_errors_total", ("source_type",)),
        )  # fmt: skip
        extractor = ("source_type", "extractor_type")
        self.extract_errors = Counter(
            p + "datalayer_extract_errors_total", "Answers nothing could be extracted from.", extractor,
            _same(datalayer, "datalayer_extract_errors_total", extractor),
        )  # fmt: skip
        producer = ("endpoint_name", "namespace", "producer_name", "fairness_id", "priority")
        self.inflight_requests = Gauge(p + "inflight_requests", "Requests in flight on one endpoint.", producer)
        self.inflight_tokens = Gauge(p + "inflight_tokens", "Prompt tokens in flight on one endpoint.", producer)
        self.streams_inflight = Gauge(p + "extproc_streams_inflight", "Open ext_proc streams.")
        self.stream_duration = Histogram(p + "extproc_stream_duration_seconds", "Life of an ext_proc stream.", _STREAM)
        self.streams_total = Counter(p + "extproc_streams_total", "Ended ext_proc streams by gRPC status.", ("code",))
        self.unread_bodies = Counter(
            "fairlead_response_bodies_unread_total",
            "Response bodies that were not looked at: not_sent by the proxy, dropped at the picker's request, or passed unread.",
            ("how",),
        )
        self.scrapes = Counter("fairlead_scrapes_total", "Reads of model servers' metrics pages that were begun.")
        self.scrape_endpoints = Gauge("fairlead_scrape_endpoints", "Endpoints by the pace at which their metrics are read.", ("pace",))
        self.load_reports = Counter("fairlead_load_reports_total", "Loads that model servers reported with an answer.")
        called = ("plugin_type", "plugin_name", "extension_point")
        self.plugin_errors = Counter(
            "fairlead_plugin_errors_total", "Calls of foreign plugins that went wrong: raised, invalid or slow.", (*called, "kind")
        )
        self.plugin_taken_out = Gauge(
            "fairlead_plugin_taken_out", "1 while a foreign plugin is not called because it failed repeatedly.", called
        )
        self.config_reload_errors = Counter(
            "fairlead_reload_errors_total", "Reloads that were refused; the last good version stays in use.", ("source",)
        )

        self.cap_model = LabelCap(label_limit)
        self.cap_fairness = LabelCap(label_limit)
        self._series: dict[tuple[str, str, str, str], RequestSeries] = {}
        families = [f for f in vars(self).values() if isinstance(f, Counter | Gauge | Histogram)]
        self.collector = InstrumentCollector(families)
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self.collector)

    def series(self, model: str, target_model: str, fairness_id: str, priority: str) -> RequestSeries:
        """The cells one request feeds. Label values are capped."""
        key = (self.cap_model(model), self.cap_model(target_model), self.cap_fairness(fairness_id), priority)
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= _MAX_SERIES:
                # Each label alone is capped; clients could still fill memory with their combinations.
                key = (OTHER, OTHER, OTHER, priority)
            series = self._series.get(key) or self._series.setdefault(key, RequestSeries(self, key))
        return series

    def forget_endpoint(self, name: str, namespace: str) -> None:
        """The endpoint is gone for good: pods come and go, their series must not pile up."""
        self.scheduler_attempts.forget(endpoint_name=name, namespace=namespace)


class RequestSeries:
    """The cells of one label set L, looked up once per request."""

    __slots__ = (
        "_labels", "_metrics", "cached_tokens", "duration", "input_tokens", "itl", "ntpot", "output_tokens", "request_size",
        "response_size", "running", "total", "tpot",
    )  # fmt: skip

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str, str]) -> None:
        self._metrics = metrics
        self._labels = labels
        self.total: Number = metrics.request_total.cell(*labels)
        self.running: Number = metrics.running.cell(*labels)
        self.duration: Distribution = metrics.request_duration.cell(*labels)
        self.request_size: Distribution = metrics.request_size.cell(*labels)
        self.response_size: Distribution = metrics.response_size.cell(*labels)
        self.input_tokens: Distribution = metrics.input_tokens.cell(*labels)
        self.output_tokens: Distribution = metrics.output_tokens.cell(*labels)
        self.cached_tokens: Distribution = metrics.cached_tokens.cell(*labels)
        self.ntpot: Distribution = metrics.ntpot.cell(*labels)
        self.tpot: Distribution = metrics.tpot.cell(*labels)
        self.itl: Distribution = metrics.itl.cell(*labels)

    def error(self, code: str) -> None:
        """Count a request that ended in an error."""
        self._metrics.request_error_total.cell(*self._labels, code).value += 1

    def ttft(self, seconds: float, *, streaming: bool) -> None:
        """Observe a time to first token."""
        self._metrics.ttft.cell(*self._labels, "true" if streaming else "false").observe(seconds)
