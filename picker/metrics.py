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

_QUEUE_TIME = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_CONFIRMATION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_MAX_SERIES = 10_000

_L = ("model_name", "target_model_name", "fairness_id", "priority")
_OBJECTIVE = {"model_name": "model_name", "target_model_name": "target_model_name"}


def _objective(name: str, **more: str) -> list[Twin]:
    return [Twin(f"inference_objective_{name}", {**_OBJECTIVE, **more})]


def _same(prefix: str, name: str, labels: tuple[str, ...] = ()) -> list[Twin]:
    return [Twin(f"{prefix}_{name}", {label: label for label in labels})]


class Metrics:
    """The families, as attributes, and the registry they are scraped from."""

    def __init__(self, *, label_limit: int = 1000, legacy: bool = True, streams: bool = True) -> None:
        """At most `label_limit` different models and fairness ids. `legacy`: under their old names, too; `streams`: those of ext_proc."""
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
        rewrite = ("model_rewrite_name", "model_name", "target_model")
        self.model_rewrites = Counter(
            p + "model_rewrite_decisions_total", "Requests whose model an InferenceModelRewrite chose.", rewrite,
            _same(extension, "model_rewrite_decisions_total", rewrite),
        )  # fmt: skip
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
        self.encoder_queries = Counter(
            p + "encoder_cache_queries_total", "Media looked up in the index of encoder caches.", ("plugin_type", "plugin_name", "modality")
        )
        self.encoder_hits = Counter(
            p + "encoder_cache_hits_total", "Those that an endpoint has probably encoded before, for each such endpoint.",
            ("plugin_type", "plugin_name", "pod", "modality"),
        )  # fmt: skip
        self.encoder_hit_ratio = Histogram(
            p + "encoder_cache_hit_ratio", "Part of a request's media that an endpoint has probably encoded before, for each candidate.",
            _HIT_RATIO, ("plugin_type", "plugin_name"),
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
        flow, pooled = p + "flow_control_", ("inference_pool",)
        queued = ("fairness_id", "priority", "inference_pool", "model_name", "target_model_name")
        timed = ("fairness_id", "priority", "outcome", "inference_pool", "model_name", "target_model_name")
        ranked = ("priority", "inference_pool")
        self.flow_queue_time = Histogram(
            flow + "request_queue_duration_seconds", "Time in the queue, by how it ended.", _QUEUE_TIME, timed,
            _same(extension, "flow_control_request_queue_duration_seconds", timed),
        )  # fmt: skip
        self.flow_cycle = Histogram(
            flow + "dispatch_cycle_duration_seconds", "Time of one dispatch cycle.", _SCHEDULER, (),
            _same(extension, "flow_control_dispatch_cycle_duration_seconds"),
        )  # fmt: skip
        enqueued = ("fairness_id", "priority", "outcome")
        self.flow_enqueue = Histogram(
            flow + "request_enqueue_duration_seconds", "Time to queue a request, and to let it in at once.", _SCHEDULER, enqueued,
            _same(extension, "flow_control_request_enqueue_duration_seconds", enqueued),
        )  # fmt: skip
        self.flow_queue_size = Gauge(
            flow + "queue_size", "Requests that wait.", queued, _same(extension, "flow_control_queue_size", queued)
        )
        self.flow_queue_bytes = Gauge(
            flow + "queue_bytes", "Bytes of requests that wait.", queued, _same(extension, "flow_control_queue_bytes", queued)
        )
        self.flow_saturation = Gauge(
            flow + "pool_saturation", "How full the pool is, by stage; effective is the fuller one.", ("inference_pool", "stage"),
            [Twin(f"{extension}_flow_control_pool_saturation", {"inference_pool": "inference_pool", "stage": "stage"})],
        )  # fmt: skip
        self.flow_stale = Gauge(
            flow + "stale_endpoints", "Endpoints that count as full because nothing new is known of them.", ("detector",)
        )
        self.flow_capacity_requests = Gauge(flow + "capacity_utilization_requests", "Part of a band's places that is taken.", ranked)
        self.flow_capacity_bytes = Gauge(flow + "capacity_utilization_bytes", "Part of a band's bytes that is taken.", ranked)
        self.flow_global_requests = Gauge(flow + "global_capacity_utilization_requests", "Part of all places that is taken.", pooled)
        self.flow_global_bytes = Gauge(flow + "global_capacity_utilization_bytes", "Part of all bytes that is taken.", pooled)
        self.flow_requests = Counter(flow + "requests_total", "Requests by how their time in the queue ended.", ("outcome", *ranked))
        self.revocations_issued = Counter(flow + "revocations_issued_total", "Requests on their way that were told to go.", ranked)
        self.revocations = Counter(flow + "revocations_total", "Revocations by what came of them.", ("outcome", *pooled))
        self.reclaim_target = Gauge(flow + "reclaim_target", "Requests that would make the room that is wanted.", pooled)
        self.pending_reclaim = Gauge(flow + "pending_reclaim", "Revocations that are not confirmed yet.", pooled)
        self.revocation_confirmation = Histogram(
            flow + "revocation_confirmation_seconds", "Time until a revoked request has ended.", _CONFIRMATION, pooled
        )
        self.program_jain = Gauge(p + "program_aware_jains_fairness_index", "Jain's index of the service that programs have been given.")
        self.program_wait = Gauge(p + "program_aware_avg_wait_time_milliseconds", "Mean wait of a program's requests.", ("program_id",))
        self.program_service = Gauge(p + "program_aware_attained_service_tokens", "Service of a program, decayed.", ("program_id",))
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
        self.config_info = Gauge("fairlead_config_info", "Always 1; the configuration in use by the beginning of its SHA-256.", ("sha256",))
        self.config_loaded = Gauge("fairlead_config_loaded_timestamp_seconds", "Unix time at which the configuration in use was loaded.")
        self.config_stale = Gauge("fairlead_config_stale", "1 when the configuration file has changed and could not be used.")
        self.attribute_errors = Counter(
            "fairlead_request_attribute_errors_total", "Request attributes that could not be computed from an answer.", ("plugin_name",)
        )
        self.preparation_failures = Counter(
            "fairlead_preparation_failures_total",
            "Requests that went on without a producer's data: timeout, error, or busy (too many were being prepared).",
            ("plugin_name", "plugin_type", "reason"),
        )
        self.preparing = Gauge("fairlead_requests_in_preparation", "Requests that wait for data producers that ask somebody else.")
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
        if not streams:
            families = [f for f in families if not f.name.startswith(p + "extproc_stream")]
        if not legacy:
            for family in families:
                family.twins = ()
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

    def count_rewrite(self, name: str, model: str, target: str) -> None:
        """An InferenceModelRewrite called `name` chose `target`. The model is the client's word, so it is capped."""
        self.model_rewrites.cell(name, self.cap_model(model), target).value += 1

    def forget_endpoint(self, name: str, namespace: str) -> None:
        """The endpoint is gone for good: pods come and go, their series must not pile up."""
        self.scheduler_attempts.forget(endpoint_name=name, namespace=namespace)
        self.encoder_hits.forget(pod=f"{namespace}/{name}")


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
