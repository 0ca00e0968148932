"""h2spec, which sends a server what RFC 9113 and RFC 7541 allow and forbid, against the picker's ports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.picker_process import PickerProcess
from tests.support.tools import needs

# The picker is a process with a loop of its own.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

# Nobody is there: h2spec speaks HTTP/2 only, no request reaches a model server.
ENDPOINT = "--endpoints=127.0.1.1:1"
PATIENCE_S = 20
FEWEST_CASES = 140


@pytest.mark.parametrize(
    ("port", "flags"),
    [
        ("grpc", ["--secure-serving=false"]),
        ("grpc", ["--secure-serving"]),
        ("health", ["--secure-serving=false"]),
    ],
    ids=["plain", "tls", "health"],
)
async def test_every_case_passes(tmp_path: Path, port: str, flags: list[str]) -> None:
    h2spec = needs("h2spec")
    report = tmp_path / "report.xml"
    async with PickerProcess("--transport=h2", ENDPOINT, *flags) as picker:
        number = picker.grpc_port if port == "grpc" else picker.health_port
        tls = ["--tls", "--insecure"] if "--secure-serving" in flags else []
        command = [h2spec, "--strict", *tls, "--host=127.0.0.1", f"--port={number}", f"--timeout={PATIENCE_S}", f"--junit-report={report}"]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode(errors="replace")
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
        unhappy = {case.get("classname"): child.tag for case in cases for child in case}
        assert unhappy == {}
        assert len(cases) >= FEWEST_CASES
        # The port serves on, and nothing of it was taken for an error of ours.
        assert "Traceback" not in picker.stderr and " ERROR" not in picker.stderr
        assert (await picker.metrics()).value("llm_d_epp_extproc_streams_inflight") == 0
