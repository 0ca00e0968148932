"""`python -m bench.extproc`: the picker behind the real Envoy, beside what it is to be compared with, interleaved in one run."""

from __future__ import annotations

import argparse
import asyncio
import math
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.extproc import arms as arm_table
from bench.extproc import profiler as profiling
from bench.extproc import workloads as workload_table
from bench.extproc.arms import ARMS, Arm, Kind
from bench.extproc.cell import Options, measure
from bench.extproc.generators import CLIENTS, installed
from bench.extproc.lab import PROXIED_ENDPOINTS, Lab
from bench.extproc.report import Report, Skipped, build, one_line, to_json, to_markdown
from bench.extproc.statistics import Cell
from bench.extproc.workloads import WORKLOADS, Workload
from bench.processes import Failed, output, python

FILES = 16_384


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run."""

    arms: list[Arm]
    workloads: list[Workload]
    rounds: int
    options: Options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.extproc",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            ["arms:", *[f"  {arm.name:14} {arm.note}" for arm in ARMS], "workloads:", *[f"  {w.name:14} {w.title}" for w in WORKLOADS]]
        ),
    )
    add = parser.add_argument
    add("--arms", type=_names, metavar="NAME,...", help="only these (default: all)")
    add("--only", type=_names, metavar="NAME,...", help="only these workloads (default: all)")
    add("--rounds", type=_count, default=3, metavar="N", help="each arm and workload once per round (default: %(default)s)")
    add("--seconds", type=_seconds, default=4.0, metavar="S", help="measured time of each (default: %(default)g)")
    add(
        "--peer", type=_peer, action="append", default=[], metavar="NAME=COMMAND",
        help="another picker: a command that serves ext_proc in plain text on 127.0.0.1:{grpc_port} for the model servers {endpoints} "
        "(host:port,...); {health_port}, when the command says it, is where Envoy checks its health; {metrics_port} is free to use",
    )  # fmt: skip
    add("--client", choices=CLIENTS, help="what sends the closed loop of small requests (default: the first one installed)")
    add("--json", type=Path, metavar="FILE", help="write all numbers there")
    add("--markdown", type=Path, metavar="FILE", help="write the tables there, too")
    add("--assert", action="store_true", dest="strict", help="exit status 1 when something failed or a measured target is not met")
    add("--profile", metavar="ARM:WORKLOAD", help="run only that, once, with py-spy on the server, and print where its time goes")
    add(
        "--profile-output", type=Path, metavar="FILE",
        help="keep the folded stacks (for speedscope), or, when FILE ends in .svg, draw a flame graph in place of the table",
    )  # fmt: skip
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 1000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1 to 1000")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0.5 <= value <= 3600:
        return value
    raise argparse.ArgumentTypeError(f"{text!r}: expected seconds from 0.5 to 3600")


def _peer(text: str) -> Arm:
    try:
        return arm_table.peer(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def _choose(flags: argparse.Namespace) -> tuple[list[Arm], list[Skipped]]:
    """The arms that can be run, and those that this picker cannot."""
    wanted = arm_table.chosen([*ARMS, *flags.peer], flags.arms)
    picker_help = await output(*python("picker", "--help"))
    skipped: list[Skipped] = []
    for arm in wanted:
        reason = arm_table.unavailable(arm, picker_help)
        if reason is not None:
            skipped.append(Skipped(arm.name, reason))
            _tell(f"{arm.name}: skipped: {reason}")
    left_out = {each.arm for each in skipped}
    return [arm for arm in wanted if arm.name not in left_out], skipped


async def _run(plan: Plan, lab: Lab, cells: list[Cell]) -> None:
    """Each round runs every cell once; each begins with another arm, so that none always follows the same."""
    for number in range(plan.rounds):
        for workload in plan.workloads:
            arms = [arm for arm in plan.arms if workload.takes(arm)]
            turn = number % len(arms) if arms else 0
            for arm in [*arms[turn:], *arms[:turn]]:
                cell = await measure(lab, arm, workload, number, plan.options)
                cells.append(cell)
                _tell(f"round {number + 1}/{plan.rounds}  {workload.name:8} {arm.name:14} {one_line(cell)}")


async def _bench(flags: argparse.Namespace) -> Report:
    _end_on_sigterm()
    arms, skipped = await _choose(flags)
    workloads = workload_table.chosen(flags.only)
    if not any(workload.takes(arm) for workload in workloads for arm in arms):
        raise ValueError("nothing to run: none of the arms has a part in any of the workloads")
    options = Options(flags.seconds, installed(flags.client))
    endpoints = max([PROXIED_ENDPOINTS, *[workload.endpoints for workload in workloads]])
    cells: list[Cell] = []
    complete = False
    with tempfile.TemporaryDirectory(prefix="bench-extproc-") as folder:
        async with Lab(Path(folder), endpoints) as lab:
            try:
                await _run(Plan(arms, workloads, flags.rounds, options), lab, cells)
                complete = True
            except asyncio.CancelledError:
                _tell("interrupted")
    order = [arm.name for arm in arms]
    places = [workload.name for workload in workloads]
    cells.sort(key=lambda cell: (places.index(cell.workload), order.index(cell.arm), cell.round))
    report = build(
        cells, skipped, envoy=lab.envoy_version, rounds=flags.rounds, seconds=flags.seconds, client=options.client, complete=complete
    )
    markdown = to_markdown(report, arms, workloads)
    sys.stdout.write(markdown)
    if flags.json is not None:
        flags.json.write_bytes(to_json(report))
    if flags.markdown is not None:
        flags.markdown.write_text(markdown)
    return report


async def _profile(flags: argparse.Namespace, arm_name: str, workload_name: str) -> None:
    _end_on_sigterm()
    program = profiling.find()
    (arm,) = arm_table.chosen([*ARMS, *flags.peer], [arm_name])
    (workload,) = workload_table.chosen([workload_name])
    if arm.kind not in (Kind.PICKER, Kind.ECHO) or not workload.takes(arm):
        raise ValueError(f"--profile {arm_name}:{workload_name}: expected one of our own servers and a workload that it takes part in")
    reason = arm_table.unavailable(arm, await output(*python("picker", "--help")))
    if reason is not None:
        raise ValueError(f"--profile {arm_name}:{workload_name}: {reason}")
    with tempfile.TemporaryDirectory(prefix="bench-extproc-") as folder:
        target = flags.profile_output or Path(folder, "stacks.txt")
        profiler = profiling.Profiler(program, target, Path(folder))
        async with Lab(Path(folder), max(PROXIED_ENDPOINTS, workload.endpoints)) as lab:
            cell = await measure(lab, arm, workload, 0, Options(flags.seconds, installed(flags.client)), profiler)
        if cell.failed is not None:
            raise Failed(cell.failed)
        if profiler.is_graph:
            _tell(f"flame graph: {target}")
        else:
            sys.stdout.write(profiling.table(profiling.top(target.read_text().splitlines())))
    _tell(f"under the profiler: {one_line(cell)}")


def _raise_file_limit() -> None:
    """For the children: an overloaded picker leaves many connections open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard), hard))


def _end_on_sigterm() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 when the bench cannot run, or with `--assert` when something failed or is not met; 2 for wrong flags; 130 when interrupted."""
    parser = _parser()
    flags = parser.parse_args(argv)
    if not sys.platform.startswith("linux"):
        parser.error("CPU and memory of processes are read from /proc: Linux only")
    if flags.profile_output is not None and flags.profile is None:
        parser.error("--profile-output needs --profile")
    if flags.profile is not None and (flags.arms or flags.only or flags.json or flags.markdown or flags.strict):
        parser.error("--profile runs one cell and makes no report: --arms, --only, --json, --markdown and --assert do not go with it")
    _raise_file_limit()
    try:
        if flags.profile is not None:
            arm, _, workload = flags.profile.partition(":")
            asyncio.run(_profile(flags, arm, workload))
            return 0
        report = asyncio.run(_bench(flags))
    except ValueError as error:
        parser.error(str(error))
    except Failed as error:
        _tell(f"bench.extproc: {error}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    if not report.complete:
        return 130
    return 1 if flags.strict and not report.ok else 0


if __name__ == "__main__":
    sys.exit(main())
