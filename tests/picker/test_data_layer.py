"""`dataLayer` of the configuration: references, defaults, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from picker.config import DataLayerSpec, SourceSpec
from picker.core import Core
from picker.data_layer import data_layer
from picker.datalayer.extractor_plugins import CoreMetricsExtractor
from picker.datalayer.parts import DataLayerParts
from picker.endpoint import Endpoint
from picker.errors import ConfigError
from picker.loader import load
from picker.metrics import Metrics
from picker.settings import parse
from picker.views import views
from picker.yaml_source import YamlSource
from tests.picker.datalayer.servers import until
from tests.support.ports import free_port

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
ALL = (
    "plugins: [{type: metrics-data-source}, {type: core-metrics-extractor}, {type: models-data-source}, {type: models-data-extractor},"
    " {type: endpoint-notification-source}, {type: queue-scorer}, {type: file-discovery, parameters: {path: e.yaml}}]\n"
)


def parts(body: str) -> DataLayerParts:
    return load(YamlSource(HEAD + body, "epp.yaml"), Metrics()).data


def shape(body: str) -> dict[str, list[str]]:
    return {source.source.name: source.extractor_types for source in parts(body).sources}


DEFAULT = {"metrics-data-source": ["core-metrics-extractor"]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", DEFAULT),
        ("dataLayer: {}", DEFAULT),
        ("dataLayer: {injectDefaults: false}", {}),
        (ALL + "dataLayer: {sources: [{pluginRef: metrics-data-source}]}", DEFAULT),
        (
            ALL + "dataLayer: {sources: [{pluginRef: models-data-source}]}",
            {"models-data-source": ["models-data-extractor"], **DEFAULT},
        ),
        (
            ALL + "dataLayer: {injectDefaults: false, sources: [{pluginRef: models-data-source,"
            " extractors: [{pluginRef: models-data-extractor}]}]}",
            {"models-data-source": ["models-data-extractor"]},
        ),
    ],
)
def test_sources_and_defaults(body: str, expected: dict[str, list[str]]) -> None:
    assert shape(body) == expected


def test_a_declared_extractor_is_the_one_that_is_injected() -> None:
    made = parts(
        "plugins:\n- type: core-metrics-extractor\n  name: mine\n  parameters:\n    defaultEngine: x\n"
        "    engineConfigs: [{name: x, queuedRequestsSpec: q, customMetrics: [{attributeKey: k, metricSpec: 'm{a=b}'}]}]\n"
    )
    (source,) = made.sources
    assert isinstance(source.core, CoreMetricsExtractor)
    assert source.core.name == "mine"
    assert source.core.engines.extractor({}).engine == "x"


def test_what_is_declared_and_not_listed_is_said(caplog: pytest.LogCaptureFixture) -> None:
    parts(ALL)
    for name in ("models-data-source", "models-data-extractor", "endpoint-notification-source"):
        assert f"plugin '{name}' ({name}) is not used: dataLayer.sources does not list it" in caplog.text
    assert "plugin 'metrics-data-source'" not in caplog.text


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("{sources: [{}]}", "dataLayer.sources[0]: data source is missing a 'pluginRef'"),
        (
            "{sources: [{pluginRef: metrics-data-sorce}]}",
            "references undefined plugin 'metrics-data-sorce'; did you mean 'metrics-data-source'?",
        ),
        ("{sources: [{pluginRef: queue-scorer}]}", "'queue-scorer' (queue-scorer) is not a data source"),
        ("{sources: [{pluginRef: metrics-data-source}, {pluginRef: metrics-data-source}]}", "'metrics-data-source' is listed twice"),
        ("{sources: [{pluginRef: metrics-data-source, extractors: [{}]}]}", "extractor is missing a 'pluginRef'"),
        ("{sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: queue-scorer}]}]}", "is not an extractor"),
        (
            "{sources: [{pluginRef: models-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]}",
            "extractor 'core-metrics-extractor' (core-metrics-extractor) does not fit 'models-data-source' (models-data-source)",
        ),
        (
            "{sources: [{pluginRef: endpoint-notification-source, extractors: [{pluginRef: models-data-extractor}]}]}",
            "does not fit 'endpoint-notification-source'",
        ),
        ("{sources: [{pluginRef: endpoint-notification-source}]}", "'endpoint-notification-source' has no extractors"),
        ("{injectDefaults: false, sources: [{pluginRef: models-data-source}]}", "'models-data-source' has no extractors"),
        ("{discovery: {pluginRef: queue-scorer}}", "dataLayer.discovery: 'queue-scorer' (queue-scorer) is not a discovery plugin"),
        ("{discovery: {}}", "dataLayer.discovery: discovery is missing a 'pluginRef'"),
        ("{discovery: {pluginRef: nope}}", "references undefined plugin 'nope'"),
    ],
)
def test_what_cannot_work_is_refused(layer: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parts(f"{ALL}dataLayer: {layer}")
    text = str(error.value)
    assert text.startswith("epp.yaml:4: dataLayer")
    assert message in text


def test_two_sources_with_the_load_of_endpoints_are_refused() -> None:
    two = "plugins: [{type: metrics-data-source, name: a}, {type: metrics-data-source, name: b}, {type: core-metrics-extractor}]\n"
    core = "extractors: [{pluginRef: core-metrics-extractor}]"
    with pytest.raises(ConfigError, match="only one source can have a core-metrics-extractor, not a, b"):
        parts(f"{two}dataLayer: {{sources: [{{pluginRef: a, {core}}}, {{pluginRef: b, {core}}}]}}")


def test_a_bad_spec_names_the_place() -> None:
    with pytest.raises(ConfigError, match=r"epp.yaml:\d+: plugins\[0\].parameters: engine 'x', queuedRequestsSpec: metric spec 'a\{'"):
        parts("plugins:\n- type: core-metrics-extractor\n  parameters:\n    engineConfigs: [{name: x, queuedRequestsSpec: 'a{'}]\n")


@pytest.mark.parametrize("interval_s", [0.0, 0.01, float("inf"), float("nan")])
def test_a_source_in_python_that_would_be_polled_without_rest_is_refused(interval_s: float) -> None:
    class Mine:
        type = name = "mine"

        async def fetch(self, endpoint: Endpoint) -> bytes:
            return b""

        async def close(self) -> None: ...

    mine = Mine()
    mine.interval_s = interval_s  # type: ignore[attr-defined]

    class Plugins:
        def get(self, name: str) -> Any:
            return mine

        def default(self, type_: str) -> Any:
            raise AssertionError(type_)

        def declared(self) -> dict[str, Any]:
            return {"mine": mine}

    spec = DataLayerSpec(sources=(SourceSpec("mine"),))
    with pytest.raises(ConfigError, match=r"dataLayer.sources\[0\]: 'mine': interval_s is .*, expected at least 0.05 s"):
        data_layer(spec, Plugins(), lambda path: path)


# ---- discovery


def discovery(path: Path, *, watch: bool = True) -> str:
    return (
        f"{HEAD}plugins: [{{type: file-discovery, parameters: {{path: {path}, watchFile: {str(watch).lower()}}}}}]\n"
        "dataLayer: {discovery: {pluginRef: file-discovery}}\n"
    )


async def test_file_discovery_takes_the_place_of_the_flags(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"
    path.write_text("endpoints:\n- {name: a, address: 10.0.0.1, port: 8000}\n")
    core = Core(parse(["--config-text", discovery(path)]))
    (source,) = core.sources
    await source.start(core.datastore)
    assert [state.endpoint.host_port for state in core.datastore.states()] == ["10.0.0.1:8000"]


@pytest.mark.parametrize("flag", [["--endpoints", "10.0.0.1:1"], ["--endpoints-file", "x.yaml"]])
def test_discovery_and_a_flag_exclude_each_other(flag: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataLayer.discovery and --endpoints or --endpoints-file exclude each other"):
        Core(parse(["--config-text", discovery(tmp_path), *flag]))


def test_neither_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no endpoints: give --endpoints .*, or dataLayer.discovery in the configuration"):
        Core(parse(["--config-text", HEAD]))


# ---- the whole of it


LEARNING = """\
plugins:
- {type: metrics-data-source, parameters: {interval: 50ms}}
- type: core-metrics-extractor
  parameters:
    engineConfigs:
    - {name: vllm, queuedRequestsSpec: q, customMetrics: [{attributeKey: heat, metricSpec: heat}]}
