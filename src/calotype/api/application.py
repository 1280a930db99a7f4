"""The routes, and the application made of them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from calotype.api.assets import AssetFiles
from calotype.api.context import Context
from calotype.api.discovery import Discovery
from calotype.api.docs_page import DocsPage
from calotype.api.edge import Edge
from calotype.api.images import Generations
from calotype.api.openapi import OpenApi, build_document
from calotype.api.status import Check, Status
from calotype.api.tasks import Tasks


def build(
    context: Context,
    *,
    checks: Mapping[str, Check],
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]],
) -> Edge:
    """The ASGI application."""
    generations, tasks = Generations(context), Tasks(context)
    discovery, status, files = Discovery(context), Status(context, checks), AssetFiles(context)

    channels = context.router.serving
    document = build_document(context.catalog, channels, public_url=context.public_url)
    docs = DocsPage(document, context.catalog, channels, public_url=context.public_url)

    async def submit(request: Request) -> Response:
        answer = await generations.handle(request.scope, request.receive, request.state.request_id)
        return answer.response()

    async def task(request: Request) -> Response:
        return (await tasks.handle(request.scope)).response()

    routes = [
        Route("/v1/images/generations", submit, methods=["POST"]),
        Route("/v1/tasks/{task_id}", task),
        Route("/v1/models", discovery.models),
        Route("/v1/models/brands/{brand}/image", discovery.brand),
        Route("/v1/models/{model_id:path}", discovery.model),
        Route("/v1/credits/balance", status.balance),
        Route("/v1/assets/{name}", files.handle),
        Route("/healthz", status.health),
        Route("/readyz", status.ready),
        Route("/openapi.json", OpenApi(document).handle),
        Route("/docs", docs.handle),
    ]
    rest = Router(routes, redirect_slashes=False, lifespan=lifespan)
    return Edge(generations, tasks, rest)
