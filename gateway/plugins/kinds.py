"""What `fairlead plugin new` writes for each kind of plugin: a class that does something useful, and a test of it."""

from typing import NamedTuple


class Kind(NamedTuple):
    """`imports` are names of `fairlead.plugin`, `helpers` of `fairlead.testing`; texts have CLASS where the class's name goes."""

    imports: str
    body: str
    helpers: str
    test: str
    parameters: str = ""
    in_profile: bool = False
    test_imports: str = ""


KINDS: dict[str, Kind] = {
    "scorer": Kind(
        "Candidates InferenceRequest Parameters",
        '''\
class Limits(Parameters, frozen=True):
    """In the configuration, in camelCase."""

    limit: int = 10


class CLASS:
    """Prefers servers with a short queue: 1 when empty, 0 from `limit` requests on."""

    Parameters = Limits
    parameters: Limits

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        limit = self.parameters.limit
        return [1.0 - min(m.waiting, limit) / limit for m in candidates.metrics]
''',
        "Server build candidates request",
        """\
def test_a_short_queue_is_better() -> None:
    scorer = build(CLASS, {"limit": 4})
    pool = candidates(Server(waiting=0), Server(waiting=1), Server(waiting=9))
    assert scorer.score(request(), pool) == [1.0, 0.75, 0.0]
""",
        parameters="limit: 10",
        in_profile=True,
    ),
    "filter": Kind(
        "Candidates InferenceRequest Parameters",
        '''\
class Limits(Parameters, frozen=True):
    """In the configuration, in camelCase."""

    max_usage: float = 0.9


class CLASS:
    """Takes out servers with a fuller KV cache than `max_usage`, unless all have."""

    Parameters = Limits
    parameters: Limits

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        limit = self.parameters.max_usage
        good = [i for i, m in enumerate(candidates.metrics) if m.kv_usage <= limit]
        return candidates.at(good) if good else candidates
''',
        "Server build candidates request",
        """\
def test_full_servers_are_taken_out() -> None:
    plugin = build(CLASS, {"maxUsage": 0.5})
    left = plugin.filter(request(), candidates(Server(kv_usage=0.7), Server()))
    assert [endpoint.name for endpoint in left.endpoints] == ["e2"]


def test_all_stay_when_all_are_full() -> None:
    pool = candidates(Server(kv_usage=0.95))
    assert build(CLASS).filter(request(), pool) is pool
""",
        parameters="maxUsage: 0.9",
        in_profile=True,
    ),
    "picker": Kind(
        "Candidates InferenceRequest",
        '''\
class CLASS:
    """Takes the highest total; of equals the one with the fewest requests in flight."""

    def pick(
        self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]
    ) -> list[int]:
        loads = candidates.loads
        everyone = range(len(totals))
        return [max(everyone, key=lambda i: (totals[i], -loads[i].requests))]
''',
        "Server build candidates request",
        """\
def test_of_equals_the_less_busy_one() -> None:
    pool = candidates(Server(in_flight=2), Server(in_flight=1), Server())
    assert build(CLASS).pick(request(), pool, [0.5, 0.5, 0.4]) == [1]
""",
        in_profile=True,
    ),
    "admitter": Kind(
        "Candidates InferenceRequest Parameters Rejected",
        '''\
class Limits(Parameters, frozen=True):
    """In the configuration, in camelCase."""

    max_tokens: int = 8192


class CLASS:
    """Refuses long prompts, estimated in tokens, while every server has a queue."""

    Parameters = Limits
    parameters: Limits

    def admit(
        self, request: InferenceRequest, candidates: Candidates, now_s: float
    ) -> None:
        if request.prompt_tokens <= self.parameters.max_tokens:
            return
        if all(m.waiting for m in candidates.metrics):
            raise Rejected("no room for a prompt of this length", retry_after_s=5)
''',
        "Server build candidates request",
        """\
def test_long_prompts_are_refused_while_all_servers_have_a_queue() -> None:
    plugin = build(CLASS, {"maxTokens": 10})
    with pytest.raises(Rejected):
        plugin.admit(request("x" * 100), candidates(Server(waiting=1)), 0.0)


def test_others_get_in() -> None:
    plugin = build(CLASS, {"maxTokens": 10})
    plugin.admit(request("x"), candidates(Server(waiting=1)), 0.0)
    plugin.admit(request("x" * 100), candidates(Server(waiting=1), Server()), 0.0)
""",
        parameters="maxTokens: 8192",
        test_imports="Rejected",
    ),
    "producer": Kind(
        "Candidates InferenceRequest",
        '''\
class CLASS:
    """Leaves the tenant, from a header, where other plugins find it."""

    produces = frozenset({"tenant"})

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None:
        request.attributes["tenant"] = request.headers.get("x-tenant", "nobody")
''',
        "Server build candidates request",
        """\
def test_the_tenant_is_that_of_the_header() -> None:
    asked = request(headers={"x-tenant": "blue"})
    build(CLASS).produce(asked, candidates(Server()))
    assert asked.attributes == {"tenant": "blue"}


def test_without_the_header_there_is_nobody() -> None:
    asked = request()
    build(CLASS).produce(asked, candidates(Server()))
    assert asked.attributes == {"tenant": "nobody"}
""",
    ),
    "parser": Kind(
        "BadRequest ParsedBody Prompt",
        '''\
class CLASS:
    """Reads the bodies of POST /v1/summarize: {"model": ..., "text": ...}."""

    paths = ("/v1/summarize",)

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        try:
            document = json.loads(body)
        except ValueError:
            raise BadRequest("the body is not JSON") from None
        if not isinstance(document, dict):
            raise BadRequest("the body is not a JSON object")
        model, text = document.get("model"), document.get("text")
        if not isinstance(model, str) or not isinstance(text, str):
            raise BadRequest("'model' and 'text' are needed, both strings")
        return ParsedBody(model=model, prompt=Prompt(text.encode()))
''',
        "build",
        """\
def test_model_and_prompt_are_read() -> None:
    text = b'{"model": "m", "text": "long"}'
    body = build(CLASS).parse("/v1/summarize", {}, text)
    assert body.model == "m"
    assert body.prompt.tokens > 0


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": "m", "text": 1}'])
def test_what_is_not_such_a_body_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        build(CLASS).parse("/v1/summarize", {}, body)
""",
        test_imports="BadRequest",
    ),
    "observer": Kind(
        "Handle InferenceRequest Parameters Response",
        '''\
class Limits(Parameters, frozen=True):
    """In the configuration, in camelCase."""

    slow_s: float = 30.0


class CLASS:
    """Logs requests that took longer than `slow_s` seconds, and counts them."""

    Parameters = Limits

    def __init__(self, name: str, parameters: Limits, handle: Handle) -> None:
        self.name = name
        self.slow_s = parameters.slow_s
        self.slow = 0

    def response_complete(self, request: InferenceRequest, response: Response) -> None:
        if response.total_s is not None and response.total_s > self.slow_s:
            self.slow += 1
            log.warning("%s took %.1f s", request.request_id, response.total_s)
''',
        "build request",
        """\
def test_slow_requests_are_counted() -> None:
    plugin = build(CLASS, {"slowS": 2})
    plugin.response_complete(request(), Response(total_s=1.0))
    plugin.response_complete(request(), Response(total_s=3.0))
    plugin.response_complete(request(), Response())
    assert plugin.slow == 1
""",
        parameters="slowS: 30",
        test_imports="Response",
    ),
}
