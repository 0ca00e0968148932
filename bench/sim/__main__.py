"""Flags of `fairlead sim` -> Settings -> one simulated server."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable

from bench.sim.settings import LoraModule, SettingError, Settings


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """An argparse type: an integer within bounds, refused with a text that says what was expected."""
    wanted = f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text!r}") from None
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got {text}")
        return value

    return parse


def number(minimum: float) -> Callable[[str], float]:
    """An argparse type: a finite number of at least `minimum`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < minimum:
            raise argparse.ArgumentTypeError(f"expected a number of at least {minimum:g}, got {text!r}")
        return value

    return parse


def name(text: str) -> str:
    """An argparse type: a non-empty name."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a name, got an empty text")
    return text


def lora_module(text: str) -> LoraModule:
    """An argparse type: `name=path` or `{"name": ..., "path": ...}`."""
    wanted = 'expected name=path or {"name": "...", "path": "..."}'
    if text.lstrip().startswith("{"):
        try:
            given = json.loads(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{wanted}, got {text!r}") from None
        adapter, path = given.get("name"), given.get("path")
    else:
        adapter, _, path = text.partition("=")
    if not (isinstance(adapter, str) and isinstance(path, str) and adapter and path):
        raise argparse.ArgumentTypeError(f"{wanted}, got {text!r}")
    return LoraModule(name=adapter, path=path)


def build_parser() -> argparse.ArgumentParser:
    """The flags: vLLM's names where vLLM has the flag, our own for the simulated latency."""
    plain = Settings()
    parser = argparse.ArgumentParser(
        prog="fairlead sim",
        description="Serve one simulated vLLM server: OpenAI-compatible HTTP, vLLM metrics, no model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--host", type=name, default=plain.host, help="address to listen on")
    add("--port", type=integer(0, 65535), default=plain.port, help="port to listen on; 0 takes a free one")
    add("--model", type=name, default=plain.model, help="base model")
    add("--served-model-name", type=name, nargs="+", default=[], metavar="NAME", help="names clients may use in place of --model")
    add("--max-model-len", type=integer(1), default=plain.max_model_len, help="prompt plus output, tokens")
    add("--max-num-seqs", type=integer(1), default=plain.max_num_seqs, help="sequences running at once; more of them wait")
    add("--max-num-batched-tokens", type=integer(1), default=plain.max_num_batched_tokens, help="tokens computed in one step")
    add("--block-size", type=integer(1), default=plain.block_size, help="tokens in a KV block")
    add("--num-gpu-blocks-override", type=integer(2), default=plain.num_gpu_blocks, metavar="BLOCKS", help="KV blocks in all")
    add("--enable-prefix-caching", action=argparse.BooleanOptionalAction, default=plain.enable_prefix_caching, help="reuse KV blocks")
    add("--enable-prompt-tokens-details", action="store_true", help="report cached_tokens in usage")
    add("--enable-lora", action="store_true", help="serve LoRA adapters")
    add("--max-loras", type=integer(1), default=plain.max_loras, help="distinct adapters running at once")
    add("--lora-modules", type=lora_module, nargs="+", default=[], metavar="NAME=PATH", help="adapters known from the start (or JSON)")
    add(
        "--time-to-first-token-ms",
        type=number(0),
        default=plain.time_to_first_token_ms,
        metavar="MS",
        help="prefill time of an empty prompt",
    )
    add("--inter-token-latency-ms", type=number(0), default=plain.inter_token_latency_ms, metavar="MS", help="time of a decode step")
    add("--prefill-us-per-token", type=number(0), default=plain.prefill_us_per_token, metavar="US", help="prefill of an uncached token")
    add(
        "--time-factor-under-load",
        type=number(1),
        default=plain.time_factor_under_load,
        metavar="FACTOR",
        help="all latencies grow linearly with the sequences running, up to this factor at --max-num-seqs",
    )
    add("--startup-delay-s", type=number(0), default=plain.startup_delay_s, metavar="S", help="time before the port opens")
    add("--seed", type=integer(0), default=plain.seed, help="same seed and prompt, same text")
    add("--log-level", choices=["debug", "info", "warning", "error"], default=plain.log_level, help="lowest level logged")
    return parser


def parse_settings(argv: list[str] | None) -> Settings:
    """Settings from the command line; bad ones end the process with code 2 and a text naming the flag."""
    parser = build_parser()
    flags = parser.parse_args(argv)
    values = vars(flags)
    values["served_model_names"] = tuple(values.pop("served_model_name"))
    values["lora_modules"] = tuple(values["lora_modules"])
    values["num_gpu_blocks"] = values.pop("num_gpu_blocks_override")
    try:
        return Settings(**values)
    except SettingError as wrong:
        parser.error(str(wrong))


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code is 0 then, and 1 when the address cannot be bound."""
    settings = parse_settings(argv)
    # The server parts cost some 0.3 s to import, which `--help` and a refused flag need not pay.
    from bench.sim.server import run

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
