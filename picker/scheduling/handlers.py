"""Profile handlers: which profiles run for a request, and whose result counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import msgspec

from picker.endpoint import join_host_port
from picker.errors import BadRequest, Refusal, Rejected
from picker.metrics import Metrics
from picker.plugin import Handle, NoParameters, Parameters
from picker.request import InferenceRequest
from picker.result import ProfileResult
from picker.snapshot import Snapshot

log = logging.getLogger(__name__)


class OneProfile:
    """What handlers share that work with a single profile."""

    name: str

    def profiles(self, request: InferenceRequest, names: Sequence[str]) -> Sequence[str]:
        """All of them: the configuration makes sure that there is one."""
        return names

    def primary(self, results: Mapping[str, ProfileResult]) -> str:
        """The only one."""
        return next(iter(results))


class SingleProfileHandler(OneProfile):
    """Runs the one profile there is."""

    type = "single-profile-handler"
    Parameters = NoParameters

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name


class DataParallelParameters(Parameters, frozen=True):
    """`primaryPort` is where the proxy reaches the server that passes requests on to the ranks of its host."""

    primary_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8000


RANK_HEADER = "x-data-parallel-host-port"


class DataParallelProfileHandler(OneProfile):
    """Deprecated: tells the proxy one port for all ranks of a host, and the rank in the request header `x-data-parallel-host-port`."""

    type = "data-parallel-profile-handler"
    Parameters = DataParallelParameters

    def __init__(self, name: str, parameters: DataParallelParameters, handle: Handle) -> None:
        self.name = name
        self._port = parameters.primary_port
        log.warning("%s: data-parallel-profile-handler is deprecated; let the proxy reach each rank, with single-profile-handler", name)

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """One destination, whatever the picker's fallbacks: the header can name one rank only."""
        endpoint = snapshot.endpoints[position]
        request.set_header(RANK_HEADER, endpoint.host_port)
        request.destination = join_host_port(endpoint.address, self._port)


PROFILE_HEADER = "epp-profile"


class HeaderProfileParameters(Parameters, frozen=True):
    """`defaultProfile` runs for requests that name none."""

    default_profile: str = "decode"


class HeaderProfileHandler:
    """Runs the profile that the request header `EPP-Profile` names."""

    type = "header-profile-handler"
    Parameters = HeaderProfileParameters
    experimental = True

    def __init__(self, name: str, parameters: HeaderProfileParameters, handle: Handle) -> None:
        self.name = name
        self.default = parameters.default_profile
        self.refuse: Callable[[str], Refusal] = BadRequest
        """Makes what is raised for an unknown profile: a 400, where the reference says 429 (its issue 1686)."""

    def connect(self, metrics: Metrics, *, as_reference: bool) -> None:
        """The status of a refusal."""
        self.refuse = _no_target if as_reference else BadRequest

    def profiles(self, request: InferenceRequest, names: Sequence[str]) -> Sequence[str]:
        """That one. Raises what `refuse` makes when there is none of this name."""
        wanted = request.headers.get(PROFILE_HEADER) or self.default
        if wanted not in names:
            raise self.refuse(f"unknown scheduling profile '{wanted}': {PROFILE_HEADER} must be one of {', '.join(names)}")
        return (wanted,)

    def primary(self, results: Mapping[str, ProfileResult]) -> str:
        """The only one that ran."""
        return next(iter(results))


def _no_target(message: str) -> Rejected:
    return Rejected(f"failed to find target endpoint: {message}")
