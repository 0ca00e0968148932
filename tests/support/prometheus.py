"""Metrics pages as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Sample:
    """One line of a page."""

    name: str
    labels: Mapping[str, str]
    value: float


class Page:
    """A metrics page, from its text or from the registry that would write it."""

    def __init__(self, source: str | CollectorRegistry) -> None:
        families = text_string_to_metric_families(source) if isinstance(source, str) else source.collect()
        self.samples = [Sample(s.name, dict(s.labels), s.value) for family in families for s in family.samples]

    def find(self, name: str, **labels: str) -> list[Sample]:
        """All samples of this name that have at least these labels."""
        return [s for s in self.samples if s.name == name and labels.items() <= s.labels.items()]

    def value(self, name: str, **labels: str) -> float:
        """The sum of `find`; 0 when there is none."""
        return sum(sample.value for sample in self.find(name, **labels))

    def __contains__(self, name: str) -> bool:
        return bool(self.find(name))


async def metrics(url: str) -> Page:
    """What is served at `url`, e.g. `http://127.0.0.1:9090/metrics`."""
    async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
        answer = await client.get(url)
        answer.raise_for_status()
        return Page(answer.text)
