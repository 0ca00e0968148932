"""A decision of the picker as a table: why this endpoint and not another."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Decision = Mapping[str, Any]


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"


def _at(values: Sequence[Any] | None, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None


def _summary(decision: Decision) -> Text:
    model, target = decision.get("model"), decision.get("target_model")
    facts = [
        ("request", decision.get("request_id")),
        ("model", model if target in (None, "", model) else f"{model} → {target}"),
        ("path", decision.get("path")),
        ("profile", decision.get("profile")),
        ("decided in", None if decision.get("duration_us") is None else f"{_number(decision['duration_us'])} µs"),
        ("served by", decision.get("served")),
        ("ended", decision.get("cause")),
        ("prompt tokens", decision.get("prompt_tokens")),
        ("completion tokens", decision.get("completion_tokens")),
        ("first token after", None if decision.get("ttft_s") is None else f"{decision['ttft_s'] * 1000:.0f} ms"),
    ]
    return Text("  ".join(f"{label} {value}" for label, value in facts if value is not None))


def _scores(decision: Decision, index: int) -> list[str]:
    cells = []
    for scorer in decision.get("scorers") or []:
        score, weight = _at(scorer.get("scores"), index), scorer.get("weight", 1)
        cells.append("–" if score is None else f"{score:.2f}×{weight:g}")
    return cells


def _heading(scorer: Mapping[str, Any]) -> str:
    # In words, so that a narrow terminal breaks it between them.
    return str(scorer.get("name") or scorer.get("type")).removesuffix("-scorer").replace("-", " ")


def _table(decision: Decision) -> Table:
    scorers = decision.get("scorers") or []
    picked = set(decision.get("picked") or [])
    filtered = {entry.get("endpoint") for entry in decision.get("filtered") or []}
    # The address is shorter than the name, and it is what logs and headers show.
    endpoints = list(decision.get("addresses") or decision.get("candidates") or [])
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("endpoint", no_wrap=True)
    for scorer in scorers:
        table.add_column(_heading(scorer), justify="right", overflow="fold")
    table.add_column("total", justify="right")
    table.add_column("", no_wrap=True)
    for index, endpoint in enumerate(endpoints):
        if endpoint in filtered:
            continue
        won = endpoint in picked
        cells = [str(endpoint), *_scores(decision, index), _number(_at(decision.get("totals"), index)), "◀ picked" if won else ""]
        table.add_row(*cells, style="bold green" if won else None)
    return table


def decision_view(decision: Decision) -> RenderableType:
    """One row per endpoint, one column per scorer (score × weight), the total, and the winner marked; then those filtered out."""
    left_out = [
        Text(f"{entry.get('endpoint')}: filtered by {entry.get('by')}: {entry.get('reason')}", style="dim")
        for entry in decision.get("filtered") or []
    ]
    return Group(_summary(decision), _table(decision), *left_out)
