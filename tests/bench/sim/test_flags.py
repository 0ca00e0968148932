"""Flags: what is refused, with which words, and what arrives in the settings."""

from __future__ import annotations

import pytest

from bench.sim.__main__ import main, parse_settings
from bench.sim.settings import LoraModule


@pytest.mark.parametrize(
    ("argv", "flag", "expected"),
    [
        (["--max-num-seqs", "0"], "--max-num-seqs", "at least 1"),
        (["--max-num-seqs", "many"], "--max-num-seqs", "an integer"),
        (["--port", "70000"], "--port", "from 0 to 65535"),
        (["--inter-token-latency-ms", "nan"], "--inter-token-latency-ms", "a number"),
        (["--time-factor-under-load", "0.5"], "--time-factor-under-load", "at least 1"),
        (["--enable-lora", "--lora-modules", "sql"], "--lora-modules", "name=path"),
        (["--enable-lora", "--lora-modules", '{"name": "sql"}'], "--lora-modules", "name=path"),
        (["--lora-modules", "sql=/x"], "--lora-modules", "--enable-lora"),
        (["--enable-lora", "--lora-modules", "sim-model=/x"], "--lora-modules", "not in use"),
        (["--num-gpu-blocks-override", "8"], "--num-gpu-blocks-override", "at least 513 blocks"),
        (["--max-num-seqs", "4096"], "--max-num-batched-tokens", "at least --max-num-seqs"),
        (["--max-num", "3"], "--max-num", "unrecognized"),
        (["--log-level", "loud"], "--log-level", "choose from"),
    ],
)
def test_a_bad_flag_is_named(argv: list[str], flag: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    text = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert flag in text
    assert expected in text


def test_flags_arrive_in_the_settings() -> None:
    settings = parse_settings(
        [
            *("--served-model-name", "a", "b", "--enable-lora", "--lora-modules", "x=/p=q", '{"name": "y", "path": "/y"}'),
            *("--no-enable-prefix-caching", "--num-gpu-blocks-override", "2000", "--startup-delay-s", "0.5"),
        ]
    )
    assert settings.names == ("a", "b")
    assert settings.lora_modules == (LoraModule("x", "/p=q"), LoraModule("y", "/y"))
    assert (settings.enable_prefix_caching, settings.num_gpu_blocks, settings.startup_delay_s) == (False, 2000, 0.5)


def test_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: fairlead sim ")
