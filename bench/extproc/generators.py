"""h2load and wrk, where they are installed: the clients for closed loops of one small request."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from bench.extproc.bodies import PATH, chat_bodies
from bench.extproc.client import Outcome
from bench.extproc.statistics import latencies
from bench.ports import HOST
from bench.processes import GRACE_S, PATIENCE_S, Child, Failed

CLIENTS = ("h2load", "wrk", "own")
_SCRIPT = """
wrk.method = "POST"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
wrk.headers["content-type"] = "application/json"
done = function(summary, latency, requests)
  local e = summary.errors
  print("bench", summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    e.connect + e.read + e.write + e.timeout, e.status)
end
"""


def installed(wanted: str | None) -> str:
    """The client for simple closed loops: `wanted`, or the first there is. Raises ValueError when `wanted` is not installed."""
    if wanted is not None:
        if wanted != "own" and shutil.which(wanted) is None:
            raise ValueError(f"{wanted} is not on PATH")
        return wanted
    return next(name for name in CLIENTS if name == "own" or shutil.which(name))


class Generator:
    """Runs h2load or wrk with one small body."""

    def __init__(self, name: str, folder: Path, port: int, prompt_bytes: int, concurrency: int) -> None:
        self.name = name
        self._folder = folder
        self._port = port
        self._concurrency = concurrency
        self._body = folder / "body.json"
        self._body.write_bytes(chat_bodies(prompt_bytes, 1, stream=False)[0])

    async def run(self, seconds: float) -> Outcome:
        """Load for whole seconds, at least one. Raises Failed when the program fails."""
        whole = max(1, round(seconds))
        return await (self._h2load(whole) if self.name == "h2load" else self._wrk(whole))

    async def _finished(self, command: list[str], seconds: int) -> str:
        async with Child(self.name, command, self._folder) as child:
            status = await child.wait(seconds + PATIENCE_S)
            if status:
                raise Failed(f"{self.name} exited with {status}: {child.tail()}")
            return child.log()

    async def _h2load(self, seconds: int) -> Outcome:
        requests = self._folder / "h2load.tsv"
        requests.unlink(missing_ok=True)
        command = [
            "h2load", "--h1", "-t1", f"-c{self._concurrency}", f"-D{seconds}", f"-N{GRACE_S:g}", f"--log-file={requests}",
            "-d", str(self._body), "-H", "content-type: application/json", f"http://{HOST}:{self._port}{PATH}",
        ]  # fmt: skip
        text = await self._finished(command, seconds)
        return read_h2load(text, requests.read_text(), seconds)

    async def _wrk(self, seconds: int) -> Outcome:
        script = self._folder / "wrk.lua"
        script.write_text(_SCRIPT.format(body=self._body))
        command = ["wrk", "-t1", f"-c{self._concurrency}", f"-d{seconds}s", "-s", str(script), f"http://{HOST}:{self._port}{PATH}"]
        return read_wrk(await self._finished(command, seconds))


def read_h2load(text: str, requests: str, seconds: float) -> Outcome:
    """From its summary and its log, a line for each request: start, status, duration in µs. Raises Failed when they are not that."""
    summary = re.search(r"^requests:.* (\d+) failed, (\d+) errored, (\d+) timeout", text, re.MULTILINE)
    if summary is None:
        raise Failed(f"h2load has written no summary: {text[-300:]!r}")
    found = Outcome(seconds)
    for count, what in zip(summary.groups(), ("failed", "errored", "timed out"), strict=True):
        if int(count):
            found.errors[f"h2load: {what}"] = int(count)
    latencies_s: list[float] = []
    for line in requests.splitlines():
        _, status, took_us = line.split("\t")
        if status != "200":
            found.errors[f"status {status}"] = found.errors.get(f"status {status}", 0) + 1
        else:
            latencies_s.append(float(took_us) / 1e6)
    found.requests = len(latencies_s)
    found.latencies = latencies(latencies_s)
    return found


def read_wrk(text: str) -> Outcome:
    """From the line that our script prints. Raises Failed when there is none."""
    line = re.search(r"^bench\s+(.*)$", text, re.MULTILINE)
    if line is None:
        raise Failed(f"wrk has written no summary: {text[-300:]!r}")
    requests, took_us, p50_us, p95_us, p99_us, lost, bad = (float(number) for number in line[1].split())
    errors = {what: int(count) for what, count in (("wrk: socket errors", lost), ("wrk: bad status", bad)) if count}
    found = {"p50_ms": p50_us / 1e3, "p95_ms": p95_us / 1e3, "p99_ms": p99_us / 1e3}
    return Outcome(took_us / 1e6, int(requests - bad), latencies=found, errors=errors)
