"""LoRA adapters: the slots they take while running, and the counts behind `vllm:lora_requests_info`."""

from __future__ import annotations


class LoraSlots:
    """At most `max_loras` distinct adapters run at once; requests for one more wait. None is the base model."""

    def __init__(self, max_loras: int) -> None:
        self._max_loras = max_loras
        self._running: dict[str, int] = {}
        self._waiting: dict[str, int] = {}

    def may_run(self, adapter: str | None) -> bool:
        """Whether a request for this adapter can start now."""
        return adapter is None or adapter in self._running or len(self._running) < self._max_loras

    def queued(self, adapter: str | None) -> None:
        """A request for the adapter began to wait."""
        _add(self._waiting, adapter)

    def unqueued(self, adapter: str | None) -> None:
        """A request for the adapter waits no more."""
        _remove(self._waiting, adapter)

    def started(self, adapter: str | None) -> None:
        """A request for the adapter runs."""
        _add(self._running, adapter)

    def stopped(self, adapter: str | None) -> None:
        """A request for the adapter runs no more."""
        _remove(self._running, adapter)

    @property
    def names(self) -> tuple[str, str]:
        """The adapters running and the adapters waited for, each as a comma-separated list, oldest first."""
        return ",".join(self._running), ",".join(self._waiting)


def _add(counts: dict[str, int], adapter: str | None) -> None:
    if adapter is not None:
        counts[adapter] = counts.get(adapter, 0) + 1


def _remove(counts: dict[str, int], adapter: str | None) -> None:
    if adapter is None:
        return
    counts[adapter] -= 1
    if not counts[adapter]:
        del counts[adapter]
