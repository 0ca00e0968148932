"""One request's answers: the text that was planned for each choice, how much the engine released, and the usage."""

from __future__ import annotations

import asyncio
import secrets
import time
from array import array
from dataclasses import dataclass

import xxhash

from bench.sim.errors import ApiError, output_too_long, prompt_too_long
from bench.sim.metrics import Metrics
from bench.sim.prompt import Prompt
from bench.sim.sequence import FinishReason, Sequence
from bench.sim.settings import Settings
from bench.sim.stepper import Stepper
from bench.sim.text import compose, cut_at_stop, token_of

GREATEST_N = 128


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asked for; `max_param` names the field that `max_tokens` came from."""

    max_tokens: int | None = None
    max_param: str = "max_tokens"
    min_tokens: int = 0
    ignore_eos: bool = False
    stops: tuple[str, ...] = ()
    n: int = 1
    seed: int | None = None
    salt: str = ""


class Choice:
    """One answer: its planned pieces of text, a token each, of which the engine has released the first few."""

    __slots__ = ("_shown", "index", "pieces", "sequence", "stopped_by")

    def __init__(self, index: int, sequence: Sequence, pieces: list[str], stopped_by: str | None) -> None:
        self.index = index
        self.sequence = sequence
        self.pieces = pieces
        self.stopped_by = stopped_by
        self._shown = 0

    def take(self) -> str | None:
        """The text released since the last call; None if no token came."""
        produced = self.sequence.produced
        if produced == self._shown:
            return None
        text = "".join(self.pieces[self._shown : produced])
        self._shown = produced
        return text

    @property
    def text(self) -> str:
        """All the text released so far."""
        return "".join(self.pieces[: self.sequence.produced])

    @property
    def finished(self) -> FinishReason | None:
        """Why the answer ended; None while it goes on."""
        return self.sequence.finished

    @property
    def stop_text(self) -> str | None:
        """The stop text that ended the answer, if one did."""
        return self.stopped_by if self.finished == "stop" else None


class Generation:
    """The sequences of one request, and the one waiter that is told of their progress."""

    def __init__(self, stepper: Stepper, model: str, n: int = 1) -> None:
        """`n` choices in a row answer the same prompt."""
        self.model = model
        self.n = n
        self.created = int(time.time())
        self.choices: list[Choice] = []
        self.prompt_tokens = 0
        self._stepper = stepper
        self._progress = asyncio.Event()

    def notify(self) -> None:
        """The engine made progress."""
        self._progress.set()

    def start(self) -> None:
        """Queue all sequences."""
        for choice in self.choices:
            self._stepper.submit(choice.sequence)

    def abort(self) -> None:
        """End what has not ended; harmless when all has."""
        for choice in self.choices:
            self._stepper.abort(choice.sequence)

    async def progress(self) -> None:
        """Wait until the engine released a token or ended a sequence since the last call."""
        await self._progress.wait()
        self._progress.clear()

    async def end(self) -> None:
        """Wait until all sequences ended."""
        while not self.finished:
            await self.progress()

    @property
    def finished(self) -> bool:
        """Whether every sequence ended, for whatever reason."""
        return all(choice.finished is not None for choice in self.choices)

    @property
    def aborted(self) -> bool:
        """Whether a sequence was ended from outside, so that nobody is left to answer."""
        return any(choice.finished == "abort" for choice in self.choices)

    @property
    def output_tokens(self) -> int:
        """Tokens released so far, over all choices."""
        return sum(choice.sequence.produced for choice in self.choices)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the prefix cache, each prompt counted once."""
        return sum(choice.sequence.cached or 0 for choice in self.choices[:: self.n])


class Planner:
    """Turns prompts into generations: checks lengths, writes the text that will be said, makes the sequences."""

    def __init__(self, settings: Settings, stepper: Stepper, metrics: Metrics) -> None:
        self._settings = settings
        self._stepper = stepper
        self._metrics = metrics

    def plan(self, model: str, adapter: str | None, prompts: list[Prompt], wanted: Wanted) -> Generation:
        """A generation, not started yet, of `wanted.n` choices for each prompt; ApiError 400 if one cannot fit."""
        if not 1 <= wanted.n <= GREATEST_N:
            raise ApiError(400, f"n: expected from 1 to {GREATEST_N}, got {wanted.n}", param="n")
        if wanted.max_tokens is not None and wanted.max_tokens < 1:
            raise ApiError(400, f"{wanted.max_param}: expected at least 1, got {wanted.max_tokens}", param=wanted.max_param)
        if wanted.max_tokens is not None and wanted.min_tokens > wanted.max_tokens:
            raise ApiError(400, f"min_tokens: expected at most {wanted.max_param} ({wanted.max_tokens})", param="min_tokens")
        generation = Generation(self._stepper, model, wanted.n)
        for prompt in prompts:
            generation.prompt_tokens += len(prompt)
            for copy in range(wanted.n):
                generation.choices.append(self._choice(generation, adapter, prompt, wanted, copy))
        self._metrics.asked(wanted.n)
        return generation

    def plan_prefill(self, model: str, adapter: str | None, prompts: list[Prompt]) -> Generation:
        """A generation without output, for pooling endpoints."""
        generation = Generation(self._stepper, model)
        for prompt in prompts:
            if len(prompt) > self._settings.max_model_len:
                raise prompt_too_long(len(prompt), self._settings.max_model_len)
            generation.prompt_tokens += len(prompt)
            sequence = self._sequence(generation, prompt, [], "stop", adapter, "", None)
            generation.choices.append(Choice(len(generation.choices), sequence, [], None))
        return generation

    def _choice(self, generation: Generation, adapter: str | None, prompt: Prompt, wanted: Wanted, copy: int) -> Choice:
        room = self._settings.max_model_len - len(prompt)
        if room < 1:
            raise prompt_too_long(len(prompt), self._settings.max_model_len)
        if wanted.max_tokens is not None and wanted.max_tokens > room:
            raise output_too_long(len(prompt), wanted.max_tokens, self._settings.max_model_len, wanted.max_param)
        seed = xxhash.xxh64_intdigest(f"{self._settings.seed}/{wanted.seed}/{copy}".encode(), xxhash.xxh64_intdigest(prompt.tobytes()))
        ends_with: FinishReason = "length"
        if wanted.max_tokens is not None:
            length = wanted.max_tokens
        elif wanted.ignore_eos:
            length = room
        else:
            # Nobody said how long: a short answer that ends by itself.
            length = max(16 + seed % 49, wanted.min_tokens)
            if length <= room:
                ends_with = "stop"
            length = min(length, room)
        pieces, stopped_by = cut_at_stop(compose(seed, length), list(wanted.stops))
        if stopped_by is not None:
            ends_with = "stop"
        sequence = self._sequence(generation, prompt, pieces, ends_with, adapter, wanted.salt, wanted.max_tokens)
        return Choice(len(generation.choices), sequence, pieces, stopped_by)

    def _sequence(
        self,
        generation: Generation,
        prompt: Prompt,
        pieces: list[str],
        ends_with: FinishReason,
        adapter: str | None,
        salt: str,
        requested: int | None,
    ) -> Sequence:
        return Sequence(
            prompt,
            array("I", map(token_of, pieces)),
            block_size=self._settings.block_size,
            ends_with=ends_with,
            adapter=adapter,
            salt=salt,
            requested=requested,
            notify=generation.notify,
        )


def random_id() -> str:
    """16 hex digits."""
    return secrets.token_hex(8)
