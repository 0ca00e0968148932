"""`python -m bench.soak --minutes 30`: mixed load through the real Envoy, clients that leave, servers that fail; nothing may be left of it.

Two simulators and a server that fails on purpose stand behind Envoy and the picker. Requests ask for JSON and streams, one in a hundred has
a body of 5 MB, one in ten is left by its client in some phase. At the end the load is drained and checked: every failure had a reason, all
in-flight gauges are zero, the picker's memory is flat after warm-up, its log has no errors. Exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.memory import MIB, Samples, rss_bytes
from bench.processes import Failed
from bench.soak import queueing
from bench.soak.load import Load, Tally
from bench.soak.stage import Stage
from bench.soak.stub import Stub
from bench.soak.verdict import Report, verdict

_SAMPLE_S = 1.0
_NEWS_S = 60.0


async def soak(
    folder: Path,
    *,
    seconds: float,
    clients: int,
    transport: str,
    seed: str,
    picker_args: Sequence[str],
    say: bool = True,
    flow_control: bool = False,
) -> Report:
    """Runs everything; the folder gets the logs. Raises Failed."""
    stub = Stub(Random(f"{seed}/stub"))
    tally, memory = Tally(), Samples()
    if flow_control:
        picker_args = [*picker_args, *queueing.picker_args(folder)]
    async with Stage(folder, transport, [f"127.0.0.1:{await stub.start()}"], picker_args) as stage:
        load = Load(stage.port, stub, tally, Random(f"{seed}/load"), clients, queueing=flow_control)
        running = asyncio.create_task(load.run())
        began = told = time.monotonic()
        while (now := time.monotonic()) - began < seconds and not running.done():
            stage.check()
            memory.add(now, rss_bytes(stage.picker.pid))
            if say and now - told >= _NEWS_S:
                told = now
                size, wrong = memory.sizes[-1] / MIB, len(tally.unexplained)
                sys.stdout.write(f"{(now - began) / 60:5.1f} min: {tally.total} requests, {wrong} unexplained, picker {size:.1f} MiB\n")
                sys.stdout.flush()
            await asyncio.sleep(min(_SAMPLE_S, began + seconds - now))
        load.stop()
        await running
        report = await verdict(stage, tally, stub, memory, time.monotonic() - began)
        stub.stop()
        return report


async def _until_told(folder: Path, flags: argparse.Namespace) -> Report:
    """A signal cancels the run, so that no process is left behind."""
    task = asyncio.create_task(
        soak(
            folder, seconds=flags.minutes * 60, clients=flags.clients, transport=flags.transport, seed=flags.seed,
            picker_args=flags.picker_arg, flow_control=flags.flow_control,
        )
    )  # fmt: skip
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, 1 when a check fails, 2 when the processes cannot be started."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N", help="how long the load lasts (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=24, metavar="N", help="that send one request after the other (default: %(default)s)")
    parser.add_argument("--transport", choices=("h2", "grpcio"), default="h2", help="of the picker (default: %(default)s)")
    parser.add_argument("--picker-arg", action="append", default=[], metavar="FLAG", help="one more flag for the picker; may be repeated")
    parser.add_argument("--flow-control", action="store_true", help="requests of random priorities queue in front of a small pool")
    parser.add_argument("--seed", default="soak", help="of the choices that clients and failing servers make (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the logs of the processes there (default: they go)")
    flags = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = flags.logs or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            report = asyncio.run(_until_told(folder, flags))
        except Failed as error:
            sys.stderr.write(f"the stage could not be set, or fell: {error}\n")
            return 2
        except asyncio.CancelledError:
            sys.stderr.write("told to stop\n")
            return 2
    sys.stdout.write(report.text())
    if flags.json is not None:
        flags.json.write_text(report.json())
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
