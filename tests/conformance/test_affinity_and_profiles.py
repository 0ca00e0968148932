"""Session affinity and profiles by header from outside (contract sections 4.1 and 4.4)."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest

from tests.conformance.setting import Setting, setting
from tests.conformance.test_hermetic import completion, ends_idle
from tests.support.ext_proc import POST, dynamic_metadata, request_body, request_headers, response_headers, set_headers
from tests.support.model_server import Load

DESTINATION = "x-gateway-destination-endpoint"
HEAD = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"
FLAGS = ["--allow-experimental-plugins"]


async def exchange(s: Setting, headers: dict[str, str], subset: Sequence[str] | None = None) -> tuple[str, dict[str, str]]:
    """Where a request goes, and what is set on its answer."""
    async with s.client.stream() as stream:
        await stream.send(request_headers({**POST, **headers}, subset=subset), request_body(completion("m")))
        told, _ = await stream.expect(2)
        destination = dynamic_metadata(told)["envoy.lb"][DESTINATION]
        assert set_headers(told)[DESTINATION] == destination
        await stream.send(response_headers({":status": "200"}, end=True))
        (answer,) = await stream.expect(1)
        await stream.half_close()
        await stream.rest()
        return destination, set_headers(answer)


def affinity(kind: str, parameters: str = "") -> str:
    """Queues decide, unless there is a session. A scorer of this weight outdoes a queue."""
    weight = ", weight: 5" if kind == "scorer" else ""
    plugins = f"- type: queue-scorer\n- type: session-affinity-{kind}\n  parameters: {{{parameters}}}\n"
    cookie = "- {type: session-id-producer, name: cookie, parameters: {cookieName: sid}}\n"
    used = f"  - {{pluginRef: session-affinity-{kind}{weight}}}\n  - {{pluginRef: queue-scorer, weight: 1}}\n"
    return f"{HEAD}plugins:\n{plugins}{cookie}schedulingProfiles:\n- name: default\n  plugins:\n{used}"


@pytest.mark.parametrize("kind", ["scorer", "filter"])
async def test_a_token_of_the_answer_leads_back(kind: str) -> None:
    async with setting(Load(0, 0.1), Load(5, 0.1), config=affinity(kind), flags=FLAGS) as s:
        first, answer = await exchange(s, {}, [s.at(1)])
        token = answer["x-session-token"]
        assert first == s.at(1) and base64.b64decode(token, validate=True).decode().startswith("default/")
        other, others = await exchange(s, {})
        assert other == s.at(0) and others["x-session-token"] != token
        assert await exchange(s, {"x-session-token": token}) == (s.at(1), answer)
        assert (await exchange(s, {"x-session-token": "no token"}))[0] == s.at(0)
        # The session's endpoint is no candidate: another one, and its token.
        assert await exchange(s, {"x-session-token": token}, [s.at(0)]) == (s.at(0), others)
        await ends_idle(s)


@pytest.mark.parametrize("kind", ["scorer", "filter"])
@pytest.mark.parametrize(
    ("sources", "header", "value", "another"),
    [
        ("", "x-session-id", "7", "8"),
        ("{header: X-Chat}", "x-chat", "7", "8"),
        ("{attribute: session-id, producer: cookie}", "cookie", "a=b; sid=7", "a=b; sid=8"),
    ],
)
async def test_a_session_id_leads_back(kind: str, sources: str, header: str, value: str, another: str) -> None:
    config = affinity(kind, f"strategy: session_id, sources: [{sources}]")
    async with setting(Load(0, 0.1), Load(5, 0.1), config=config, flags=FLAGS) as s:
        first, answer = await exchange(s, {header: value}, [s.at(1)])
        assert first == s.at(1) and "x-session-token" not in answer
        assert [(await exchange(s, {header: v}))[0] for v in (value, another, value)] == [s.at(1), s.at(0), s.at(1)]
        assert (await exchange(s, {}))[0] == s.at(0)
        await ends_idle(s)


PROFILES = f"""{HEAD}plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: header-profile-handler
  parameters: {{defaultProfile: queue}}
schedulingProfiles:
- {{name: queue, plugins: [{{pluginRef: queue-scorer}}]}}
- {{name: cache, plugins: [{{pluginRef: kv-cache-utilization-scorer}}]}}
"""


@pytest.mark.parametrize(
    ("compat", "status", "text"),
    [
        ("", 400, "inference error: BadRequest - unknown scheduling profile 'other': "),
        (
            "compat: reference\n",
            429,
            "inference error: ResourceExhausted - failed to find target endpoint: unknown scheduling profile 'other': ",
        ),
    ],
)
async def test_a_header_names_the_profile(compat: str, status: int, text: str) -> None:
    async with setting(Load(0, 0.9), Load(5, 0.1), config=PROFILES + compat, flags=FLAGS) as s:
        assert [(await exchange(s, {"epp-profile": name}))[0] for name in ("queue", "cache")] == [s.at(0), s.at(1)]
        assert (await exchange(s, {}))[0] == s.at(0)
        async with s.client.stream() as stream:
            await stream.send(request_headers({**POST, "epp-profile": "other"}), request_body(completion("m")))
            (reply,) = await stream.rest()
        assert reply.immediate_response is not None and reply.immediate_response.status is not None
        assert int(reply.immediate_response.status.code) == status
        assert reply.immediate_response.body.decode().startswith(text)
        await ends_idle(s)
