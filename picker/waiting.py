"""A request that cannot be decided at once: it waits in a queue, or for somebody who was asked about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from picker.errors import Internal, Refusal
from picker.exchange import Exchange
from picker.request import InferenceRequest
from picker.stages import FlowController, Stages

log = logging.getLogger(__name__)

Resume = Callable[[Exchange | Refusal], None]


def unheard(outcome: Exchange | Refusal) -> None:
    """For callers whose requests never wait."""
    raise AssertionError("a request had to wait and nobody was there to hear of it")


class Router(Protocol):
    """What is needed of the Director."""

    stages: Stages

    def route(self, request: InferenceRequest, subset: Sequence[str] | None) -> Exchange: ...

    def count_refusal(self, request: InferenceRequest, refusal: Refusal) -> None: ...

    def left(self, request: InferenceRequest) -> None: ...


class Waiting:
    """A request that has not been decided yet. It ends once: `resume` is told, or `cancel` is called."""

    __slots__ = ("_begun", "_leave", "_let_in", "_outcome", "_over", "_request", "_resume", "_router", "_subset", "on_cancel")

    def __init__(self, router: Router, request: InferenceRequest, subset: Sequence[str] | None, resume: Resume) -> None:
        self._router = router
        self._request = request
        self._subset = subset
        self._resume = resume
        self._leave: Callable[[], None] | None = None
        self.on_cancel: Callable[[], None] | None = None
        self._let_in: FlowController | None = None
        """By whom."""
        self._begun = False
        self._over = False
        self._outcome: Exchange | Refusal | None = None

    def begin(self) -> Exchange | Waiting:
        """The exchange when there was nothing to wait for. Raises a Refusal."""
        flow = self._router.stages.flow
        if flow is None:
            self._prepare()
        else:
            leave = flow.enqueue(self._request, self._decided).leave
            if not self._over and self._leave is None:
                self._leave = leave
        self._begun = True
        if self._outcome is None:
            return self
        if isinstance(self._outcome, Refusal):
            raise self._outcome
        return self._outcome

    def cancel(self) -> None:
        """Nobody waits for this any more."""
        if self._over:
            return
        self._over = True
        if self._let_in is not None:
            self._let_in.abandoned(self._request)
        if self._leave is not None:
            self._leave()
        self._router.left(self._request)
        if self.on_cancel is not None:
            self.on_cancel()

    def _decided(self, refusal: Refusal | None) -> None:
        """By flow control."""
        self._leave = None
        if refusal is None:
            self._let_in = self._router.stages.flow
            self._prepare()
        else:
            self._end(refusal)

    def _prepare(self) -> None:
        prepare = self._router.stages.prepare
        if prepare is None:
            self._route()
        else:
            self._leave = _nothing
            leave = prepare(self._request, self._route)
            if not self._over:
                self._leave = leave

    def _route(self) -> None:
        if self._over:
            return
        self._request.payload = b""
        try:
            outcome: Exchange | Refusal = self._router.route(self._request, self._subset)
        except Refusal as refusal:
            outcome = refusal
        except Exception as error:
            log.exception("request %s failed", self._request.request_id)
            outcome = Internal(f"the picker failed to handle this request; its log has the details ({type(error).__name__})")
        self._end(outcome)

    def _end(self, outcome: Exchange | Refusal) -> None:
        self._over = True
        self._leave = None
        if self._let_in is not None and isinstance(outcome, Refusal):
            self._let_in.abandoned(self._request)
        if not self._begun:
            self._outcome = outcome
            return
        if isinstance(outcome, Refusal):
            self._router.count_refusal(self._request, outcome)
        self._resume(outcome)


def _nothing() -> None:
    pass
