"""GET /openai/v1/models and /openai/v1/models/{id}."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context, authenticate
from calotype.api.render import json_answer
from calotype.domain.catalog import Model
from calotype.domain.errors import ModelNotFound


class Models:
    """The models that are switched on, as OpenAI's clients know models."""

    def __init__(self, context: Context) -> None:
        self._context = context
        models = context.catalog.models.values()
        self._entries = {model.id: _entry(model) for model in models if model.enabled}

    async def every(self, request: Request) -> Response:
        """The list."""
        await authenticate(request.scope, self._context.accounts)
        document = {"object": "list", "data": list(self._entries.values())}
        return json_answer(200, document).response()

    async def one(self, request: Request) -> Response:
        """One of them."""
        await authenticate(request.scope, self._context.accounts)
        name = request.path_params["model_id"]
        if name not in self._entries:
            raise ModelNotFound(self._context.catalog.unknown(name).message)
        return json_answer(200, self._entries[name]).response()


def _entry(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": int((model.released_at or model.created_at).timestamp()),
        "owned_by": model.brand,
    }
