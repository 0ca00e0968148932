"""Requests and tokens in flight, per endpoint for the scorers and per label set for the gauges: counted once, released once."""

from __future__ import annotations

from picker.endpoint import Endpoint, EndpointLoad
from picker.instruments import LabelCap
from picker.metrics import Metrics
from picker.request import InferenceRequest

PRODUCER_NAME = "inflight-load-producer"


class InFlight:
    """Opens tickets. The gauge cells of a label set exist only while something is in flight under it: their number is bounded by
    the load, not by how many fairness ids were ever seen."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.inflight_requests
        self._tokens = metrics.inflight_tokens
        self._cap: LabelCap = metrics.cap_fairness

    def open(self, endpoint: Endpoint, load: EndpointLoad, request: InferenceRequest) -> Ticket:
        """Count `request` on `endpoint`."""
        tokens = request.prompt_tokens
        labels = (endpoint.name, endpoint.namespace, PRODUCER_NAME, self._cap(request.fairness_id), str(request.priority))
        self._requests.cell(*labels).value += 1
        self._tokens.cell(*labels).value += tokens
        return Ticket(self, load, load.open_request(tokens), tokens, labels)

    def release_tokens(self, labels: tuple[str, ...], tokens: int) -> None:
        """For `Ticket`."""
        self._tokens.cell(*labels).value -= tokens

    def release_request(self, labels: tuple[str, ...]) -> None:
        """For `Ticket`."""
        cell = self._requests.cell(*labels)
        cell.value -= 1
        if cell.value == 0:
            self._requests.remove(*labels)
            self._tokens.remove(*labels)


class Ticket:
    """One request's place on one endpoint. Both releases may be called any number of times; only the first counts."""

    __slots__ = ("_labels", "_load", "_mark", "_open", "_owner", "_tokens")

    def __init__(self, owner: InFlight, load: EndpointLoad, mark: int, tokens: int, labels: tuple[str, ...]) -> None:
        self._owner = owner
        self._load = load
        self._mark = mark
        self._tokens = tokens
        self._labels = labels
        self._open = True

    def first_token(self) -> None:
        """The prompt has been processed."""
        tokens, self._tokens = self._tokens, 0
        if tokens:
            self._load.release_tokens(tokens)
            self._owner.release_tokens(self._labels, tokens)

    def close(self) -> None:
        """The request has ended."""
        if self._open:
            self._open = False
            self.first_token()
            self._load.close_request(self._mark)
            self._owner.release_request(self._labels)
