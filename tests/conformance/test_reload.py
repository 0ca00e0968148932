"""A configuration file that changes under a running picker, seen from outside."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.setting import setting
from tests.support.ext_proc import POST, request_body, request_headers, response_headers
from tests.support.model_server import Load
from tests.support.waiting import until

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
BODY = b'{"model":"m","prompt":"x"}'


async def test_a_changed_file_is_used_and_a_bad_one_is_not_and_open_streams_go_on(tmp_path: Path) -> None:
    file = tmp_path / "epp.yaml"
    file.write_text(HEAD + "plugins: [{type: queue-scorer}]\n")
    async with setting(Load(0, 0.1), Load(3, 0.2), config_file=file) as s, s.client.stream() as stream:
        await stream.send(request_headers(POST))
        await stream.send(request_body(BODY, end=True))
        await stream.expect(2)

        async def scorers() -> list[str]:
            await s.client.converse(request_headers(POST), request_body(BODY, end=True))
            (newest, *_) = (await s.picker.get("/debug/decisions?limit=1"))["decisions"]
            return [scorer["name"] for scorer in newest["scorers"]]

        assert await scorers() == ["queue-scorer"]
        file.write_text(HEAD + "plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}]\n")

        async def uses_two() -> bool:
            return await scorers() == ["queue-scorer", "kv-cache-utilization-scorer"]

        await until(uses_two, "the new configuration is in use")
        file.write_text(HEAD + "plugins: [{type: quue-scorer}]\n")

        async def is_stale() -> bool:
            return (await s.picker.metrics()).value("fairlead_config_stale") == 1

        await until(is_stale, "the bad change has been seen")
        assert "did you mean queue-scorer" in (await s.picker.get("/readyz"))["sources"]["config-file"]["last_error"]
        assert (await s.picker.get("/readyz"))["ready"] and await uses_two()
        assert "keeping the last good configuration: " in s.picker.stderr
        await stream.send(response_headers({":status": "200"}, end=True))
        assert (await stream.receive()).response_headers is not None
