"""py-spy on the server of one cell."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.processes import PATIENCE_S, Child, Failed

TOP = 25
_RATE_HZ = 500


def find() -> str:
    """Path of py-spy. ValueError when it is not installed."""
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise ValueError("py-spy is not installed: pip install 'fairlead[profile]'")
    return found


class Profiler:
    """Records `output`: a flame graph when its name ends in .svg, otherwise folded stacks (which speedscope reads, too)."""

    def __init__(self, program: str, output: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.output = output

    @property
    def is_graph(self) -> bool:
        """Rather than stacks that can be counted."""
        return self.output.suffix == ".svg"

    async def record(self, pid: int, seconds: float) -> None:
        """Returns when the file is written. Raises Failed with what py-spy says when it cannot look into the process."""
        form = "flamegraph" if self.is_graph else "raw"
        command = [self._program, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds))), "--rate", str(_RATE_HZ)]
        command += ["--format", form, "--output", str(self.output)]
        async with Child("py-spy", command, self._folder) as child:
            if await child.wait(seconds + 2 * PATIENCE_S):
                raise Failed(f"py-spy: {child.tail()}")


def top(stacks: Iterable[str], count: int = TOP) -> list[tuple[str, float, float]]:
    """Function, % of the samples in itself, % in it or below it, the greatest first. `stacks` are folded: `outer;inner samples`."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in stacks:
        stack, _, number = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] + ")" if frame.endswith(")") and ":" in frame else frame for frame in stack.split(";")]
        samples += int(number)
        own[frames[-1]] += int(number)
        for frame in set(frames):
            total[frame] += int(number)
    return [(name, 100 * n / samples, 100 * total[name] / samples) for name, n in own.most_common(count)]


def table(found: Iterable[tuple[str, float, float]]) -> str:
    """For people."""
    return "".join([" self %  total %  function\n", *[f"{own:7.1f} {total:8.1f}  {name}\n" for name, own, total in found]])
