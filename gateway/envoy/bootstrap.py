"""The bootstrap as one typed message, and its text as Envoy reads it."""

import json
from typing import Any, Literal

import yaml
from betterproto2 import Casing
from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import DownstreamConnectionsConfig

from gateway.envoy.clusters import endpoints_cluster, picker_cluster
from gateway.envoy.listener import listener
from gateway.envoy.messages import address, packed
from gateway.envoy.settings import BootstrapSettings

Format = Literal["yaml", "json"]
_HEADER = "# Written by `fairlead envoy render`; change the flags rather than this file.\n"


def bootstrap(settings: BootstrapSettings) -> Bootstrap:
    """The whole configuration of one Envoy."""
    return Bootstrap(
        admin=None if settings.admin is None else Admin(address=address(settings.admin)),
        overload_manager=_overload_manager(settings),
        static_resources=BootstrapStaticResources(
            listeners=[listener(settings)],
            clusters=[endpoints_cluster(settings), picker_cluster(settings)],
        ),
    )


def _overload_manager(settings: BootstrapSettings) -> OverloadManager:
    # Refused connections are better than the open files running out, which the picker's streams would feel too.
    limit = DownstreamConnectionsConfig(max_active_downstream_connections=settings.max_client_connections)
    return OverloadManager(
        resource_monitors=[ResourceMonitor(name="envoy.resource_monitors.global_downstream_max_connections", typed_config=packed(limit))]
    )


def as_dict(settings: BootstrapSettings) -> dict[str, Any]:
    """The bootstrap in protobuf's JSON form, field names as in the .proto files."""
    return bootstrap(settings).to_dict(casing=Casing.SNAKE)


def render(settings: BootstrapSettings, form: Format = "yaml") -> str:
    """The bootstrap as text for a file that ends in `.yaml` or `.json`."""
    if form == "json":
        return json.dumps(as_dict(settings), indent=2) + "\n"
    return _HEADER + yaml.safe_dump(as_dict(settings), sort_keys=False, width=140)
