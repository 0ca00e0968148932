"""Settings of one simulated server, checked together before anything is bound or built."""

from __future__ import annotations

from dataclasses import dataclass


class SettingError(ValueError):
    """Settings that do not fit together; the text names the flag and what was expected."""


@dataclass(frozen=True, slots=True)
class LoraModule:
    """One adapter known to the server: the name clients ask for and the path it was registered with."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Settings:
    """One server. Times are in the unit their name ends with, everything else counts tokens, sequences or blocks."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str = "sim-model"
    served_model_names: tuple[str, ...] = ()
    max_model_len: int = 8192
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    num_gpu_blocks: int = 4096
    enable_prefix_caching: bool = True
    enable_prompt_tokens_details: bool = False
    enable_lora: bool = False
    max_loras: int = 1
    lora_modules: tuple[LoraModule, ...] = ()
    time_to_first_token_ms: float = 20.0
    inter_token_latency_ms: float = 10.0
    prefill_us_per_token: float = 25.0
    time_factor_under_load: float = 2.0
    startup_delay_s: float = 0.0
    seed: int = 0
    log_level: str = "warning"

    def __post_init__(self) -> None:
        for flag, value in (
            ("--max-model-len", self.max_model_len),
            ("--max-num-seqs", self.max_num_seqs),
            ("--max-num-batched-tokens", self.max_num_batched_tokens),
            ("--block-size", self.block_size),
            ("--max-loras", self.max_loras),
        ):
            if value < 1:
                raise SettingError(f"{flag}: expected at least 1, got {value}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise SettingError(
                f"--max-num-batched-tokens: expected at least --max-num-seqs ({self.max_num_seqs}), got {self.max_num_batched_tokens}"
            )
        # A lone request of the greatest length must always fit, otherwise it would be preempted for ever.
        if self.usable_blocks * self.block_size < self.max_model_len:
            raise SettingError(
                f"--num-gpu-blocks-override: expected at least {-(-self.max_model_len // self.block_size) + 1} blocks of {self.block_size} "
                f"tokens to hold one request of --max-model-len ({self.max_model_len}), got {self.num_gpu_blocks}"
            )
        if self.lora_modules and not self.enable_lora:
            raise SettingError("--lora-modules: expected --enable-lora next to it")
        taken = set(self.names)
        for module in self.lora_modules:
            if module.name in taken:
                raise SettingError(f"--lora-modules: expected a name not in use yet, got {module.name!r}")
            taken.add(module.name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names clients may ask the base model for; the first one is the `model_name` of the metrics."""
        return self.served_model_names or (self.model,)

    @property
    def usable_blocks(self) -> int:
        """Blocks that can hold tokens: like vLLM, the first block is set aside as the null block."""
        return self.num_gpu_blocks - 1
