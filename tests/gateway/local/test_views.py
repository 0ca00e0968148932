"""What the user reads: the decision table, the process table, the examples; and the first request's failures."""

import ast
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from gateway.address import HostPort
from gateway.local.child import Child
from gateway.local.decision import decision_view
from gateway.local.first_request import ask, decisions
from gateway.local.part import Part, answers_200
from gateway.local.plan import LocalSettings
from gateway.local.view import examples, stack_table
from tests.gateway.local.fake_part import decision

Handler = Callable[[httpx.Request], httpx.Response]


def shown(renderable: object) -> list[str]:
    """The lines a wide plain console prints."""
    console = Console(width=200, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def client_of(handler: Handler) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(handler))


def test_the_decision_table_marks_the_winner_and_says_why_others_were_left_out() -> None:
    lines = shown(decision_view(decision("r-1")))
    assert any("request r-1" in line and "decided in 87.5 µs" in line and "served by 10.0.0.2:8001" in line for line in lines)
    (winner,) = [line for line in lines if "◀ picked" in line]
    assert "10.0.0.2:8001" in winner
    assert "1.00×2" in winner
    (filtered,) = [line for line in lines if "10.0.0.3:8001" in line]
    assert "filtered by load-filter: too busy" in filtered


def test_a_record_with_holes_is_still_a_table() -> None:
    assert any("10.0.0.1:1" in line for line in shown(decision_view({"request_id": "r", "addresses": ["10.0.0.1:1"], "scorers": None})))


def test_the_process_table_joins_the_picker_s_view_by_address(tmp_path: Path) -> None:
    at = HostPort("127.0.0.1", 8001)
    part = Part(name="sim-0", role="model server", argv=("/bin/true",), address=at, ready=answers_200("http://127.0.0.1:1/"))
    child = Child(part, tmp_path / "log")
    load = {str(at): {"waiting": 4, "running": 5, "kv_usage": 0.5, "in_flight_requests": 6}}
    (row,) = [line for line in shown(stack_table([child], LocalSettings(), load)) if "sim-0" in line]
    assert row.split()[-4:] == ["4", "5", "50%", "6"]
    while child.exit_status is None:
        time.sleep(0.01)


def test_the_python_example_is_python_and_the_curl_body_is_json() -> None:
    text = examples(LocalSettings(), "some-model")
    ast.parse(text[text.index("from openai") : text.index("Decisions:")])
    body = text[text.index("-d '") + 4 :]
    assert json.loads(body[: body.index("'")])["model"] == "some-model"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(503, text="no healthy upstream"), "HTTP 503: no healthy upstream"),
        (httpx.Response(200, text="data: [DONE]\n\n"), "HTTP 200 without any text"),
        (httpx.Response(200, text="data: {not json\n\n"), "JSONDecodeError"),
    ],
)
async def test_a_first_request_that_fails_says_how(answer: httpx.Response, error: str) -> None:
    async with client_of(lambda _: answer) as client:
        result = await ask(client, "http://gateway", "m", lambda _: None)
    assert result.error is not None
    assert result.error.startswith(error)


async def test_a_gateway_that_is_not_there_is_an_error_and_no_exception() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with client_of(refuse) as client:
        result = await ask(client, "http://gateway", "m", lambda _: None)
    assert (result.status, result.error) == (None, "ConnectError: refused")


async def test_the_record_is_waited_for_until_it_is_settled() -> None:
    records = [{"decisions": []}, {"decisions": [{"cause": None}]}, {"decisions": [{"cause": "completed"}]}]
    async with client_of(lambda _: httpx.Response(200, json=records.pop(0))) as client:
        assert await decisions(client, "http://picker", "r") == [{"cause": "completed"}]
