"""`python -m bench.fuzz --minutes 10`: fuzzes the ext_proc door without sockets, and watches the memory of the process.

Every case has a name (target and number) and is made from the seed and its name: `--seed S --case TARGET:N` runs it again. The targets take
turns. `--engine atheris` is coverage-guided (`pip install atheris`); it stops at the first finding and writes the input to a file, which
`--tape FILE` runs again. Exit status 1 when there is a finding or the memory grew.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.fuzz.finding import errors_are_findings

TARGETS = ("connection", "blocks", "messages", "dialogue", "grpc")
_TURN_S = 0.25
_MOST_FINDINGS = 20
_ALLOWED_MIB = 4.0


def fuzz(names: Sequence[str], seed: str, seconds: float) -> int:
    """Exit status."""
    from bench.fuzz.dice import Chance, Dice
    from bench.fuzz.targets import targets
    from bench.memory import Samples, rss_bytes

    cases = dict.fromkeys(names, 0)
    findings: list[str] = []
    memory = Samples()
    began = sampled = time.monotonic()
    with errors_are_findings():
        made = {name: target for name, target in targets().items() if name in cases}
        while (now := time.monotonic()) - began < seconds and len(findings) < _MOST_FINDINGS:
            if now - sampled >= 1.0:
                sampled = now
                gc.collect()
                memory.add(now, rss_bytes())
            for name, target in made.items():
                turn_ends = time.monotonic() + _TURN_S
                while time.monotonic() < turn_ends:
                    case = f"{name}:{cases[name]}"
                    cases[name] += 1
                    try:
                        target(Dice(Chance(Random(f"{seed}/{case}"))))
                    except Exception:
                        findings.append(case)
                        sys.stdout.write(f"--- {case} (seed {seed})\n{traceback.format_exc()[-3000:]}\n")
    trend = memory.trend()
    for name, count in cases.items():
        sys.stdout.write(f"{name:12} {count:10} cases\n")
    sys.stdout.write(f"{len(findings)} findings with seed {seed}: {', '.join(findings) or 'none'}\n")
    if trend is None:
        sys.stdout.write("memory: the run was too short to tell\n")
        return 1 if findings else 0
    sys.stdout.write(f"memory after warm-up: {trend.first_mib:.1f} MiB, then {trend.last_mib:.1f} ")
    sys.stdout.write(f"({trend.grown_mib:+.2f}, allowed: {_ALLOWED_MIB:g})\n")
    return 1 if findings or trend.grown_mib > _ALLOWED_MIB else 0


def again(case: str, seed: str) -> int:
    """Run one case of `fuzz`. Exit status 0; whatever it finds is raised."""
    from bench.fuzz.dice import Chance, Dice
    from bench.fuzz.targets import targets

    with errors_are_findings():
        targets()[case.partition(":")[0]](Dice(Chance(Random(f"{seed}/{case}"))))
    return 0


def play(names: Sequence[str], tape: bytes) -> int:
    """Run one input of the coverage-guided engine. Exit status 0; whatever it finds is raised."""
    from bench.fuzz.dice import Dice, Tape
    from bench.fuzz.targets import targets

    with errors_are_findings():
        targets()[names[tape[0] % len(names)] if tape else names[0]](Dice(Tape(tape[1:])))
    return 0


def guided(names: Sequence[str], seconds: float) -> int:
    """Does not return: the engine ends the process, with a status other than 0 when it found something."""
    try:
        import atheris
    except ImportError:
        sys.stderr.write("--engine atheris needs the package atheris\n")
        return 2
    with atheris.instrument_imports(include=["picker.extproc", "picker.parsing", "hpack"]):
        from bench.fuzz.dice import Dice, Tape
        from bench.fuzz.targets import targets

        made = targets()

    def one(data: bytes) -> None:
        made[names[data[0] % len(names)] if data else names[0]](Dice(Tape(data[1:])))

    with errors_are_findings():
        atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", "-max_len=4096", "-rss_limit_mb=1024"], one)
        atheris.Fuzz()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, 1 for findings, 2 for flags that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=1.0, metavar="N", help="how long (default: %(default)s)")
    parser.add_argument("--only", choices=TARGETS, action="append", metavar="TARGET", help=f"one of {', '.join(TARGETS)}; may be repeated")
    parser.add_argument("--seed", default=None, help="default: the time")
    parser.add_argument("--case", metavar="TARGET:N", help="run this case of --seed again")
    parser.add_argument("--engine", choices=("chance", "atheris"), default="chance", help="(default: %(default)s)")
    parser.add_argument("--tape", type=Path, metavar="FILE", help="run an input of the coverage-guided engine again")
    flags = parser.parse_args(argv)
    names = flags.only or list(TARGETS)
    seed = flags.seed or str(int(time.time()))
    if flags.case is not None:
        if flags.seed is None or flags.case.partition(":")[0] not in TARGETS:
            parser.error("--case is TARGET:N, and needs --seed")
        return again(flags.case, seed)
    if flags.tape is not None:
        return play(names, flags.tape.read_bytes())
    if flags.engine == "atheris":
        return guided(names, flags.minutes * 60)
    return fuzz(names, seed, flags.minutes * 60)


if __name__ == "__main__":
    sys.exit(main())
