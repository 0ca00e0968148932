"""Requests and tokens in flight, per endpoint for the scorers and per label set for the gauges: counted once, released once."""

from __future__ import annotations

from picker.endpoint import Endpoint, EndpointLoad
from picker.instruments import LabelCap
from picker.keys import INFLIGHT_LOAD_PRODUCER
from picker.metrics import Metrics
from picker.request import InferenceRequest

Labels = tuple[str, ...]


class InFlight:
    """Opens tickets. The gauge cells of a label set exist only while something is in flight under it: their number is bounded by
    the load, not by how many fairness ids were ever seen."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.inflight_requests
        self._tokens = metrics.inflight_tokens
        self._cap: LabelCap = metrics.cap_fairness

    def open(self, endpoint: Endpoint, load: EndpointLoad, request: InferenceRequest, *, elsewhere: bool = False) -> Ticket:
        """Count `request` on `endpoint`. `elsewhere`: not the endpoint that its charges were made for, so nothing is known to be cached."""
        charges = request.charges
        if charges is None:
            return self._ticket(INFLIGHT_LOAD_PRODUCER, endpoint, load, request, request.prompt_tokens)
        name, tokens, cached = charges[0]
        ticket = self._ticket(name, endpoint, load, request, tokens + cached if elsewhere else tokens)
        if len(charges) > 1:
            ticket.more = [
                self._gauge(name, endpoint, request, tokens + cached if elsewhere else tokens) for name, tokens, cached in charges[1:]
            ]
        return ticket

    def _ticket(self, name: str, endpoint: Endpoint, load: EndpointLoad, request: InferenceRequest, tokens: int) -> Ticket:
        labels, _ = self._gauge(name, endpoint, request, tokens)
        return Ticket(self, load, load.open_request(tokens), tokens, labels)

    def _gauge(self, name: str, endpoint: Endpoint, request: InferenceRequest, tokens: int) -> tuple[Labels, int]:
        labels = (endpoint.name, endpoint.namespace, name, self._cap(request.fairness_id), str(request.priority))
        self._requests.cell(*labels).value += 1
        self._tokens.cell(*labels).value += tokens
        return labels, tokens

    def release_tokens(self, labels: Labels, tokens: int) -> None:
        """For `Ticket`."""
        self._tokens.cell(*labels).value -= tokens

    def release_request(self, labels: Labels) -> None:
        """For `Ticket`."""
        cell = self._requests.cell(*labels)
        cell.value -= 1
        if cell.value == 0:
            self._requests.remove(*labels)
            self._tokens.remove(*labels)


class Ticket:
    """One request's place on one endpoint. Both releases may be called any number of times; only the first counts."""

    __slots__ = ("_labels", "_load", "_mark", "_open", "_owner", "_tokens", "more")

    def __init__(self, owner: InFlight, load: EndpointLoad, mark: int, tokens: int, labels: Labels) -> None:
        self._owner = owner
        self._load = load
        self._mark = mark
        self._tokens = tokens
        self._labels = labels
        self._open = True
        self.more: list[tuple[Labels, int]] = []
        """Labels and tokens of further producers, whose gauges go up and down with these."""

    def first_token(self) -> None:
        """The prompt has been processed."""
        tokens, self._tokens = self._tokens, 0
        if tokens:
            self._load.release_tokens(tokens)
            self._owner.release_tokens(self._labels, tokens)
        if self.more:
            for i, (labels, more) in enumerate(self.more):
                self._owner.release_tokens(labels, more)
                self.more[i] = (labels, 0)

    def close(self) -> None:
        """The request has ended."""
        if self._open:
            self._open = False
            self.first_token()
            self._load.close_request(self._mark)
            self._owner.release_request(self._labels)
            for labels, _ in self.more:
                self._owner.release_request(labels)
