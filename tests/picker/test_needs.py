"""What plugins need from each other, as the loader checks and connects it."""

from __future__ import annotations

from pathlib import Path

import pytest

from picker.errors import BadRequest, Internal, Rejected
from picker.loader import Options, Pipeline, load
from picker.metrics import Metrics
from picker.yaml_source import YamlSource
from tests.picker.scheduling.pool import idle, request
from tests.picker.test_loader import HEAD, NEEDS_PREDICTIONS, pipeline, refused

PROFILES = """
schedulingProfiles:
- {name: prefill, plugins: [{pluginRef: queue-scorer}]}
- {name: decoding, plugins: [{pluginRef: queue-scorer}]}
"""


def by_header(parameters: str = "", more: str = "") -> str:
    return f"plugins:\n- type: queue-scorer\n- type: header-profile-handler\n  parameters: {{{parameters}}}\n{PROFILES}{more}"


@pytest.mark.parametrize(("parameters", "wanted"), [("", "decode"), ("defaultProfile: prefil", "prefil")])
def test_the_default_profile_must_exist(parameters: str, wanted: str) -> None:
    text = refused(by_header(parameters))
    assert text.startswith("epp.yaml:5: plugins[1].parameters")
    assert text.endswith(f"parameters.defaultProfile: '{wanted}' is not one of the scheduling profiles: prefill, decoding")


def test_an_unknown_profile_is_400_or_as_the_reference_says() -> None:
    asked = request()
    asked.headers = {"epp-profile": "other"}
    for more, kind, text in (
        ("", BadRequest, "unknown scheduling profile 'other': epp-profile must be one of prefill, decoding"),
        ("compat: reference\n", Rejected, "failed to find target endpoint: unknown scheduling profile 'other'"),
    ):
        made = pipeline(by_header("defaultProfile: prefill", more))
        with pytest.raises(kind, match=text):
            made.stages.scheduler.handler.profiles(asked, ("prefill", "decoding"))


def test_a_scorer_and_a_filter_share_the_sessions() -> None:
    made = pipeline(
        "plugins:\n- {type: session-affinity-scorer, parameters: {strategy: session_id}}\n"
        "- {type: session-affinity-filter, parameters: {strategy: session_id}}"
    )
    scorer, filter_ = (made.built[f"session-affinity-{what}"].plugin for what in ("scorer", "filter"))
    assert scorer.sessions is filter_.sessions is not None


def test_a_session_id_that_nobody_reads_is_refused() -> None:
    affinity = "plugins:\n- {type: session-affinity-scorer, parameters: {strategy: session_id, sources: [{attribute: session-id"
    text = refused(f"{affinity}}}]}}}}")
    assert text.startswith(
        "epp.yaml:4: plugins[0]: 'session-affinity-scorer' (session-affinity-scorer) consumes 'session-id', which no plugin produces: "
    )
    assert "configure a session-id-producer" in text
    assert "references undefined plugin 'chat'" in refused(f"{affinity}, producer: chat}}]}}}}")
    wrong = "\n- {type: agent-identity, name: chat}"
    assert "needs a session-id-producer, but 'chat' is a agent-identity" in refused(f"{affinity}, producer: chat}}]}}}}{wrong}")
    right = "\n- {type: session-id-producer, name: chat, parameters: {headerName: x-chat}}"
    pipeline(f"{affinity}, producer: chat}}]}}}}{right}")


PREDICTOR = """
from fairlead.plugin import LatencyPrediction

class Predictor:
    produces = frozenset({"latency-prediction"})

    def produce(self, request, candidates):
        times = [10.0 * (i + 1) for i in range(len(candidates))]
        request.working["latency-prediction"] = LatencyPrediction(
            candidates.snapshot, times, times, [25 - t for t in times], [25 - t for t in times]
        )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("plugins")
    (made / "wiring_predictor.py").write_text(PREDICTOR)
    return made


def with_predictor(folder: Path, *types: str, more: str = "") -> Pipeline:
    plugins = "".join(f"- type: {type_}\n" for type_ in ("wiring_predictor.Predictor", *types))
    return load(YamlSource(f"{HEAD}plugins:\n{plugins}{more}", "epp.yaml"), Metrics(), Options(plugin_paths=[folder]))


@pytest.mark.parametrize("type_", sorted(NEEDS_PREDICTIONS))
def test_predictions_need_a_producer(type_: str, folder: Path) -> None:
    assert refused(f"plugins: [{{type: {type_}}}]") == (
        f"epp.yaml:3: plugins[0]: '{type_}' ({type_}) consumes 'latency-prediction', which no plugin produces: predicted-latency-producer "
        "comes with a later version; a DataProducer of your own that leaves one will do"
    )
    assert with_predictor(folder, type_).built[type_]


def test_so_does_the_prefix_filter_when_it_is_to_look_at_them(folder: Path) -> None:
    text = "- type: prefix-cache-affinity-filter\n  parameters: {ttftSource: latencyPredictor}"
    assert "consumes 'latency-prediction'" in refused(f"plugins:\n{text}")
    assert with_predictor(folder, more=text).built["prefix-cache-affinity-filter"]


def test_a_producer_of_ones_own_is_listened_to(folder: Path) -> None:
    made = with_predictor(folder, "slo-headroom-tier-filter", "latency-scorer", more="  parameters: {headroomSelectionStrategy: most}\n")
    made.stages.scheduler.profiles["default"].filters[0]._draw = lambda: 1.0  # type: ignore[attr-defined]
    asked, everybody = request(), idle(4).candidates()
    for producer, _ in made.stages.producers:
        producer.produce(asked, everybody)
    result = made.stages.scheduler.schedule(asked, everybody)
    assert [e.name for e in result.candidates] == ["e1", "e2"]  # 10 and 20 ms of 25
    assert result.totals == [1.0, 0.01]


def test_the_admitters_refusal_is_as_the_reference_says(folder: Path) -> None:
    made = with_predictor(folder, "latency-slo-admitter", more="compat: reference\n")
    assert made.stages.admitters[0][0].refuse is Internal  # type: ignore[attr-defined]
    made = with_predictor(folder, "latency-slo-admitter")
    assert isinstance(made.stages.admitters[0][0].refuse("x"), Rejected)  # type: ignore[attr-defined]


def test_ranks_are_in_one_profile() -> None:
    text = refused(f"plugins: [{{type: queue-scorer}}, {{type: data-parallel-profile-handler}}]{PROFILES}")
    assert text == "epp.yaml:4: schedulingProfiles: DataParallelProfileHandler cannot support multiple scheduling profiles"
