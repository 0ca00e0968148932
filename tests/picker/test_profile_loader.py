"""Profiles of a configuration: what they may list (the rest is in test_loader)."""

from __future__ import annotations

import logging

import pytest

from tests.picker.test_loader import pipeline, shape


def test_a_profile_may_list_what_has_no_effect_there(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = pipeline(
            "plugins: [{type: openai-parser}, {type: queue-scorer}]\n"
            "schedulingProfiles: [{name: a, plugins: [{pluginRef: openai-parser}, {pluginRef: queue-scorer}]}]"
        )
    assert shape(made) == {"a": ([], [("queue-scorer", 1.0)], "max-score-picker")}
    assert [r.getMessage() for r in caplog.records] == [
        "epp.yaml:4: schedulingProfiles[0].plugins[0]: 'openai-parser' (openai-parser) is no filter, scorer or picker; "
        "listing it in a profile has no effect"
    ]
