"""Profile handlers: which profiles run for a request, and whose result counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from picker.plugin import Handle, NoParameters
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