- {type: models-data-source, parameters: {interval: 50ms}}
- {type: models-data-extractor}
dataLayer:
  sources:
  - {pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}
  - {pluginRef: models-data-source, extractors: [{pluginRef: models-data-extractor}]}
"""


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"GET /metrics "):
                status, body = b"200 OK", b"q 3\nheat 40.5\n"
            else:
                status, body = b"200 OK", b'{"data": [{"id": "base"}]}'
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def test_what_is_learned_is_shown_and_failures_are_counted() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    core = Core(parse(["--config-text", HEAD + LEARNING, "--endpoints", f"127.0.0.1:{port},127.0.0.1:{free_port()}"]))
    try:
        await core.sources[0].start(core.datastore)
        core.collector.start()
        polls = [core.metrics.poll_errors.cell(type_) for type_ in ("metrics-data-source", "models-data-source")]
        first = core.datastore.find(f"127.0.0.1:{port}")
        assert first is not None
        await until(lambda: bool(first.metrics.attributes and first.metrics.names and polls[0].value and polls[1].value))
        _, page = views(core)["/debug/endpoints"]({})
        learned = next(e for e in page["endpoints"] if e["address"].endswith(f":{port}"))
        assert (learned["waiting"], learned["attributes"]) == (3, {"heat": 40.5})
        assert learned["names"] == {"models": ["base"], "base-models": []}
    finally:
        await core.collector.stop()
        server.close()
