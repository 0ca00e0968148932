"""Endpoints that only read: embeddings, rerank, score. Each text is one prefill in the engine."""

from __future__ import annotations

import base64
import math
import random
from array import array
from typing import Any

from bench.sim.answers import load_report
from bench.sim.asgi import Call
from bench.sim.bodies import EmbeddingsBody, RerankBody, ScoreBody, decode
from bench.sim.errors import ApiError
from bench.sim.generation import Generation, Planner, random_id
from bench.sim.models import Models
from bench.sim.prompt import Prompt, text_prompts
from bench.sim.stepper import Stepper

EMBEDDING_DIMENSIONS = 384
GREATEST_DIMENSIONS = 8192


class Pooling:
    """Handlers that answer with vectors or scores."""

    def __init__(self, models: Models, planner: Planner, stepper: Stepper) -> None:
        self._models = models
        self._planner = planner
        self._stepper = stepper

    async def embeddings(self, call: Call) -> None:
        """POST /v1/embeddings; vectors of length 1, as floats or as base64 of 4-byte floats."""
        body = decode(await call.body(), EmbeddingsBody)
        dimensions = EMBEDDING_DIMENSIONS if body.dimensions is None else body.dimensions
        if not 1 <= dimensions <= GREATEST_DIMENSIONS:
            raise ApiError(400, f"dimensions: expected from 1 to {GREATEST_DIMENSIONS}, got {dimensions}", param="dimensions")
        if body.encoding_format not in (None, "float", "base64"):
            raise ApiError(400, "encoding_format: expected float or base64", param="encoding_format")
        prompts = text_prompts(body.input, "input")
        vectors = [embed(prompt, dimensions) for prompt in prompts]
        data: list[dict[str, Any]] = []
        for index, vector in enumerate(vectors):
            shown: Any = vector.tolist()
            if body.encoding_format == "base64":
                shown = base64.b64encode(vector.tobytes()).decode()
            data.append({"index": index, "object": "embedding", "embedding": shown})
        await self._answer(call, body.model, prompts, {"id": f"embd-{random_id()}", "object": "list", "data": data})

    async def rerank(self, call: Call) -> None:
        """POST /v1/rerank; documents in descending order of relevance."""
        body = decode(await call.body(), RerankBody)
        texts: list[str] = []
        for document in body.documents:
            text = document if isinstance(document, str) else document.get("text")
            if not isinstance(text, str):
                raise ApiError(400, "documents: expected texts or objects with a text", param="documents")
            texts.append(text)
        prompts = _pairs([body.query] * len(texts), texts, "documents")
        results: list[dict[str, Any]] = []
        for index, text in enumerate(texts):
            results.append({"index": index, "document": {"text": text}, "relevance_score": similarity(body.query, text)})
        results.sort(key=_relevance, reverse=True)
        await self._answer(call, body.model, prompts, {"id": f"rerank-{random_id()}", "results": results[: body.top_n or None]})

    async def score(self, call: Call) -> None:
        """POST /v1/score."""
        body = decode(await call.body(), ScoreBody)
        right = [body.text_2] if isinstance(body.text_2, str) else body.text_2
        left = [body.text_1] if isinstance(body.text_1, str) else body.text_1
        if len(left) == 1:
            left = left * len(right)
        if len(left) != len(right):
            raise ApiError(400, f"text_1: expected one text or as many as text_2 ({len(right)}), got {len(left)}", param="text_1")
        prompts = _pairs(left, right, "text_2")
        data = [{"index": at, "object": "score", "score": similarity(*pair)} for at, pair in enumerate(zip(left, right, strict=True))]
        await self._answer(call, body.model, prompts, {"id": f"score-{random_id()}", "object": "list", "data": data})

    async def _answer(self, call: Call, asked: str | None, prompts: list[Prompt], answer: dict[str, Any]) -> None:
        model, adapter = self._models.resolve(asked)
        generation: Generation = self._planner.plan_prefill(model, adapter, prompts)
        generation.start()
        try:
            async with call.watched(generation.abort):
                await generation.end()
                if generation.aborted:
                    return
                tokens = generation.prompt_tokens
                counts = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
                whole = {**answer, "created": generation.created, "model": model, "usage": counts}
                await call.respond_json(200, whole, extra=load_report(call, self._stepper.engine.load()))
        finally:
            generation.abort()


def embed(prompt: Prompt, dimensions: int) -> array[float]:
    """A vector of length 1 that depends on the tokens alone."""
    rng = random.Random(prompt.tobytes())
    values = [rng.gauss(0.0, 1.0) for _ in range(dimensions)]
    norm = math.sqrt(math.fsum(value * value for value in values)) or 1.0
    return array("f", (value / norm for value in values))


def similarity(left: str, right: str) -> float:
    """The share of words two texts have in common, 0 to 1."""
    a, b = set(left.lower().split()), set(right.lower().split())
    return len(a & b) / len(a | b) if a | b else 0.0


def _pairs(left: list[str], right: list[str], param: str) -> list[Prompt]:
    return text_prompts([f"{a} {b}" for a, b in zip(left, right, strict=True)], param)


def _relevance(result: dict[str, Any]) -> float:
    score: float = result["relevance_score"]
    return score
