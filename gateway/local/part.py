"""One process of the local stack, as data."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from gateway.address import HostPort

# Answers None when the part is ready, else the reason why not yet.
Probe = Callable[[httpx.AsyncClient], Awaitable[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What to run and how to see that it is ready. Parts of one `wave` start together, once those before are ready."""

    name: str
    role: str
    argv: tuple[str, ...]
    address: HostPort
    ready: Probe
    wave: int = 0


def answers_200(url: str) -> Probe:
    """Ready when a GET of `url` is answered with 200."""

    async def probe(client: httpx.AsyncClient) -> str | None:
        try:
            response = await client.get(url)
        except httpx.HTTPError as error:
            return f"{url}: {type(error).__name__}"
        return None if response.status_code == 200 else f"{url} answers {response.status_code}: {response.text.strip()[:120]}"

    return probe


def envoy_ready(admin: HostPort, cluster: str) -> Probe:
    """Ready when Envoy says so and every host of `cluster` has passed its health check."""
    live = answers_200(f"http://{admin}/ready")

    async def probe(client: httpx.AsyncClient) -> str | None:
        if (reason := await live(client)) is not None:
            return reason
        try:
            report = (await client.get(f"http://{admin}/clusters", params={"format": "json"})).json()
        except (httpx.HTTPError, ValueError) as error:
            return f"the admin interface: {type(error).__name__}"
        for status in report.get("cluster_statuses", []):
            if status.get("name") == cluster and (hosts := status.get("host_statuses")):
                sick = [host for host in hosts if host.get("health_status", {}).get("eds_health_status") != "HEALTHY"]
                failed = [host for host in hosts if host.get("health_status", {}).get("failed_active_health_check")]
                return "its health check of the picker has not passed yet" if sick or failed else None
        return f"it has no hosts in cluster {cluster!r}"

    return probe
