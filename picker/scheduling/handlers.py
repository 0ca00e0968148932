"""Profile handlers: which profiles run for a request, and whose result counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from picker.errors import BadRequest, Refusal
from picker.plugin import Handle, NoParameters, Parameters
from picker.request import InferenceRequest
from picker.result import ProfileResult


class SingleProfileHandler:
    """Runs the one profile there is."""

    type = "single-profile-handler"
    Parameters = NoParameters

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name

    def profiles(self, request: InferenceRequest, names: Sequence[str]) -> Sequence[str]:
        """All of them: the configuration makes sure that there is one."""
        return names

    def primary(self, results: Mapping[str, ProfileResult]) -> str:
        """The only one."""
        return next(iter(results))


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

    def profiles(self, request: InferenceRequest, names: Sequence[str]) -> Sequence[str]:
        """That one. Raises what `refuse` makes when there is none of this name."""
        wanted = request.headers.get(PROFILE_HEADER) or self.default
        if wanted not in names:
            raise self.refuse(f"unknown scheduling profile '{wanted}': {PROFILE_HEADER} must be one of {', '.join(names)}")
        return (wanted,)

    def primary(self, results: Mapping[str, ProfileResult]) -> str:
        """The only one that ran."""
        return next(iter(results))
