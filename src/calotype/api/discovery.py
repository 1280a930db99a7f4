"""GET /v1/models, /v1/models/{id}, /v1/models/brands/{brand}/image: public and cacheable."""

import hashlib

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context
from calotype.api.render import Answer, json_answer
from calotype.catalog import brand_mark
from calotype.domain.errors import BrandNotFound, ModelNotFound, UnknownModel
from calotype.services.discovery import model_entry

_MAX_AGE = b"public, max-age=60"
_MARK_MAX_AGE = b"public, max-age=86400"


class Discovery:
    """Shows the catalog; rendered once, since it only changes with a restart."""

    def __init__(self, context: Context) -> None:
        self._catalog = context.catalog
        entries = {
            model.id: model_entry(model, context.router.serving(model.id))
            for model in context.catalog.models.values()
        }
        self._entries = {name: _cacheable(200, entry) for name, entry in entries.items()}
        self._list = _cacheable(200, {"object": "list", "data": list(entries.values())})

    async def models(self, request: Request) -> Response:
        """Every model."""
        return _unless_known(request, self._list)

    async def model(self, request: Request) -> Response:
        """One model."""
        name = request.path_params["model_id"]
        if name not in self._entries:
            try:
                self._catalog.get(name)
            except UnknownModel as error:
                raise ModelNotFound(error.message) from None
        return _unless_known(request, self._entries[name])

    async def brand(self, request: Request) -> Response:
        """A brand's mark."""
        name = request.path_params["brand"]
        brands = sorted({model.brand for model in self._catalog.models.values()})
        mark = brand_mark(name) if name in brands else None
        if mark is None:
            raise BrandNotFound(f"There is no such brand; there are {', '.join(brands)}.")
        headers = [
            (b"content-type", b"image/svg+xml"),
            (b"etag", _etag(mark)),
            (b"cache-control", _MARK_MAX_AGE),
            (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"),
            (b"x-content-type-options", b"nosniff"),
        ]
        return _unless_known(request, Answer(200, mark, headers))


def _etag(body: bytes) -> bytes:
    return b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()


def _cacheable(status: int, document: object) -> Answer:
    answer = json_answer(status, document)
    headers = [
        *answer.headers,
        (b"etag", _etag(answer.body)),
        (b"cache-control", _MAX_AGE),
    ]
    return Answer(status, answer.body, headers)


def _unless_known(request: Request, answer: Answer) -> Response:
    """The answer, or 304 when the client's copy is the same (RFC 9110, 13.1.2)."""
    etag = dict(answer.headers)[b"etag"].decode()
    known = [tag.strip().removeprefix("W/") for tag in request.headers.getlist("if-none-match")]
    candidates = {part.strip().removeprefix("W/") for tag in known for part in tag.split(",")}
    if etag in candidates or "*" in candidates:
        kept = [(name, value) for name, value in answer.headers if name != b"content-type"]
        return Answer(304, b"", kept).response()
    return answer.response()
