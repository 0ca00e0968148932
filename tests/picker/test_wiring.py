"""What plugins need from each other, as the loader checks and connects it."""

from __future__ import annotations

import pytest

from picker.errors import BadRequest, Rejected
from tests.picker.scheduling.pool import request
from tests.picker.test_loader import pipeline, refused

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
    assert text.startswith("epp.yaml:6: plugins[1].parameters")
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
    assert text.startswith("epp.yaml:4: plugins[0]: 'session-affinity-scorer' needs the data 'session-id', and no plugin produces it: ")
    assert "configure a session-id-producer" in text
    assert "references undefined plugin 'chat'" in refused(f"{affinity}, producer: chat}}]}}}}")
    wrong = "\n- {type: agent-identity, name: chat}"
    assert "needs a session-id-producer, but 'chat' is a agent-identity" in refused(f"{affinity}, producer: chat}}]}}}}{wrong}")
    right = "\n- {type: session-id-producer, name: chat, parameters: {headerName: x-chat}}"
    pipeline(f"{affinity}, producer: chat}}]}}}}{right}")
