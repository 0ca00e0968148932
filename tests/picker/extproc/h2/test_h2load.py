"""h2load, an HTTP/2 client of another make (nghttp2), against the picker's port: thousands of streams, none may fail."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.conformance.setting import setting
from tests.picker.extproc.h2.peer import message
from tests.support.ext_proc import METHOD, POST, request_body, request_headers, response_body, response_headers
from tests.support.model_server import Load
from tests.support.tools import needs

# The picker is a process with a loop of its own.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

STREAMS = 3_000
EXCHANGE = (
    request_headers({**POST, "x-request-id": "h2load"}),
    request_body(b'{"model": "m", "prompt": "' + b"words " * 300 + b'"}'),
    response_headers({":status": "200", "content-type": "application/json"}),
    response_body(b'{"usage": {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301}}'),
)


@pytest.mark.parametrize(("connections", "at_once"), [(1, 500), (8, 100)])
async def test_every_stream_is_answered(tmp_path: Path, connections: int, at_once: int) -> None:
    h2load = needs("h2load")
    body = tmp_path / "body"
    body.write_bytes(b"".join([message(bytes(part)) for part in EXCHANGE]))
    async with setting(Load(), flags=["--transport=h2"]) as running:
        process = await asyncio.create_subprocess_exec(
            h2load, f"--requests={STREAMS}", f"--clients={connections}", f"--max-concurrent-streams={at_once}", f"--data={body}",
            "--header=content-type: application/grpc", "--header=te: trailers", f"http://{running.picker.target}{METHOD}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
        (counts,) = re.findall(r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, 0 failed, 0 errored, 0 timeout", said)
        assert counts == (str(STREAMS),) * 4, said
        # A status in the trailers is more than h2load looks at.
        page = await running.picker.metrics()
        assert page.value("llm_d_epp_extproc_streams_total", code="OK") == page.value("llm_d_epp_extproc_streams_total") == STREAMS
        assert page.value("llm_d_epp_request_total") == STREAMS
        assert page.value("llm_d_epp_request_error_total") == 0
        assert page.value("llm_d_epp_extproc_streams_inflight") == page.value("llm_d_epp_request_running") == 0
        assert "Traceback" not in running.picker.stderr and " ERROR" not in running.picker.stderr
