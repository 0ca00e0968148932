"""Fake pods, the picker process in front of them, and a client that stands where the proxy stands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ext_proc import ExtProcClient
from tests.support.model_server import FakeModelServer, Load, model_servers
from tests.support.picker_process import PickerProcess
from tests.support.waiting import until

SCORERS = ("queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer", "lora-affinity-scorer")


def config_text(parser: str = "openai-parser", more: str = "") -> str:
    """The configuration of the reference picker's hermetic tests, which compare header changes with nothing added; `more` are YAML lines
    of further plugins."""
    plugins = "".join(f"- type: {name}\n" for name in (*SCORERS, parser))
    profile = "".join(f"  - pluginRef: {name}\n" for name in SCORERS)
    head = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
    return f"{head}plugins:\n{plugins}{more}schedulingProfiles:\n- name: default\n  plugins:\n{profile}compat: reference\n"


@dataclass
class Setting:
    """`pods[i]` is the i-th fake pod."""

    pods: Sequence[FakeModelServer]
    picker: PickerProcess
    client: ExtProcClient

    def at(self, index: int) -> str:
        """The address of pod i; for an index beyond the last, one where nothing is."""
        if index < len(self.pods):
            return self.pods[index].address
        return f"127.0.1.{index + 1}:{self.pods[0].port if self.pods else 1}"

    async def scraped(self) -> None:
        """Returns when the picker knows what every pod says of itself."""

        def knows(known: dict[str, Any], load: Load) -> bool:
            values = (known["waiting"], known["running"], known["kv_usage"], known["active_adapters"], known["metrics_age_s"] is not None)
            return values == (load.queue, load.running, load.kv, sorted(load.adapters), True)

        async def all_known() -> bool:
            endpoints = await self.picker.endpoints()
            return all(knows(endpoints[pod.address], pod.load) for pod in self.pods)

        await until(all_known, "the picker has scraped every pod")


@asynccontextmanager
async def setting(
    *loads: Load,
    parser: str = "openai-parser",
    flags: Sequence[str] = (),
    config: str | None = None,
    config_file: Path | None = None,
    more: str = "",
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Setting]:
    """`config` is a whole document in place of the hermetic tests'.

    Pods at 127.0.1.(i+1) with these loads, a picker that has scraped them, a client; no loads: no endpoints."""
    async with model_servers(*loads) as pods:
        # A host name that never resolves stands for a pool without pods.
        endpoints = ",".join([pod.address for pod in pods]) or "nowhere.invalid:8000"
        chosen = ["--config-file", str(config_file)] if config_file is not None else ["--config-text", config or config_text(parser, more)]
        async with (
            PickerProcess("--endpoints", endpoints, *chosen, *flags, environ=environ) as picker,
            ExtProcClient(picker.target) as client,
        ):
            made = Setting(pods, picker, client)
            await made.scraped()
            yield made
