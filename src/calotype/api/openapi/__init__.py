"""The OpenAPI document: built once from the catalog, served as it is, and read by the docs page."""

from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

import calotype
from calotype.api.openapi import agents, files, paths, webhooks
from calotype.api.openapi.headers import answer_headers, request_headers
from calotype.api.openapi.openai import TAG, openai_paths, openai_schemas
from calotype.api.openapi.operations import error_response
from calotype.api.openapi.requests import Channels, example, request_schemas
from calotype.api.openapi.schemas import answer_schemas
from calotype.api.render import cacheable, json_answer, unless_known
from calotype.domain.catalog import Catalog, Model
from calotype.services.discovery import model_entry

Document = dict[str, Any]

_ABOUT: Final = """\
A calotype is exposed in a moment and developed later. So is every image here: a request is
accepted at once as a durable **task**, and the image is made behind it. Submit, then read the task
until it is final; hanging up loses nothing.

- **Authentication:** `Authorization: Bearer ck_…`, but for models, signed image URLs, health and
  documentation.
- **Errors** have one shape (`Error`), whatever raised them. A path that does not exist answers
  404 `unknown_route`, a method that a path does not have 405 `method_not_allowed`.
- **Money** is integer micro-USDC: 1 000 000 is 1 USDC. **Times** are Unix seconds.
- Every answer carries `X-Request-Id`. `HEAD` goes wherever `GET` does.
- Answers may gain fields; ignore those that you do not know. Requests may not: a field that the
  model does not declare is refused.
"""
_TAGS: Final = {
    "Images": "Asking for images, and downloading them.",
    "Tasks": "Following a request to its end.",
    files.TAG: "Images that are uploaded once and are references of many requests.",
    "Webhooks": "Being told when a task ends.",
    "Models": "What can be asked for, and what it costs.",
    "Account": "Credits.",
    TAG: "The same for OpenAI's own clients: set their base URL to `/openai/v1`. Errors have "
    "OpenAI's shape there.",
    "Agents": "The same as tools, by MCP.",
    "Server": "Health and documentation.",
}
_SHOWN: Final = "nano-banana-pro"
"""The model whose entry is the example, where there is such a model."""
_TYPICAL: Final[dict[str, dict[str, Any]]] = {
    "plain": {
        "model": "gpt-image-2",
        "prompt": "A lighthouse at dusk",
        "response_format": "url",
    },
    "shape": {
        "model": "nano-banana-pro",
        "prompt": "A lighthouse at dusk",
        "async": True,
        "aspect_ratio": "16:9",
        "resolution": "2K",
        "response_format": "url",
    },
    "reference": {
        "model": "gpt-image-2",
        "prompt": "The same harbour in winter",
        "n": 1,
        "image_input": ["https://example.com/reference.png"],
        "response_format": "url",
    },
}
_SUMMARIES: Final = {
    "plain": "As little as there must be",
    "shape": "A shape and a size",
    "reference": "With a reference by URL",
}


class OpenApi:
    """GET /openapi.json: public and cacheable."""

    def __init__(self, document: Document) -> None:
        self._answer = cacheable(json_answer(200, document))

    async def handle(self, request: Request) -> Response:
        """The document."""
        return unless_known(request, self._answer)


def build_document(catalog: Catalog, channels: Channels, *, public_url: str) -> Document:
    """The API of a server with this catalog.

    Args:
        catalog: what requests may ask for.
        channels: model id → the channels that serve it.
        public_url: how clients reach the server; empty where the document's own host is it.

    """
    models = [model for model in catalog.models.values() if model.enabled]
    shown = [model for model in models if model.id == _SHOWN] or models[:1]
    entry = model_entry(shown[0], channels(shown[0].id)) if shown else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Calotype",
            "summary": "Self-hosted image generation: many models, every request a durable task.",
            "description": _ABOUT,
            "version": calotype.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url.rstrip("/") or "/"}],
        "security": [{"key": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths.paths(_examples(models)) | files.paths() | webhooks.paths() | openai_paths(),
        "webhooks": webhooks.events(),
        "components": {
            "schemas": {
                **request_schemas(models, channels),
                **answer_schemas(entry),
                **openai_schemas(models),
                **files.schemas(),
                **agents.schemas(),
            },
            "responses": {
                "UnknownRoute": error_response(404, ["unknown_route"]),
                "MethodNotAllowed": error_response(405, ["method_not_allowed"]),
            },
            "headers": answer_headers(),
            "parameters": request_headers(),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of this server; keys begin with `ck_`.",
                }
            },
        },
    }


def _examples(models: Sequence[Model]) -> Document:
    """The typical requests whose models there are, else one that spells a model out."""
    there = {model.id for model in models}
    shown = {
        name: {"summary": _SUMMARIES[name], "value": request}
        for name, request in _TYPICAL.items()
        if request["model"] in there
    }
    if not shown and models:
        shown["spelled_out"] = {
            "summary": "Every default spelled out",
            "value": example(models[0]),
        }
    return shown
