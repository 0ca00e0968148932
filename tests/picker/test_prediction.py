"""What a producer of predictions may leave."""

from __future__ import annotations

from math import inf, nan

import pytest

from picker.prediction import LatencyPrediction, prediction
from tests.picker.scheduling.pool import idle, request
from tests.picker.scheduling.predictions import NONE, predict

POOL = idle(2)


@pytest.mark.parametrize(
    ("column", "text"), [([1.0], "1 predictions for 2 endpoints"), ([1.0, nan], "NaN"), ([None, inf], "NaN or infinite")]
)
@pytest.mark.parametrize("place", range(4))
def test_columns_are_aligned_and_finite(column: list[float | None], text: str, place: int) -> None:
    columns: list[list[float | None]] = [[1.0, None]] * 4
    LatencyPrediction(POOL, *columns)
    columns = [*columns[:place], column, *columns[place + 1 :]]
    with pytest.raises(ValueError, match=text) as error:
        LatencyPrediction(POOL, *columns)
    assert str(error.value).startswith(("ttft_ms", "tpot_ms", "ttft_headroom_ms", "tpot_headroom_ms")[place] + ":")


def test_it_is_found_by_those_who_look_at_the_same_endpoints(caplog: pytest.LogCaptureFixture) -> None:
    asked = predict(request(), POOL, [(1, -2), NONE])
    found = prediction(asked, POOL)
    assert found is not None and found.headrooms == [(1, -2), None]
    assert prediction(asked, idle(2)) is None
    assert prediction(request(), POOL) is None
    assert not caplog.records
    asked.working["latency-prediction"] = {"e1": 5}
    assert prediction(asked, POOL) is None
    assert "'latency-prediction' holds a dict" in caplog.text
