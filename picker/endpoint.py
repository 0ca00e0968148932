"""One serving address of a model server: who it is, what it last reported, and what we have sent it.

Three facts with three writers: `Endpoint` is written by discovery, `EndpointMetrics` by the scraper, `EndpointLoad` by the
exchanges that are open on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NO_ATTRIBUTES: Mapping[str, float] = MappingProxyType({})
NO_NAMES: Mapping[str, frozenset[str]] = MappingProxyType({})


def join_host_port(host: str, port: int) -> str:
    """`host:port`, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An immutable identity. `address` is an IP literal (names are resolved by discovery); `host_port` is what proxies are told."""

    name: str
    address: str
    port: int
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    host_port: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "host_port", join_host_port(self.address, self.port))

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class EndpointMetrics:
    """What a model server last said of itself.

    `waiting` and `running` are requests, `kv_usage` is a fraction 0..1, `block_size` is tokens per KV block and `num_blocks` the
    number of KV blocks on the accelerator (0 = not reported), `max_adapters` the LoRA slots (0 = not reported). `updated_s` is the
    monotonic time in seconds of the answer these came from; None = never answered. `quiet_s` is for how many seconds from then an
    idle server is left alone (0 = it is asked at the full rate). `reports_load`: an answer tells the server's load when its request
    asks for that (`picker.datalayer.load_report`). `attributes` are further numbers, by the keys of `customMetrics` and of extractors;
    `names` are sets of words, e.g. the models that are served. A key that was never reported is not there.
    """

    waiting: int = 0
    running: int = 0
    kv_usage: float = 0.0
    block_size: int = 0
    num_blocks: int = 0
    active_adapters: frozenset[str] = frozenset()
    waiting_adapters: frozenset[str] = frozenset()
    max_adapters: int = 0
    updated_s: float | None = None
    quiet_s: float = 0.0
    reports_load: bool = False
    attributes: Mapping[str, float] = field(default_factory=lambda: NO_ATTRIBUTES, hash=False)
    names: Mapping[str, frozenset[str]] = field(default_factory=lambda: NO_NAMES, hash=False)

    def age_s(self, now_s: float) -> float | None:
        """Seconds since the last answer; None if there never was one."""
        return None if self.updated_s is None else max(0.0, now_s - self.updated_s)

    def differs(self, other: EndpointMetrics) -> bool:
        """Whether anything but the age differs, or only one of the two is an answer."""
        return (
            self.waiting != other.waiting
            or self.running != other.running
            or self.kv_usage != other.kv_usage
            or self.active_adapters != other.active_adapters
            or self.waiting_adapters != other.waiting_adapters
            or self.block_size != other.block_size
            or self.num_blocks != other.num_blocks
            or self.max_adapters != other.max_adapters
            or (self.updated_s is None) != (other.updated_s is None)
            or self.attributes_differ(other)
        )

    def attributes_differ(self, other: EndpointMetrics) -> bool:
        """Whether `attributes` or `names` differ. Whoever has nothing new hands the old mappings on, so that this costs two comparisons."""
        return (self.attributes is not other.attributes and self.attributes != other.attributes) or (
            self.names is not other.names and self.names != other.names
        )

    def is_stale(self, now_s: float, limit_s: float) -> bool:
        """Whether the server has been silent for more than `limit_s`; while it is not asked, that is no silence."""
        return self.updated_s is None or now_s - self.updated_s > limit_s + self.quiet_s


NEVER_SCRAPED = EndpointMetrics()


class EndpointLoad:
    """Requests and tokens we have in flight on one endpoint, counted at decision time.

    `unseen` is the part of `requests` that the last scrape cannot know about, because it was opened after that scrape began.
    Scorers add it to what the server reported, so that a burst between two scrapes spreads out and nothing is counted twice.
    A mark (the scrape epoch at opening) tells on closing whether the request was still unseen. None of this depends on how often is
    scraped: between two scrapes of an idle server `unseen` is all that is open, and a request that ends leaves it at once.
    """

    __slots__ = ("_after", "_before", "_busy", "_epoch", "_seen", "asked_s", "on_open", "opened", "requests", "tokens", "unseen")

    def __init__(self, busy: set[EndpointLoad] | None = None) -> None:
        """`busy` is where this load is to be found while it has unseen requests: of a thousand endpoints few have any."""
        self._busy: set[EndpointLoad] = set() if busy is None else busy
        self.requests = 0
        self.tokens = 0
        self.unseen = 0
        self.opened = 0
        """Requests ever opened."""
        self.asked_s = float("-inf")
        """Monotonic seconds at which the server was last asked to report its load with an answer."""
        self.on_open: Callable[[], None] | None = None
        """Called once, by the next request that is opened. Set while the endpoint is scraped rarely: at the full rate it costs nothing."""
        self._epoch = 0  # scrapes begun
        self._seen = 0  # epoch of the last scrape that succeeded
        self._before = 0  # unseen requests opened before the current scrape began
        self._after = 0  # unseen requests opened since

    def open_request(self, tokens: int) -> int:
        """Count one request of `tokens` prompt tokens; returns the mark that `close_request` needs."""
        self.requests += 1
        self.tokens += tokens
        self.unseen += 1
        self._after += 1
        self._busy.add(self)
        self.opened += 1
        if self.on_open is not None:
            wake, self.on_open = self.on_open, None
            wake()
        return self._epoch

    def release_tokens(self, tokens: int) -> None:
        """The prompt has been processed (first response bytes seen): its tokens no longer weigh on the endpoint."""
        self.tokens -= tokens

    def close_request(self, mark: int) -> None:
        """The request has ended; its tokens are released separately."""
        self.requests -= 1
        if mark == self._epoch:
            self._after -= 1
        elif mark >= self._seen:
            self._before -= 1
        self.unseen = self._before + self._after
        if not self.unseen:
            self._busy.discard(self)

    def scrape_started(self) -> None:
        """A scrape was sent; what is opened from now on is not in its answer."""
        self._before += self._after
        self._after = 0
        self._epoch += 1

    def scrape_succeeded(self) -> None:
        """The scrape begun last was answered: all that was opened before it is in its numbers."""
        self._before = 0
        self._seen = self._epoch
        self.unseen = self._after
        if not self.unseen:
            self._busy.discard(self)
