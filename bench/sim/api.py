"""The routes, and the handlers of everything that does not run the engine."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST

from bench.sim.answers import Answers
from bench.sim.asgi import Call, Routes
from bench.sim.bodies import CountTokensBody, LoadAdapterBody, TokenizeBody, UnloadAdapterBody, decode
from bench.sim.errors import ApiError
from bench.sim.generation import Planner
from bench.sim.metrics import Metrics
from bench.sim.models import Models
from bench.sim.pooling import Pooling
from bench.sim.prompt import chat_prompt
from bench.sim.settings import Settings
from bench.sim.stepper import Stepper
from bench.sim.text import pieces_of, tokenize

# The vLLM release whose answers and metrics are simulated.
VERSION = "0.32.0"
TEXT = b"text/plain; charset=utf-8"


class Api:
    """All routes of one server."""

    def __init__(self, settings: Settings, stepper: Stepper, metrics: Metrics) -> None:
        self._settings = settings
        self._stepper = stepper
        self._metrics = metrics
        self._models = Models(settings)
        planner = Planner(settings, stepper, metrics)
        self._answers = Answers(settings, self._models, planner, stepper)
        self._pooling = Pooling(self._models, planner, stepper)

    def routes(self) -> Routes:
        """Path -> method -> handler."""
        return {
            "/v1/chat/completions": {"POST": self._answers.chat},
            "/v1/completions": {"POST": self._answers.completions},
            "/v1/messages": {"POST": self._answers.messages},
            "/v1/messages/count_tokens": {"POST": self.count_tokens},
            "/v1/responses": {"POST": self._answers.responses},
            "/v1/embeddings": {"POST": self._pooling.embeddings},
            "/v1/rerank": {"POST": self._pooling.rerank},
            "/rerank": {"POST": self._pooling.rerank},
            "/v1/score": {"POST": self._pooling.score},
            "/score": {"POST": self._pooling.score},
            "/tokenize": {"POST": self.tokenize},
            "/v1/models": {"GET": self.models},
            "/v1/load_lora_adapter": {"POST": self.load_adapter},
            "/v1/unload_lora_adapter": {"POST": self.unload_adapter},
            "/reset_prefix_cache": {"POST": self.reset_prefix_cache},
            "/health": {"GET": self.health},
            "/ping": {"GET": self.health, "POST": self.health},
            "/version": {"GET": self.version},
            "/metrics": {"GET": self.metrics},
        }

    async def count_tokens(self, call: Call) -> None:
        """POST /v1/messages/count_tokens."""
        body = decode(await call.body(), CountTokensBody)
        self._models.resolve(body.model)
        await call.respond_json(200, {"input_tokens": len(chat_prompt(body.messages, body.system))})

    async def tokenize(self, call: Call) -> None:
        """POST /tokenize."""
        body = decode(await call.body(), TokenizeBody)
        self._models.resolve(body.model)
        texts: list[str] | None = None
        if body.messages is not None:
            tokens = chat_prompt(body.messages).tolist()
        elif body.prompt is not None:
            tokens = tokenize(body.prompt)
            texts = pieces_of(body.prompt) if body.return_token_strs else None
        else:
            raise ApiError(400, "prompt: expected a prompt or messages", param="prompt")
        answer = {"count": len(tokens), "max_model_len": self._settings.max_model_len, "tokens": tokens, "token_strs": texts}
        await call.respond_json(200, answer)

    async def models(self, call: Call) -> None:
        """GET /v1/models."""
        await call.respond_json(200, self._models.listing())

    async def load_adapter(self, call: Call) -> None:
        """POST /v1/load_lora_adapter."""
        body = decode(await call.body(), LoadAdapterBody)
        self._models.load(body.lora_name, body.lora_path)
        await call.respond(200, f"Success: LoRA adapter '{body.lora_name}' added successfully.".encode(), content_type=TEXT)

    async def unload_adapter(self, call: Call) -> None:
        """POST /v1/unload_lora_adapter."""
        body = decode(await call.body(), UnloadAdapterBody)
        self._models.unload(body.lora_name)
        await call.respond(200, f"Success: LoRA adapter '{body.lora_name}' removed successfully.".encode(), content_type=TEXT)

    async def reset_prefix_cache(self, call: Call) -> None:
        """POST /reset_prefix_cache: forgets the blocks that no request holds."""
        self._stepper.engine.reset_prefix_cache()
        await call.respond(200)

    async def health(self, call: Call) -> None:
        """GET /health and /ping."""
        await call.respond(200)

    async def version(self, call: Call) -> None:
        """GET /version."""
        await call.respond_json(200, {"version": VERSION})

    async def metrics(self, call: Call) -> None:
        """GET /metrics."""
        page = self._metrics.render(self._stepper.engine.load())
        await call.respond(200, page, content_type=CONTENT_TYPE_LATEST.encode())
