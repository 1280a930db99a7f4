"""The routes, and the application made of them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from calotype.api.assets import AssetFiles
from calotype.api.batch import Batch
from calotype.api.callbacks import CallbackRoute
from calotype.api.cancelling import Cancel
from calotype.api.context import Context
from calotype.api.discovery import Discovery
from calotype.api.edge import Edge, ErrorPages
from calotype.api.files import Files
from calotype.api.images import Generations
from calotype.api.intake import Intake
from calotype.api.mcp import AgentDoor
from calotype.api.openai import routes as openai_routes
from calotype.api.status import Check, Status
from calotype.api.streams import Streams
from calotype.api.task_list import TaskList
from calotype.api.tasks import Tasks
from calotype.api.webhooks import WebhookRoutes

if TYPE_CHECKING:  # read when somebody asks for the documentation
    from calotype.api.docs_page import DocsPage
    from calotype.api.docs_page.llms import LlmsText
    from calotype.api.openapi import OpenApi


class Application(msgspec.Struct, frozen=True):
    """The ASGI application, and how to have it show what has changed."""

    asgi: Edge
    refresh: Callable[[], None]
    """Shows other channels than at the start."""


class _Documents(msgspec.Struct, frozen=True):
    """The API for programs, people and language models."""

    openapi: "OpenApi"
    docs: "DocsPage"
    llms: "LlmsText"


class _Published:
    """What is rendered from catalog and channels: once, and again when these change."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.refresh()

    def refresh(self) -> None:
        self.discovery = Discovery(self._context)
        self._documents: _Documents | None = None

    @property
    def _shown(self) -> _Documents:
        """The documents, made for whoever asks first: no start waits for them."""
        if self._documents is None:
            self._documents = _documents(self._context)
        return self._documents

    async def models(self, request: Request) -> Response:
        return await self.discovery.models(request)

    async def model(self, request: Request) -> Response:
        return await self.discovery.model(request)

    async def document(self, request: Request) -> Response:
        return await self._shown.openapi.handle(request)

    async def page(self, request: Request) -> Response:
        return await self._shown.docs.handle(request)

    async def text(self, request: Request) -> Response:
        return await self._shown.llms.handle(request)


def _documents(context: Context) -> _Documents:
    from calotype.api.docs_page import DocsPage
    from calotype.api.docs_page.llms import LlmsText
    from calotype.api.openapi import OpenApi, build_document

    catalog, channels, url = context.catalog, context.router.serving, context.public_url
    document = build_document(catalog, channels, public_url=url)
    return _Documents(
        OpenApi(document),
        DocsPage(document, catalog, channels, public_url=url),
        LlmsText(document, catalog, public_url=url),
    )


def build(
    context: Context,
    *,
    checks: Mapping[str, Check],
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]],
    console: Sequence[Route],
    error_pages: ErrorPages,
    client_seconds: float,
) -> Application:
    """The ASGI application; ``console`` is what it serves besides, errors of it as pages."""
    intake = Intake(context)
    generations, tasks = Generations(context, intake), Tasks(context)
    status, files = Status(context, checks), AssetFiles(context)
    published, streams = _Published(context), Streams(context)
    webhooks, uploads = WebhookRoutes(context), Files(context, intake)

    async def submit(request: Request) -> Response:
        answer = await generations.handle(request.scope, request.receive, request.state.request_id)
        return answer.response()

    async def task(request: Request) -> Response:
        if request.method == "DELETE":
            return await tasks.delete(request)
        return (await tasks.handle(request.scope)).response()

    routes = [
        Route("/v1/images/generations", submit, methods=["POST"]),
        Route("/v1/images/generations/batch", Batch(context, intake).handle, methods=["POST"]),
        Route("/v1/tasks", TaskList(context).handle),
        Route("/v1/tasks/{task_id}", task, methods=["GET", "DELETE"]),
        Route("/v1/tasks/{task_id}/cancel", Cancel(context).handle, methods=["POST"]),
        Route("/v1/tasks/{task_id}/events", streams.of_task),
        Route("/v1/tasks/{task_id}/webhook", webhooks.delivery),
        Route("/v1/tasks/{task_id}/webhook/redeliver", webhooks.redeliver, methods=["POST"]),
        Route("/v1/events", streams.of_account),
        Route("/v1/webhooks", webhooks.settings, methods=["GET", "PUT"]),
        Route("/v1/webhooks/rotate", webhooks.rotate, methods=["POST"]),
        Route("/v1/webhooks/deliveries", webhooks.deliveries),
        Route("/v1/models", published.models),
        Route("/v1/models/brands/{brand}/image", published.discovery.brand),
        Route("/v1/models/{model_id:path}", published.model),
        Route("/v1/credits/balance", status.balance),
        Route("/v1/files", uploads.all, methods=["GET", "POST"]),
        Route("/v1/files/{file_id}", uploads.one, methods=["GET", "DELETE"]),
        Route("/v1/assets/{name}", files.handle),
        Route("/v1/callbacks/{channel}", CallbackRoute(context.callbacks).handle, methods=["POST"]),
        *openai_routes(context, intake),
        Route("/mcp", AgentDoor(context), methods=["POST"]),
        Route("/healthz", status.health),
        Route("/readyz", status.ready),
        Route("/openapi.json", published.document),
        Route("/docs", published.page),
        Route("/llms.txt", published.text),
        *console,
    ]
    rest = Router(routes, redirect_slashes=False, lifespan=lifespan)
    edge = Edge(
        generations,
        tasks,
        files,
        rest,
        client_seconds=client_seconds,
        hurry=context.feed.hurry,
        pages=error_pages,
    )
    return Application(edge, published.refresh)
