"""Runs the profiles that the profile handler asks for, and times it."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

from picker.metrics import Metrics
from picker.plugin import ProfileHandler
from picker.request import InferenceRequest
from picker.result import ProfileResult
from picker.scheduling.profile import Profile
from picker.snapshot import Candidates
from picker.timing import PROCESS_RESULTS, PROFILE_PICKER, timer


class Scheduler:
    """Synchronous: one request at a time, no state between requests but what plugins keep."""

    def __init__(self, handler: ProfileHandler, profiles: Mapping[str, Profile], metrics: Metrics) -> None:
        self.handler = handler
        self.profiles = dict(profiles)
        self._names = tuple(self.profiles)
        self._duration = metrics.scheduler_duration.cell()
        self._choosing = timer(metrics, PROFILE_PICKER, handler)
        self._concluding = timer(metrics, PROCESS_RESULTS, handler)

    def schedule(self, request: InferenceRequest, candidates: Candidates) -> ProfileResult:
        """The primary profile's result. Raises a Refusal when no endpoint is left."""
        started = perf_counter()
        try:
            names = self.handler.profiles(request, self._names)
            self._choosing.observe(perf_counter() - started)
            results = {name: self.profiles[name].run(request, candidates) for name in names}
            ran = perf_counter()
            primary = self.handler.primary(results)
            self._concluding.observe(perf_counter() - ran)
            return results[primary]
        finally:
            self._duration.observe(perf_counter() - started)
