"""The names this server answers to: the base model's, and those of its LoRA adapters."""

from __future__ import annotations

import time
from typing import Any

from bench.sim.errors import ApiError, unknown_model
from bench.sim.settings import LoraModule, Settings


class Models:
    """Adapters come and go at run time; the base model's names stay."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._adapters = {module.name: module for module in settings.lora_modules}
        self._created = int(time.time())

    def resolve(self, asked: str | None) -> tuple[str, str | None]:
        """The name to answer with, and the adapter to run with, if any; ApiError 404 for a name not known."""
        names = self._settings.names
        if not asked or asked in names:
            return asked or names[0], None
        if asked in self._adapters:
            return asked, asked
        raise unknown_model(asked, [*names, *self._adapters])

    def load(self, name: str, path: str) -> None:
        """Add an adapter; ApiError 400 if it cannot be."""
        if not self._settings.enable_lora:
            raise ApiError(400, "LoRA is not enabled. Start the server with --enable-lora.", kind="InvalidUserInput")
        if not name or not path:
            raise ApiError(400, "Both 'lora_name' and 'lora_path' must be provided.", kind="InvalidUserInput")
        if name in self._adapters or name in self._settings.names:
            raise ApiError(400, f"The lora adapter '{name}' has already been loaded.", kind="InvalidUserInput", param="lora_name")
        self._adapters[name] = LoraModule(name, path)

    def unload(self, name: str) -> None:
        """Remove an adapter; requests that run with it go on. ApiError 404 if there is no such adapter."""
        if self._adapters.pop(name, None) is None:
            raise ApiError(404, f"The lora adapter '{name}' cannot be found.", kind="NotFoundError", param="lora_name")

    def listing(self) -> dict[str, Any]:
        """The answer of /v1/models: adapters name the base model as their parent."""
        names = self._settings.names
        cards = [self._card(name, root=self._settings.model, parent=None, max_len=self._settings.max_model_len) for name in names]
        cards += [self._card(module.name, root=module.path, parent=names[0], max_len=None) for module in self._adapters.values()]
        return {"object": "list", "data": cards}

    def _card(self, name: str, *, root: str, parent: str | None, max_len: int | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": max_len,
            "permission": [],
        }
