"""A few hundred cases of every target, and that the fuzzer finds what is there to be found."""

from __future__ import annotations

import gc
import tracemalloc
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fuzz.__main__ import TARGETS, main
from bench.fuzz.dice import Chance, Dice, Tape
from bench.fuzz.finding import Finding, errors_are_findings
from bench.fuzz.targets import Target, targets
from picker.extproc import codec
from picker.extproc.h2.connection import Connection
from picker.extproc.h2.headers import BlockDecoder
from picker.extproc.h2.intake import Intake

CASES = {"connection": 250, "blocks": 150, "messages": 500, "dialogue": 800, "grpc": 2000}


@pytest.fixture(scope="module")
def made() -> dict[str, Target]:
    return targets()


def play(target: Target, first: int, count: int) -> None:
    with errors_are_findings():
        for case in range(first, first + count):
            target(Dice(Chance(Random(f"suite/{case}"))))


@pytest.mark.parametrize("name", TARGETS)
def test_cases_with_a_fixed_seed(made: dict[str, Target], name: str) -> None:
    play(made[name], 0, CASES[name])


@pytest.mark.parametrize("name", TARGETS)
def test_choices_that_hypothesis_makes(made: dict[str, Target], name: str) -> None:
    @given(st.binary(max_size=2_000))
    @settings(max_examples=100, derandomize=True, database=None)
    def run(tape: bytes) -> None:
        with errors_are_findings():
            made[name](Dice(Tape(tape)))

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_memory_does_not_grow(made: dict[str, Target], name: str) -> None:
    target, count = made[name], CASES[name] // 3
    play(target, 0, CASES[name])
    tracemalloc.start()
    try:
        play(target, 0, count)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        play(target, 0, count)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The decision log and the prefix index keep what they are allowed to.
    assert after - before < 200_000


def test_an_exception_is_a_finding(made: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "DecodeError", KeyError)
    with pytest.raises(Exception, match="Error parsing message"):
        play(made["dialogue"], 0, 500)


def test_what_the_server_catches_itself_is_a_finding(made: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Intake, "_check_memory", fail)
    with pytest.raises(Finding, match="logged as an error: HTTP/2 connection failed"):
        play(made["connection"], 0, 100)


def test_a_call_that_never_ends_is_a_finding(made: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "let_go", lambda *_: None)
    with pytest.raises(Finding, match=r"a call ended not once|something is in flight"):
        play(targets()["connection"], 0, 20)


def test_a_stale_header_block_is_a_finding(made: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(dict):  # type: ignore[type-arg]
        def clear(self) -> None:
            """Not."""

    honest = BlockDecoder.__init__

    def init(self: BlockDecoder, *arguments: int) -> None:
        honest(self, *arguments)
        self._heads = Forgetful()

    monkeypatch.setattr(BlockDecoder, "__init__", init)
    with pytest.raises(Finding, match=r"remembered head differs|a bad block is taken"):
        play(made["blocks"], 0, 300)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--minutes", "0.03", "--seed", "command"]) == 0
    said = capsys.readouterr().out
    assert "0 findings with seed command: none" in said
    assert all(f"{name} " in said for name in TARGETS)
    assert main(["--seed", "command", "--case", "blocks:3"]) == 0


def test_the_command_fails_when_it_finds_something(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(codec, "DecodeError", KeyError)
    assert main(["--minutes", "0.05", "--seed", "command", "--only", "dialogue"]) == 1
    assert "--- dialogue:" in capsys.readouterr().out
