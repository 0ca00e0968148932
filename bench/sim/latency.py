"""How long things take: the only place where the latency flags are read."""

from __future__ import annotations

from bench.sim.settings import Settings


class Latency:
    """Durations in seconds, all growing linearly with the number of sequences running."""

    def __init__(self, settings: Settings) -> None:
        self._first_s = settings.time_to_first_token_ms / 1e3
        self._decode_s = settings.inter_token_latency_ms / 1e3
        self._prefill_token_s = settings.prefill_us_per_token / 1e6
        self._slope = (settings.time_factor_under_load - 1.0) / max(settings.max_num_seqs - 1, 1)

    def factor(self, running: int) -> float:
        """1 for a lone sequence, --time-factor-under-load at --max-num-seqs."""
        return 1.0 + self._slope * max(running - 1, 0)

    def before_prefill(self, running: int) -> float:
        """What a request spends between admission and its first prefill chunk; it does not hold up the others."""
        return self._first_s * self.factor(running)

    def step(self, prefill_tokens: int, decodes: int, running: int) -> float:
        """One step over `prefill_tokens` prompt tokens and one token for each of `decodes` sequences."""
        decode_s = self._decode_s if decodes else 0.0
        return (decode_s + prefill_tokens * self._prefill_token_s) * self.factor(running)
