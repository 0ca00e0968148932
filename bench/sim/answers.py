"""The generating endpoints: chat, completions, messages, responses. Body -> generation -> format -> client."""

from __future__ import annotations

from typing import Any, Protocol

from bench.sim.anthropic_format import MessagesFormat
from bench.sim.asgi import Call, Headers
from bench.sim.bodies import ChatBody, CompletionBody, MessagesBody, ResponsesBody, Sampling, decode
from bench.sim.errors import ApiError
from bench.sim.generation import Choice, Generation, Planner, Wanted, random_id
from bench.sim.load import Load
from bench.sim.models import Models
from bench.sim.openai_format import ChatFormat, CompletionFormat
from bench.sim.prompt import chat_prompt, responses_messages, text_prompts
from bench.sim.responses_format import ResponsesFormat
from bench.sim.settings import Settings
from bench.sim.stepper import Stepper

_REPORTING = ("/v1/chat/completions", "/v1/completions")


class Format(Protocol):
    """How one API writes an answer, streamed (opening, deltas, closing) or whole."""

    def opening(self) -> bytes:
        """What comes before the first text."""

    def delta(self, choice: Choice, text: str) -> bytes:
        """New text of one choice; the last one may say why the choice ended."""

    def closing(self) -> bytes:
        """What comes after the last text."""

    def whole(self) -> dict[str, Any]:
        """The answer when it is not streamed."""


class Answers:
    """Handlers that generate text."""

    def __init__(self, settings: Settings, models: Models, planner: Planner, stepper: Stepper) -> None:
        self._details = settings.enable_prompt_tokens_details
        self._models = models
        self._planner = planner
        self._stepper = stepper

    async def chat(self, call: Call) -> None:
        """POST /v1/chat/completions."""
        body = decode(await call.body(), ChatBody)
        model, adapter = self._models.resolve(body.model)
        if not body.messages:
            raise ApiError(400, "messages: expected at least one message", param="messages")
        limit, param = body.max_completion_tokens, "max_completion_tokens"
        if limit is None:
            limit, param = body.max_tokens, "max_tokens"
        wanted = _wanted(body, limit, param, stop=body.stop, n=body.n)
        generation = self._planner.plan(model, adapter, [chat_prompt(body.messages)], wanted)
        answer = ChatFormat(generation, _answer_id(call, "chatcmpl"), body.stream_options, details=self._details)
        await self._answer(call, generation, answer, stream=bool(body.stream))

    async def completions(self, call: Call) -> None:
        """POST /v1/completions."""
        body = decode(await call.body(), CompletionBody)
        model, adapter = self._models.resolve(body.model)
        wanted = _wanted(body, body.max_tokens, "max_tokens", stop=body.stop, n=body.n)
        generation = self._planner.plan(model, adapter, text_prompts(body.prompt, "prompt"), wanted)
        answer = CompletionFormat(generation, _answer_id(call, "cmpl"), body.stream_options, details=self._details)
        await self._answer(call, generation, answer, stream=bool(body.stream))

    async def messages(self, call: Call) -> None:
        """POST /v1/messages."""
        body = decode(await call.body(), MessagesBody)
        model, adapter = self._models.resolve(body.model)
        if not body.messages:
            raise ApiError(400, "messages: expected at least one message", param="messages")
        wanted = _wanted(body, body.max_tokens, "max_tokens", stop=body.stop_sequences, n=1)
        generation = self._planner.plan(model, adapter, [chat_prompt(body.messages, body.system)], wanted)
        answer = MessagesFormat(generation, _answer_id(call, "chatcmpl"))
        await self._answer(call, generation, answer, stream=bool(body.stream))

    async def responses(self, call: Call) -> None:
        """POST /v1/responses."""
        body = decode(await call.body(), ResponsesBody)
        model, adapter = self._models.resolve(body.model)
        prompt = chat_prompt(responses_messages(body.input), body.instructions)
        wanted = _wanted(body, body.max_output_tokens, "max_output_tokens", stop=None, n=1)
        generation = self._planner.plan(model, adapter, [prompt], wanted)
        answer = ResponsesFormat(generation, body, details=self._details)
        await self._answer(call, generation, answer, stream=bool(body.stream))

    async def _answer(self, call: Call, generation: Generation, answer: Format, *, stream: bool) -> None:
        generation.start()
        try:
            async with call.watched(generation.abort):
                if stream:
                    await _stream(call, generation, answer)
                    return
                await generation.end()
                if not generation.aborted:
                    await call.respond_json(200, answer.whole(), extra=load_report(call, self._stepper.engine.load()))
        finally:
            # Whatever ended this handler (shutdown, a broken connection), nothing of it stays in the engine.
            generation.abort()


async def _stream(call: Call, generation: Generation, answer: Format) -> None:
    await call.start_stream()
    opened = False
    while True:
        await generation.progress()
        if generation.aborted:
            return
        chunks: list[bytes] = []
        for choice in generation.choices:
            text = choice.take()
            if text is None:
                continue
            if not opened:
                opened = True
                chunks.append(answer.opening())
            chunks.append(answer.delta(choice, text))
        if generation.finished:
            chunks.append(answer.closing())
            await call.write(b"".join(chunks))
            await call.end_stream()
            return
        if chunks:
            await call.write(b"".join(chunks))


def load_report(call: Call, load: Load) -> Headers:
    """The ORCA header with the engine's load, for requests that ask for it.

    As in vLLM, chat and text completions have it and the other APIs have not; streamed answers never carry it.
    """
    if call.path not in _REPORTING:
        return []
    asked = (call.header(b"endpoint-load-metrics-format") or "").upper()
    waiting, usage = float(load.waiting), load.kv_usage
    if asked == "JSON":
        text = f'JSON {{"named_metrics": {{"num_requests_waiting": {waiting}, "kv_cache_usage_perc": {usage}}}}}'
    elif asked == "TEXT":
        text = f"TEXT named_metrics.num_requests_waiting={waiting}, named_metrics.kv_cache_usage_perc={usage}"
    else:
        return []
    return [(b"endpoint-load-metrics", text.encode())]


def _answer_id(call: Call, kind: str) -> str:
    return f"{kind}-{call.header(b'x-request-id') or random_id()}"


def _wanted(body: Sampling, limit: int | None, param: str, *, stop: str | list[str] | None, n: int | None) -> Wanted:
    stops = [stop] if isinstance(stop, str) else stop or []
    return Wanted(
        max_tokens=limit,
        max_param=param,
        min_tokens=body.min_tokens or 0,
        ignore_eos=bool(body.ignore_eos),
        stops=tuple(text for text in stops if text),
        n=1 if n is None else n,
        seed=body.seed,
        salt=body.cache_salt or "",
    )
