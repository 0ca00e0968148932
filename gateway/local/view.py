"""What runs, as a live table on a terminal and as plain lines elsewhere; and examples to try."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway.local.child import Child
from gateway.local.plan import LocalSettings

REFRESH_S = 1.0

Load = Mapping[str, Mapping[str, Any]]


async def endpoint_load(client: httpx.AsyncClient, picker_url: str) -> Load:
    """The picker's view of each model server, by address; empty when it does not answer."""
    try:
        endpoints = (await client.get(f"{picker_url}/debug/endpoints")).json()["endpoints"]
        return {endpoint["address"]: endpoint for endpoint in endpoints}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return {}


def _uptime(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _load_cells(load: Mapping[str, Any] | None) -> list[str]:
    if load is None:
        return ["", "", "", ""]
    kv = load.get("kv_usage")
    cells = [str(load.get(key, "")) for key in ("waiting", "running", "in_flight_requests")]
    return [cells[0], cells[1], "" if kv is None else f"{kv:.0%}", cells[2]]


def stack_table(children: Sequence[Child], settings: LocalSettings, load: Load) -> Table:
    """One row per process, and per model server that is not ours."""
    table = Table(title="fairlead up (Ctrl-C stops everything)", header_style="bold", title_justify="left", box=SIMPLE_HEAD)
    for column in ("name", "address", "pid", "up"):
        table.add_column(column, no_wrap=True)
    for column in ("waiting", "running", "kv", "in flight"):
        table.add_column(column, justify="right")
    for child in children:
        address = str(child.part.address)
        cells = _load_cells(load.get(address))
        table.add_row(child.part.name, address, str(child.pid), _uptime(child.uptime_s()), *cells)
    for at in settings.endpoints:
        table.add_row("model server", str(at), "", "", *_load_cells(load.get(str(at))))
    return table


def stack_lines(children: Sequence[Child]) -> list[str]:
    """The same, plain."""
    return [f"{child.part.name}  {child.part.role}  {child.part.address}  pid {child.pid}" for child in children]


def examples(settings: LocalSettings, model: str) -> str:
    """A request with curl and the same with the openai SDK."""
    return f"""\
Try it:

curl -sN {settings.gateway_url}/v1/chat/completions -H 'content-type: application/json' \\
  -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'

from openai import OpenAI
client = OpenAI(base_url="{settings.gateway_url}/v1", api_key="none")
for chunk in client.chat.completions.create(
    model="{model}", messages=[{{"role": "user", "content": "Hello"}}], stream=True
):
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="")

Decisions: {settings.picker_url}/debug/decisions   Metrics: {settings.picker_url}/metrics
"""


async def live(console: Console, children: Sequence[Child], settings: LocalSettings) -> None:
    """Keep the table up to date until cancelled."""
    async with httpx.AsyncClient(timeout=REFRESH_S, trust_env=False) as client:
        with Live(stack_table(children, settings, {}), console=console, auto_refresh=False) as screen:
            while True:
                load = await endpoint_load(client, settings.picker_url)
                screen.update(stack_table(children, settings, load), refresh=True)
                await asyncio.sleep(REFRESH_S)
