"""How py-spy is called, and what its folded stacks say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.extproc.profiler import Profiler, table, top
from bench.processes import Failed

STACKS = ["main (a.py:1);work (a.py:2) 30", "main (a.py:1);work (a.py:3);inner (b.py:9) 60", "main (a.py:1) 10"]


def test_the_top_functions_by_their_own_time() -> None:
    assert top(STACKS) == [("inner (b.py)", 60.0, 60.0), ("work (a.py)", 30.0, 90.0), ("main (a.py)", 10.0, 100.0)]
    assert top(STACKS, 1) == [("inner (b.py)", 60.0, 60.0)]
    assert "   60.0     60.0  inner (b.py)\n" in table(top(STACKS))


def test_no_samples_are_no_functions() -> None:
    assert top([]) == []


def program(folder: Path, text: str) -> str:
    path = folder / "py-spy-stand-in"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(("name", "form", "is_graph"), [("stacks.txt", "raw", False), ("graph.svg", "flamegraph", True)])
async def test_the_name_of_the_output_decides_its_form(tmp_path: Path, name: str, form: str, is_graph: bool) -> None:
    output = tmp_path / name
    profiler = Profiler(program(tmp_path, f'echo "$@" > {output}'), output, tmp_path)
    await profiler.record(os.getpid(), 2.0)
    words = output.read_text().split()
    assert words[:3] == ["record", "--pid", str(os.getpid())]
    assert words[words.index("--format") + 1] == form
    assert words[words.index("--duration") + 1] == "2"
    assert words[words.index("--output") + 1] == str(output)
    assert profiler.is_graph is is_graph


async def test_what_py_spy_complains_of_is_told(tmp_path: Path) -> None:
    profiler = Profiler(program(tmp_path, "echo no permission; exit 1"), tmp_path / "stacks.txt", tmp_path)
    with pytest.raises(Failed, match="py-spy: no permission"):
        await profiler.record(os.getpid(), 1.0)
