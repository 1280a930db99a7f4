"""GET /llms.txt: the API for language models, as https://llmstxt.org describes such a file.

Like the docs page it is made of the OpenAPI document, the catalog and the notes on errors.
"""

from collections.abc import Iterator
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import base_url
from calotype.api.docs_page.models import price_range, reference_limit, resolutions
from calotype.api.openapi import Document
from calotype.api.openapi.errors import failure, refusal
from calotype.api.render import STATUSES, Answer, cacheable, unless_known
from calotype.domain.catalog import Catalog, Model
from calotype.domain.errors import FAILURES

_BASE: Final = "@base-url@"
"""Stands for the server's address until it is known."""
_STEPS: Final = f"""\
1. `POST {_BASE}/v1/images/generations` with `Authorization: Bearer ck_…`, an `Idempotency-Key` of
   your own and JSON such as `{{"model": "…", "prompt": "…", "response_format": "url"}}`. The answer
   is 202 with a `task_id`.
2. `GET {_BASE}/v1/tasks/{{task_id}}?wait=60` until `state` is `success` or `fail`.
3. Download each `result.data[].url`; these URLs are signed and need no key.

Send a request again only under the same `Idempotency-Key`, or the image is bought twice."""


class LlmsText:
    """The file: public and cacheable."""

    def __init__(self, document: Document, catalog: Catalog, *, public_url: str) -> None:
        self._text = "\n".join(_lines(document, catalog))
        self._public_url = public_url

    async def handle(self, request: Request) -> Response:
        """The file, with this server's address in its links."""
        body = self._text.replace(_BASE, base_url(request.scope, self._public_url)).encode()
        kind = (
            (b"content-type", b"text/markdown; charset=utf-8"),
            (b"x-content-type-options", b"nosniff"),
        )
        return unless_known(request, cacheable(Answer(200, body, kind)))


def _lines(document: Document, catalog: Catalog) -> Iterator[str]:
    info = document["info"]
    yield f"# {info['title']} {info['version']}\n\n> {info['summary']}\n\n{info['description']}"
    yield f"{_STEPS}\n\n## Reference\n"
    yield f"- [OpenAPI document]({_BASE}/openapi.json): every route, field and answer, for programs"
    yield f"- [Reference page]({_BASE}/docs): the same to read"
    yield f"- [MCP server]({_BASE}/mcp): the same as tools, with the same API key"
    yield "\n## Routes\n"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            link = f"{_BASE}/docs#{operation['operationId']}"
            yield f"- [{operation['summary']}]({link}): `{method.upper()} {path}`"
    yield "\n## Models\n"
    yield from (_model(model) for model in catalog.models.values() if model.enabled)
    yield "\n## Errors of refused requests\n"
    for code, status in STATUSES.items():
        note = refusal(code)
        link = f"{_BASE}/docs#error-{code}"
        yield f"- [{code}]({link}): {status}. {note.cause} Cure: {note.cure}"
    yield "\n## Errors of failed tasks\n"
    for code in FAILURES:
        note = failure(code)
        yield f"- [{code}]({_BASE}/docs#failure-{code}): {note.cause} Cure: {note.cure}"
    yield ""


def _model(model: Model) -> str:
    return (
        f"- [{model.name}]({_BASE}/v1/models/{model.id}): `{model.id}`; resolutions: "
        f"{resolutions(model)}; references: {reference_limit(model)}; "
        f"{price_range(model)} USDC an image"
    )
